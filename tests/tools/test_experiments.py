"""The experiments as files: each loads, its runs and evaluations are configs, its claims and the
papers' rows its labels."""

import pathlib
import re

import pytest

from configs.pairs import PAIRS
from experiments import published
from jaxord.targets.shots import SHOTS
from tools.sweeping import plan

# The loader that ml_collections takes on Python 3.11.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
SHARED = (
    "__init__",
    "comparison",
    "conord_settings",
    "grid",
    "published",
)  # by several experiments
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in SHARED)
FIGURE = re.compile(r"\d+(\.\d+)?(±\d+\.\d+)?|-")


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment(name):
    experiment = plan.load(FOLDER / f"{name}.py")
    runs = plan.runs_of(experiment)  # refuses two runs of one name
    labels = {run.label for run in runs}
    assert (
        experiment.__doc__
        and {label for claim in experiment.CLAIMS for label in claim[:2]} <= labels
    )
    configs = {
        (run.data_set, run.label): plan.config_of(run) for run in reversed(runs) if run.seed == 0
    }  # a fault raises
    assert {(run.data_set, run.label) for run in runs} == set(configs)
    assert all(config.name == data_set for (data_set, _), config in configs.items())
    for table in getattr(experiment, "PAPER", ()):
        check(table, labels, configs)


@pytest.mark.parametrize("name", ["grid", "conord_settings"])
def test_what_experiments_share_is_none(name):
    with pytest.raises(ValueError, match=f"{name}.py has no function sweep"):
        plan.load(FOLDER / f"{name}.py")


def test_an_experiment_is_found_here_or_by_its_name_in_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("hci", "hci.py", "experiments/hci.py"):
        assert plan.find(path) == FOLDER / "hci.py"
    (tmp_path / "hci.py").touch()
    assert plan.find("hci.py") == pathlib.Path("hci.py")
    with pytest.raises(ValueError, match="hcl.py is not there. Did you mean 'hci'?"):
        plan.find("hcl.py")


def check(table, labels, configs):
    """Rows are labels, columns metrics that their configs measure, figures numbers."""
    columns = table.columns.split()
    assert re.fullmatch(
        r"(NumCLIP|RegCLIP|L2RCLIP|ConOrd|Group-DIR) (Table|Figure) \d+( \(.*\))?", table.source
    )
    assert set(table.rows) <= labels and not set(table.others) & labels, table.source
    for row in (*table.rows.values(), *table.others.values()):
        assert len(row.split()) == len(columns) and all(
            FIGURE.fullmatch(figure) for figure in row.split()
        ), row
    assert set(published.data_sets([table])) <= set(PAIRS)
    for label, row in table.rows.items():
        for column, figure in zip(columns, row.split(), strict=True):
            metric, _, part = published.title(column).partition(", ")
            config = configs[column.partition(":")[0], label]
            assert metric in config.metrics or figure == "-", (table.source, label, metric)
            assert bool(config.shots.kind) or part not in SHOTS


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "def evaluations" in (FOLDER / f"{name}.py").read_text()]
)
def test_the_evaluations_of_an_experiment(name):
    experiment, found = plan.load(FOLDER / f"{name}.py"), {}
    runs = {(run.data_set, run.label) for run in plan.runs_of(experiment)}

    def add(data_set, label, part, config, fields):
        assert (data_set, label) in runs and (data_set, label, part) not in found
        arguments = [
            f"--config={config}",
            *(f"--config.{field}={value}" for field, value in fields.items()),
        ]
        found[data_set, label, part] = arguments

    experiment.evaluations(add)
    for arguments in {config: arguments for config, *arguments in reversed(found.values())}.items():
        plan.config_of(plan.Run(name, "", "", 0, (arguments[0], *arguments[1])))
    parts = {part.split("/")[0] for _, _, part in found}
    columns = [
        published.title(column) for table in experiment.PAPER for column in table.columns.split()
    ]
    assert parts == {title.split(", ")[1] for title in columns if ", " in title}


def test_every_experiment_stands_in_the_readme():
    text = (FOLDER / "README.md").read_text()
    assert [name for name in NAMES if f"experiments/{name}.py" not in text] == []


def test_figures_of_settings_and_of_some_labels():
    table = published.across(
        "ConOrd Table 18",
        "agedb:mae",
        ("ratio=0.1", "ratio=1"),
        {"supcon": "6.9 5.3", "conord": "6 5"},
    )
    assert table.rows == {
        "supcon,ratio=0.1": "6.9",
        "supcon,ratio=1": "5.3",
        "conord,ratio=0.1": "6",
        "conord,ratio=1": "5",
    }
    (some,) = published.among([table._replace(others={"MWR": "7"})], ("conord,ratio=1",), "small")
    assert (
        some.rows == {"conord,ratio=1": "5"}
        and some.others == {}
        and some.source == "ConOrd Table 18 (small)"
    )
    with pytest.raises(ValueError):
        published.across("", "agedb:mae", ("ratio=0.1",), {"supcon": "6.9 5.3"})
