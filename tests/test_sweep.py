"""The sweep with a stub in place of the command: what is started, tried again, stopped, killed and gone on with."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxord import checkpoint, settings
from tools import sweep

# The loader that ml_collections takes on Python 3.11.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

# Takes the command's arguments, holds its workdir's lock, waits while `hold` is there, saves and leaves on SIGTERM.
STUB = """
import fcntl, os, pathlib, shutil, signal, sys, time
given = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
here, folder, seed = pathlib.Path(__file__).parent, pathlib.Path(given["workdir"]), given["config.seed"]
lock = open(folder / ".lock", "a+")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
shutil.copy(here / f"{seed}.json", folder / "config.json")
def save(*_):
    (folder / "saved").touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
with open(folder / "starts", "a") as file:
    print(*sorted(os.sched_getaffinity(0)), file=file)
while (here / "hold").exists():
    time.sleep(0.02)
print("0%\\r50%\\rthe last words of", seed, flush=True)
broken = here / f"broken{seed}"
if broken.exists():
    left = int(broken.read_text()) - 1
    broken.write_text(str(left)) if left else broken.unlink()
    sys.exit(3)
(folder / "DONE.json").write_text("{}")
"""
EXPERIMENT = """
def sweep(add):
    for seed in range(3):
        add("plain", "configs/quickstart.py:method=ce", {"seed": seed, "data.eval_crop": {"name": "center_crop"}})
