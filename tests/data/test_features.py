"""Cached features: the same run as with images, one key for one tower and one transform, what
cannot be cached."""

import copy
import csv
import json
import shutil

import numpy as np
import pytest

from configs.base import entries
from jaxord import train
from jaxord.data import features, readers, storage
from jaxord.predict import trained_model
from jaxord.task import make_task, ordinal
from jaxord.weights import initial
from tests.kinds import at, photographs, small_towers


@pytest.fixture(autouse=True, scope="module")
def quick():
    with small_towers(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            initial, "check_scratch", lambda config, groups: None
        )  # a frozen tower of random weights
        yield


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """ConOrd on a frozen tower, of which the projection is trained: three views, neighbours,
    reference points; no chance."""
    c = photographs(tmp_path_factory.mktemp("photographs")).unlock()
    c.data.train_crop, c.data.flip = c.data.eval_crop, False
    c.optim.groups = entries(
        {"parameters": "vision_model/.*", "group": "frozen"}, {"parameters": ".*", "group": "all"}
    )
    c.optim.rates = at(0.02, ["all"])
    return c.lock()


def cached(c, folder, **fields):
    c = copy.deepcopy(c).unlock()
    c.model.features = str(folder)
    c.update_from_flattened_dict(fields)
    return c.lock()


@pytest.fixture(scope="module")
def runs(frozen, tmp_path_factory):
    """(folder of a run on images, of one on features, folder of the features)."""
    folder = tmp_path_factory.mktemp("runs")
    train.run(frozen, folder / "images")
    train.run(cached(frozen, folder / "kept"), folder / "features")
    return folder / "images/fold_0", folder / "features/fold_0", folder / "kept"


def table(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_features_give_the_numbers_of_images(runs):
    one, other = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in runs[:2]
    )
    assert len(one) == len(other) == 9
    for a, b in zip(one, other, strict=True):
        assert b == {
            name: pytest.approx(value, rel=1e-5, abs=1e-6) if name != "split" else value
            for name, value in a.items()
        }
    for a, b in zip(*map(table, runs[:2]), strict=True):
        assert a["path"] == b["path"] and float(a["knn"]) == pytest.approx(
            float(b["knn"]), rel=1e-5
        )


def test_a_run_on_features_predicts_from_images(runs, frozen):
    run = trained_model.load(runs[1].parent, "0")
    task = make_task(frozen, "0")  # decodes the images
    split = task.splits["test"]
    found = trained_model.make_forward(run)(split.images[split.slots], split.sizes[split.slots])
    expected = [float(row["knn"]) for row in table(runs[1])]
    np.testing.assert_allclose(found["knn"], expected, rtol=1e-5)
    assert len(np.unique(expected)) > 1


def test_features_are_computed_once_and_shared(runs, frozen, tmp_path, monkeypatch):
    task = make_task(cached(frozen, tmp_path), "0")
    (folder,) = tmp_path.iterdir()
    assert [folder.name] == [path.name for path in runs[2].iterdir()] and len(
        list(folder.iterdir())
    ) == len(task.splits)
    monkeypatch.setattr(
        storage, "decode_row", lambda *arguments, **settings: pytest.fail("an image is decoded")
    )
    again = make_task(cached(frozen, tmp_path), "0")
    other = make_task(cached(frozen, tmp_path), "1")  # another cut of the same images
    rows = {
        path: row
        for split in task.splits.values()
        for path, row in zip(
            split.records.paths, split.records.inputs["image_features"], strict=True
        )
    }
    for split in (*again.splits.values(), *other.splits.values()):
        assert split.tier == "inputs" and split.records.read is None
        for path, row in zip(
            split.records.paths, split.records.inputs["image_features"], strict=True
        ):
            assert np.array_equal(row, rows[path])
    assert again.splits["test"].records.paths != other.splits["test"].records.paths


def test_the_key_is_that_of_the_weights_and_the_transform(frozen):
    task = make_task(frozen, "0")
    variables = {"params": {**task.trained, **task.frozen}, "stats": task.stats}

    def key(params=(), fields=()):
        c = cached(frozen, "here", **dict(fields))
        return features.key(
            c, task.model, {"params": {**variables["params"], **dict(params)}, "stats": {}}
        )

    path = next(path for path in task.frozen if path.startswith("vision_model/"))
    changed = task.frozen[path].copy()
    changed.flat[-1] = np.nextafter(changed.flat[-1], 1, dtype=np.float32)
    keys = [
        key(),
        key({path: changed}),
        key(fields={"data.normalize": "half"}),
        key(fields={"data.stored_size": 24}),
        key(fields={"data.image_size": 18}),
    ]
    assert len(set(keys)) == len(keys)
    head = next(path for path in task.trained if not path.startswith("vision_model/"))
    others = {"data.flip": True, "seed": 7, "model.features": "there", "data.batch": 8}
    assert key({head: task.trained[head] + 1}, others) == keys[0]


def test_damage_renames_the_rows(frozen, tmp_path):
    c = cached(frozen, tmp_path)
    bad = cached(
        frozen,
        tmp_path,
        **{"data.corruption.name": "gaussian_noise", "data.corruption.severity": 5},
    )
    records = readers.load(c.data, "0", 0)["test"]
    names = features.row_names(records, c.data)
    assert not set(names) & set(features.row_names(records, bad.data))
    values = np.arange(2.0 * len(names), dtype=np.float32).reshape(-1, 2)
    features.write(tmp_path / "x", names, values)
    assert features.read(tmp_path / "x", np.append(names, b"new")) is None
    np.testing.assert_array_equal(features.read(tmp_path / "x", names[::-1]), values[::-1])


def test_a_broken_image_stays_left_out(frozen, tmp_path, monkeypatch):
    shutil.copytree(frozen.data.root, tmp_path / "data")
    broken = readers.load(frozen.data, "0", 0)["train"].paths[3]
    (tmp_path / "data" / broken).write_bytes(b"no image")
    c = cached(
        frozen, tmp_path / "kept", **{"data.root": str(tmp_path / "data"), "data.broken": "skip"}
    )
    splits = [make_task(c, "0").splits["train"]]
    monkeypatch.setattr(
        storage, "decode_row", lambda *arguments, **settings: pytest.fail("an image is decoded")
    )
    splits.append(make_task(c, "0").splits["train"])
    for split in splits:
        assert (
            len(split.records) == 31
            and broken not in split.records.paths
            and split.skipped[0][:2] == (3, broken)
        )
    with pytest.raises(ValueError, match="1 of 32 images cannot be decoded"):
        make_task(cached(c, tmp_path / "kept", **{"data.broken": "raise"}), "0")


def test_what_does_not_stay_the_same_is_refused(frozen, tmp_path):
    with pytest.raises(
        ValueError,
        match=r"but \d+ of its parameters are trained, such as vision_model/.*freeze it by",
    ):
        make_task(cached(photographs(tmp_path), tmp_path / "kept"), "0")
    task = make_task(frozen, "0")
    c = cached(frozen, tmp_path, **{"model.image_tower": "ResNet-18"})
    other = ordinal.build(c, None, task.model.dtype)
    with pytest.raises(
        ValueError, match="ResNet-18 has running statistics or dropout.*train.statistics='keep'"
    ):
        features.check(c, other, {})
    features.check(cached(c, tmp_path, **{"train.statistics": "keep"}), other, {})
