"""The table from results that were written by hand: every figure, the best, what is missing and
why, parts, folds, the papers' figures, the baselines and the claims."""

import json
import types

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from configs import folder as folder_config
from configs import freshness
from experiments.published import Table, across
from jaxord.workdir import run_config
from tools import table
from tools.sweeping import plan, results, tables


def experiment(claims=(), methods=("l1", "ce", "numclip"), seeds=3):
    module = types.ModuleType("experiment")

    def add_all(add):
        for method in methods:
            for seed in range(seeds):
                add(method, f"configs/freshness.py:method={method}", {"seed": seed})

    module.sweep, module.CLAIMS = add_all, claims
    return module


def write(folder, method, seed, rows, ranks="ten"):
    """A finished run."""
    config = freshness.get_config(f"method={method}").unlock()
    config.seed, config.metrics, config.data.root = seed, ("mae", "accuracy", "srcc"), "/nowhere"
    workdir = folder / f"freshness-{method}-seed={seed}"
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(run_config.to_json(config))
    (workdir / "ranks.json").write_text(ranks)
    (workdir / "DONE.json").write_text("{}")
    constant = {"mae": 2.0 + seed, "accuracy": 0.1, "srcc": float("nan")}
    rows |= {
        "constant": constant,
        "constant, few": {"mae": 4.0},
        "constant, median": {"mae": float("nan")},
    }
    (workdir / "results.json").write_text(json.dumps({"val": {}, "test": rows}))


def both(rule, mae, accuracy=0.5, srcc=0.5, few=1.0):
    return {rule: {"mae": mae, "accuracy": accuracy, "srcc": srcc}, f"{rule}, few": {"mae": few}}


@pytest.fixture
def written(tmp_path):
    """l1 with three seeds, ce with two, numclip with one and ranks of its own."""
    for seed, mae in enumerate((1.0, 1.1, 1.2)):
        write(tmp_path, "l1", seed, both("value", mae, srcc=0.9, few=3.0 + seed))
    for seed, mae in enumerate((1.5, 1.7)):
        write(tmp_path, "ce", seed, both("expectation", mae, few=2.0) | both("argmax", 0.25, 0.75))
    write(tmp_path, "numclip", 1, both("value", 1.4, accuracy=0.9), ranks="five")
    return tmp_path


