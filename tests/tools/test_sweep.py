"""The sweep with a stub in place of the command: what is started, tried again, stopped, killed and
gone on with."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from absl import flags
from absl.testing import flagsaver

from jaxord import main, shipped
from jaxord.runtime import signals
from jaxord.workdir import files, run_config
from tools import sweep
from tools.sweeping import launch, plan, queue
from tools.sweeping.journal import Journal

# The loader that ml_collections takes on Python 3.11.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

# Takes the command's arguments, holds its workdir's lock, waits while `hold` is there, saves and
# leaves on SIGTERM.
STUB = """
import fcntl, json, os, pathlib, signal, sys, time
given = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
names = ["config_json", "workdir"]
assert sorted(given) in (names, sorted([*names, "mode", "output"])), given
here, folder = pathlib.Path(__file__).parent, pathlib.Path(given.get("output", given["workdir"]))
if "mode" in given:
    assert given["mode"] == "evaluate" and (pathlib.Path(given["workdir"]) / "DONE.json").exists()
seed = json.loads(pathlib.Path(given["config_json"]).read_text())["seed"]
lock = open(folder / ".lock", "a+")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
def save(*_):
    (folder / "saved").touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
with open(folder / "starts", "a") as file:
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    print(time.time(), gpus, *sorted(os.sched_getaffinity(0)), file=file)
while (here / "hold").exists() or (here / f"hold{seed}").exists():
    time.sleep(0.02)
print("0%\\r50%\\rthe last words of", seed, flush=True)
broken = here / f"broken{seed}"
if broken.exists():
    left, code = map(int, (broken.read_text() + " 3").split()[:2])
    broken.write_text(f"{left - 1} {code}") if left > 1 else broken.unlink()
    sys.exit(code)
if not (here / f"silent{seed}").exists():
    (folder / "DONE.json").write_text("{}")
"""
CONFIG = """
import pathlib
from configs import quickstart
def get_config(argument=""):
    with open(pathlib.Path(__file__).with_name("executed"), "a") as file:
        file.write(".")
    return quickstart.get_config(argument)
"""
EXPERIMENT = """
def sweep(add):
    for seed in range({runs}):
        crop = {{"data.eval_crop": {{"name": "center_crop"}}}}
        add("plain", "{config}:method=ce", {{"seed": seed, **crop}})
