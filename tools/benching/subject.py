"""The command as a subprocess on the CPU, and the log of its steps."""

import json
import os
import sys

from jaxord import shipped


def environment():
    """Variables of the command's process."""
    return {**os.environ, "PYTHONPATH": str(shipped.ROOT), "JAX_PLATFORMS": "cpu"}


def command(config, workdir, fields):
    """The words of the command that trains a config with {field: value} set over it."""
    words = [sys.executable, "-m", "jaxord.main", f"--config={config}", f"--workdir={workdir}"]
    return words + [f"--config.{name}={value}" for name, value in fields.items()]


def rows(stage):
    """What a stage has logged, without a line that is being written."""
    log = stage / "metrics.jsonl"
    lines = log.read_text().rpartition("\n")[0].splitlines() if log.exists() else []
    return [json.loads(line) for line in lines]


def last_step(stage):
    """The step of the last whole line of a stage's log; 0 before the first."""
    log = stage / "metrics.jsonl"
    if not log.exists():
        return 0
    with open(log, "rb") as file:
        file.seek(max(log.stat().st_size - 4096, 0))
        lines = file.read().split(b"\n")[:-1]
    return json.loads(lines[-1])["step"] if lines else 0
