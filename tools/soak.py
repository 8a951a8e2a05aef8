"""Trains for many tiny steps, with evaluations and checkpoints, and says whether the process grows.

    python tools/soak.py [--steps=20000] [--every=200] [--device_data]

The run is the command itself, on drawn images. Its resident memory is read (from Linux' /proc) with
the last step that it has logged: all of it, and the anonymous part, which the kernel cannot take
back as it takes pages of files when others want memory. The first fifth of the steps is left out:
compiling, first evaluations, arenas that fill. The rest is cut into twenty parts, and a line is
fitted to their means. The exit code is 1 if the slope of the anonymous part is above 0 by more than
three standard errors and by more than 1 MiB in 10,000 steps.
"""

import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import scipy.stats

from jaxord import shipped

shipped.make_importable()
from tools.benching import drawn, options, subject

MIB = 2**20
PARTS, LEFT_OUT = 20, 0.2
LEAST = MIB / 10_000  # bytes a step below which nothing is called growth
SETTINGS = {
    "steps": (20_000, "of the run"),
    "every": (200, "steps between two evaluations, and two checkpoints"),
    "interval": (0.5, "seconds between two readings"),
    "device_data": (False, "the images lie on the device, and a call makes 20 steps"),
}


def resident(process):
    """(bytes that a process holds, the anonymous ones), or None if it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines if line.startswith(("VmRSS", "RssAnon")))
    sizes = {name: int(value.split()[0]) * 1024 for name, value in values.items()}
    return (sizes["VmRSS"], sizes["RssAnon"]) if sizes else None


def watch(command, stage, interval):
    """Runs a command: f64[N, 4] of seconds, step, bytes, anonymous bytes, after the first step."""
    began, rows, printed = time.monotonic(), [], -1000
    with tempfile.TemporaryFile() as output:
        settings = {"cwd": shipped.ROOT, "env": subject.environment()}
        process = subprocess.Popen(command, **settings, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(interval)
                step, sizes = subject.last_step(stage), resident(process.pid)
                if not (sizes and step):
                    continue
                rows.append((time.monotonic() - began, step, *sizes))
                if step - printed >= 1000:
                    printed = step
                    mib, anonymous = (size / MIB for size in sizes)
                    print(f"step {step:6,}  {mib:8.1f} MiB, {anonymous:8.1f} anonymous", flush=True)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        if process.returncode:
            sys.exit(f"the command failed:\n{output.read().decode(errors='replace')[-3000:]}")
    return np.array(rows, float)


def fitted(rows, total, column):
    """(bytes a step, its standard error): a line through the means of PARTS parts of the steps.

    `column` is one of `watch`. Raises ValueError if a part has no reading.
    """
    edges = np.linspace(LEFT_OUT * total, total, PARTS + 1)
    part = np.digitize(rows[:, 1], edges[1:-1])
    kept = rows[:, 1] >= edges[0]
    counts = np.bincount(part[kept], minlength=PARTS)
    if not counts.all():
        empty = f"{(counts == 0).sum()} of {PARTS} parts have no reading"
        raise ValueError(f"{empty}; take more steps, or a smaller --interval")
    means = [np.bincount(part[kept], rows[kept, i], PARTS) / counts for i in (1, column)]
    line = scipy.stats.linregress(*means)
    return line.slope, line.stderr


def main(arguments=None):
    flags = options.parser(__doc__, SETTINGS).parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        fields = {
            "data.root": drawn.photographs(folder / "photographs"),
            "data.batch": 8,
            "data.eval_batch": 8,
            "data.image_size": 16,
            "data.stored_size": 20,
            "data.tier": "resident" if flags.device_data else "cached",
            "train.duration": f"{flags.steps} steps",
            "train.log_every": "20 steps",
            "train.checkpoint_every": f"{flags.every} steps",
            "train.evaluate_every": f"{flags.every} steps",
        }
        config, workdir = "configs/folder.py:method=ce,backbone=tiny", folder / "run"
        rows = watch(subject.command(config, workdir, fields), workdir, flags.interval)
    times = flags.steps // flags.every
    counts = f"{flags.steps:,} steps, {times} evaluations, {times} checkpoints"
    print(f"{counts}; {rows[:, 2].max() / MIB:.0f} MiB at most")
    for name, column in (("resident", 2), ("anonymous", 3)):
        slope, error = fitted(rows, flags.steps, column)
        print(f"{name}: {slope:+.1f} +- {error:.1f} bytes a step")
    return int(slope > 3 * error and slope > LEAST)


if __name__ == "__main__":
    sys.exit(main())
