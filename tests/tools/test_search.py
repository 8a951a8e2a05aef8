"""The search with stubs that learn at once: what is proposed, stopped, chosen, killed and gone on
with."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage

from jaxord import shipped
from tools import sweep
from tools.sweeping import plan, search

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

# Its validation error is 10 lr, less a little at each evaluation; its test error would choose the
# opposite.
STUB = """
import json, pathlib, signal, sys, time
given = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
here, folder = pathlib.Path(__file__).parent, pathlib.Path(given["workdir"])
config = json.loads(pathlib.Path(given["config_json"]).read_text())
lr = config["optim"]["rates"]["all"]["lr"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
with open(folder / "starts", "a") as file:
    file.write(".")
def log(step, split, mae):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "split": split, "mae": mae}) + "\\n")
(folder / "metrics.jsonl").unlink(missing_ok=True)
for step in range(3):
    log(step, "train", -lr)
    log(step, "val", 10 * lr - step / 1000)
    log(step, "test evaluated", -lr)
    while lr > 0.5 and step == 1:
        time.sleep(0.02)  # a bad one never ends by itself
while (here / "hold").exists():
    time.sleep(0.02)
(folder / "DONE.json").write_text("{}")
"""
EXPERIMENT = """
SPACE = {space}
def sweep(add):
    add("plain", "configs/quickstart.py:method=ce", {{"seed": 3, "select": "{select}"}})
