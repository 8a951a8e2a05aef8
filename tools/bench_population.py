"""Many heads on cached features as one program, against the same heads one by one.

    python tools/bench_population.py [--images=5000 --width=512 --steps=300 --rates=10 --decays=10
    --seeds=10] [--hidden=32]

The heads are linear regressors (or, with --hidden, perceptrons under one) of config.method l1, a
grid of learning rates, weight decays and seeds. Features and labels are drawn; a fifth of the
images is the test split. "together" takes all steps of all heads; "one by one" takes all steps of
one head, compiled before, times the number of heads. Beside them: compiling, once for all heads
together and again for each head alone, and evaluating on the test split.
"""

import copy
import dataclasses
import itertools
import sys

import jax
import numpy as np

from jaxord import schedule, shipped
from jaxord.data.batches import train_calls
from jaxord.evaluate import make_evaluate
from jaxord.population.stacked import MOST, Stacked

shipped.make_importable()
from configs.base import entries
from configs.recipes import rates as rates_of
from tools.benching import drawn, measure, training

SETTINGS = {
    "images": (5000, "of both splits"),
    "width": (512, "of their features"),
    "steps": (300, "of each head"),
    "batch": (32, "images of a step"),
    "rates": (10, "learning rates"),
    "decays": (10, "weight decays"),
    "seeds": (10, "initial values and orders"),
    "hidden": (0, "width of a perceptron's layers"),
}
COLUMNS = ["heads", "steps", "together s", "together s range", "one by one s", "ratio"]
COLUMNS += ["ratio range", "compile s", "compile one by one s", "evaluate s", "difference"]
NOTES = [
    "One by one is scaled from one head. The difference is that of a head's mean absolute error, "
    "as a share of it."
]


def config_of(steps, hidden, batch):
    """The config of one head."""
    c = copy.deepcopy(training.config_of("configs/folder.py:method=l1,backbone=ResNet-18")).unlock()
    c.data.batch = c.data.eval_batch = batch
    c.train.update(dict.fromkeys(("duration", "evaluate_every", "log_every"), f"{steps} steps"))
    c.optim.groups = entries({"parameters": ".*", "group": "heads"})
    c.optim.rates = rates_of(heads=(1e-3, 0.0))
    c.select, c.metrics = "last", ("mae", "srcc")
    if hidden:
        c.heads = entries({"name": "Projection", "hidden": hidden, "features": hidden}, *c.heads)
    return c


def tasks_of(config, records, flags):
    """[Task] of the grid; the seeds are drawn anew, the rest is shared."""
    tasks = []
    rates, decays = np.geomspace(1e-4, 1e-2, flags.rates), np.geomspace(1e-4, 1e-1, flags.decays)
    for seed in range(flags.seeds):
        config = copy.deepcopy(config)
        config.seed = seed
        task = drawn.task_of(config, "", records)
        for rate, decay in itertools.product(rates, decays):
            c = copy.deepcopy(config)
            c.optim.rates = rates_of(heads=(float(rate), float(decay)))
            tasks.append(dataclasses.replace(task, config=c))
    return tasks


def alone(task):
    """(function that takes all steps of one head and gives its State, seconds of compiling)."""
    split, rest = task.splits["train"], (task.labels["train"], task.constants)
    order = {"batch": task.config.data.batch, "seed": task.config.seed, "most": MOST}
    state, step, _, total = training.begin(task, several=True)
    calls = list(schedule.calls(0, total, MOST, (total,)))
    first = next(train_calls(split, **order, calls=calls))
    step, compiling, _ = measure.compiled(step, state, first, *rest)

    def run():
        state, *_ = training.begin(task, several=True)
        for arrays in train_calls(split, **order, calls=calls):
            state, _ = step(state, arrays, *rest)
        return jax.block_until_ready(state)

    return run, compiling


def bench(flags):
    """Times the heads together and one by one."""
    records = drawn.features(flags.images, flags.width)
    tasks = tasks_of(config_of(flags.steps, flags.hidden, flags.batch), records, flags)
    group = Stacked(tasks, [schedule.Schedule.of(task) for task in tasks])
    state, scores = None, []

    def together():
        nonlocal state
        state = group.begin()
        for first, count in schedule.calls(0, flags.steps, MOST, (flags.steps,)):
            state, _ = group.update(state, first, count)

    def evaluate():
        group.show(state)
        for place, judge in enumerate(group.evaluate):
            scores.append(judge(group.variables(place), "test").scores["value"]["mae"])

    first = measure.seconds(together)
    one, compiling = alone(tasks[0])
    times = measure.alternate({"together": together, "one": one}, flags.rounds)
    evaluating = measure.seconds(evaluate)
    single = make_evaluate(tasks[0])(one().variables, "test").scores["value"]["mae"]
    singles = [len(tasks) * time for time in times["one"]]
    row = {
        "heads": len(tasks),
        "steps": flags.steps,
        "images": flags.images,
        **measure.spread("together s", times["together"]),
        **measure.spread("one by one s", singles),
        **measure.spread("ratio", measure.ratios(singles, times["together"])),
        "compile s": first - min(times["together"]),
        "compile one by one s": len(tasks) * compiling,
        "evaluate s": evaluating,
        "difference": abs(scores[0] / single - 1),
    }
    return "Heads on cached features", {"Heads": ([row], COLUMNS)}, NOTES


main = measure.command(__doc__, bench, SETTINGS, rounds=5)


if __name__ == "__main__":
    sys.exit(main())
