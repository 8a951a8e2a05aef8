"""How fast the batches of a config come in each tier of the data, beside the speed of the step that
uses them.

    python tools/bench_data.py --config=configs/quickstart.py [--set data.batch=128]
    [--output=data.json]

img/s counts the rows of a batch, copies included. "alone" draws batches and waits for each one;
"step" repeats the train step on one batch that is on the device already; "loop" is training itself,
which draws a batch while the device computes, and in the resident tier draws the rows of many and
gathers their images within the call. "wait %" is the share of the loop's wall time spent in
next(batches), "loop / step" its part of the step's speed. "prepared s" is the time to bring the
training split into the tier, once a run. All are taken in turns, whose first calls are not counted.
"""

import collections
import functools
import pathlib
import sys
import time

import jax

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # tools/ is not installed

from jaxord.data import storage
from jaxord.data.batches import train_batches
from jaxord.task import make_task
from jaxord.workdir.layout import chosen_folds, stages_of
from tools import measure

TIERS = ("resident", "cached", "stream")
EARLY = 3  # calls before a turn's clock starts; the stream decodes two batches ahead


def bound(row):
    """What the training waits for in a tier, in one sentence."""
    data, step, loop = (row[f"{name} img/s"] for name in ("alone", "step", "loop"))
    if loop > 0.9 * step:
        return f"{row['tier']}: the step bounds training; batches could come {data / step:.3g} times as fast as it takes them."
    if data < step:
        return f"{row['tier']}: the data bound training; batches come at {data / step:.2f} of the step's speed."
    return (
        f"{row['tier']}: neither bounds training alone; batches come {data / step:.3g} times as fast as they are taken, but "
        f"drawing them costs {1 - loop / step:.0%} of its speed: both want the same processors, or one waits for the other."
    )


def bench(config, steps, rounds):
    """Rows of the tiers of a config's first fold, and a sentence on its step."""
    task = make_task(config, chosen_folds(config)[0])
    split, images = task.splits["train"], config.data.batch * config.data.copies
    state, step, *_ = measure.begin(task)
    one = next(train_batches(split, batch=config.data.batch, seed=config.seed))
    rest = task.labels.get("annotations", task.labels["train"]), task.constants
    run, compiling, temporary = measure.compiled(step, state, one, *rest)
    rows, ways = (
        [],
        {"step": (run, lambda: one, rest, 1)},
    )  # name: program, draw, what else it takes, updates a call
    for tier in TIERS if split.records.read else ("inputs",):
        data, begun = (
            measure.with_fields(config.data, tier=tier if split.records.read else "auto"),
            time.perf_counter(),
        )
        prepared = storage.decode_split(split.records, data, split.place)
        rows.append({"tier": tier, "prepared s": time.perf_counter() - begun})
        source, labels, most = measure.batches(task, prepared)
        call = run
        if most > 1:
            call, *_ = measure.compiled(
                measure.begin(task, True)[1], state, next(source), labels, task.constants
            )
        ways[tier] = call, functools.partial(next, source), (labels, task.constants), most
    samples = collections.defaultdict(list)

    def train(name):
        nonlocal state
        run, draw, rest, most = ways[name]
        calls = -(-steps // most)
        state, _, _ = measure.train(run, state, draw, EARLY, *rest)
        state, took, waited = measure.train(run, state, draw, calls, *rest)
        samples[f"{name} loop img/s"].append(calls * most * images / took)
        samples[f"{name} loop wait %"].append(100 * waited / took)

    for _ in range(rounds):
        train("step")
        for tier in (row["tier"] for row in rows):
            _, draw, _, most = ways[tier]
            for _ in range(EARLY):
                jax.block_until_ready(draw())
            took = measure.seconds(
                lambda draw=draw: jax.block_until_ready(draw()), -(-steps // most)
            )
            samples[f"{tier} alone img/s"].append(most * images / took)
            train(tier)
    samples["step img/s"] = samples["step loop img/s"]
    for row in rows:
        row |= measure.spread("step img/s", samples["step img/s"])
        for name, column in [("alone img/s",) * 2, ("loop img/s",) * 2, ("loop wait %", "wait %")]:
            row |= measure.spread(column, samples[f"{row['tier']} {name}"])
        row |= measure.spread(
            "loop / step",
            measure.ratios(samples[f"{row['tier']} loop img/s"], samples["step img/s"]),
        )
    return (
        rows,
        f"The step was compiled in {compiling:.1f} s and holds {temporary / measure.MIB:,.1f} MiB of temporary memory.",
    )


def main(arguments=None):
    parser = measure.options(__doc__, rounds=5, config="configs/quickstart.py")
    parser.add_argument("--steps", type=int, default=20, help="of a turn (%(default)s)")
    given = parser.parse_args(arguments)
    try:
        config = measure.config_of(given.config, given.set)
        facts, config = measure.header(), stages_of(config, pathlib.Path(), "")[0][1]
        rows, note = bench(config, given.steps, given.rounds)
    except ValueError as error:
        return f"error: {error}"
    shown = [f"{name} img/s" for name in ("alone", "step", "loop")] + ["wait %", "loop / step"]
    columns = [
        "tier",
        "prepared s",
        *(column for name in shown for column in (name, f"{name} range")),
    ]
    table = {"Batches of the training split": (measure.ranged(rows, *shown), columns)}
    measure.report(
        f"Data of {given.config}, batch {config.data.batch}",
        facts,
        table,
        [*map(bound, rows), note],
        given.output,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
