"""Several processes do what one does: the same run, stopped, killed and taken up by other numbers
of processes.

As a program, this file is the command with a smaller model, which signals itself in a given step.
"""

import concurrent.futures
import csv
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
DEVICES, STEPS = 4, 18  # of all processes together
SILENCE = 10  # seconds, instead of twice as many
FIELDS = {
    "data.batch": 16,
    "data.eval_batch": 16,
    "data.tier": "stream",
    "train.duration": f"{STEPS} steps",
    "train.evaluate_every": f"{STEPS} steps",
    "train.checkpoint_every": "4 steps",
    "train.log_every": "2 steps",
    "metrics": ("mae",),
    "model.fsdp": 4096,
    # Adam's first step would be the sign of gradients, and blow up rounding around zero
    "optim.name": "sgd",
}


def arguments(photos, workdir):
    fields = {**FIELDS, "data.root": photos}
    return [
        "--config=configs/folder.py:method=l1,backbone=tiny",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def run(photos, workdir, processes, at=0, number=0):
    """[(exit code, output, errors, time)] of processes that run the command; the last one gets a
    signal after step `at`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for k in range(processes):
        place = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(k),
        }
        place |= {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // processes}",
            "PYTHONPATH": str(ROOT),
        }
        place |= {
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "True",
        }
        place |= {"AT": str(at), "SIGNAL": str(number * (k == processes - 1))}
        started.append(
            subprocess.Popen(
                [sys.executable, __file__, *arguments(photos, workdir)],
                env={**os.environ, **place},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def ended(process):
        output, errors = process.communicate(timeout=280)
        return process.returncode, output, errors, time.monotonic()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(ended, started))


def small():
    """One block a tower, which compiles in a third of the time."""
    from jaxord.models import variants

    tiny = variants.VARIANTS["tiny"]
    towers = {
        side: dataclasses.replace(getattr(tiny, side), layers=1) for side in ("vision", "text")
    }
    return dataclasses.replace(tiny, **towers)


def saved(workdir):
    return sorted(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()
    )


def read(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    with open(workdir / "predictions.csv") as file:
        values = [float(row["value"]) for row in csv.DictReader(file)]
    where = [(line.pop("step"), line.pop("split"), *line) for line in lines]
    return where, np.array([value for line in lines for value in line.values()]), np.array(values)


@pytest.fixture(scope="module")
def one(lightly_compiled, photos, tmp_path_factory):
    """Workdir of the run in one process, uninterrupted and with whole parameters."""
    import jax

    from configs import folder
    from jaxord import train
    from jaxord.models import variants
    from jaxord.runtime import devices

    config, workdir = folder.get_config("method=l1,backbone=tiny"), tmp_path_factory.mktemp("one")
    config.update_from_flattened_dict({**FIELDS, "model.fsdp": 0, "data.root": str(photos)})
    mesh = devices.data_mesh(jax.devices()[:DEVICES])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "data_mesh", lambda: mesh)
        patch.setitem(variants.VARIANTS, "tiny", small())
        train.run(config, workdir)
    return workdir


@pytest.mark.long
@pytest.mark.timeout(900)  # a minute of CPU in ten processes, each of which may wait for a core
def test_four_processes_stopped_then_one_of_them_killed_then_two_do_what_one_does(
    one, photos, tmp_path
):
    workdir = tmp_path / "run"
    four = run(
        photos, workdir, 4, at=4, number=signal.SIGTERM
    )  # one of them is told to stop: all do, at the same step
    assert [code for code, *_ in four] == [75] * 4, four[0]
    (step,) = {errors.splitlines()[-1] for _, _, errors, _ in four}
    step = int(step.removeprefix("stopped by a signal at step ").split(";")[0])
    assert 4 <= step < STEPS - 4 and saved(workdir)[-1] == step
    told = ["examples, stream" in output and "img/s" in errors for _, output, errors, _ in four]
    assert told == [True, False, False, False]

    *others, killed = run(
        photos, workdir, 4, at=step + 2, number=signal.SIGKILL
    )  # the others say why, and end
    assert killed[0] == -signal.SIGKILL
    for code, _, errors, ended in others:
        assert (
            code not in (0, -signal.SIGKILL)
            and "another task died" in errors
            and ended - killed[3] < SILENCE + 10
        )
    last = saved(workdir)[-1]

    two = run(photos, workdir, 2)
    assert [code for code, *_ in two] == [0, 0], two
    assert (
        f"goes on from step {last}" in two[0][1] and "mae" in two[0][1] and "mae" not in two[1][1]
    )
    (where, losses, values), expected = read(workdir), read(one)
    assert where == expected[0]
    np.testing.assert_allclose(losses, expected[1], rtol=1e-5)
    np.testing.assert_allclose(values, expected[2], atol=1e-5)

    from jaxord.workdir import layout as folders

    a, b = (
        folders.selected(place)["params"] for place in (workdir, one)
    )  # split over two, read by one
    assert max(np.abs(a[path] - b[path]).max() for path in b) < 1e-6


if __name__ == "__main__":
    from absl import app

    from jaxord import main, train
    from jaxord.models import variants
    from jaxord.runtime import hosts

    hosts.SILENCE = SILENCE
    variants.VARIANTS["tiny"] = small()
    sys.modules["torch"] = None  # tensorboardX would take seconds to import it
    make, at, number = train.make_train_step, int(os.environ["AT"]), int(os.environ["SIGNAL"])

    def make_train_step(*given, **settings):
        step = make(*given, **settings)

        def update(state, *rest):
            done = int(state.step)
            if at and done >= at:
                time.sleep(0.2)  # others have to hear of it before the run is over
            if number and done == at:
                os.kill(os.getpid(), number)
            return step(state, *rest)

        return update

    train.make_train_step = make_train_step
    app.run(main.main, flags_parser=main.parse)