"""


class Place:
    """An experiment of three runs, and the stub that is its command."""

    def __init__(self, folder, runs=3):
        self.folder, self.file, stub, config = (
            folder,
            folder / "small.py",
            folder / "stub.py",
            folder / "own.py",
        )
        self.file.write_text(EXPERIMENT.format(runs=runs, config=config))
        stub.write_text(STUB)
        config.write_text(CONFIG)
        self.command, self.runs = (
            (sys.executable, "-S", str(stub)),
            plan.runs_of(plan.load(self.file)),
        )
        self.arguments = [str(self.file), f"--output={folder / 'runs'}"]

    def main(self, *more):
        return sweep.main([*self.arguments, *more], self.command)

    def background(self, *more, **environment):
        """The sweep in a process of its own."""
        main = f"sweep.main(sys.argv[1:], {self.command!r})"
        code = f"import sys; from tools import sweep; sys.exit({main})"
        command = [sys.executable, "-c", code, *self.arguments, *more]
        return subprocess.Popen(
            command, cwd=shipped.ROOT, stdout=subprocess.DEVNULL, env={**os.environ, **environment}
        )

    def workdir(self, seed):
        return self.folder / "runs/small" / self.runs[seed].name

    def starts(self):
        """How often each run was started."""
        return [len(self.started(seed)) for seed in range(len(self.runs))]

    def started(self, seed):
        """[[time, GPU, cores]] of the starts of a run."""
        file = self.workdir(seed) / "starts"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def events(self, seed=None):
        """The journal of a run, or of the sweep."""
        text = (self.folder / "runs/small/journal.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        name = "" if seed is None else self.runs[seed].name
        return [line["event"] for line in lines if line.get("run", "") == name]

    def configs_made(self):
        return len((self.folder / "executed").read_text())

    def when(self, condition, action):
        """Calls the action in a thread as soon as the condition holds."""

        def wait():
            until(condition)
            action()

        threading.Thread(target=wait, daemon=True).start()


def until(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    }
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background would not hear it
    yield Place(tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_names_are_unique_and_arguments_are_those_of_the_command(place):
    run = place.runs[1]
    assert run == ("own-plain-seed=1", "own", "plain", 1, run.arguments, "")
    assert run.arguments[:2] == (f"--config={place.folder}/own.py:method=ce", "--config.seed=1")
    given = plan.runs_of(plan.load(place.file), ["backbone=tiny"], ["data.root=x/y"])[1]
    assert (
        given.name == run.name
        and given.arguments[0] == f"--config={place.folder}/own.py:method=ce,backbone=tiny"
    )
    data = plan.config_of(given).data
    assert data.root == "x/y" and data.eval_crop.to_dict() == {"name": "center_crop"}
    with pytest.raises(ValueError, match="two runs are called own-plain-seed=5"):
        plan.runs_of(plan.load(place.file), fields=["seed=5"])


@pytest.mark.parametrize(
    "config, fields, name",
    [
        ("configs/hci.py", {}, "hci-ViT-L_14,_k=5-seed=0"),
        ("configs/hci.py", {"seed": 2, "fold": 3}, "hci-ViT-L_14,_k=5-fold=3-seed=2"),
        ("configs/hci.py:method=ce,fold=all", {}, "hci-ViT-L_14,_k=5-fold=all-seed=0"),
    ],
)
def test_settings_fold_and_seed_are_in_the_name(config, fields, name):
    module = type(sweep)("slashed")
    module.sweep = lambda add: add("ViT-L/14, k=5", config, fields)
    assert [run.name for run in plan.runs_of(module)] == [name]


def test_a_mistake_is_told_before_anything_is_started(place):
    assert "Did you mean 'duration'" in place.main("--set", "train.durations=5 steps")
    assert "quickstart has no method" in place.main("--option", "method=cee")
    assert "--slots is 0" in place.main("--slots=0") and "--trials is of a search" in place.main(
        "--trials=3"
    )
    assert "there are none" in place.main("--gpus=0") and "--slurm means nothing" in place.main(
        "--slurm", "x=1"
    )
    assert "there are" in place.main(f"--slots={len(os.sched_getaffinity(0)) + 1}")
    assert place.starts() == [0, 0, 0]


def test_failed_runs_are_tried_twice_more_and_reported_and_what_is_done_is_not_started_again(
    place, capsys
):
    (place.folder / "broken1").write_text("2")
    (place.folder / "broken2").write_text("3")
    assert place.main() == 1
    printed = capsys.readouterr()
    assert place.starts() == [1, 3, 3] and "0 of 3 runs are done" in printed.out
    assert "1/3 own-plain-seed=0: 0 s; 0:00:0" in printed.out
    assert printed.out.count("own-plain-seed=1: FAILED (3), is tried again") == 2
    assert "2/3 own-plain-seed=2: FAILED (3), given up after 3 attempts, 0 s; " in printed.out
    assert "0:00:00 to go" in printed.out
    assert "left: own-plain-seed=2" in printed.err and "\n  the last words of 2\n" in printed.err
    assert place.events(0) == ["made", "started", "ended", "done"]
    failed = ["started", "ended", "retried", "started", "ended", "retried", "started", "ended"]
    assert place.events(1) == ["made", *failed, "done"] and place.events(2) == [
        "made",
        *failed,
        "given up",
    ]
    lines = (place.folder / "runs/small/journal.jsonl").read_text().splitlines()
    last = [json.loads(line) for line in lines if "seed=2" in line]
    assert [line.get("attempt") for line in last if line["event"] == "started"] == [
        1,
        2,
        3,
    ] and last[-2]["code"] == 3
    assert place.main() == 0 and place.starts() == [1, 3, 4]  # another sweep begins to count anew
    assert (
        place.main() == 0
        and place.starts() == [1, 3, 4]
        and "3 of 3 runs are done" in capsys.readouterr().out
    )
    assert place.events(0) == ["made", "started", "ended", "done"]


def test_what_is_trained_is_evaluated_and_what_failed_is_not(place, capsys):
    with open(place.file, "a") as file:
        file.write(
            """
def evaluations(add):
    for severity in (1, 5):
        fields = {"data.corruption.severity": severity}
        add("own", "plain", f"severity={severity}", "%s:method=ce", fields)
