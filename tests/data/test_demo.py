"""The demo sets are what they claim, built once, and whole or not there at all."""

import collections
import io
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jaxord.data import arrayrecord
from jaxord.data.readers import demo

ROOT = pathlib.Path(__file__).parents[2]
BUILD = """
import sys, time
from jaxord.data.readers import demo
SLOW
print(len(demo.digits(sys.argv[1], fold='', seed=0)['train']))
"""
SLOW = "real = demo._png; demo._png = lambda x: time.sleep(0.05) or real(x)"


def image(records, row):
    return np.asarray(Image.open(io.BytesIO(records.read(row))))


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = tmp_path_factory.mktemp("photo_quality")
    demo.photo_quality(root, fold="", seed=0)
    return demo.photo_quality(root, fold="", seed=7)  # read back; the same for every seed


def test_photo_quality_is_split_by_scene(splits):
    assert {split: len(part) for split, part in splits.items()} == {
        "train": 4155,
        "val": 400,
        "test": 600,
    }
    scenes = {split: set(part.columns["scene"].tolist()) for split, part in splits.items()}
    assert not scenes["train"] & scenes["val"] and not scenes["test"] & (
        scenes["train"] | scenes["val"]
    )
    assert len(scenes["test"]) == 3 and len(scenes["val"]) == 2 and len(scenes["train"]) == 9
    assert (
        sum(scene.startswith("motorcycle") for scene in set().union(*scenes.values())) == 1
    )  # two views, one scene


def test_photo_quality_is_balanced(splits):
    for part in splits.values():
        assert len(set(part.paths)) == len(part)
        assert set(collections.Counter(part.targets.tolist()).values()) == {len(part) / 5}
        for severity in range(1, 5):
            kinds = collections.Counter(part.columns["kind"][part.targets == severity].tolist())
            assert (
                set(kinds) == set(demo.SEVERITIES)
                and max(kinds.values()) - min(kinds.values()) <= 1
            )
        assert set(part.columns["kind"][part.targets == 0].tolist()) == {"none"}


def test_photo_quality_pixels(splits):
    """Severity 0 is the photograph itself, bit for bit; each further severity is further away from
    it."""
    photo = demo._photo("coffee.png")
    errors = collections.defaultdict(list)
    part = splits["test"]
    for row in np.flatnonzero(part.columns["scene"] == "coffee"):
        left, top = (int(number) for number in part.paths[row].split("/")[1].split("_")[:2])
        pristine = np.asarray(
            photo.crop((left, top, left + demo.TILE, top + demo.TILE)), np.float32
        )
        found = image(part, row)
        assert found.shape == (96, 96, 3)
        errors[part.columns["kind"][row], part.targets[row]].append(np.abs(found - pristine).mean())
    assert np.max(errors.pop(("none", 0))) == 0
    for kind in demo.SEVERITIES:
        means = [np.mean(errors[kind, severity]) for severity in range(1, 5)]
        assert means == sorted(means) and means[0] > 1


def test_tiles_are_the_same_every_time():
    scenes = [("coins.png", demo._photo("coins.png"))]
    assert list(demo._tiles(scenes, 40)) == list(demo._tiles(scenes, 40))


def test_digits(tmp_path):
    found = demo.digits(tmp_path, fold="", seed=0)
    assert {split: len(part) for split, part in found.items()} == {
        "train": 1078,
        "val": 360,
        "test": 359,
    }
    assert sorted(set(found["test"].targets.tolist())) == list(range(10))
    assert image(found["test"], 0).shape == (32, 32, 3)
    assert found["train"].name == f"{tmp_path.name} digits train"
    again, other = (demo.digits(tmp_path, fold="", seed=seed) for seed in (0, 1))
    assert again["test"].paths == found["test"].paths != other["test"].paths


def test_two_builds_at_once(tmp_path):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD.replace("SLOW", ""), str(tmp_path)],
            cwd=ROOT,
            stdout=-1,
            stderr=-1,
        )
        for _ in range(2)
    ]
    for run in both:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0 and out.split()[-1] == b"1078", err.decode()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["1.0.0"]


def test_a_killed_build_is_not_used(tmp_path):
    """What a build killed while writing leaves behind is not taken for a data set, and the next run
    builds anew."""
    slow = BUILD.replace("SLOW", SLOW)
    run = subprocess.Popen(
        [sys.executable, "-c", slow, str(tmp_path)], cwd=ROOT, stdout=-1, stderr=-1
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("store/incomplete.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.kill()
    run.communicate()
    assert list(tmp_path.glob("store/incomplete.*"))
    assert arrayrecord.find(tmp_path) is None
    assert len(demo.digits(tmp_path, fold="", seed=0)["train"]) == 1078


def test_missing_packages_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    for read, package in ((demo.photo_quality, "skimage"), (demo.digits, "sklearn")):
        with pytest.raises(
            ValueError, match=rf"{package}, which is not installed: pip install -e .*\[demo\]"
        ):
            read(tmp_path, fold="", seed=0)
    assert not list(tmp_path.iterdir())


def test_missing_photographs_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "_wheel", lambda package: tmp_path)
    with pytest.raises(ValueError, match="astronaut.png is not there: this version of skimage"):
        demo.photo_quality(tmp_path / "root", fold="", seed=0)


def test_the_slower_of_two_builds_gives_way(tmp_path):
    """A second build ends while the first is still writing; the first then finds the store there
    and uses it."""

    def features(tfds):
        return {"value": tfds.features.Scalar(np.int64)}

    def slow():
        arrayrecord.write_store(tmp_path, features, {"train": [{"value": 2}, {"value": 3}]})
        yield {"value": 1}

    folder = arrayrecord.write_store(tmp_path, features, {"train": slow()})
    assert len(arrayrecord.builder(folder).as_data_source("train")) == 2
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["1.0.0"]