"""


class Place:
    """An experiment of three runs, and the stub that is its command."""

    def __init__(self, folder):
        self.folder, self.file, stub = folder, folder / "small.py", folder / "stub.py"
        self.file.write_text(EXPERIMENT)
        stub.write_text(STUB)
        self.command, self.runs = (sys.executable, "-S", str(stub)), sweep.runs_of(sweep.load(self.file))
        for run in self.runs:
            (folder / f"{run.seed}.json").write_text(settings.to_json(sweep.config_of(run)))
        self.arguments = [str(self.file), f"--output={folder / 'runs'}"]

    def main(self, *more):
        return sweep.main([*self.arguments, *more], self.command)

    def workdir(self, seed):
        return self.folder / "runs/small" / self.runs[seed].name

    def starts(self):
        """How often each run was started."""
        files = [self.workdir(seed) / "starts" for seed in range(3)]
        return [len(file.read_text().splitlines()) if file.exists() else 0 for file in files]

    def when(self, condition, action):
        """Calls the action in a thread as soon as the condition holds."""

        def wait():
            deadline = time.monotonic() + 60
            while not condition() and time.monotonic() < deadline:
                time.sleep(0.02)
            action()

        threading.Thread(target=wait, daemon=True).start()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(sweep.ROOT)
    before = signal.getsignal(signal.SIGTERM)
    yield Place(tmp_path)
    signal.signal(signal.SIGTERM, before)


def test_names_are_unique_and_arguments_are_those_of_the_command(place):
    run = place.runs[1]
    assert run == ("quickstart-plain-seed=1", "quickstart", "plain", 1, run.arguments)
    assert run.arguments[:2] == ("--config=configs/quickstart.py:method=ce", "--config.seed=1")
    given = sweep.runs_of(sweep.load(place.file), ["backbone=tiny"], ["data.root=x/y"])[1]
    assert given.name == run.name and given.arguments[0] == "--config=configs/quickstart.py:method=ce,backbone=tiny"
    data = sweep.config_of(given).data
    assert data.root == "x/y" and data.eval_crop.to_dict() == {"name": "center_crop"}
    with pytest.raises(ValueError, match="two runs are called quickstart-plain-seed=5"):
        sweep.runs_of(sweep.load(place.file), fields=["seed=5"])
    slashed = type(sweep)("slashed")
    slashed.sweep = lambda add: add("ViT-L/14, k=5", "configs/hci.py", {})
    assert [run.name for run in sweep.runs_of(slashed)] == ["hci-ViT-L_14,_k=5-seed=0"]


def test_a_mistake_in_a_config_is_told_before_anything_is_started(place):
    assert "Did you mean \"duration\"" in place.main("--set", "train.durations=5 steps")
    assert "quickstart has no method" in place.main("--option", "method=cee")
    assert place.starts() == [0, 0, 0]


def test_failed_runs_are_tried_once_more_and_what_is_done_is_not_started_again(place, capsys):
    (place.folder / "broken1").write_text("1")
    (place.folder / "broken2").write_text("2")
    assert place.main() == 1
    printed = capsys.readouterr()
    assert place.starts() == [1, 2, 2] and "0 of 3 runs are done" in printed.out
    assert "1/3 quickstart-plain-seed=0: 0 s; 0:00:0" in printed.out
    assert "quickstart-plain-seed=1: FAILED (3), is tried again" in printed.out
    assert "2/3 quickstart-plain-seed=2: FAILED (3) 0 s; " in printed.out and "0:00:00 to go" in printed.out
    assert "left: quickstart-plain-seed=2" in printed.err and "\n  the last words of 2\n" in printed.err
    assert place.main() == 0 and place.starts() == [1, 2, 3]
    assert place.main() == 0 and place.starts() == [1, 2, 3] and "3 of 3 runs are done" in capsys.readouterr().out
    (place.workdir(0) / "config.json").write_text((place.folder / "0.json").read_text().replace("center_crop", "resize"))
    assert place.main() == 0 and place.starts() == [2, 2, 3]  # the command says that the workdir holds another config


def test_a_stage_that_is_not_done_is_gone_on_with(tmp_path):
    run = sweep.Run("r", "quickstart", "rrt", 0, ("--config=configs/quickstart.py:method=rrt",))
    config, folder = sweep.config_of(run), tmp_path / "r"
    for stage in ("encoder", "regressor"):
        (folder / stage).mkdir(parents=True)
    checkpoint.write_json(folder / "config.json", settings.plain(config))
    (folder / "encoder" / "DONE.json").touch()
    assert not sweep.is_done(folder, config)
    (folder / "regressor" / "DONE.json").touch()
    assert sweep.is_done(folder, config)


def test_stopped_runs_save_on_cores_of_their_own_and_the_same_command_goes_on(place):
    cores = os.sched_getaffinity(0)
    (place.folder / "hold").touch()
    place.when(lambda: sum(place.starts()) == 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert place.main("--slots=2").startswith("stopped")
    assert place.starts() == [1, 1, 0] and all((place.workdir(seed) / "saved").exists() for seed in range(2))
    mine = [set((place.workdir(seed) / "starts").read_text().split()) for seed in range(2)]
    assert not mine[0] & mine[1] and mine[0] | mine[1] == {str(core) for core in cores} and os.sched_getaffinity(0) == cores
    (place.folder / "hold").unlink()
    assert place.main("--slots=2") == 0 and place.starts() == [2, 2, 1]
    assert "one at least" in place.main(f"--slots={len(cores) + 1}")


def test_after_kill_9_the_same_command_waits_for_the_run_that_was_left_and_goes_on(place):
    (place.folder / "hold").touch()
    code = f"import sys; from tools import sweep; sweep.main(sys.argv[1:], {place.command!r})"
    killed = subprocess.Popen([sys.executable, "-c", code, *place.arguments], cwd=sweep.ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not place.starts()[0] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "in use by process" in place.main()  # one sweep at a time
    killed.kill()
    killed.wait()
    place.when(lambda: sum(place.starts()) == 2, (place.folder / "hold").unlink)  # the first is held, so the second is begun
    assert place.main() == 0
    assert [(place.workdir(seed) / "DONE.json").exists() for seed in range(3)] == [True] * 3
    assert place.starts()[1:] == [1, 1]


@pytest.mark.parametrize("name", ["photo_quality", "freshness", "stsb"])
def test_experiments_are_made_of_configs_and_their_claims_of_runs(name):
    experiment = sweep.load(pathlib.Path(sweep.ROOT) / "experiments" / f"{name}.py")
    runs = sweep.runs_of(experiment)
    labels = {run.label for run in runs}
    assert {label for claim in experiment.CLAIMS for label in claim[:2]} <= labels and len(runs) == 3 * len(labels)
    configs = [sweep.config_of(run) for run in runs if run.seed == 0]
    if name != "stsb":  # as many images in as many steps for all, under the same crops
        rows = {(c.data.batch * c.data.copies, float(c.train.duration.split()[0]) * c.data.copies) for c in configs}
        crops = {(str(c.data.train_crop), str(c.data.eval_crop), c.data.normalize, c.optim.name, c.select) for c in configs}
        assert len(rows) == 1 and len(crops) == 1