"""
            % (place.folder / "own.py")
        )
    (place.folder / "broken1").write_text("3")
    assert place.main() == 1 and "4 of 4" not in capsys.readouterr().out
    for seed, there in enumerate((True, False, True)):
        for severity in (1, 5):
            folder = place.workdir(seed) / f"evaluated/severity={severity}"
            assert (folder / "DONE.json").exists() == there == (folder / "config.json").exists()
    config = run_config.from_json((folder / "config.json").read_text())
    assert (config.data.corruption.severity, config.seed) == (5, 0)
    assert place.main() == 0 and (place.workdir(1) / "evaluated/severity=1/DONE.json").exists()
    assert (
        "4 of 6 runs are done" in capsys.readouterr().out
        and len((folder / "starts").read_text().splitlines()) == 1
    )


def test_a_run_that_was_told_to_stop_has_not_failed(place, capsys):
    (place.folder / "broken1").write_text(f"5 {signals.STOPPED}")
    assert place.main() == 0 and place.starts() == [1, 6, 1]
    assert capsys.readouterr().out.count("own-plain-seed=1: stopped, goes on") == 5


def test_only_done_json_says_that_a_run_is_done(place, capsys):
    (place.folder / "silent1").touch()
    assert place.main() == 1 and place.starts() == [1, 3, 1]
    assert "own-plain-seed=1: FAILED (0, without DONE.json), given up" in capsys.readouterr().out


def test_a_config_is_made_once_and_then_read_and_another_one_in_the_folder_is_refused(place):
    (place.folder / "broken1").write_text("1")
    assert (
        place.main() == 0 and place.configs_made() == 3
    )  # in the sweep; neither in the runs nor when one goes on
    file = place.workdir(0) / "config.json"
    assert (
        run_config.differences(
            run_config.from_json(file.read_text()), plan.config_of(place.runs[0])
        )
        == []
    )
    made = place.configs_made()
    assert (
        place.main() == 0 and place.configs_made() == made
    )  # what was made from the same files is read
    (place.workdir(0) / "checkpoints").mkdir()
    assert "holds another config" in place.main("--set", "data.root=elsewhere")
    config = place.folder / "own.py"
    config.write_text(config.read_text() + "\n")
    assert (
        place.main() == 0 and place.configs_made() > made + 1 and place.starts() == [1, 2, 1]
    )  # made again, and the same


@flagsaver.flagsaver
def test_the_command_takes_a_config_by_its_file_or_as_json_and_not_both(place, tmp_path):
    file, given = tmp_path / "config.json", flags.FLAGS
    config = plan.config_of(place.runs[2])
    file.write_text(run_config.to_json(config))
    # Other programs' flags, which a test beside this one may have defined, are nobody's business
    given.mark_as_parsed()
    given["config_json"].value, given["config_json"].present = str(file), 1
    main.check("train")
    assert run_config.differences(main.read_config(), config) == []
    with pytest.raises(ValueError, match="--config_json means nothing to --mode=report"):
        given["workdir"].value = "x"
        main.check("report")
    file.write_text("[1")
    with pytest.raises(
        ValueError, match="config.json is no config as a run's config.json holds it"
    ):
        main.read_config()
    given["config"].value = config
    with pytest.raises(ValueError, match="give one of them"):
        main.check("train")


def test_a_stage_that_is_not_done_is_gone_on_with(tmp_path):
    run = plan.Run("r", "quickstart", "rrt", 0, ("--config=configs/quickstart.py:method=rrt",))
    config, folder = plan.config_of(run), tmp_path / "r"
    for stage in ("encoder", "regressor"):
        (folder / stage).mkdir(parents=True)
    files.write_json(folder / "config.json", run_config.plain(config))
    (folder / "encoder" / "DONE.json").touch()
    assert not plan.is_done(run, folder, config)
    (folder / "regressor" / "DONE.json").touch()
    assert plan.is_done(run, folder, config)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_stopped_runs_save_on_cores_of_their_own_and_the_same_command_goes_on(place, number):
    cores = os.sched_getaffinity(0)
    slots = min(2, len(cores))
    (place.folder / "hold").touch()
    place.when(lambda: sum(place.starts()) == slots, lambda: os.kill(os.getpid(), number))
    assert place.main(f"--slots={slots}") == signals.STOPPED
    assert place.starts() == [1, slots - 1, 0] and all(
        (place.workdir(seed) / "saved").exists() for seed in range(slots)
    )
    assert place.events(0) == ["made", "started", "stopped"]
    mine = [core for seed in range(slots) for core in place.started(seed)[0][2:]]
    assert sorted(mine) == sorted(map(str, cores)) and os.sched_getaffinity(0) == cores
    (place.folder / "hold").unlink()
    assert place.main(f"--slots={slots}") == 0 and place.starts() == [2, slots, 1]


def test_after_kill_9_the_same_command_keeps_what_goes_on_and_no_gpu_has_more_processes_than_slots(
    place, monkeypatch
):
    place = Place(place.folder, runs=7)
    bin = place.folder / "bin"
    bin.mkdir()
    (bin / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    (bin / "nvidia-smi").chmod(0o755)
    (place.folder / "hold").touch()
    gpus = {"PATH": f"{bin}:{os.environ['PATH']}", "JAX_PLATFORMS": ""}

    def on_gpus():
        return sorted(place.started(seed)[0][1] for seed in range(7) if place.started(seed))

    killed, seen = place.background("--gpus=all", "--slots=2", **gpus), {}
    until(lambda: sum(place.starts()) == 4 and "started" in place.events(3))
    time.sleep(0.3)
    seen["before"] = on_gpus()
    assert "in use by process" in place.main()  # one sweep at a time
    killed.kill()
    killed.wait()
    with open(place.folder / "runs/small/journal.jsonl", "a") as file:
        file.write('{"time": "20')  # a kill cuts the last line

    def let_go():
        time.sleep(0.3)
        seen["found"] = on_gpus()
        kept = [
            seed for seed in range(7) if not place.started(seed) or place.started(seed)[0][1] == "0"
        ]
        for seed in kept:
            (place.folder / f"hold{seed}").touch()
        (place.folder / "hold").unlink()  # GPU 1 alone gets free
        until(lambda: sum(place.starts()) == 6)
        time.sleep(0.3)
        seen["moved"] = on_gpus()
        for seed in kept:
            (place.folder / f"hold{seed}").unlink()

    place.when(lambda: "found" in place.events(3), let_go)
    for name, value in gpus.items():
        monkeypatch.setenv(name, value)
    assert place.main("--gpus=0,1", "--slots=2") == 0 and place.starts() == [1] * 7
    assert seen == {"before": list("0011"), "found": list("0011"), "moved": list("001111")}
    assert place.events() == ["begun", "begun"]
    assert place.events(3) == ["made", "started", "found", "ended", "done"]
    assert "there are 0, 1" in place.main("--gpus=2")


def test_the_next_run_is_started_within_a_second(place):
    assert place.main() == 0
    ends = [(place.workdir(seed) / "DONE.json").stat().st_mtime for seed in range(2)]
    waits = [float(place.started(seed + 1)[0][0]) - ends[seed] for seed in range(2)]
    assert all(wait < 1 for wait in waits), waits


def test_the_state_of_all_runs_is_shown(tmp_path, monkeypatch, capsys):
    state = queue.Queue(tmp_path, launch.Machine([], 1), Journal(tmp_path / "journal.jsonl"))
    run = plan.Run("own-plain-seed=0", "own", "plain", 0, ())
    state.total, state.done = 5, 2
    state.begun = [queue.Begun(run, None, "cpu 0", time.monotonic())]
    state.log(run).write_text("first\n 10%|# | loss 2\r 20%|## | loss 1.5")
    state.spent = [10.0, 20.0]
    first, second = state.lines()
    assert first.startswith("2 of 5 runs are done, 1 running; 0:00:00 gone, 0:00:45 to go")
    assert second == "  own-plain-seed=0 (cpu 0): 20%|## | loss 1.5"
    state.screen.show(["not yet in a file"])
    state.screen.shown_at -= 61
    state.screen.show(["a line a minute"])
    state.screen.is_terminal = True
    state.screen.show(["a", "b"])
    state.screen.say("stays")
    assert capsys.readouterr().out == "a line a minute\na\nb\n\x1b[2A\x1b[Jstays\n"


def test_a_journal_that_is_none_is_told(tmp_path):
    file = tmp_path / "journal.jsonl"
    Journal(file).write("started", "a", attempt=1)
    assert (
        Journal(file).last("a", "started")["attempt"] == 1
        and Journal(file).last("a", "ended") == {}
    )
    file.write_text(file.read_text() + "nonsense\n")
    with pytest.raises(ValueError, match=r"journal.jsonl:2 is 'nonsense"):
        Journal(file)


@pytest.mark.parametrize("name", ["photo_quality", "freshness", "stsb"])
def test_experiments_are_made_of_configs_and_their_claims_of_runs(name):
    module = plan.load(name)
    runs = plan.runs_of(module)
    labels = {run.label for run in runs}
    assert {label for claim in module.CLAIMS for label in claim[:2]} <= labels and len(
        runs
    ) == 3 * len(labels)
    configs = [plan.config_of(run) for run in runs if run.seed == 0]
    if name != "stsb":  # as many images in as many steps for all, under the same crops
        rows = {
            (c.data.batch * c.data.copies, float(c.train.duration.split()[0]) * c.data.copies)
            for c in configs
        }
        crops = {
            (
                str(c.data.train_crop),
                str(c.data.eval_crop),
                c.data.normalize,
                c.optim.name,
                c.select,
            )
            for c in configs
        }
        assert len(rows) == 1 and len(crops) == 1


def test_some_of_the_runs_by_their_names(place, capsys):
    assert place.main("--only=*seed=[02]") == 0
    assert [
        run.name for run in place.runs if (place.folder / "runs/small" / run.name).exists()
    ] == [run.name for run in (place.runs[0], place.runs[2])]
    assert "2/2 own-plain-seed=2" in capsys.readouterr().out
    assert "no run matches --only=seed; they are called like own-plain-seed=0" in place.main(
        "--only=seed"
    )