def cells(text, start):
    """Cells of the row that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_figure_of_the_table(written):
    text = table.tables_of(experiment(), written)
    assert "6 of 9 runs are done" in text
    names = "freshness-ce-seed=2, freshness-numclip-seed=0, freshness-numclip-seed=2"
    assert f"MISSING, 3 runs: {names}. Reason: no data in /nowhere." in text
    header = next(line for line in text.splitlines() if "| rule" in line)
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "",
        "rule",
        "n",
        "mae",
        "accuracy",
        "srcc",
        "mae, few",
    ]
    half = "**0.500 ± 0.000**"  # accuracy: best of those on the same ranks
    assert cells(text, "l1") == [
        "l1",
        "value",
        "3",
        "**1.100 ± 0.100**",
        half,
        "**0.900 ± 0.000**",
        "4.000 ± 1.000",
    ]
    assert cells(text, "ce") == [
        "ce",
        "expectation",
        "2 of 3",
        "1.600 ± 0.141",
        half,
        "0.500 ± 0.000",
        "2.000 ± 0.000",
    ]
    assert cells(text, "numclip") == [
        "numclip",
        "value",
        "1 of 3",
        "1.400",
        "0.900†",
        "0.500",
        "**1.000**",
    ]
    assert "† on other ranks than the rest, so accuracy cannot be compared." in text
    assert cells(text, "constant") == [
        "constant",
        "",
        "3",
        "3.000 ± 1.000",
        "0.100 ± 0.000",
        "-",
        "4.000 ± 0.000",
    ]
    assert "1-nearest neighbour: not computed, the table is 'labels.csv'" in text


def test_all_rules_stand_beside_the_headline_but_only_it_may_be_best(written):
    text = table.tables_of(experiment(), written, all_rules=True)
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ce ")
    ]
    assert [line[1:4] for line in lines] == [
        ["expectation", "2 of 3", "1.600 ± 0.141"],
        ["argmax", "2 of 3", "0.250 ± 0.000"],
    ]
    assert cells(text, "l1")[3] == "**1.100 ± 0.100**"


def test_a_method_without_a_run_and_an_experiment_without_one(written, tmp_path):
    text = table.tables_of(experiment(methods=("l1", "mse")), written)
    assert cells(text, "mse") == ["mse", "-", "0 of 3", "-", "-", "-", "-"]
    text = table.tables_of(experiment((("l1", "ce"),)), tmp_path / "empty")
    assert "0 of 9 runs are done" in text and cells(text, "l1")[5:] == ["-", "0 of 3", "no figures"]
    assert "MISSING, 9 runs: " in text and "Reason: no data in data/freshness." in text


def test_claims_are_paired_by_seed(written):
    wanted = (
        ("l1", "ce"),
        ("ce", "l1", "few"),
        ("l1", "numclip"),
        ("l1", "l1"),
        ("l1", "ce", "median"),
    )
    runs = plan.runs_of(experiment())
    found = {run: results.read(written / run.name) for run in runs}
    rows = tables.claims(wanted, results.DataSet(runs, found, written))
    rows = rows[0].body
    half = 12.7062047 * np.std([0.5, 0.6], ddof=1) / np.sqrt(2)
    assert rows[0][:5] == ["l1", "ce", "mae", "1.050 ± 0.071", "1.600 ± 0.141"]
    assert rows[0][5:] == [
        f"+0.550 ({0.55 - half:+.3f} to {0.55 + half:+.3f})",
        "2 of 3",
        "within noise",
    ]
    assert rows[1][2:5] == ["mae, few", "2.000 ± 0.000", "3.500 ± 0.707"] and rows[1][5].startswith(
        "+1.500 ("
    )
    assert rows[2][5:] == ["+0.300", "1 of 3", "one run says nothing"]
    assert rows[3][5:] == ["+0.000 (+0.000 to +0.000)", "3", "within noise"]
    assert rows[4][5:] == ["-", "2 of 3", "not defined"]
    # l2 may be run on another data set.
    assert tables.claims((("l2", "ce"),), results.DataSet(runs, found, written)) == []
    with pytest.raises(ValueError, match=r"CLAIMS has \['l2'\]"):
        table.tables_of(experiment((("l2", "ce"),)), written)


def split_in_folds(folder, method, figures, summary="mean"):
    """A finished run with three folds of two categories."""
    config = freshness.get_config(f"method={method}").unlock()
    config.data.folds, config.fold, config.summary, config.metrics = (
        ("a-0", "a-1", "b"),
        "all",
        summary,
        ("mae", "accuracy"),
    )
    config.data.root = "/nowhere"
    workdir = folder / f"freshness-{method}-seed=0"
    for fold, mae in zip(config.data.folds, figures, strict=True):
        (workdir / f"fold_{fold}").mkdir(parents=True)
        (workdir / f"fold_{fold}/DONE.json").write_text("{}")
        rows = {
            "value": {"mae": mae, "accuracy": 0.5},
            "value, few": {"mae": 2 * mae},
            "model": {"ordinality_score": mae / 4},
            "constant": {"mae": 3.0, "accuracy": 0.1},
        }
        (workdir / f"fold_{fold}/results.json").write_text(json.dumps({"test": rows}))
    (workdir / "config.json").write_text(run_config.to_json(config))
    return workdir


def test_folds_are_spread_pairs_and_parts_and_evaluations_are_parts(tmp_path):
    workdir = split_in_folds(tmp_path, "l1", (1.0, 2.0, 6.0))
    split_in_folds(tmp_path, "mse", (1.5, 2.7, 6.6))
    for name, mae in (("k=4", 7.0), ("severity=1/fog", 8.0), ("severity=1/snow/fold_0", 10.0)):
        (workdir / "evaluated" / name).mkdir(parents=True)
        (workdir / "evaluated" / name / "results.json").write_text(
            json.dumps({"test": {"value": {"mae": mae}}})
        )
    titles = ("mae", "mae,few", "mae,a", "mae,b", "mae,k=4", "mae,severity=1", "ordinality_score%")
    paper = (
        Table(
            "A Table 1",
            " ".join(f"freshness:{title}" for title in titles),
            {"l1": "2.50±0.10 - 1 1 1 1 40.0"},
        ),
    )
    module = experiment((("l1", "mse"), ("l1", "mse", "b")), ("l1", "mse"), 1)
    module.PAPER = paper
    text = table.tables_of(module, tmp_path)
    header = next(line for line in text.splitlines() if "| rule" in line)
    row = dict(
        zip(
            [title.strip() for title in header.strip("|").split("|")],
            cells(text, "l1"),
            strict=True,
        )
    )
    sd = np.std([1.0, 2.0, 6.0], ddof=1)
    assert (
        row["n"] == "1 x 3 folds"
        and row["mae"] == f"**3.000 ± {sd:.3f}**"
        and row["mae, paper"] == "2.50 ± 0.10 [1]"
    )
    assert row["mae, few"] == f"**6.000 ± {2 * sd:.3f}**" and "mae, few, paper" not in row
    assert (row["mae, a"], row["mae, b"]) == ("**1.500**", "**6.000**")
    assert (row["mae, k=4"], row["mae, severity=1"]) == ("**7.000**", "**9.000**")
    assert (
        row["ordinality_score"] == f"0.750 ± {sd / 4:.3f}"
        and row["ordinality_score, paper"] == "40.0 % [1]"
    )
    assert cells(text, "constant")[-2:] == ["-", "-"] and "As printed: [1] A Table 1." in text
    claims = [line for line in text.splitlines() if line.startswith("| l1  ")][-2:]
    gain, verdict = tables.judge(np.array([1.5, 2.7, 6.6]) - np.array([1.0, 2.0, 6.0]))
    assert (
        verdict == "confirmed"
        and gain in claims[0]
        and "1 x 3 folds" in claims[0]
        and "too narrow" in text
    )
    assert "+0.600" in claims[1] and "one run says nothing" in claims[1]
    module.evaluations = lambda add: [
        add("freshness", "l1", f"severity=1/{kind}", "configs/freshness.py", {})
        for kind in ("fog", "rain")
    ]
    text = table.tables_of(module, tmp_path)  # a mean over a part of the kinds is none
    assert "NOT EVALUATED, 1 times: freshness-l1-seed=0 severity=1/rain." in text
    assert cells(text, "l1")[-6] == "**7.000**" and cells(text, "l1")[-4:-2] == ["-", "1 [1]"]
    module = experiment((), ("l1",), 1)
    split_in_folds(tmp_path / "median", "l1", (1.0, 2.0, 6.0), "median")
    assert cells(table.tables_of(module, tmp_path / "median"), "l1")[3] == f"**2.000 ± {sd:.3f}**"


def test_runs_of_one_fold_each_pair_by_it_too(tmp_path):
    def run(label, fold):
        return plan.Run(f"hci-{label}-fold={fold}-seed=0", "hci", label, 0, ())

    config = freshness.get_config("method=l1")
    found = {
        run(label, fold): results.Result(config, "", {}, {fold: {"value": {"mae": mae}}})
        for label, figures in (("a", (1.0, 2.0)), ("b", (1.5, 2.7)))
        for fold, mae in zip("01", figures, strict=True)
    }
    found[run("a", "2")] = found[run("b", "2")] = None
    (row,) = tables.claims((("a", "b"),), results.DataSet(list(found), found, tmp_path))[0].body
    gain, _ = tables.judge(np.array([1.5, 2.7]) - np.array([1.0, 2.0]))
    assert gain in row and "2 of 3" in row


def test_the_papers_figures_stand_beside_runs_that_are_not_there_and_quoted_methods(tmp_path):
    module = experiment(methods=("l1", "ce"), seeds=1)
    module.PAPER = (
        Table(
            "A Table 1",
            "freshness:accuracy% other:mae",
            {"l1": "61.0 1", "ce": "- 2"},
            {"MWR": "62.5 0.5"},
        ),
        across("B Table 2", "freshness:accuracy%", ("shots=1", "shots=2"), {"l1": "50.0 51.0"}),
        Table("B Table 3", "freshness:accuracy%", {"l1": "61.0"}, {"MWR": "60.1"}),
    )
    text = table.tables_of(module, tmp_path)
    first, other = text.split("### ")[1:]
    assert (
        cells(first, "l1") == ["l1", "-", "0 of 1", "-", "61.0 % [1, 3]"]
        and cells(first, "ce")[-1] == "-"
    )
    assert cells(first, "MWR") == ["MWR", "quoted", "-", "-", "62.5 % [1]; 60.1 % [3]"]
    assert cells(first, "l1,shots=2")[-1] == "51.0 % [2]"
    assert "[1] A Table 1, [2] B Table 2, [3] B Table 3" in first
    assert cells(other, "MWR") == ["MWR", "quoted", "-", "-", "0.5 [1]"] and "0 of 0 runs" in other


def test_a_run_says_what_it_lacks(tmp_path, monkeypatch):
    run = plan.runs_of(experiment(methods=("l1",), seeds=1))[0]
    assert results.reason(run, tmp_path, []) == "no data in data/freshness"
    run = run._replace(arguments=(*run.arguments, f"--config.data.root={tmp_path}"))
    assert results.reason(run, tmp_path, []) == "not run"
    (tmp_path / f"{run.name}.log").touch()
    assert results.reason(run, tmp_path, []) == "begun"
    run = run._replace(arguments=(*run.arguments, "--config.model.weights=openai/none"))
    assert results.reason(run, tmp_path, []) == "no weights openai/none"
    monkeypatch.setattr(results, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--openai--none").mkdir()
    assert results.reason(run, tmp_path, []) == "begun"


def test_relative_losses_are_paired_and_stand_beside_the_papers(written):
    made = experiment()
    made.FULL, made.PAPER = (
        {"ce": "l1", "numclip": "l1"},
        (Table("Table 1", "freshness:mae", {"ce": "3.30", "l1": "2.39"}),),
    )
    text = table.tables_of(made, written)
    half = np.array([1.5 / 1.0, 1.7 / 1.1]) * 100 - 100
    ours = f"+{half.mean():.1f} ± {half.std(ddof=1):.1f} %"
    last, other = text.partition("relative loss of mae")[2], f"+{100 * (1.4 / 1.1 - 1):.1f} %"
    assert cells(last, "ce") == ["ce", "l1", ours, "2", "+38.1 %"]
    assert cells(last, "numclip") == ["numclip", "l1", other, "1", "-"]
    made.FULL = {"ce": "none"}
    with pytest.raises(ValueError, match="FULL has ..none.., which the experiment does not run"):
        table.tables_of(made, written)


def test_the_verdict_is_that_of_a_paired_t_test():
    first, second = np.array([1.0, 1.2, 0.9, 1.1]), np.array([1.5, 1.6, 1.45, 1.5])
    interval = stats.ttest_rel(second, first).confidence_interval(tables.LEVEL)
    assert tables.judge(second - first) == (
        f"+0.463 ({interval.low:+.3f} to {interval.high:+.3f})",
        "confirmed",
    )
    assert tables.judge(first - second)[1] == "not confirmed: the other way round"
    assert tables.judge(second[:2] * np.array([1, 0.5]) - first[:2])[1] == "within noise"


def test_the_nearest_thumbnail_is_found_and_kept(tmp_path, monkeypatch):
    shades = {
        "train": {0: (10, 40), 1: (90, 120), 2: (200, 230)},
        "test": {0: (0, 70), 1: (100,), 2: (255, 150)},
    }
    for split, ranks in shades.items():
        for rank, values in ranks.items():
            (tmp_path / "data" / split / str(rank)).mkdir(parents=True)
            for value in values:
                Image.new("RGB", (20, 24), (value,) * 3).save(
                    tmp_path / "data" / split / str(rank) / f"{value}.png"
                )
    config = folder_config.get_config("method=l1,backbone=tiny").unlock()
    config.data.root = str(tmp_path / "data")
    facts = {"mae": 0.0, "accuracy": 0.0, "srcc": 0.0, "pcc": 0.0}
    result = results.Result(config.lock(), "ranks", {"constant": facts})
    # 70 lies nearer to 90 than to 40 and comes out as 1; 150 nearer to 120 than to 200, as 1.
    found = results.nearest(result, tmp_path)
    assert found.keys() == {results.NEAREST}
    assert found[results.NEAREST]["mae"] == pytest.approx(2 / 5) and found[results.NEAREST][
        "accuracy"
    ] == pytest.approx(3 / 5)
    assert found[results.NEAREST]["srcc"] == pytest.approx(
        stats.spearmanr([0, 1, 1, 2, 1], [0, 0, 1, 2, 2]).statistic
    )
    monkeypatch.setattr(results.readers, "load", None)
    assert results.nearest(result, tmp_path) == found
