"""What the benchmarks share: repeated timing, memory, a training that can be timed, and what they
print and write.

Nothing is compared across runs: whatever is set against something else is measured in the same run,
  in turns, and each ratio
is that of one turn.
"""

import argparse
import ctypes
import itertools
import json
import math
import os
import pathlib
import platform
import shlex
import statistics
import sys
import time

import jax
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(
    0, str(pathlib.Path(__file__).parents[1])
)  # configs/ and tools/ lie in the repository and are not installed

from jaxord import optim
from jaxord import train as training
from jaxord.data import storage
from jaxord.data.batches import train_batches, train_calls
from jaxord.schedule import Schedule, steps_per_call
from jaxord.workdir.log import table
from tools.sweeping import plan

# Read when the first device is asked for: without it a GPU's memory is taken at once, and torch
# beside it wants some too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

MIB = 2**20
SHORTEST = 5e-3  # seconds; a sample of a quicker call times several in a row
LONG = 60.0  # seconds; what a first call needs beside its work is nothing to them


def seconds(call, times=1):
    """Wall time of one call, the mean of `times` in a row."""
    begun = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - begun) / times


def alternate(calls, rounds):
    """Times calls in turns, A B C, C B A, A B C, ..., so that what else the machine does meets all
    alike.

    Args:
      calls: name -> function without arguments that returns when its work is done.
      rounds: turns.

    Returns:
      {name: [seconds of each turn]}. Calls before them, one or two of each, are not counted, but
      that one of each is the first turn where each is LONG.
    """
    first = {name: seconds(call) for name, call in calls.items()}
    times = {
        name: 1 if first[name] > 1 else max(1, math.ceil(SHORTEST / seconds(call)))
        for name, call in calls.items()
    }
    long = bool(first) and min(first.values()) > LONG
    samples = {name: [first[name]] if long else [] for name in calls}
    for turn in range(long, rounds):
        for name in list(calls)[:: -1 if turn % 2 else 1]:
            samples[name].append(seconds(calls[name], times[name]))
    return samples


def spread(name, samples, scale=1.0):
    """{name: median, "name min": smallest, "name max": largest} of samples times scale; {} of
    none."""
    scaled = [scale * sample for sample in samples]
    return (
        {name: statistics.median(scaled), f"{name} min": min(scaled), f"{name} max": max(scaled)}
        if scaled
        else {}
    )


def ratios(above, below):
    """Ratios of two lists of samples, turn by turn."""
    return [a / b for a, b in zip(above, below, strict=True)]


def compiled(function, *arguments):
    """Compiles a function or one that is jitted already, for arguments or their shapes, without
    running it.

    Returns:
      (the compiled function, seconds, bytes of temporary memory that the compiler has laid out).
    """
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    begun = time.perf_counter()
    done = jitted.lower(*arguments).compile()
    return done, time.perf_counter() - begun, done.memory_analysis().temp_size_in_bytes


def shapes(tree):
    """The shapes of arrays, for `compiled`."""
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), tree)


def free_memory():
    """Bytes that arrays of the default device may take."""
    return storage.host_memory() if jax.default_backend() == "cpu" else storage.device_memory()[1]


def grown(call):
    """Bytes by which a call raises this process's resident memory at its highest; nan where the
    system does not tell.

    What was freed before goes back to the system first, else the call would take it again unseen.
    """

    def kilobytes(field):
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    try:
        ctypes.CDLL(None).malloc_trim(0)
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
        before = kilobytes("VmRSS")
        call()
        return 1024 * (kilobytes("VmHWM") - before)
    except (OSError, AttributeError):
        return math.nan


# A training without its workdir.


def config_of(path, fields=()):
    """The finished config of a --config argument, with "field=value" texts set over it, as the
    command reads it."""
    arguments = (f"--config={path}", *(f"--config.{field}" for field in fields))
    return plan.config_of(plan.Run(path, "", "", 0, arguments))


def with_fields(config, **fields):
    """A ConfigDict with some of its fields changed."""
    return ConfigDict({**config, **fields}, type_safe=False)


