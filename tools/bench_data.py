"""Speed of the batches of a config in each tier of the data, beside the step that uses them.

    python tools/bench_data.py --config=configs/quickstart.py [--set data.batch=128]
    [--output=data.json]

img/s counts the rows of a batch, copies included. "alone" draws batches and waits for each one;
"step" repeats the train step on one batch that is on the device already; "loop" is training itself,
which draws a batch while the device computes, and in the resident tier draws the rows of many and
gathers their images within the call. "wait %" is the share of the loop's wall time spent in
next(batches), "loop / step" its part of the step's speed. "prepared s" is the time to bring the
training split into the tier, once a run. All take turns; the first calls of a turn do not count.
"""

import collections
import functools
import sys
import time

import jax
from ml_collections import ConfigDict

from jaxord import shipped
from jaxord.data import storage
from jaxord.data.batches import train_batches
from jaxord.task import make_task
from jaxord.workdir.layout import chosen_folds

shipped.make_importable()
from tools.benching import measure, training

TIERS = {tier: tier for tier in ("resident", "cached", "stream")}
EARLY = 3  # calls before a turn's clock starts; the stream decodes two batches ahead
SHOWN = ("alone img/s", "step img/s", "loop img/s", "wait %", "loop / step")
COLUMNS = ["tier", "prepared s"]
COLUMNS += [column for name in SHOWN for column in (name, f"{name} range")]


def bound(row):
    """One sentence on what training waits for in a tier."""
    data, step, loop = (row[f"{name} img/s"] for name in ("alone", "step", "loop"))
    faster = f"{data / step:.3g} times as fast as"
    if loop > 0.9 * step:
        return (
            f"{row['tier']}: the step bounds training; batches could come {faster} it takes them."
        )
    if data < step:
        share = f"{data / step:.2f} of the step's speed"
        return f"{row['tier']}: the data bound training; batches come at {share}."
    return (
        f"{row['tier']}: neither bounds training alone; batches come {faster} they are taken, but "
        f"drawing them costs {1 - loop / step:.0%} of its speed: both want the same processors, or "
        "one waits for the other."
    )


def bench(flags):
    """Times the tiers of a config's first fold."""
    config, steps = training.config_of(flags.config, flags.set), flags.steps
    task = make_task(config, chosen_folds(config)[0])
    split, images = task.splits["train"], config.data.batch * config.data.copies
    state, step, *_ = training.begin(task)
    one = next(train_batches(split, batch=config.data.batch, seed=config.seed))
    rest = task.labels.get("annotations", task.labels["train"]), task.constants
    run, compiling, temporary = measure.compiled(step, state, one, *rest)
    # name -> (step, draw, what else the step takes, updates of a call)
    ways, rows = {"step": (run, lambda: one, rest, 1)}, []
    for tier, setting in (TIERS if split.records.read else {"inputs": "auto"}).items():
        data = ConfigDict({**config.data, "tier": setting}, type_safe=False)
        begun = time.perf_counter()
        prepared = storage.decode_split(split.records, data, split.place)
        rows.append({"tier": tier, "prepared s": time.perf_counter() - begun})
        source, labels, per_call = training.batches(task, prepared)
        call = run
        if per_call > 1:
            several = training.begin(task, several=True)[1]
            call, *_ = measure.compiled(several, state, next(source), labels, task.constants)
        ways[tier] = call, functools.partial(next, source), (labels, task.constants), per_call
    samples = collections.defaultdict(list)

    def loop(name):
        nonlocal state
        run, draw, rest, per_call = ways[name]
        calls = -(-steps // per_call)
        state, *_ = training.run_calls(run, state, draw, EARLY, *rest)
        state, took, waited = training.run_calls(run, state, draw, calls, *rest)
        samples[name, "loop img/s"].append(calls * per_call * images / took)
        samples[name, "wait %"].append(100 * waited / took)

    def alone(tier):
        _, draw, _, per_call = ways[tier]
        for _ in range(EARLY):
            jax.block_until_ready(draw())
        took = measure.seconds(lambda: jax.block_until_ready(draw()), -(-steps // per_call))
        samples[tier, "alone img/s"].append(per_call * images / took)

    for _ in range(flags.rounds):
        loop("step")
        for row in rows:
            alone(row["tier"])
            loop(row["tier"])
    fastest = samples["step", "loop img/s"]
    for row in rows:
        row |= measure.spread("step img/s", fastest)
        for column in ("alone img/s", "loop img/s", "wait %"):
            row |= measure.spread(column, samples[row["tier"], column])
        shares = measure.ratios(samples[row["tier"], "loop img/s"], fastest)
        row |= measure.spread("loop / step", shares)
    memory = f"holds {temporary / measure.MIB:,.1f} MiB of temporary memory"
    notes = [*map(bound, rows), f"The step was compiled in {compiling:.1f} s and {memory}."]
    title = f"Data of {flags.config}, batch {config.data.batch}"
    return title, {"Batches of the training split": (rows, COLUMNS)}, notes


SETTINGS = {"steps": (20, "of a turn")}
main = measure.command(__doc__, bench, SETTINGS, rounds=5, config="configs/quickstart.py")


if __name__ == "__main__":
    sys.exit(main())
