"""Readers of rated photographs, on lists of every dialect made here."""

import io

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from scipy.io import savemat

from jaxord.data import readers
from jaxord.data.readers import quality
from tests.data.files import touch, write
from tools import prepare_data

RUN = {"fold": "0", "seed": 0}


def rows(n, line="{0}.jpg,{1}", head="image_name,MOS"):
    """A header and n lines; {0} is the row, {1} its score, 1.5 apart."""
    return [head, *(line.format(k, 1.5 * k) for k in range(n))]


def sizes(splits):
    return {split: len(part) for split, part in splits.items()}


def read(name, root, **settings):
    return readers.reader({"name": f"quality.{name}"})(root, **{**RUN, **settings})


def koniq_list(root, n=20):
    line = "{0}.jpg,0.0,0.1,0.2,0.3,0.4,105,{1},0.5,"
    lines = rows(n, line, "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set")
    kinds = ["set", *(["training"] * 12 + ["validation"] * 3 + ["test"] * 5)]
    write(
        root,
        "koniq10k_distributions_sets.csv",
        *(a if k == 0 else a + kinds[k] for k, a in enumerate(lines)),
    )
    touch(root, *(f"images/{k}.jpg" for k in range(n)))


def test_splits_are_drawn_for_each_fold_where_there_are_no_lists(tmp_path):
    koniq_list(tmp_path)
    folds = [read("koniq", tmp_path, fold=str(k)) for k in range(10)]
    assert all(sizes(splits) == {"train": 16, "test": 4} for splits in folds)
    assert all(
        set(s["train"].paths + s["test"].paths) == {f"images/{k}.jpg" for k in range(20)}
        for s in folds
    )
    assert len({splits["test"].paths for splits in folds}) > 5
    assert read("koniq", tmp_path, fold="3")["test"].paths == folds[3]["test"].paths
    assert read("koniq", tmp_path, fold="3", seed=1)["test"].paths != folds[3]["test"].paths
    test = folds[0]["test"]
    row = int(test.paths[0].removeprefix("images/").removesuffix(".jpg"))
    assert test.targets[0] == 1.5 * row and test.read(0) == f"images/{row}.jpg".encode()
    assert (
        sorted(test.columns) == ["SD", "c1", "c2", "c3", "c4", "c5", "c_total"]
        and test.name == "koniq test"
    )
    with pytest.raises(ValueError, match=r"koniq: fold is '10'; it is one of \['0'"):
        read("koniq", tmp_path, fold="10")


def test_koniq_official_split(tmp_path):
    koniq_list(tmp_path)
    official = read("koniq", tmp_path, fold="", protocol="official")
    assert sizes(official) == {"train": 12, "val": 3, "test": 5}
    assert official["val"].targets.tolist() == [18, 19.5, 21]
    with pytest.raises(
        ValueError, match=r"koniq: protocol is 'oficial'; it is one of \['random', 'official'\]"
    ):
        read("koniq", tmp_path, protocol="oficial")
    write(
        tmp_path,
        "koniq10k_distributions_sets.csv",
        "image_name,MOS,set",
        "0.jpg,1,training",
        "1.jpg,2,holdout",
    )
    with pytest.raises(ValueError, match=r"column 'set', has the splits \['holdout'\]"):
        read("koniq", tmp_path, protocol="official")
    write(tmp_path, "koniq10k_distributions_sets.csv", "image_name,MOS", "0.jpg,1", "1.jpg,2")
    with pytest.raises(ValueError, match="no column official_split, set or split; it has"):
        read("koniq", tmp_path, protocol="official")


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("bid", ("BID_train_split_{}.csv", "BID_test_split_{}.csv")),
        ("clive", ("CLIVE_training_split_{}.csv", "CLIVE_test_split_{}.csv")),
        ("koniq", ("KonIQ10K_train_split_{}.csv", "KonIQ10K_test_split_{}.csv")),
        ("spaq", ("SPAQ_train_split_{}.csv", "SPAQ_test_split_{}.csv")),
    ],
)
def test_listed_splits_go_before_drawn_ones(tmp_path, name, pair):
    images = "Images" if name == "clive" else "images"
    touch(tmp_path, *(f"{images}/{k}.jpg" for k in range(10)))
    lines = rows(10)
    for number, test in ((1, slice(1, 3)), (2, slice(4, 6))):
        held = lines[test]
        write(
            tmp_path,
            pair[0].format(number),
            lines[0],
            *(line for line in lines[1:] if line not in held),
        )
        write(tmp_path, pair[1].format(number), lines[0], *held)
    assert read(name, tmp_path, fold="0")["test"].paths == (f"{images}/0.jpg", f"{images}/1.jpg")
    assert read(name, tmp_path, fold="1")["test"].targets.tolist() == [4.5, 6]
    drawn = read(name, tmp_path, fold="2")  # not listed: drawn from all images that split 1 lists
    assert sizes(drawn) == {"train": 8, "test": 2}
    assert {path for part in drawn.values() for path in part.paths} == {
        f"{images}/{k}.jpg" for k in range(10)
    }


