"""prepare_data: images and lists into a store, and every reader finds them there; the command
itself."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxord.data import arrayrecord, readers
from jaxord.data.readers import faces, sources
from tools import prepare_data

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "downloads"
    (root / "images").mkdir(parents=True)
    for fold in range(2):
        for split, names in (("train", "abc"), ("test", "d" if fold == 0 else "e")):
            rows = [f"{20 + ord(name) - ord('a')},{name}.JPG,1" for name in names]
            (root / f"Setting_1_fold{fold}_{split}.txt").write_text(
                "\n".join(["age,filename,gender", *rows])
            )
    for name in "abcdef":
        (root / "images" / f"{name}.JPG").write_bytes(f"bytes of {name}".encode())
    return root


def contents(splits):
    return {
        split: [(path, part.read(row), part.targets[row]) for row, path in enumerate(part.paths)]
        for split, part in splits.items()
    }


def test_readers_find_the_store(source, tmp_path):
    expected = {fold: contents(faces.morph(source, fold=fold, seed=0)) for fold in "01"}
    root = tmp_path / "data" / "morph"
    assert prepare_data.prepare({"name": "faces.morph"}, source, root, folds=("0", "1")) == 5
    shutil.rmtree(source)
    assert not list(root.rglob("*.JPG"))
    assert sorted(arrayrecord.metadata(arrayrecord.find(root))["paths"]) == [
        f"images/{name}.JPG" for name in "abcde"
    ]
    for fold in "01":
        assert contents(faces.morph(root, fold=fold, seed=0)) == expected[fold]


def test_images_not_in_the_store_are_reported(source, tmp_path):
    root = tmp_path / "data"
    prepare_data.prepare({"name": "faces.morph"}, source, root, folds=("0",))
    fault = "morph test: 1 of 1 images cannot be read .*\n  row 0, images/e.JPG: not in the store"
    with pytest.raises(ValueError, match=fault):
        faces.morph(root, fold="1", seed=0)


def test_folder_readers_need_no_files_either(tmp_path):
    for rank in ("1", "2"):
        (tmp_path / "mine" / rank).mkdir(parents=True)
        for n in range(10):
            (tmp_path / "mine" / rank / f"{n}.png").write_bytes(f"{rank}/{n}".encode())
    expected = contents(sources.folder(tmp_path / "mine", fold="", seed=0))
    root = tmp_path / "data"
    prepare_data.prepare({"name": "sources.folder"}, tmp_path / "mine", root)
    assert contents(sources.folder(root, fold="", seed=0)) == expected


def test_existing_stores_and_bad_readers(source, tmp_path):
    reader, root = {"name": "faces.morph"}, tmp_path / "data"
    prepare_data.prepare(reader, source, root, folds=("0",))
    with pytest.raises(ValueError, match=f"a store already under {root}"):
        prepare_data.prepare(reader, source, root, folds=("0",))
    with pytest.raises(ValueError, match=f"a store already under {root}"):
        prepare_data.prepare(reader, root, tmp_path / "elsewhere", folds=("0",))
    with pytest.raises(ValueError, match="Did you mean 'faces.morph'"):
        prepare_data.prepare({"name": "faces.morphs"}, source, tmp_path / "new")
    with pytest.raises(ValueError, match="give another --out"):
        prepare_data.prepare(reader, source, source, folds=("0",))


def test_the_command(source, tmp_path):
    for fold in (2, 3, 4):  # the config has five
        for split in ("train", "test"):
            shutil.copy(
                source / f"Setting_1_fold1_{split}.txt",
                source / f"Setting_1_fold{fold}_{split}.txt",
            )
    command = [
        "tools/prepare_data.py",
        "--dataset=morph",
        f"--source={source}",
        f"--out={tmp_path / 'data'}",
    ]
    run = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "5 images and the lists are in" in run.stdout
    splits = readers.reader({"name": "faces.morph"})(tmp_path / "data" / "morph", fold="1", seed=0)
    np.testing.assert_array_equal(splits["test"].targets, [24])
    again = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 1 and again.stderr.startswith("error: there is a store already")
    archive = shutil.make_archive(tmp_path / "morph", "gztar", source.parent, source.name)
    command = [*command[:2], f"--source={archive}", f"--out={tmp_path / 'other'}"]
    run = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and "5 images" in run.stdout, run.stderr
    stores = [
        arrayrecord.metadata(arrayrecord.find(tmp_path / out / "morph"))["paths"]
        for out in ("data", "other")
    ]
    assert stores[0] == stores[1] and [file.name for file in (tmp_path / "other").iterdir()] == [
        "morph"
    ]
