"""SIGTERM, SIGUSR1 and SIGINT wherever they come: the run ends soon, by its own exit code, and goes
on to the same bytes."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from absl.testing import flagsaver

from jaxord import evaluate, export, main, predict, report, train
from jaxord.runtime import devices, signals
from jaxord.workdir import checkpoints
from tests.kinds import MESHES, config, small_towers

ALL = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


@pytest.fixture(autouse=True)
def heard():
    """A shell's background jobs ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", ALL)
def test_it_is_noted_while_something_is_unsaved(number, capsys):
    old = signal.getsignal(number)
    with pytest.raises(signals.Stopped) as stopped, signals.Stop() as stop:
        stop.unsaved = True
        assert not stop and stop.name == ""
        send(number)
        assert stop and stop.name == signal.Signals(number).name
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                send(number)
        else:
            send(number)  # sent twice by some schedulers
        with pytest.raises(signals.Stopped), stop.at_once(lambda: None):
            raise AssertionError("the block begins after the signal")
        raise signals.Stopped("at step 7")
    assert stopped.value.code == 75 and signal.getsignal(number) is old
    assert (
        capsys.readouterr().err
        == f"stopped by {stop.name} at step 7; the same command goes on from there\n"
    )


def test_it_is_obeyed_where_nothing_is_lost():
    with pytest.raises(signals.Stopped), signals.Stop():
        send(signal.SIGTERM)
    with signals.Stop() as stop:
        stop.unsaved = True
        with pytest.raises(signals.Stopped), stop.at_once(lambda: None):
            try:
                send(signal.SIGTERM)
            finally:
                send(signal.SIGTERM)  # as some schedulers do; what cleans up is not interrupted
                cleaned = True
        assert cleaned
        with pytest.raises(signals.Stopped):
            stop.saved()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


WAITING = """
import contextlib, hashlib, sys
from jaxord.runtime import signals
signals.PATIENCE = 0.5
with signals.Stop() as stop, contextlib.ExitStack() as block:
    if "unsaved" in sys.argv:
        stop.unsaved = True
        block.enter_context(stop.at_once(lambda: print("saved", flush=True)))
    print("up", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes in one call, as a compilation is
"""


@pytest.mark.parametrize("unsaved, said", [((), ""), (("unsaved",), "saved\n")])
def test_a_long_call_does_not_keep_a_process(unsaved, said):
    command = [sys.executable, "-c", WAITING, *unsaved]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    time.sleep(0.5)  # until it is in the call
    sent = time.monotonic()
    process.send_signal(signal.SIGUSR1)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 75 and output == said and time.monotonic() - sent < 10
    assert errors == "stopped by SIGUSR1; the same command goes on from there\n"


@flagsaver.flagsaver
@pytest.mark.parametrize(
    "module, name",
    [(evaluate, "evaluate_run"), (report, "write"), (predict, "predict_run"), (export, "export")],
)
def test_what_follows_a_training_is_left_at_once(module, name, monkeypatch, capsys):
    monkeypatch.setattr(module, name, lambda *given, **settings: send(signal.SIGTERM))
    mode, given = module.__name__.removeprefix("jaxord."), flags.FLAGS
    given.mark_as_parsed()
    for flag, value in (
        ("mode", mode),
        *((flag.name, "here") for flag in main.TAKES[mode][: main.NEEDS[mode]]),
    ):
        given[flag].value, given[flag].present = value, 1
    with pytest.raises(SystemExit) as stopped:
        main.main([])
    assert stopped.value.code == 75
    assert capsys.readouterr().err == "stopped by SIGTERM; the same command goes on from there\n"


def contents(workdir):
    names = ("DONE.json", "results.json", "predictions.csv", "metrics.jsonl")
    with checkpoints.Checkpoints(workdir / "checkpoints") as saved:
        arrays = saved.read(saved.latest(), ("trained", "opt_state"))
        kept = saved.best(), saved.latest(), saved.meta(saved.best()), saved.meta(saved.latest())
    parameters = {path: array.tobytes() for part in arrays.values() for path, array in part.items()}
    return {name: (workdir / name).read_bytes() for name in names}, parameters, kept


