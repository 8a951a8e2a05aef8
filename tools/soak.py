"""Trains for many tiny steps, with evaluations and checkpoints among them, and says whether the
process grows.

    python tools/soak.py [--steps=20000] [--every=200] [--device_data]

The run is the command itself, on drawn images. Its resident memory is read (from Linux' /proc)
beside the last step that it has logged: all of it, and what is anonymous, which the kernel cannot
take back as it takes pages of files when others want memory. The first fifth of the steps is left
out: compiling, first evaluations, arenas that fill. The rest is cut in twenty parts, whose means a
line is fitted through. The exit code is 1 where the slope of the anonymous part is above 0 by more
than three standard errors and by more than 1 MiB in 10,000 steps.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import scipy.stats

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # configs/ and tools/ lie in the repository and are not installed

from tools.torture import photographs

MIB = 2**20
PARTS, LEFT_OUT = 20, 0.2
LEAST = MIB / 10_000  # bytes a step below which nothing is called growth


def resident(process):
    """(bytes that a process holds, those that are anonymous), or None where it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    found = {
        line.split(":")[0]: int(line.split()[1]) * 1024
        for line in lines
        if line.startswith(("VmRSS", "RssAnon"))
    }
    return (found["VmRSS"], found["RssAnon"]) if found else None


def last_step(log):
    """The step of the last whole line of a metrics.jsonl; 0 before there is one."""
    if not log.exists():
        return 0
    with open(log, "rb") as file:
        file.seek(max(log.stat().st_size - 4096, 0))
        lines = file.read().split(b"\n")[:-1]
    return json.loads(lines[-1])["step"] if lines else 0


def watch(command, log, interval):
    """Runs a command to its end: f64[N, 4] of seconds, step, bytes and anonymous ones, a row a
    reading after the first step."""
    began, rows, told = time.monotonic(), [], -1000
    with tempfile.TemporaryFile() as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                time.sleep(interval)
                step, held = last_step(log), resident(process.pid)
                if held and step:
                    rows.append((time.monotonic() - began, step, *held))
                    if step - told >= 1000:
                        told = step
                        print(
                            f"step {step:6,}  {held[0] / MIB:8.1f} MiB, {held[1] / MIB:8.1f} anonymous",
                            flush=True,
                        )
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        if process.returncode:
            sys.exit(f"the command failed:\n{output.read().decode(errors='replace')[-3000:]}")
    return np.array(rows, float)


def fitted(rows, total, column):
    """(bytes a step, its standard error) of a line through the means of PARTS parts of the steps
    after LEFT_OUT of them.

    Args:
      rows: from `watch`.
      total: number of steps.
      column: of the bytes.

    Raises:
      ValueError: parts without a reading.
    """
    edges = np.linspace(LEFT_OUT * total, total, PARTS + 1)
    part = np.digitize(rows[:, 1], edges[1:-1])
    kept = rows[:, 1] >= edges[0]
    counts = np.bincount(part[kept], minlength=PARTS)
    if not counts.all():
        empty = (counts == 0).sum()
        raise ValueError(
            f"{empty} of {PARTS} parts have no reading; take more steps, or a smaller --interval"
        )
    means = [np.bincount(part[kept], rows[kept, i], PARTS) / counts for i in (1, column)]
    line = scipy.stats.linregress(*means)
    return line.slope, line.stderr


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument(
        "--every", type=int, default=200, help="steps between two evaluations, and two checkpoints"
    )
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between two readings")
    parser.add_argument(
        "--device_data",
        action="store_true",
        help="the images lie on the device, and a call makes 20 steps",
    )
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        fields = {
            "data.root": photographs(folder / "photographs"),
            "data.batch": 8,
            "data.eval_batch": 8,
            "data.image_size": 16,
            "data.stored_size": 20,
            "data.tier": "resident" if given.device_data else "cached",
            "train.duration": f"{given.steps} steps",
            "train.log_every": "20 steps",
            "train.checkpoint_every": f"{given.every} steps",
            "train.evaluate_every": f"{given.every} steps",
        }
        command = [
            sys.executable,
            "-m",
            "jaxord.main",
            "--config=configs/folder.py:method=ce,backbone=tiny",
            f"--workdir={folder / 'run'}",
            *(f"--config.{name}={value}" for name, value in fields.items()),
        ]
        rows = watch(command, folder / "run/metrics.jsonl", given.interval)
    times = given.steps // given.every
    print(
        f"{given.steps:,} steps, {times} evaluations, {times} checkpoints; {rows[:, 2].max() / MIB:.0f} MiB at most"
    )
    for name, column in (("resident", 2), ("anonymous", 3)):
        slope, error = fitted(rows, given.steps, column)
        print(f"{name}: {slope:+.1f} +- {error:.1f} bytes a step")
    return int(slope > 3 * error and slope > LEAST)


if __name__ == "__main__":
    sys.exit(main())
