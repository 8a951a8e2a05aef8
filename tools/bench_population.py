"""Many heads on cached features as one program, against the same heads one by one.

    python tools/bench_population.py [--images=5000 --width=512 --steps=300 --rates=10 --decays=10
    --seeds=10] [--hidden=32]

The heads are linear regressors (or, with --hidden, perceptrons under one) of config.method l1, a
grid of learning rates, weight decays and seeds. Features and labels are drawn; a fifth of the
images is the test split. "together" takes all steps of all heads; "one by one" takes all steps of
one head, compiled before, times the number of heads. Compiling, once for all of them together and
again for each head alone, and evaluating on the test split stand beside.
"""

import copy
import dataclasses
import itertools
import pathlib
import sys
import unittest.mock

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # tools/ is not installed

from configs.base import entries
from configs.recipes import rates as rates_of
from jaxord import optim, train
from jaxord.data import readers
from jaxord.data.batches import train_calls
from jaxord.data.records import Records
from jaxord.evaluate import make_evaluate
from jaxord.population.stacked import MOST, Stacked
from jaxord.schedule import Schedule, calls
from jaxord.task import make_task
from tools import measure


def records_of(images, width):
    """{split: Records} with drawn features; labels are a noisy linear function of them."""
    draw = np.random.default_rng(0)
    features = draw.normal(0, 1, (images, width)).astype(np.float32)
    targets = features @ draw.normal(0, width**-0.5, width) + draw.normal(0, 0.1, images)
    ends = {"train": (0, images - images // 5), "test": (images - images // 5, images)}
    return {
        name: Records(
            tuple(map(str, range(a, b))),
            targets[a:b].astype(np.float32),
            None,
            {},
            f"drawn {name}",
            inputs={"image_features": features[a:b]},
        )
        for name, (a, b) in ends.items()
    }


def config_of(steps, hidden, batch):
    c = copy.deepcopy(measure.config_of("configs/folder.py:method=l1,backbone=ResNet-18")).unlock()
    c.data.batch = c.data.eval_batch = batch
    c.train.update(
        {
            "duration": f"{steps} steps",
            "evaluate_every": f"{steps} steps",
            "log_every": f"{steps} steps",
        }
    )
    c.optim.groups, c.optim.rates = (
        entries({"parameters": ".*", "group": "heads"}),
        rates_of(heads=(1e-3, 0.0)),
    )
    c.select, c.metrics = "last", ("mae", "srcc")
    if hidden:
        c.heads = entries({"name": "Projection", "hidden": hidden, "features": hidden}, *c.heads)
    return c


def tasks_of(config, records, counts):
    """[Task] of the grid; the seeds are drawn anew, the rest is shared."""
    found = []
    with unittest.mock.patch.object(
        readers, "load", lambda data, fold, seed: records
    ):  # in place of a reader
        for seed in range(counts[2]):
            c = copy.deepcopy(config)
            c.seed = seed
            task = make_task(c, "")
            for lr, decay in itertools.product(
                np.geomspace(1e-4, 1e-2, counts[0]), np.geomspace(1e-4, 1e-1, counts[1])
            ):
                c = copy.deepcopy(config)
                c.seed, c.optim.rates = seed, rates_of(heads=(float(lr), float(decay)))
                found.append(dataclasses.replace(task, config=c))
    return found


def alone(task):
    """(function that takes all steps of one head and gives its State, seconds of compiling)."""
    config, schedule = task.config, Schedule.of(task)
    total = schedule.total
    factor = optim.rate_factor(config.optim, total, schedule.length)
    split, labels = task.splits["train"], task.labels["train"]
    state, step = train.begin(task, factor, several=True)

    def draw():
        order = {"batch": config.data.batch, "seed": config.seed}
        return train_calls(split, **order, calls=calls(0, total, MOST, (total,)), most=MOST)

    step, compiling, _ = measure.compiled(step, state, next(draw()), labels, task.constants)

    def run():
        state, _ = train.begin(task, factor, several=True)
        for arrays in draw():
            state, _ = step(state, arrays, labels, task.constants)
        return jax.block_until_ready(state)

    return run, compiling


def bench(config, records, counts, rounds):
    """The row of the table."""
    tasks = tasks_of(config, records, counts)
    schedules = [Schedule.of(task) for task in tasks]
    found = {}

    def together():
        state, total = group.begin(), schedules[0].total
        for first, count in calls(0, total, MOST, (total,)):
            state, _ = group.update(state, first, count)
        found["state"] = state

    group = Stacked(tasks, schedules)
    first = measure.seconds(together)
    one, compiling = alone(tasks[0])
    times = measure.alternate({"together": together, "one": one}, rounds)

    def evaluate():
        group.show(found["state"])
        found["scores"] = [
            judge(group.variables(place), "test").scores
            for place, judge in enumerate(group.evaluate)
        ]

    judged = measure.seconds(evaluate)
    single = make_evaluate(tasks[0])(one().variables, "test").scores["value"]["mae"]
    singles = [len(tasks) * time for time in times["one"]]
    return {
        "heads": len(tasks),
        "steps": schedules[0].total,
        "images": sum(len(part) for part in records.values()),
        **measure.spread("together s", times["together"]),
        **measure.spread("one by one s", singles),
        **measure.spread("ratio", measure.ratios(singles, times["together"])),
        "compile s": first - min(times["together"]),
        "compile one by one s": len(tasks) * compiling,
        "evaluate s": judged,
        "difference": abs(found["scores"][0]["value"]["mae"] / single - 1),
    }


def main(arguments=None):
    settings = {
        "images": (5000, "of both splits"),
        "width": (512, "of their features"),
        "steps": (300, "of each head"),
        "batch": (32, "images of a step"),
        "rates": (10, "learning rates"),
        "decays": (10, "weight decays"),
        "seeds": (10, "initial values and orders"),
        "hidden": (0, "width of a perceptron's layers"),
    }
    given = measure.options(__doc__, 5, settings).parse_args(arguments)
    facts, records = measure.header(), records_of(given.images, given.width)
    config = config_of(given.steps, given.hidden, given.batch)
    row = bench(config, records, (given.rates, given.decays, given.seeds), given.rounds)
    columns = [
        "heads",
        "steps",
        "together s",
        "together s range",
        "one by one s",
        "ratio",
        "ratio range",
        "compile s",
        "compile one by one s",
        "evaluate s",
        "difference",
    ]
    notes = [
        "One by one is scaled from one head. The difference is that of a head's mean absolute error, as a share of it."
    ]
    tables = {"Heads": (measure.ranged([row], "together s", "ratio"), columns)}
    measure.report("Heads on cached features", facts, tables, notes, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
