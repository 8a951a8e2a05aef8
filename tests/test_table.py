"""The table from results that were written by hand: every figure, the best, what is missing, the baselines and the claims."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from configs import folder as folder_config
from configs import freshness
from jaxord import settings
from tools import sweep, table


def experiment(claims=(), methods=("l1", "ce", "numclip"), seeds=3):
    module = type(sweep)("experiment")

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
    (workdir / "config.json").write_text(settings.to_json(config))
    (workdir / "ranks.json").write_text(ranks)
    (workdir / "DONE.json").write_text("{}")
    constant = {"mae": 2.0 + seed, "accuracy": 0.1, "srcc": float("nan")}
    rows |= {"constant": constant, "constant, few": {"mae": 4.0}, "constant, median": {"mae": float("nan")}}
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
    text = table.report(experiment(), written)
    assert "6 of 9 runs are done" in text
    assert "MISSING, 3 runs: freshness-ce-seed=2, freshness-numclip-seed=0, freshness-numclip-seed=2." in text
    header = next(line for line in text.splitlines() if "| rule" in line)
    assert [cell.strip() for cell in header.strip("|").split("|")] == ["", "rule", "n", "mae", "accuracy", "srcc", "mae, few"]
    half = "**0.500 ± 0.000**"  # accuracy: best of those on the same ranks
    assert cells(text, "l1") == ["l1", "value", "3", "**1.100 ± 0.100**", half, "**0.900 ± 0.000**", "4.000 ± 1.000"]
    assert cells(text, "ce") == ["ce", "expectation", "2 of 3", "1.600 ± 0.141", half, "0.500 ± 0.000", "2.000 ± 0.000"]
    assert cells(text, "numclip") == ["numclip", "value", "1 of 3", "1.400", "0.900†", "0.500", "**1.000**"]
    assert "† on other ranks than the rest, so accuracy cannot be compared." in text
    assert cells(text, "constant") == ["constant", "", "3", "3.000 ± 1.000", "0.100 ± 0.000", "-", "4.000 ± 0.000"]
    assert "1-nearest neighbour: not computed, the table is 'labels.csv'" in text


def test_all_rules_stand_beside_the_headline_but_only_it_may_be_best(written):
    text = table.report(experiment(), written, all_rules=True)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ce ")]
    assert [line[1:4] for line in lines] == [["expectation", "2 of 3", "1.600 ± 0.141"], ["argmax", "2 of 3", "0.250 ± 0.000"]]
    assert cells(text, "l1")[3] == "**1.100 ± 0.100**"


def test_a_method_without_a_run_and_an_experiment_without_one(written, tmp_path):
    text = table.report(experiment(methods=("l1", "mse")), written)
    assert cells(text, "mse") == ["mse", "-", "0 of 3", "-", "-", "-", "-"]
    text = table.report(experiment((("l1", "ce"),)), tmp_path / "empty")
    assert "0 of 9 runs are done" in text and cells(text, "l1")[5:] == ["-", "0 of 3", "no figures"]


def test_claims_are_paired_by_seed(written):
    wanted = (("l1", "ce"), ("ce", "l1", "few"), ("l1", "numclip"), ("l1", "l1"), ("l1", "ce", "median"))
    rows = table.claims(wanted, sweep.runs_of(experiment()), {
        run: table.read(written / run.name) for run in sweep.runs_of(experiment())
    })  # fmt: skip
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[3:8]]
    half = 12.7062047 * np.std([0.5, 0.6], ddof=1) / np.sqrt(2)
    assert rows[0][:5] == ["l1", "ce", "mae", "1.050 ± 0.071", "1.600 ± 0.141"]
    assert rows[0][5:] == [f"+0.550 ({0.55 - half:+.3f} to {0.55 + half:+.3f})", "2 of 3", "within noise"]
    assert rows[1][2:5] == ["mae, few", "2.000 ± 0.000", "3.500 ± 0.707"] and rows[1][5].startswith("+1.500 (")
    assert rows[2][5:] == ["+0.300", "1 of 3", "one run says nothing"]
    assert rows[3][5:] == ["+0.000 (+0.000 to +0.000)", "3", "within noise"]
    assert rows[4][5:] == ["-", "2 of 3", "not defined"]
    with pytest.raises(ValueError, match="CLAIMS has 'l2'"):
        table.claims((("l2", "ce"),), sweep.runs_of(experiment()), {})


def test_the_verdict_is_that_of_a_paired_t_test():
    first, second = np.array([1.0, 1.2, 0.9, 1.1]), np.array([1.5, 1.6, 1.45, 1.5])
    interval = stats.ttest_rel(second, first).confidence_interval(table.LEVEL)
    assert table.judge(first, second, True) == (f"+0.463 ({interval.low:+.3f} to {interval.high:+.3f})", "confirmed")
    assert table.judge(first, second, False)[1] == "not confirmed: the other way round"
    assert table.judge(first[:2], second[:2] * np.array([1, 0.5]), True)[1] == "within noise"


def test_the_nearest_thumbnail_is_found_and_kept(tmp_path, monkeypatch):
    shades = {"train": {0: (10, 40), 1: (90, 120), 2: (200, 230)}, "test": {0: (0, 70), 1: (100,), 2: (255, 150)}}
    for split, ranks in shades.items():
        for rank, values in ranks.items():
            (tmp_path / "data" / split / str(rank)).mkdir(parents=True)
            for value in values:
                Image.new("RGB", (20, 24), (value,) * 3).save(tmp_path / "data" / split / str(rank) / f"{value}.png")
    config = folder_config.get_config("method=l1,backbone=tiny").unlock()
    config.data.root = str(tmp_path / "data")
    facts = {"mae": 0.0, "accuracy": 0.0, "srcc": 0.0, "pcc": 0.0}
    result = table.Result(config.lock(), "ranks", {"constant": facts})
    # 70 lies nearer to 90 than to 40 and comes out as 1; 150 nearer to 120 than to 200, as 1.
    found = table.nearest(result, tmp_path)
    assert found.keys() == {table.NEAREST}
    assert found[table.NEAREST]["mae"] == pytest.approx(2 / 5) and found[table.NEAREST]["accuracy"] == pytest.approx(3 / 5)
    assert found[table.NEAREST]["srcc"] == pytest.approx(stats.spearmanr([0, 1, 1, 2, 1], [0, 0, 1, 2, 2]).statistic)
    monkeypatch.setattr(table.load, "load", None)
    assert table.nearest(result, tmp_path) == found
