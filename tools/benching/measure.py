"""Repeated timing, memory and reports of the benchmarks.

Figures are compared within one run only: the sides take turns, and each ratio is of one turn.
"""

import ctypes
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

from jaxord.workdir import files
from jaxord.workdir.log import table
from tools.benching import options

# jax reads this with its first device. Otherwise it takes a GPU's memory at once, and torch beside
# it needs some.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

MIB = 2**20
SHORTEST = 5e-3  # seconds; a sample of a quicker call times several in a row
LONG = 60.0  # seconds; after a first call this long, its start-up does not count


def seconds(call, times=1):
    """Wall time of one call, the mean of `times` in a row."""
    begun = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - begun) / times


def alternate(calls, rounds):
    """Times calls in turns, A B C, C B A, A B C, ..., so that other load meets all alike.

    `calls` are {name: function that returns when its work is done}. Returns {name: [seconds of each
    turn]}. One or two calls of each come before and are not counted; if each first call is LONG,
    they are the first turn.
    """
    first = {name: seconds(call) for name, call in calls.items()}
    once = {name: first[name] if first[name] > 1 else seconds(call) for name, call in calls.items()}
    times = {name: max(1, math.ceil(SHORTEST / once[name])) for name in calls}
    long = bool(first) and min(first.values()) > LONG
    samples = {name: [first[name]] if long else [] for name in calls}
    for turn in range(long, rounds):
        for name in list(calls)[:: -1 if turn % 2 else 1]:
            samples[name].append(seconds(calls[name], times[name]))
    return samples


def spread(name, samples, scale=1.0):
    """{name: median, "name min": ..., "name max": ...} of scaled samples; {} of none."""
    scaled = [scale * sample for sample in samples]
    if not scaled:
        return {}
    return {name: statistics.median(scaled), f"{name} min": min(scaled), f"{name} max": max(scaled)}


def ratios(above, below):
    """Ratios of two lists of samples, turn by turn."""
    return [a / b for a, b in zip(above, below, strict=True)]


def compiled(jitted, *arguments):
    """(compiled function, seconds of compiling, bytes of temporary memory it lays out)."""
    begun = time.perf_counter()
    program = jitted.lower(*arguments).compile()
    return program, time.perf_counter() - begun, program.memory_analysis().temp_size_in_bytes


def peak_bytes():
    """The most that jax has held on the fullest local device; None if the backend does not say."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    return max(each["peak_bytes_in_use"] for each in stats) if all(stats) else None


def grown(call):
    """Bytes by which a call raises the process's peak of resident memory; nan if unknown."""

    def kilobytes(field):
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    try:
        # Freed memory goes back to the system: the call could take it again unseen.
        ctypes.CDLL(None).malloc_trim(0)
        # 5 resets the peak.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = kilobytes("VmRSS")
        call()
        return 1024 * (kilobytes("VmHWM") - before)
    except (OSError, AttributeError):
        return math.nan


def header():
    """Command, machine and versions of a measurement."""
    versions = f"jax {jax.__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    return {
        "command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": versions,
        "cores": len(os.sched_getaffinity(0)),
        "load before": round(os.getloadavg()[0], 2),
    }


def command(description, bench, settings, rounds, config=None):
    """The main function of a benchmark, with the flags of `options.benchmark`.

    `bench(flags)` gives (title, tables, notes) for `report`, or raises ValueError.
    """

    def main(arguments=None):
        flags = options.benchmark(description, settings, rounds, config).parse_args(arguments)
        facts = header()
        try:
            title, tables, notes = bench(flags)
        except ValueError as error:
            return f"error: {error}"
        return report(title, facts, tables, notes, flags.output)

    return main


def report(title, facts, tables, notes, output):
    """Prints the header, the tables and the notes, and writes them as JSON.

    `facts` come from `header`, taken before anything is measured. `tables` are {title: (rows,
    columns shown)}; a column "<name> range" is made of "<name> min" and "<name> max", and the file
    gets all entries of the rows.
    """
    if peak := peak_bytes():
        facts = {**facts, "peak device memory, whole run, MiB": round(peak / MIB, 1)}
    tables = {name: (_ranged(rows, columns), columns) for name, (rows, columns) in tables.items()}
    print("\n".join([title, *(f"{name}: {value}" for name, value in facts.items())]))
    for name, (rows, columns) in tables.items():
        print(f"\n{name}\n{table(rows, columns)}")
    print("\n".join(["", *notes]), flush=True)
    if output:
        tables = {name: rows for name, (rows, _) in tables.items()}
        files.write_json(output, {"title": title, **facts, "tables": tables, "notes": list(notes)})
    return 0


def _ranged(rows, columns):
    """Rows with "smallest - largest" in the columns "<name> range"."""
    names = [name.removesuffix(" range") for name in columns if name.endswith(" range")]

    def text(row, name):
        ends = [f"{row[f'{name} {end}']:.3g}" for end in ("min", "max") if f"{name} min" in row]
        return " - ".join(ends) or "-"

    return [row | {f"{name} range": text(row, name) for name in names} for row in rows]