"""
LR = "optim.rates.all.lr"
RATES = {LR: [0.01, 0.02, 0.03, 0.04, 0.05, 0.9]}


class Place:
    """An experiment with a space, and the stub that is its command."""

    def __init__(self, folder):
        self.folder, self.file, stub = folder, folder / "small.py", folder / "stub.py"
        stub.write_text(STUB)
        self.command = (sys.executable, "-S", str(stub))
        self.arguments = [str(self.file), f"--output={folder / 'runs'}"]
        self.write(RATES)

    def write(self, space, select="val"):
        self.file.write_text(EXPERIMENT.format(space=space, select=select))

    def main(self, *more):
        return sweep.main([*self.arguments, *more], self.command)

    def runs(self):
        return sorted(file.parent for file in self.folder.glob("runs/small/*/config.json"))

    def starts(self):
        return [
            len((run / "starts").read_text()) for run in self.runs() if (run / "starts").exists()
        ]

    def trials(self, kind):
        """[(state, parameters, value)] of the study, as Optuna's own storage has them."""
        storage = JournalStorage(JournalFileBackend(str(self.folder / "runs/small/optuna.journal")))
        study = optuna.load_study(study_name=f"{kind} quickstart-plain-seed=3", storage=storage)
        return [(trial.state.name, trial.params.get(LR), trial.value) for trial in study.trials]

    def events(self):
        return [
            json.loads(line)
            for line in (self.folder / "runs/small/journal.jsonl").read_text().splitlines()
        ]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield Place(tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_grid_tries_all_stops_the_bad_one_and_chooses_by_validation(place, capsys):
    assert place.main("--search=grid") == 0
    trials = place.trials("grid")
    assert [lr for _, lr, _ in trials] == RATES[LR] and [state for state, _, _ in trials] == [
        "COMPLETE"
    ] * 5 + ["PRUNED"]
    assert [value for _, _, value in trials[:5]] == pytest.approx(
        [10 * lr - 0.002 for lr in RATES[LR][:5]]
    )
    printed = capsys.readouterr().out
    assert (
        "best of 5 finished trials, mae 0.098 on the validation split: optim.rates.all.lr=0.01"
        in printed
    )
    bad = "quickstart-plain-seed=3-grid=005-optim.rates.all.lr=0.9"
    assert [event["event"] for event in place.events() if event.get("run") == bad] == [
        "made",
        "started",
        "ended",
        "pruned",
    ]
    assert (
        f"5/6 {bad}: pruned" in printed
        and not (place.folder / "runs/small" / bad / "DONE.json").exists()
    )
    config = json.loads((place.runs()[2] / "config.json").read_text())
    assert config["optim"]["rates"]["all"]["lr"] == 0.03 and config["seed"] == 3
    assert place.main("--search=grid") == 0 and place.starts() == [1] * 6  # nothing is left


def test_a_search_goes_on_after_kill_9_with_the_same_storage(place, kind="tpe"):
    place.write({LR: {"low": 1e-5, "high": 1e-2, "log": True}})
    assert place.main(f"--search={kind}", "--trials=2") == 0
    (place.folder / "hold").touch()
    code = f"import sys; from tools import sweep; sweep.main(sys.argv[1:], {place.command!r})"
    more = [f"--search={kind}", "--trials=4"]
    killed = subprocess.Popen(
        [sys.executable, "-c", code, *place.arguments, *more],
        cwd=shipped.ROOT,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while (
        len(place.starts()) < 3 or place.events()[-1]["event"] != "started"
    ) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    optuna_journal = place.folder / "runs/small/optuna.journal"
    with open(optuna_journal, "a") as file:
        file.write('{"op_code": 4')  # a kill cuts the last line
    optuna_journal.with_name("optuna.journal.lock").symlink_to(
        optuna_journal
    )  # and leaves the lock
    assert [state for state, _, _ in search_states(place, kind)] == [
        "COMPLETE",
        "COMPLETE",
        "RUNNING",
    ]
    (place.folder / "hold").unlink()
    assert place.main(*more) == 0 and place.starts() == [1] * 4
    trials = place.trials(kind)
    assert [state for state, _, _ in trials] == ["COMPLETE"] * 4 and len(
        {lr for _, lr, _ in trials}
    ) == 4
    assert all(
        1e-5 <= lr <= 1e-2 and value == pytest.approx(10 * lr - 0.002) for _, lr, value in trials
    )


def test_a_search_at_random_has_a_study_of_its_own(place):
    place.write(
        {LR: {"low": 1e-5, "high": 1e-2}, "data.batch": (16, 32), "seed": {"low": 1, "high": 3}}
    )
    assert (
        place.main("--search=random", "--trials=1") == 0
        and place.main("--search=tpe", "--trials=1") == 0
    )
    configs = [json.loads((run / "config.json").read_text()) for run in place.runs()]
    assert [run.name[:31] for run in place.runs()] == [
        f"quickstart-plain-seed=3-{name}" for name in ("random=", "tpe=000")
    ]
    assert all(
        config["data"]["batch"] in (16, 32) and config["seed"] in (1, 2, 3) for config in configs
    )


def search_states(place, kind):
    """The trials, with the storage mended as a search mends it."""
    file = place.folder / "runs/small/optuna.journal"
    search.mend(file)
    return place.trials(kind)


def test_mistakes_are_told(place):
    assert "--search=tpe needs --trials=N" in place.main("--search=tpe")
    place.write({LR: {"low": 1e-5, "high": 1e-2}})
    assert "has no grid; give a list" in place.main("--search=grid")
    place.write(RATES, select="last")
    assert "select is 'last'; a search selects on the validation split" in place.main(
        "--search=random", "--trials=1"
    )
    place.write({})
    assert "needs SPACE = {field: values}" in place.main("--search=grid")
    assert place.starts() == []


def test_what_a_grid_has():
    assert search.candidates("a", {"low": 1, "high": 4}) == [1, 2, 3, 4]
    assert search.candidates("a", {"low": 0.1, "high": 0.3, "step": 0.1}) == pytest.approx(
        [0.1, 0.2, 0.3]
    )
    assert search.candidates("a", ("x", 2)) == ["x", 2]


def test_curves_are_of_the_validation_split_lower_is_better_and_without_a_cut_line(tmp_path):
    config = plan.config_of(
        plan.Run("r", "", "", 0, ("--config=configs/quickstart.py",))
    ).copy_and_resolve_references()
    lines = [
        {"step": 1, "split": "val", "mae": 2.0, "srcc": 0.5},
        {"step": 1, "split": "train", "mae": 9.0},
        {"step": 2, "split": "val", "mae": 1.0, "srcc": 0.75},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    pathlib.Path(tmp_path / "metrics.jsonl").write_text(text + '{"step": 3, "split": "val", "mae"')
    assert search.curves(tmp_path, config) == [[2.0, 1.0]]
    config.unlock()
    config.select_metric = "srcc"
    assert search.curves(tmp_path, config) == [[-0.5, -0.75]]
