"""The command itself, in processes of its own: train, kill, resume, evaluate; and how mistakes
end."""

import importlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

from jaxord import main
from jaxord.data import readers
from jaxord.runtime import signals
from jaxord.workdir.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parent.parent


def environment():
    """One device, as a user has it."""
    return {**os.environ, "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "True"}


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "jaxord.main", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )


def folder(photos, workdir, *more):
    return (
        "--config=configs/folder.py:backbone=tiny",
        f"--config.data.root={photos}",
        f"--workdir={workdir}",
        "--config.data.batch=16",
        "--config.train.duration=24 steps",
        "--config.train.checkpoint_every=4 steps",
        "--config.train.evaluate_every=12 steps",
        *more,
    )


def files(workdir):
    return {
        name: (workdir / name).read_bytes()
        for name in ("DONE.json", "results.json", "predictions.csv", "metrics.jsonl")
    }


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("main") / "whole"
    done = command(*folder(photos, workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_train_prints_the_table_and_the_bar(whole):
    workdir, done = whole
    assert "constant" in done.stdout and "majority" in done.stdout and "expectation" in done.stdout
    assert "img/s" in done.stderr and "Traceback" not in done.stderr
    assert json.loads((workdir / "DONE.json").read_text())["steps"] == 24


def saved(workdir):
    return {path.name for path in workdir.glob("checkpoints/[0-9]*")}


def arrays(workdir):
    """Every array of every checkpoint that is kept: {step: {part: {path: bytes}}}."""
    with Checkpoints(workdir / "checkpoints") as found:
        parts = {
            step: found.read(step, ("trained", "frozen", "stats", "opt_state"))
            for step in found.steps()
        }
    return {
        step: {
            part: {path: array.tobytes() for path, array in flat.items()}
            for part, flat in some.items()
        }
        for step, some in parts.items()
    }


@pytest.mark.long
def test_the_same_command_twice_gives_the_same_bytes(whole, photos, tmp_path):
    again = command(*folder(photos, tmp_path / "run"))
    assert again.returncode == 0, again.stderr
    assert files(tmp_path / "run") == files(whole[0])
    found = arrays(tmp_path / "run")
    assert found == arrays(whole[0])
    first, last = min(found), max(found)
    assert found[first]["trained"] != found[last]["trained"] and found[last]["opt_state"]


@pytest.mark.long
def test_a_disk_that_is_full_ends_the_run_and_the_same_command_goes_on_to_the_same_bytes(
    whole, photos, tmp_path
):
    arguments = folder(photos, tmp_path / "run")
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxord.main", *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.time() + 120
    while not saved(tmp_path / "run") and time.time() < deadline:
        time.sleep(0.01)
    resource.prlimit(
        process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000)
    )  # longer files are refused from now on
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in errors.rpartition("error: ")[2], errors
    assert "could not be written, that of step" in errors.rpartition("error: ")[2], errors
    again = command(*arguments)
    assert again.returncode == 0 and "goes on from step" in again.stdout, again.stderr
    assert files(tmp_path / "run") == files(whole[0])


@pytest.mark.long
def test_stopped_then_killed_and_resumed_gives_the_same_bytes(whole, photos, tmp_path):
    arguments = folder(photos, tmp_path / "run")
    for number, code in ((signal.SIGTERM, signals.STOPPED), (signal.SIGKILL, -9)):
        before = saved(tmp_path / "run")
        process = subprocess.Popen(
            [sys.executable, "-m", "jaxord.main", *arguments],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.time() + 120
        while not saved(tmp_path / "run") - before and time.time() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert not (tmp_path / "run" / "DONE.json").exists()
    again = command(*arguments)
    assert again.returncode == 0 and "goes on from step" in again.stdout, again.stderr
    assert files(tmp_path / "run") == files(whole[0])


def test_the_same_command_again_is_done_and_evaluate_agrees(whole, photos):
    workdir, done = whole
    before = files(workdir)
    table = done.stdout[done.stdout.rindex("\ntest ") :]
    assert command(*folder(photos, workdir)).stdout == table
    assert command("--mode=evaluate", f"--workdir={workdir}").stdout == table
    assert files(workdir) == before


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--config=configs/hci.py:method=numclp"], "Did you mean 'numclip'"),
        (
            ["--config=configs/quickstart.py", "--config.optim.nmae=adam"],
            "optim has no field 'nmae'. Did you mean 'name'?",
        ),
        (
            ["--config=configs/quickstart.py", "--config.data.xyz=1"],
            "data has no field 'xyz'. It has batch, broken, ",
        ),
        (
            ["--config=configs/quickstart.py", "--config.losses[7].weight=1"],
            "losses has no field '[7]'. It has [0] to [0].",
        ),
        (
            ["--config=configs/quickstart.py", "--config.losses=3"],
            "config.losses is [3]; expected entries with a name each",
        ),
        (
            ["--config=configs/quickstart.py", "--config.losses.0.weight=1"],
            "losses has no field '0'. It has [0] to [0].",
        ),
        (
            ["--config=configs/quickstart.py", "--config.data.batch=many"],
            "invalid literal for int() with base 10: 'many'",
        ),
        (["--config=configs/quikstart.py"], "configs/quikstart.py"),
        (["--mode=evaluate"], "--mode=evaluate needs --workdir"),
        ([], "--config=quickstart"),
        (["--config=configs/folder.py:backbone=tiny", "--config.data.root=/nowhere"], "/nowhere"),
        (
            ["--config=configs/hci.py", "--config.data.root=/nowhere", "--config.fold=11"],
            "fold is '11'",
        ),
    ],
)
def test_mistakes_end_in_one_message(tmp_path, arguments, words):
    done = command(
        *arguments, *([] if "--mode=evaluate" in arguments else [f"--workdir={tmp_path}"])
    )
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, (
        done.stderr
    )
    assert done.stderr.count("error: ") == 1


@pytest.mark.parametrize(
    "name", ["hci", "morph", "adience", "clap2015", "aesthetics", "agedb", "utk", "cacd"]
)
def test_without_data_one_message_says_what_is_wanted(name):

    config = importlib.import_module(f"configs.{name}").get_config()
    with pytest.raises(ValueError, match="(?s)missing under .*(lists|list|table).*layout") as error:
        readers.load(config.data, config.data.folds[0] if config.data.folds else "", 0)
    assert config.data.root in str(error.value)


def test_compiled_programs_are_kept_for_the_next_process(tmp_path):
    code = "import os; from jaxord import main; main.keep_programs(os.environ); import jax; "
    code += "print(jax.jit(abs)(-1))"
    environment = {
        name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"
    }
    environment |= {
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr
    assert list(tmp_path.glob("jaxord/programs-*/jit_abs-*-cache"))
    chosen = {"JAX_COMPILATION_CACHE_DIR": "here"}
    main.keep_programs(chosen)
    assert chosen == {"JAX_COMPILATION_CACHE_DIR": "here"}
