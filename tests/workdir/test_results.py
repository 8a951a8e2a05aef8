"""predictions.csv is read as it was written; averages over folds by hand."""

import types

import numpy as np
import pytest

from jaxord.targets.ranks import Ranks
from jaxord.workdir import files, results

NAN = float("nan")


def task_of(targets, ranks, **columns):
    """A task with a test split of three records."""
    records = types.SimpleNamespace(
        paths=["a.png", "b, c.png", "d.png"], targets=targets, columns=columns
    )
    return types.SimpleNamespace(
        splits={"test": types.SimpleNamespace(records=records)}, ranks=ranks
    )


def test_predictions_are_read_as_they_were_written(tmp_path):
    ranks = Ranks(np.float32([0, 1, 2]), ("low", "mid", "high"), np.float32([0.5, 1.5]))
    predictions = {"value": np.float32([0.25, 1.5, 2]), "argmax": np.float32([0, 2, 2])}
    task = task_of(np.float32([0, 1, 2]), ranks, camera=["x", "y", "x"], rank_name=["q"] * 3)
    results.write_predictions(tmp_path / "predictions.csv", task, "test", predictions)
    header, first, *_ = (tmp_path / "predictions.csv").read_text().splitlines()
    assert header == "path,target,value,argmax,rank,rank_name,camera"
    assert first == "a.png,0,0.25,0,0,low,x"
    test = results.read_predictions(tmp_path, ["value", "argmax", "missing"])
    assert test.paths.tolist() == ["a.png", "b, c.png", "d.png"]
    assert list(test.values) == ["value", "argmax"] and test.target.tolist() == [0, 1, 2]
    assert test.values["value"].tolist() == [0.25, 1.5, 2]
    assert list(test.extra) == ["camera"] and test.extra["camera"].tolist() == ["x", "y", "x"]


def test_angles_have_a_column_each(tmp_path):
    angles = np.float32([[1, 2], [3, 4], [5, 6]])
    file = tmp_path / "predictions.csv"
    results.write_predictions(file, task_of(angles, None), "test", {"knn": angles + 1})
    assert file.read_text().startswith("path,target_0,target_1,knn_0,knn_1\n")
    test = results.read_predictions(tmp_path, ["knn"])
    assert np.array_equal(test.target, angles) and np.array_equal(test.values["knn"], angles + 1)
    assert test.extra == {}


def test_missing_or_damaged_predictions_name_the_file_and_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"predictions.csv is missing; --mode=evaluate writes it"):
        results.read_predictions(tmp_path, ["value"])
    (tmp_path / "predictions.csv").write_text("path,target,value\na.png,1\n")
    with pytest.raises(ValueError, match="predictions.csv is damaged .*; --mode=evaluate writes"):
        results.read_predictions(tmp_path, ["value"])


def test_results_are_read_with_nan_for_null(tmp_path):
    results.write_scores(tmp_path, {"val": {}, "test": {"value": {"mae": 1.5, "srcc": NAN}}})
    assert '"srcc": null' in (tmp_path / "results.json").read_text()
    rows = results.read_scores(tmp_path)
    assert rows["value"]["mae"] == 1.5 and np.isnan(rows["value"]["srcc"])
    assert files.read_json(tmp_path / "results.json")["val"] == {}


def test_averages_over_folds():
    assert results.center_and_sd([1.0, 2.0, 6.0]) == (3.0, pytest.approx(7**0.5))
    assert results.center_and_sd([1.0, 2.0, 6.0], "median")[0] == 2.0
    assert results.with_sd([1.0, 3.0]) == "2.000 ± 1.414"
    assert results.with_sd([1.0, 3.0], "{:.4g} ± {:.2g}") == "2 ± 1.4"
    assert results.with_sd([1.25]) == 1.25
    assert np.isnan(results.with_sd([1.0, NAN])) and np.isnan(results.with_sd([]))
    folds = [{"value": {"mae": 1.0}}, {"value": {"mae": 4.0}}]
    assert results.over_folds(folds) == {"value": {"mae": 2.5}}
    assert results.numbers_of([*folds, {}], "value", "mae").tolist()[:2] == [1.0, 4.0]
    assert np.isnan(results.numbers_of([{}], "value", "mae")).all()


def test_markdown_tables_are_aligned():
    lines = results.markdown(["", "mae"], [["value", "1.0"], ["l1", "12.25"]])
    assert lines == [
        "|       | mae   |",
        "|-------|-------|",
        "| value | 1.0   |",
        "| l1    | 12.25 |",
    ]