def begin(task, several=False):
    """A training before its first step, as a run has it; `several` updates a call as of
    `jaxord.train.begin`.

    Returns:
      (State, jitted step(state, batch, labels, constants) -> (state, metrics), the factor of the
      rates as a function of the step, the number of steps).
    """
    schedule = Schedule.of(task)
    factor = optim.rate_factor(task.config.optim, schedule.total, schedule.length)
    return (*training.begin(task, factor, several), factor, schedule.total)


def batches(task, split):
    """What training draws from a split.

    Returns:
      (iterator over what a call of the train step takes, the first of one update; labels, with what
      the step gathers images from; the number of updates of a later call).
    """
    config, labels = task.config, task.labels.get("annotations", task.labels["train"])
    most, order = (
        steps_per_call(config, split),
        {"batch": config.data.batch, "seed": config.seed},
    )
    if most == 1:
        return train_batches(split, **order), labels, 1
    calls = itertools.chain([(0, 1)], ((first, most) for first in itertools.count(1, most)))
    return (train_calls(split, **order, calls=calls, most=most), {**labels, **split.stored()}, most)


def train(step, state, draw, number, *rest):
    """Calls the step as the training loop does: the next batch is drawn while the device computes.

    Args:
      step: compiled train step.
      state: State, donated.
      draw: () -> batch, or what a call of several updates takes.
      number: of calls.
      rest: labels and constants.

    Returns:
      (state, seconds in all, seconds in which the loop waited for `draw`).
    """
    crowded = (
        jax.default_backend() == "cpu" and len(state.step.sharding.device_set) > 1
    )  # as in jaxord.train.fit
    waited, begun = 0.0, time.perf_counter()
    for _ in range(number):
        asked = time.perf_counter()
        batch = draw()
        waited += time.perf_counter() - asked
        state, _ = step(state, batch, *rest)
        if crowded:
            jax.block_until_ready(state.step)
    jax.block_until_ready(state)
    return state, time.perf_counter() - begun, waited


# What is printed and written.


def header():
    """Where and how this was measured."""
    return {
        "command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": f"jax {jax.__version__}, numpy {np.__version__}, Python {platform.python_version()}",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),
    }


def options(description, rounds, numbers=(), **config):
    """A parser with what all benchmarks take: --rounds, --output and, where a config is given,
    --config and --set.

    `numbers` is {name: (default, words)} of a benchmark's own whole numbers.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if config:
        parser.add_argument(
            "--config",
            default=config["config"],
            help="config file, with its argument (%(default)s)",
        )
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="FIELD=VALUE",
            help="of the config: data.batch=4",
        )
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="samples of each time, in turns (%(default)s)"
    )
    parser.add_argument("--output", help="JSON file of all figures")
    for name, (value, words) in dict(numbers).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{words} (%(default)s)")
    return parser


def report(title, facts, tables, notes=(), output=None):
    """Prints the header, the tables and the notes, and writes the same as JSON.

    Args:
      title: of the benchmark.
      facts: from `header`, taken before anything was measured.
      tables: {title: (rows, columns shown)}; rows are dicts, the file gets all of their entries.
      notes: sentences.
      output: file, or None.
    """
    peaks = [
        (device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()
    ]
    if all(peaks):
        facts = {**facts, "peak device memory, whole run, MiB": round(max(peaks) / MIB, 1)}
    print("\n".join([title, *(f"{name}: {value}" for name, value in facts.items())]))
    for name, (rows, columns) in tables.items():
        print(f"\n{name}\n{table(rows, columns)}")
    print("\n".join(["", *notes]), flush=True)
    if output:
        facts = {
            "title": title,
            **facts,
            "tables": {name: rows for name, (rows, _) in tables.items()},
            "notes": list(notes),
        }
        pathlib.Path(output).write_text(json.dumps(facts, indent=1) + "\n")


def ranged(rows, *names):
    """Rows with a text "smallest - largest" under "<name> range" for each name, to be shown."""

    def text(row, name):
        return (
            f"{row[f'{name} min']:.3g} - {row[f'{name} max']:.3g}" if f"{name} min" in row else "-"
        )

    return [{**row, **{f"{name} range": text(row, name) for name in names}} for row in rows]