@pytest.fixture(scope="module")
def calm(photos, tmp_path_factory):
    """(config, workdir) of an undisturbed run of nine steps on one device, judged at 4, 8 and 9,
    saved every third."""
    c = config("folder", "method=ce_l1,backbone=tiny", photos, **{"train.curves": ("train",)})
    workdir = tmp_path_factory.mktemp("calm")
    with small_towers(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "data_mesh", lambda: MESHES[1])
        train.run(c, workdir)
    return c, workdir


JUDGING = """
import hashlib, pathlib, sys
from jaxord import train
from jaxord.runtime import devices, signals
from jaxord.workdir import run_config
from tests.kinds import MESHES, small_towers
def judging(*given):
    print("judging", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
signals.PATIENCE = 0.5
devices.data_mesh = lambda: MESHES[1]
train.make_evaluate = lambda task: judging
with small_towers():
    train.run(run_config.from_json(pathlib.Path(sys.argv[1]).read_text()), sys.argv[2])
"""


@pytest.mark.long
def test_an_evaluation_that_compiles_for_minutes_does_not_keep_a_step_from_the_disk(
    calm, tmp_path, monkeypatch
):
    c, workdir = calm
    command = [sys.executable, "-c", JUDGING, workdir / "config.json", tmp_path / "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.stdout.readline() not in ("judging\n", ""):
        pass
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    with checkpoints.Checkpoints(tmp_path / "run/checkpoints") as saved:
        assert saved.latest() == 4 and saved.meta(4) == {"unjudged": True}
    monkeypatch.setattr(devices, "data_mesh", lambda: MESHES[1])
    with small_towers():
        train.run(c, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(workdir)


@pytest.mark.long
def test_in_every_phase_the_same_command_goes_on_to_the_same_bytes(
    calm, tmp_path, monkeypatch, capsys
):
    """Signals while decoding, compiling, in a step, in each evaluation of two splits, in the last
    one, in the report and in the summary."""
    c, workdir = calm
    monkeypatch.setattr(devices, "data_mesh", lambda: MESHES[1])
    with small_towers():
        at, numbers, real_step, real_evaluate = (
            [],
            itertools.cycle(ALL),
            train.make_train_step,
            train.make_evaluate,
        )

        def spring(phase):
            """Sends a signal the first time that a phase is reached, in the order of `at`."""
            if at and at[0] == phase:
                at.pop(0)
                send(next(numbers))

        def make_train_step(*given, **settings):
            step = real_step(*given, **settings)

            def update(state, *rest):
                spring(f"step {int(state.step) + 1}")
                return step(state, *rest)

            return update

        def make_evaluate(task, *more):
            judge, calls = real_evaluate(task, *more), []

            def judged(variables, split, *gallery):
                calls.append(split)
                spring(f"evaluation {len(calls)}")
                return judge(variables, split, *gallery)

            return judged

        def before(module, name):
            real = getattr(module, name)
            monkeypatch.setattr(
                module, name, lambda *given, **settings: (spring(name), real(*given, **settings))[1]
            )

        monkeypatch.setattr(train, "make_train_step", make_train_step)
        monkeypatch.setattr(train, "make_evaluate", make_evaluate)
        for name in ("make_task", "evaluate_and_write", "summarise"):
            before(train, name)
        # The steps and evaluations of each attempt; what it says; the checkpoint that it leaves.
        attempts = [
            ("make_task", "", None),
            ("step 1", "", None),
            ("step 3", " at step 3", 3),
            ("step 4", "", 3),
            ("step 5", " at step 5", 5),
            ("evaluation 1", " at step 8", 8),
            ("evaluation 2", " at step 8", 8),
            ("evaluation 3", " at step 9", 9),
            ("evaluation 2", " at step 9", 9),
            ("evaluate_and_write", "", 9),
            ("summarise", "", 9),
        ]
        for phase, where, left in attempts:
            at[:] = [phase]
            with pytest.raises(SystemExit) as stopped:
                train.run(c, tmp_path / "shaken")
            said = capsys.readouterr().err.splitlines()[-1]
            assert stopped.value.code == 75 and not at, (phase, said)
            assert said.removeprefix("stopped by ").partition(";")[0] in (
                f"{n.name}{where}" for n in ALL
            ), (phase, said)
            with checkpoints.Checkpoints(tmp_path / "shaken/checkpoints") as saved:
                assert saved.latest() == left, phase
        train.run(c, tmp_path / "shaken")
    assert contents(tmp_path / "shaken") == contents(workdir)
