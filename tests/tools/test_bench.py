"""The benchmarks at tiny sizes: output, limits, recall, and that both forms of a loss agree."""

import functools
import json

import jax
import numpy as np
import pytest

from jaxord import losses
from tools import bench_data, bench_epoch, bench_knn, bench_losses
from tools.benching import drawn, measure, plain_losses

# The loader that ml_collections takes on Python 3.11.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the load_module"),
    pytest.mark.usefixtures("lightly_compiled"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(measure, "SHORTEST", 0.0)


def written(main, tmp_path, *arguments):
    """The JSON that a benchmark writes."""
    assert main([*arguments, "--rounds=2", f"--output={tmp_path / 'file.json'}"]) == 0
    return json.loads((tmp_path / "file.json").read_text())


def ordered(row, *names):
    """Whether each figure lies between its own smallest and largest, all above 0."""
    return all(0 < row[f"{name} min"] <= row[name] <= row[f"{name} max"] for name in names)


def on_photos(photos, argument=""):
    fields = (f"data.root={photos}", "data.batch=16", "data.eval_batch=16", "data.copies=2")
    config = "--config=configs/folder.py:backbone=tiny" + argument
    return config, *(f"--set={field}" for field in fields)


def test_each_loss_and_its_plain_form_give_the_same_value():
    keys = [(name, plain) for name in bench_losses.LOSSES for plain in (False, True)]
    totals = {key: bench_losses.total_of(*key)[0] for key in keys}
    values = jax.jit(lambda arrays: {key: total(arrays) for key, total in totals.items()})
    values = values(drawn.loss_arrays(12, 4, 5))
    for name in bench_losses.LOSSES:
        assert bench_losses.difference(values[name, False], values[name, True]) < 1e-5, name


def test_blocked_and_plain_gradients_agree():
    arrays = drawn.loss_arrays(12, 4, 5)
    # 3 of 12 rows at once.
    forms = functools.partial(losses.rnc, block=40), plain_losses.rnc
    inputs = arrays["image_embeds"], arrays["target"]
    ours, plain = (jax.jit(jax.grad(form))(*inputs) for form in forms)
    np.testing.assert_allclose(ours, plain, rtol=1e-3, atol=1e-6)


def test_a_form_above_the_limit_is_compiled_and_not_run(tmp_path, capsys):
    sizes = ("--losses=rnc", "--sizes=8,128", "--width=4", "--ranks=5")
    result = written(bench_losses.main, tmp_path, *sizes, "--seconds=1e9", "--limit=4")
    small, large = next(iter(result["tables"].values()))
    assert small["n"] == 8 and small["difference"] < 1e-5
    assert small["ours compile s"] > 0 and small["ours MiB"] > 0
    assert ordered(small, "ours ms", "plain ms", "ratio")
    assert large["plain MiB"] > 4 and ordered(large, "ours ms")
    assert "plain ms" not in large and "ratio" not in large
    (note,) = result["notes"]
    assert note.startswith("rnc, plain: n = 128 would hold ")
    printed = capsys.readouterr().out
    for words in ("device: 8 x cpu", "versions: jax", "ours ms range", "rnc"):
        assert words in printed


def test_no_larger_batch_than_the_seconds_allow(tmp_path):
    sizes = ("--losses=info_nce", "--sizes=8,64", "--seconds=0")
    result = written(bench_losses.main, tmp_path, *sizes)
    first, larger = next(iter(result["tables"].values()))
    assert first["n"] == 8 and "ours ms" in first and "plain ms" in first
    assert larger["n"] == 64 and larger["ours MiB"] > 0
    assert "ours ms" not in larger and "plain ms" not in larger
    titles = [note.partition(":")[0] for note in result["notes"]]
    assert titles == ["info_nce, ours", "info_nce, plain"]


def test_torch_stands_beside_in_the_same_run(tmp_path):
    pytest.importorskip("torch")
    small = ("--sizes=", "--largest=9", "--width=4", "--ranks=5")
    result = written(bench_losses.main, tmp_path, "--losses=conord,rnc", "--vs-torch", *small)
    (rows,) = result["tables"].values()
    assert [(row["loss"], row["n"]) for row in rows] == [("conord", 9), ("rnc", 9)]
    for row in rows:
        assert row["difference"] < 1e-5 and row["device"] == "cpu"
        assert ordered(row, "ours ms", "torch ms", "ratio")
    sizes = ("--losses=rnc", "--sizes=", "--vs-torch", "--limit=1e-3")
    result = written(bench_losses.main, tmp_path, *sizes)
    assert list(result["tables"].values()) == [[]]
    assert "rnc in torch would hold" in result["notes"][0]


def test_an_unknown_loss_is_named():
    assert "known are supcon, rnc" in bench_losses.main(["--losses=con_ord"])


def test_the_search_finds_the_nearest(tmp_path):
    sizes = ("--queries=20", "--gallery=50", "--width=6", "--k=4", "--block=16", "--sample=8")
    (row,) = written(bench_knn.main, tmp_path, *sizes)["tables"]["Search"]
    assert row["recall"] == 1 and row["all pairs MiB"] == 4 * 20 * 50 / 2**20 and row["MiB"] > 0
    assert ordered(row, "queries/s", "s")
    assert bench_knn.main(["--gallery=3", "--k=4"]).startswith("error: --k is 4")


def test_recall_counts_missing_and_repeated_neighbours():
    gallery = np.eye(4)[[0, 1, 2, 3]] + 0.1 * np.arange(4)[:, None]
    query = gallery[:1]
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    nearest = np.argsort(-unit @ query[0])[None]
    assert bench_knn.recall(nearest[:, :2], query, gallery, 2) == 1
    assert bench_knn.recall(nearest[:, [0, 3]], query, gallery, 2) == 0.5
    assert bench_knn.recall(nearest[:, [0, 0]], query, gallery, 2) == 0.5


@pytest.mark.long
def test_each_tier_beside_the_step(tmp_path, photos, shallow, capsys, monkeypatch):
    monkeypatch.setattr(bench_data, "EARLY", 1)
    words = (*on_photos(photos, ",method=conord"), "--steps=1")
    result = written(bench_data.main, tmp_path, *words)
    rows, notes = result["tables"]["Batches of the training split"], result["notes"]
    assert [row["tier"] for row in rows] == ["resident", "cached", "stream"]
    for row, note in zip(rows, notes, strict=False):
        assert ordered(row, "step img/s", "alone img/s", "loop img/s", "loop / step")
        assert 0 < row["wait %"] < 100
        assert row["prepared s"] > 0 and note.startswith(f"{row['tier']}: ") and " bound" in note
    assert "stream" in capsys.readouterr().out and notes[3].startswith("The step was compiled in")
    assert bench_data.main(["--config=configs/folder.py", "--set=data.rot=x"]).startswith("error: ")


@pytest.mark.parametrize(
    "alone, loop, words",
    [
        (400.0, 95.0, "the step bounds training"),
        (50.0, 45.0, "the data bound training"),
        (150.0, 60.0, "neither bounds"),
    ],
)
def test_what_bounds_training(alone, loop, words):
    row = {"tier": "cached", "alone img/s": alone, "loop img/s": loop, "step img/s": 100.0}
    assert bench_data.bound(row).startswith(f"cached: {words}")


@pytest.mark.long
def test_epochs_and_latencies(tmp_path, photos, shallow):
    words = (*on_photos(photos), "--methods=conord", "--images=3")
    (row,), (latency,) = written(bench_epoch.main, tmp_path, *words)["tables"].values()
    assert row["method"] == latency["method"] == "conord" and row["of conord"] == 1
    assert row["rows a step"] == 32 and row["steps"] == latency["gallery"] // 16 == 4
    assert ordered(row, "epoch s") and 0 < row["wait %"] < 100
    assert row["parameters"] > 1000 and row["MiB"] > 0
    assert 0 < latency["decoding ms"] < latency["mean ms"]
    assert latency["deviation ms"] > 0 and latency["images"] == 3


def test_resident_memory_is_seen_to_grow():
    grown = measure.grown(lambda: np.ones(2**26, np.uint8))
    assert np.isnan(grown) or 2**25 < grown < 2**27


def test_a_long_first_call_is_a_turn(monkeypatch):
    """Only if it is long for all: the turns of two are compared."""
    calls = []
    ours, other = (functools.partial(calls.append, name) for name in "ab")
    assert len(measure.alternate({"a": ours}, 2)["a"]) == 2 and len(calls) == 4
    monkeypatch.setattr(measure, "LONG", 0.0)
    calls.clear()
    samples = measure.alternate({"a": ours, "b": other}, 2)
    assert [len(times) for times in samples.values()] == [2, 2]
    # The first, the one that counts how many make a sample, and a turn.
    assert calls.count("a") == calls.count("b") == 3
    assert measure.alternate({}, 2) == {}
