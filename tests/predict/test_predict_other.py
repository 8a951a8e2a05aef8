"""Predictions for pairs of sentences and for videos: those of the run itself; broken ones are rows
with their reason."""

import csv
import json

import numpy as np
import pytest

from jaxord import export, train
from jaxord.export import model_card
from jaxord.predict import files
from jaxord.predict.predictor import Predictor
from tests.kinds import films, sentences, small_towers

ADDED = {
    "sentences": [("a man\tnot known words", ""), ("a dog\t ", "a sentence is empty")],
    "films": [("text.mp4", "InvalidDataError"), ("nowhere.mp4", "No such file")],
}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with small_towers():
        yield


@pytest.fixture(scope="module", params=[sentences, films], ids=["sentences", "films"])
def run(request, tmp_path_factory):
    """(kind, workdir, what holds the examples of the test split and others, the config) of a run of
    a few steps."""
    root = tmp_path_factory.mktemp(request.param.__name__)
    c = request.param(root, "mse" if request.param is sentences else "conord").unlock()
    c.train.update(
        {"duration": "2 steps", "checkpoint_every": "100 steps", "evaluate_every": "100 steps"}
    )
    train.run(c.lock(), root / "run")
    workdir = root / "run" / (f"fold_{c.fold}" if c.fold else "")
    stages = [workdir / stage.name for stage in c.stages] or [workdir]
    rows = read(stages[-1] / "predictions.csv")
    if request.param is sentences:
        source = root / "more.tsv"
        lines = [
            "path\tsentence1\tsentence2",
            *(f"{row['path']}\t{row['sentence1']}\t{row['sentence2']}" for row in rows),
        ]
        lines += [f"added\t{text}" for text, _ in ADDED["sentences"]]
    else:
        (root / "text.mp4").write_text("no video")
        source = root / "more.csv"
        lines = ["path", *(row["path"] for row in rows), *(text for text, _ in ADDED["films"])]
    source.write_text("\n".join(lines) + "\n")
    return request.param.__name__, root / "run", source, c, rows, stages[-1]


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_the_run_itself_predicted_is_predicted(run, tmp_path, capsys):
    kind, workdir, source, c, rows, _ = run
    files.predict_run(workdir, str(source), tmp_path / "out.csv", batch=8)
    noun = {"sentences": "pairs of sentences", "films": "videos"}[kind]
    said = capsys.readouterr().out
    assert (
        f"{len(rows) + 2} {noun} in" in said
        and f"{1 if kind == 'sentences' else 2} could not be read" in said
    )
    found = read(tmp_path / "out.csv")
    rule, *others = [entry.name for entry in c.rules]
    assert (
        list(found[0])[:4] == ["path", "value", "rank", "rank_name"]
        and list(found[0])[-1] == "error"
    )
    assert len(found) == len(rows) + 2 and len({row["value"] for row in found}) >= 4
    for one, row in zip(found, rows, strict=False):
        assert (one["path"], one["rank"], one["rank_name"], one["error"]) == (
            row["path"],
            row["rank"],
            row["rank_name"],
            "",
        )
        assert float(one["value"]) == pytest.approx(float(row[rule]), rel=1e-5, abs=1e-5)
        for other in others:
            if f"rule_{other}" in one:
                assert float(one[f"rule_{other}"]) == pytest.approx(
                    float(row[other]), rel=1e-5, abs=1e-5
                )
    for one, (_, reason) in zip(found[-2:], ADDED[kind], strict=True):
        assert reason in one["error"] and bool(reason) == bool(one["error"]) == (one["value"] == "")


def test_a_predictor_takes_them_in_memory(run):
    kind, workdir, source, c, rows, _ = run
    predictor = Predictor.load(workdir)
    if kind == "sentences":
        given = [(row["sentence1"], row["sentence2"]) for row in rows]
        broken, words = (
            ["text", ("a", 3)],
            "0, text: 'text' is no pair of sentences; expected two texts",
        )
    else:
        given, broken, words = (
            [source.parent / row["path"] for row in rows],
            [source.parent],
            "not a file",
        )
    found = predictor(given)
    np.testing.assert_allclose(
        found.value, [float(row[c.rules[0].name]) for row in rows], rtol=1e-5, atol=1e-5
    )
    with pytest.raises(ValueError, match=words):
        predictor(broken)


def test_what_is_missing_is_said(run, tmp_path):
    kind, workdir, source, c, _, folder = run
    with pytest.raises(
        ValueError, match="is not there; videos are" if kind == "films" else "cannot read"
    ):
        files.predict_run(workdir, str(tmp_path / "nowhere"), tmp_path / "out.csv")
    (tmp_path / "one.csv").write_text("label\n1\n")
    with pytest.raises(
        ValueError, match="called path" if kind == "films" else "no column 'sentence1'"
    ):
        files.predict_run(workdir, str(tmp_path / "one.csv"), tmp_path / "out.csv")
    if kind == "sentences":
        assert len(json.loads((folder / "vocabulary.json").read_text())) == 12
        (folder / "vocabulary.json").rename(tmp_path / "vocabulary.json")
        with pytest.raises(ValueError, match="no vocabulary.json; --mode=evaluate"):
            Predictor.load(workdir)
        (tmp_path / "vocabulary.json").rename(folder / "vocabulary.json")
        with pytest.raises(ValueError, match="--root means nothing"):
            files.predict_run(workdir, str(source), tmp_path / "out.csv", root="here")


def test_a_program_is_compared_on_the_test_split(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(model_card, "RESAMPLES", 20)
    export.export(run[1], tmp_path / "out", format="stablehlo")
    said = capsys.readouterr().out
    assert (
        f"on {min(8, len(run[4]))} test examples" in said
        and float(said.partition("all outputs ")[2].split()[0]) < 1e-4
    )