def test_bid_own_list_numbers_its_images(tmp_path):
    write(
        tmp_path,
        "DatabaseGrades.csv",
        "Image Number,Average Subjective Grade,std",
        "1,3.5,0.2",
        "12,4.25,0.1",
        "3.0,0,1",
    )
    touch(tmp_path, *(f"images/DatabaseImage00{k}.JPG" for k in ("01", "12", "03")))
    splits = read("bid", tmp_path)
    found = {
        path: score
        for part in splits.values()
        for path, score in zip(part.paths, part.targets.tolist(), strict=True)
    }
    assert found == {
        "images/DatabaseImage0001.JPG": 3.5,
        "images/DatabaseImage0012.JPG": 4.25,
        "images/DatabaseImage0003.JPG": 0.0,
    }
    assert list(splits["train"].columns) == ["std"]


def test_spaq_keeps_attributes(tmp_path):
    head = "Image name,MOS,Brightness,Colorfulness,Contrast,Noisiness,Sharpness"
    write(
        tmp_path, "MOS and Image attribute scores.csv", *rows(10, "{0}.jpg,{1},1,2,3,4,{0}", head)
    )
    touch(tmp_path, *(f"images/{k}.jpg" for k in range(10)))
    train = read("spaq", tmp_path)["train"]
    assert list(train.columns) == [
        "Brightness",
        "Colorfulness",
        "Contrast",
        "Noisiness",
        "Sharpness",
    ]
    np.testing.assert_array_equal(train.columns["Sharpness"] * 1.5, train.targets)


def clive_release(root):
    """The data set's own files: seven images for the raters' training come first."""
    names = [f"t{k}.bmp" for k in range(1, 8)] + [f"{k}.bmp" for k in range(10)]
    cells = np.empty((17, 1), object)
    cells[:, 0] = names
    (root / "Data").mkdir(parents=True)
    savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.arange(17.0)[None] + 0.25})
    savemat(root / "Data" / "AllStdDev_release.mat", {"AllStdDev_release": np.full((1, 17), 20.0)})
    touch(root, *(f"Images/{k}.bmp" for k in range(10)))


def test_clive_from_its_own_files_and_from_the_store(tmp_path):
    clive_release(tmp_path / "clive")
    splits = read("clive", tmp_path / "clive")
    assert sizes(splits) == {"train": 8, "test": 2}
    for part in splits.values():
        assert [
            float(path.removeprefix("Images/").removesuffix(".bmp")) + 7.25 for path in part.paths
        ] == part.targets.tolist()
    assert splits["train"].columns["std"].tolist() == [20] * 8
    folds = tuple("0123456789")
    assert (
        prepare_data.prepare(
            {"name": "quality.clive"}, tmp_path / "clive", tmp_path / "data", folds
        )
        == 10
    )
    assert not list((tmp_path / "data").rglob("*.bmp"))
    stored = read("clive", tmp_path / "data")["test"]
    assert stored.paths == splits["test"].paths and stored.read(0) == splits["test"].read(0)
    (tmp_path / "clive" / "Data" / "AllStdDev_release.mat").unlink()
    with pytest.raises(ValueError, match="missing under .*Data: AllStdDev_release.mat"):
        read("clive", tmp_path / "clive")


def test_flive_labels_of_the_data_set(tmp_path):
    write(tmp_path, "labels_image.csv", *rows(6, "ava/{0}.jpg,{1}", "name,mos"))
    write(
        tmp_path,
        "labels640.csv",
        "name_patch,name_image,mos_image",
        "patches/5.jpg,ava/5.jpg,7.5",
        "p,ava/3.jpg,4.5",
    )
    padded = [
        "name_image,is_valid",
        "ava/0.jpg,False",
        "ava/1.jpg,True",
        "ava/3.jpg,True",
        "ava/2.jpg,False",
    ]
    touch(tmp_path, *(f"images/ava/{k}.jpg" for k in range(6)))
    with pytest.raises(ValueError, match="missing under .*: labels=640_padded.csv"):
        read("flive", tmp_path, fold="")
    write(tmp_path, "labels=640_padded.csv", *padded)
    splits = read("flive", tmp_path, fold="")
    assert {split: part.targets.tolist() for split, part in splits.items()} == {
        "train": [0, 3, 6],
        "val": [1.5],
        "test": [4.5, 7.5],  # a test image is one, whatever the other list says
    }


