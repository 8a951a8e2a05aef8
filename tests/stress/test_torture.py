"""The tool that kills a training and compares the result runs; one kill takes minutes."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_killed_training_ends_as_an_undisturbed_one():
    command = [sys.executable, "tools/torture.py", "--kills=1", "--steps=8"]
    # Compiling counts for more than the speed of eight steps.
    fast = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "True"}
    environment = {**os.environ, **fast}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