def test_flive_of_pyiqa_and_of_qcn(tmp_path):
    lines = ["ava/0.jpg,10,0", "ava/1.jpg,20,1", "ava/2.jpg,30,2", "patches/2_patch_1.jpg,40,2"]
    write(tmp_path / "pyiqa", "meta_info_FLIVEDataset.csv", "img_name/patch_name,mos,split", *lines)
    write(tmp_path / "qcn", "train_image_split.csv", "image_name,MOS", "ava/0.jpg,10")
    write(tmp_path / "qcn", "test_image_split.csv", "image_name,MOS", "ava/2.jpg,30")
    for root in ("pyiqa", "qcn"):
        touch(tmp_path / root, *(f"images/ava/{k}.jpg" for k in range(3)))
    three = read("flive", tmp_path / "pyiqa", fold="")
    assert {split: part.targets.tolist() for split, part in three.items()} == {
        "train": [10],
        "val": [20],
        "test": [30],
    }
    two = read("flive", tmp_path / "qcn", fold="")
    assert {split: part.targets.tolist() for split, part in two.items()} == {
        "train": [10],
        "test": [30],
    }


@pytest.mark.parametrize(
    "column", ["ratio802_seed123_split_{:02d}", "ratio802_seed123_split{:02d}"]
)
def test_meta_info_columns_of_splits(tmp_path, column):
    heads = [column.format(1), column.format(10), "official_split"]
    kinds = ["train,val,train", "val,train,test", "train,train,val", "train,train,test"]
    lines = [f"{k}.png,{k}.5,0.1,{kind}" for k, kind in enumerate(kinds)]
    write(tmp_path, "meta_info_MineDataset.csv", "img_name,mos,std," + ",".join(heads), *lines)
    touch(tmp_path, *(f"images/{k}.png" for k in range(4)))
    table = {"table": "meta_info_MineDataset.csv"}
    first = read("meta_info", tmp_path, **table)
    assert {split: part.targets.tolist() for split, part in first.items()} == {
        "train": [0.5, 2.5, 3.5],
        "test": [1.5],
    }
    assert list(first["train"].columns) == ["std"]
    assert read("meta_info", tmp_path, fold="9", **table)["test"].targets.tolist() == [0.5]
    assert sizes(read("meta_info", tmp_path, fold="1", **table)) == {"train": 3, "test": 1}  # drawn
    official = read("meta_info", tmp_path, fold="", protocol="official", **table)
    assert sizes(official) == {"train": 1, "val": 1, "test": 2}
    own = read("koniq", tmp_path, table=str(tmp_path / "meta_info_MineDataset.csv"))
    assert own["test"].paths == first["test"].paths and own["test"].name == "koniq test"


def test_messages(tmp_path):
    for name in ("bid", "clive", "koniq", "spaq", "flive"):
        with pytest.raises(ValueError) as error:
            read(name, tmp_path)
        text = str(error.value)
        assert text.startswith(f"missing under {tmp_path}: ")
        assert (
            "lists: " in text
            and "mages: " in text
            and "layout: <root>/" in text
            and "spreadsheet:" not in text
        )
    (tmp_path / "DatabaseGrades.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(
        ValueError,
        match="DatabaseGrades.xlsx is a spreadsheet: export its sheet as DatabaseGrades.csv",
    ):
        read("bid", tmp_path)
    with pytest.raises(ValueError, match="DatabaseGrades.xlsx is no table that pandas reads"):
        read("bid", tmp_path, table="DatabaseGrades.xlsx")
    message = "missing under .*: gone.csv\nlists: meta_info_<name>Dataset.csv of pyiqa"
    with pytest.raises(ValueError, match=message):
        read("meta_info", tmp_path, table="gone.csv")
    write(tmp_path, "other.csv", "file,MOS", "a.jpg,1")
    with pytest.raises(
        ValueError, match=r"other.csv has no column of names, one of .*; it has \['file', 'MOS'\]"
    ):
        read("meta_info", tmp_path, table="other.csv")
    write(tmp_path, "other.csv", "name,score", "a.jpg,1")
    with pytest.raises(ValueError, match=r"no column of opinion scores, one of \['mos'"):
        read("meta_info", tmp_path, table="other.csv")
    write(tmp_path, "other.csv", "name,mos", "a.jpg,1", "b.jpg,nan")
    with pytest.raises(ValueError, match="other.csv, line 3: mos 'nan' is not a number"):
        read("meta_info", tmp_path, table="other.csv")


def test_config_and_pixels(tmp_path):
    """The table of config.data reaches the reader, and what it reads are the bytes of the image."""
    encoded = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 100, 50)).save(encoded, "PNG")
    (tmp_path / "images").mkdir()
    for k in range(5):
        (tmp_path / "images" / f"{k}.png").write_bytes(encoded.getvalue())
    write(tmp_path, "mine.csv", *rows(5, "{0}.png,{1}", "name,mos"))
    shift = {"labels": 0, "keep": 1.0, "choice": "top"}
    data = {
        "reader": {"name": "quality.bid"},
        "root": str(tmp_path),
        "folds": quality.FOLDS,
        "table": "mine.csv",
        "shots": 0,
    }
    splits = readers.load(ConfigDict({**data, "shift": shift}), "4", 0)
    assert sizes(splits) == {"train": 4, "test": 1}
    assert Image.open(io.BytesIO(splits["test"].read(0))).getpixel((7, 5)) == (200, 100, 50)
