"""Readers of every data set, on fixtures made here; what users get wrong in files and configs."""

import collections
import io
import os

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxord.data import readers
from jaxord.data.readers import demo, faces, photos, sources
from jaxord.data.records import Records, concatenate, image_records
from tests.data.files import touch

RUN = {"fold": "0", "seed": 0}


def write(root, name, text):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root / name


def records(targets, name="made"):
    paths = tuple(f"{row}.jpg" for row in range(len(targets)))
    return Records(paths, np.asarray(targets, np.float32), lambda row: str(row).encode(), {}, name)


def config(reader, root, **fields):
    shift = {"labels": 0, "keep": 1.0, "choice": "top"}
    return ConfigDict(
        {
            "reader": reader,
            "root": str(root),
            "folds": (),
            "table": "",
            "shots": 0,
            "shift": shift,
            **fields,
        }
    )


def test_images_must_lie_under_the_root(tmp_path):
    root = tmp_path / "root"
    touch(tmp_path, "outside.jpg")
    touch(root, "a.jpg")
    os.symlink(tmp_path / "outside.jpg", root / "link.jpg")
    os.symlink(root / "a.jpg", root / "inner.jpg")
    (root / "folder.jpg").mkdir()
    paths = [
        "./a.jpg",
        "inner.jpg",
        "../outside.jpg",
        str(root / "a.jpg"),
        "link.jpg",
        "gone.jpg",
        "folder.jpg",
        "x/y",
        "z",
    ]
    with pytest.raises(ValueError) as error:
        image_records(root, paths, np.zeros(9), name="mine", about="ask me")
    text = str(error.value)
    assert "mine: 7 of 9 images" in text
    assert "row 2, ../outside.jpg: leads out of the root" in text
    assert f"row 3, {root}/a.jpg: leads out of the root" in text
    assert "row 4, link.jpg: is a link that leaves the root" in text
    assert "row 5, gone.jpg: not there" in text
    assert "row 6, folder.jpg: not a file" in text
    assert "and 2 more" in text and "row 7" not in text
    assert text.endswith("ask me")
    good = image_records(root, paths[:2], np.zeros(2), name="mine", about="")
    assert good.paths == ("a.jpg", "inner.jpg") and good.read(0) == good.read(1) == b"a.jpg"


def test_stamp_follows_the_files(tmp_path):
    touch(tmp_path, "a.jpg")
    make = lambda: image_records(tmp_path, ["a.jpg"], [0], name="", about="").stamp  # noqa: E731
    before = make()
    assert make() == before
    (tmp_path / "a.jpg").write_bytes(b"longer than before")
    assert make() != before


def test_take_and_concatenate():
    parts = [records([0, 1, 2]), records([5, 6])]
    whole = concatenate(parts).take([4, 0, 3])
    assert whole.paths == ("1.jpg", "0.jpg", "0.jpg")
    assert [whole.read(row) for row in range(3)] == [b"1", b"0", b"0"]
    np.testing.assert_array_equal(whole.targets, [6, 0, 5])


def morph_lists(root):
    head, rows = "race gender age filename database", ["0 1 20 a.JPG morph", "0 0 31 b.JPG morph"]
    for fold in range(2):
        for split, row in zip(("train", "test"), rows, strict=True):
            lines = (
                [head, row]
                if fold == 0
                else ["," + head.replace(" ", ","), "5," + row.replace(" ", ",")]
            )
            write(root, f"Setting_1_fold{fold}_{split}.txt", "\n".join(lines) + "\n")
    write(
        root,
        "Setting_3.txt",
        "filename\tfold\tage\tdatabase\n"
        + "".join(f"{n}.JPG\t{n % 5}\t{20 + n}\tmorph\n" for n in range(10)),
    )
    write(
        root,
        "Setting_4.txt",
        "database\tfilename\tfold\tage\n"
        + "".join(f"morph\t{n}.JPG\t{n // 2}\t{20 + n}\n" for n in range(10)),
    )
    write(root, "ET_proto_train.txt", "x/a.JPG 21\nx/b.JPG 30 32\n")
    write(root, "ET_proto_val.txt", "x/c.JPG 41\n")
    touch(root, "images/a.JPG", "images/b.JPG", *(f"images/{n}.JPG" for n in range(10)))
    touch(root, "images/x/a.JPG", "images/x/b.JPG", "images/x/c.JPG")


def test_morph(tmp_path):
    morph_lists(tmp_path)
    for fold in ("0", "1"):
        splits = faces.morph(tmp_path, fold=fold, seed=0)
        assert sorted(splits) == ["test", "train"]
        assert splits["train"].paths == ("images/a.JPG",) and splits["train"].targets.tolist() == [
            20
        ]
        assert splits["train"].columns["gender"].tolist() == [1] and sorted(
            splits["train"].columns
        ) == ["gender", "race"]
    random = faces.morph(tmp_path, fold="3", seed=0, setting="random")
    assert random["test"].paths == ("images/3.JPG", "images/8.JPG") and len(random["train"]) == 8
    assert faces.morph(tmp_path, fold="3", seed=0, setting="subject")["test"].targets.tolist() == [
        26,
        27,
    ]
    listed = faces.morph(tmp_path, fold="", seed=0, setting="ordinalclip", label_offset=1)
    assert listed["train"].targets.tolist() == [20, 31] and listed["test"].targets.tolist() == [40]
    carved = faces.morph(tmp_path, fold="3", seed=0, setting="random", val_fraction=0.25)
    assert (len(carved["train"]), len(carved["val"]), carved["val"].name) == (6, 2, "morph val")
    with pytest.raises(ValueError, match="morph: setting is 'E'"):
        faces.morph(tmp_path, fold="0", seed=0, setting="E")


def test_morph_with_a_file_a_fold(tmp_path):
    touch(tmp_path, *(f"images/{n}.JPG" for n in range(5)))
    for k in range(3):
        write(
            tmp_path,
            f"Setting_2_fold{k}.txt",
            f"race gender age filename database\n0 1 {20 + k} {k}.JPG morph\n",
        )
    for k in range(5):
        write(tmp_path, f"settingC/morph_C_0{k}.txt", f"{k}.JPG {30 + k}\n")
        write(tmp_path, f"settingD/morph_D_0{k}.txt", f"{k}.JPG {40 + k}\n")
    b = faces.morph(tmp_path, fold="1", seed=0, setting="B")
    assert b["train"].targets.tolist() == [21] and b["test"].targets.tolist() == [20, 22]
    assert b["test"].columns["gender"].tolist() == [1, 1]
    for setting, base in (("l2rclip_random", 30), ("l2rclip_subject", 40)):
        splits = faces.morph(tmp_path, fold="2", seed=0, setting=setting)
        assert splits["test"].targets.tolist() == [base + 2] and splits["test"].paths == (
            "images/2.JPG",
        )
        assert splits["train"].targets.tolist() == [base, base + 1, base + 3, base + 4]
    with pytest.raises(
        ValueError, match=r"morph: fold of setting 'B' is '3'; it is one of \['0', '1', '2'\]"
    ):
        faces.morph(tmp_path, fold="3", seed=0, setting="B")


def test_adience(tmp_path):
    for k in range(5):
        write(
            tmp_path,
            f"simplified_adience_{k}.txt",
            f"u@N0{k}/face.1.jpg {k}\nu@N0{k}/face.2.jpg 7\n",
        )
        touch(tmp_path, f"images/u@N0{k}/face.1.jpg", f"images/u@N0{k}/face.2.jpg")
    splits = faces.adience(tmp_path, fold="2", seed=0)
    assert splits["test"].paths == ("images/u@N02/face.1.jpg", "images/u@N02/face.2.jpg")
    assert splits["train"].targets.tolist() == [0, 7, 1, 7, 3, 7, 4, 7]
    for name, k in (("train", 0), ("val", 1)):
        write(tmp_path, f"test_fold_is_2/age_{name}.txt", f"u@N0{k}/face.1.jpg {k}\n")
    assert sorted(faces.adience(tmp_path, fold="2", seed=0, lists="poe")) == ["test", "train"]
    write(tmp_path, "test_fold_is_2/age_test.txt", "u@N02/face.1.jpg 2\n")
    three = faces.adience(tmp_path, fold="2", seed=0, lists="poe")
    assert {split: part.targets.tolist() for split, part in three.items()} == {
        "train": [0],
        "val": [1],
        "test": [2],
    }


def test_csv_face_sets(tmp_path):
    touch(
        tmp_path,
        *(f"images/{name}.jpg" for name in "abcd"),
        "AgeDB/1_A_9_f.jpg",
        "AgeDB/2_B_8_m.jpg",
        "AgeDB/3_C_7_m.jpg",
    )
    write(
        tmp_path,
        "total_2015.csv",
        "filename,age,stdv,database\na.jpg,21,4.5,train\nb.jpg,30,2,val\nc.jpg,40,1,test\n",
    )
    both = faces.clap2015(tmp_path, **RUN)
    assert sorted(both) == ["test", "train"] and both["train"].targets.tolist() == [21, 30]
    assert both["train"].read(1) == b"images/b.jpg" and both["train"].columns["stdv"].tolist() == [
        4.5,
        2,
    ]
    assert faces.clap2015(tmp_path, train_on="train", **RUN)["val"].targets.tolist() == [30]
    write(tmp_path, "cut/total_2015.csv", "filename,age,stdv,database\na.jpg,21,4.5,train\n")
    with pytest.raises(
        ValueError, match=r"the column 'database' holds \['train'\], expected train, val and test"
    ):
        faces.clap2015(tmp_path / "cut", **RUN)
    with pytest.raises(ValueError, match="clap2015: train_on is 'all'"):
        faces.clap2015(tmp_path, train_on="all", **RUN)
    write(
        tmp_path,
        "agedb.csv",
        "age,path,split\n9,AgeDB/1_A_9_f.jpg,train\n8,AgeDB/2_B_8_m.jpg,val\n7,AgeDB/3_C_7_m.jpg,test\n",
    )
    assert [part.targets.tolist() for part in faces.agedb(tmp_path, **RUN).values()] == [
        [9],
        [8],
        [7],
    ]
    for split, name in (("train", "a"), ("test", "b")):
        write(tmp_path, f"UTK_{split}_coral.csv", f",filename,age,database\n17,{name}.jpg,40,utk\n")
    assert faces.utk(tmp_path, **RUN)["test"].paths == ("images/b.jpg",)
    write(
        tmp_path,
        "CACD.csv",
        ",filename,age,database,fold\n"
        + "".join(
            f"{n},{n}.jpg,2{k},cacd,{split}\n"
            for k, (n, split) in enumerate(zip("abc", ("train", "val", "test"), strict=True))
        ),
    )
    assert {
        split: part.targets.tolist() for split, part in faces.cacd(tmp_path, **RUN).items()
    } == {"train": [20], "test": [22], "val": [21]}
    clean = faces.cacd(tmp_path, train_on="val", **RUN)
    assert {split: part.targets.tolist() for split, part in clean.items()} == {
        "train": [21],
        "test": [22],
    }


def test_hci_is_split_evenly_and_anew_for_each_fold(tmp_path):
    for decade in photos.DECADES:
        write(
            tmp_path,
            f"{decade}.txt",
            "".join(f"./images/{decade}_{n}.jpg {decade}\n" for n in range(265)),
        )
        touch(tmp_path, *(f"images/{decade}_{n}.jpg" for n in range(265)))
    splits = photos.hci(tmp_path, fold="3", seed=0)
    for split, count in (("train", 210), ("val", 5), ("test", 50)):
        assert collections.Counter(splits[split].targets.tolist()) == {
            float(k): count for k in range(5)
        }
    assert len(set().union(*(part.paths for part in splits.values()))) == 5 * 265
    assert photos.hci(tmp_path, fold="3", seed=0)["test"].paths == splits["test"].paths
    assert photos.hci(tmp_path, fold="4", seed=0)["test"].paths != splits["test"].paths
    assert photos.hci(tmp_path, fold="3", seed=1)["test"].paths != splits["test"].paths
    write(tmp_path, "1940s.txt", "./images/1950s_0.jpg 1950s\n")
    with pytest.raises(ValueError, match=r"1940s.txt holds the decades \['1950s'\]"):
        photos.hci(tmp_path, fold="3", seed=0)


def test_aesthetics(tmp_path):
    line = "{}.png\t{}.0\n".format
    write(tmp_path, "people_train.txt", "".join(line(n, 1 + n % 5) for n in range(20)))
    write(tmp_path, "people_test.txt", "".join(line(n, 1 + n % 5) for n in range(20, 25)))
    write(tmp_path, "people_datasets.txt", "".join(line(n, 2 + n % 2) for n in range(80)))
    touch(tmp_path, *(f"images/{n}.png" for n in range(80)))
    fixed = photos.aesthetics(tmp_path, fold="people", seed=0)
    assert sorted(fixed) == ["test", "train"] and fixed["train"].targets.tolist()[:5] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert len(photos.aesthetics(tmp_path, fold="people", seed=0, val_fraction=0.25)["val"]) == 5
    folds = [
        photos.aesthetics(tmp_path, fold=f"people-{k}", seed=0, protocol="five_fold")
        for k in range(5)
    ]
    assert [{split: len(part) for split, part in splits.items()} for splits in folds] == [
        {"train": 60, "val": 4, "test": 16}
    ] * 5
    assert sorted(path for splits in folds for path in splits["test"].paths) == sorted(
        f"images/{n}.png" for n in range(80)
    )
    assert folds[1]["train"].read(0).decode() == folds[1]["train"].paths[0]
    with pytest.raises(ValueError, match="fold of protocol 'five_fold' is 'people'"):
        photos.aesthetics(tmp_path, fold="people", seed=0, protocol="five_fold")
    write(tmp_path, "people_test.txt", "20.png\t6.0\n")
    with pytest.raises(ValueError, match="people_test.txt, line 1: grade 6, expected 1 to 5"):
        photos.aesthetics(tmp_path, fold="people", seed=0)


@pytest.mark.parametrize(
    "read",
    [
        faces.morph,
        faces.adience,
        faces.clap2015,
        faces.cacd,
        faces.agedb,
        faces.imdb_wiki,
        faces.utk,
        photos.hci,
    ],
)
def test_one_message_says_all_that_is_missing(tmp_path, read):
    with pytest.raises(ValueError) as error:
        read(tmp_path, **RUN)
    text = str(error.value)
    assert text.startswith(f"missing under {tmp_path}: ")
    assert "lists: " in text and "mages: " in text and "layout: <root>/" in text


def test_folder(tmp_path):
    touch(
        tmp_path,
        *(f"{rank}/{n}.jpg" for rank in ("1", "2.5", "10") for n in range(10)),
        ".hidden/1.jpg",
        "1/.DS_Store",
    )
    splits = sources.folder(tmp_path, **RUN)
    assert {split: len(part) for split, part in splits.items()} == {
        "train": 21,
        "val": 3,
        "test": 6,
    }
    assert sorted(set(splits["train"].targets.tolist())) == [1, 2.5, 10]
    assert splits["train"].read(0).decode() == splits["train"].paths[0]
    assert sorted(sources.folder(tmp_path, fractions=(0.5, 0, 0.5), **RUN)) == ["test", "train"]
    touch(tmp_path, "stray.jpg")
    with pytest.raises(ValueError, match=r"\['stray.jpg'\] lie in no rank"):
        sources.folder(tmp_path, **RUN)
    with pytest.raises(ValueError, match="no images under"):
        sources.folder(tmp_path / "nothing", **RUN)
    touch(tmp_path, "photos/images/a.jpg", "photos/images/more/b.jpg", "photos/labels.csv")
    with pytest.raises(
        ValueError, match=r"all images lie in 'images', which(.|\n)*--config.data.table=labels.csv"
    ):
        sources.folder(tmp_path / "photos", **RUN)
    touch(tmp_path, "graded/5/a.jpg", "powers/²/a.jpg", "powers/³/a.jpg")
    with pytest.raises(ValueError, match="the order of the ranks '²', '³' is unknown"):
        sources.folder(tmp_path / "powers", **RUN)
    assert sources.folder(tmp_path / "graded", fractions=(0, 0, 1), **RUN)[
        "test"
    ].targets.tolist() == [5]


def test_folder_with_names_and_splits(tmp_path):
    touch(
        tmp_path,
        *(
            f"{split}/grade{rank}/x{n}.PNG"
            for split in ("train", "test")
            for rank in (1, 2, 10)
            for n in range(2)
        ),
    )
    splits = sources.folder(tmp_path, **RUN)
    assert sorted(splits) == ["test", "train"]
    assert splits["test"].targets.tolist() == [0, 0, 2, 2, 1, 1]
    assert (
        splits["test"].columns["rank_name"].tolist()
        == ["grade1"] * 2 + ["grade10"] * 2 + ["grade2"] * 2
    )


def test_csv(tmp_path):
    touch(tmp_path, *(f"{n}.jpg" for n in range(20)))
    write(
        tmp_path,
        "my.csv",
        "file,score,part,sex\n"
        + "".join(
            f"{n}.jpg,{n / 2},{['train', 'dev', 'test'][n % 3]},{'mf'[n % 2]}\n" for n in range(20)
        ),
    )
    columns = {"path_column": "file", "label_column": "score", "split_column": "part"}
    splits = sources.own(tmp_path, table="my.csv", **columns, **RUN)
    assert {split: len(part) for split, part in splits.items()} == {"train": 7, "val": 7, "test": 6}
    assert splits["val"].targets.tolist()[:2] == [0.5, 2] and splits["val"].columns["sex"].tolist()[
        :2
    ] == ["f", "m"]
    drawn = sources.csv(
        tmp_path, table=str(tmp_path / "my.csv"), **{**columns, "split_column": "split"}, **RUN
    )
    assert {split: len(part) for split, part in drawn.items()} == {"train": 14, "val": 2, "test": 4}
    with pytest.raises(ValueError, match="no column 'path'"):
        sources.csv(tmp_path, table="my.csv", **RUN)
    with pytest.raises(ValueError, match=r"the splits \['f', 'm'\]; known are"):
        sources.csv(tmp_path, table="my.csv", **{**columns, "split_column": "sex"}, **RUN)
    with pytest.raises(ValueError, match="the table is 'your.csv', but neither"):
        sources.csv(tmp_path, table="your.csv", **RUN)


def test_load(tmp_path):
    morph_lists(tmp_path)
    folds = tuple("01234")
    data = config({"name": "faces.morph", "setting": "random"}, tmp_path, folds=folds)
    assert {split: len(part) for split, part in readers.load(data, "1", 0).items()} == {
        "train": 8,
        "test": 2,
    }
    assert (
        len(readers.load(config(data.reader, tmp_path, folds=folds, shots=1), "1", 0)["train"]) == 8
    )
    shifted = config(
        data.reader, tmp_path, folds=folds, shift={"labels": 8, "keep": 0.5, "choice": "top"}
    )
    assert len(readers.load(shifted, "1", 0)["train"]) == 8  # one image a label: each keeps it
    with pytest.raises(ValueError, match=r"config.fold is '7'; the folds are \['0', '1'"):
        readers.load(data, "7", 0)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "face.morph"}, "Did you mean 'faces.morph'"),
        ({"name": "faces.morf"}, "Did you mean 'faces.morph'"),
        ({"name": "faces._dir"}, "jaxord.data.readers does not have"),
        ({"name": "pipeline.train_rows"}, "jaxord.data.readers does not have"),
        (
            {"name": "faces.morph", "seting": "A"},
            "morph has no setting 'seting'. Did you mean 'setting'",
        ),
        (
            {"name": "faces.morph", "fold": "1"},
            r"has \['fold'\]; they are config.fold and config.seed",
        ),
    ],
)
def test_unknown_readers_and_settings(entry, message):
    with pytest.raises(ValueError, match=message):
        readers.reader(entry)


def test_load_refuses_a_table_the_reader_does_not_take(tmp_path):
    with pytest.raises(ValueError, match="hci has no setting 'table'"):
        readers.load(config({"name": "photos.hci"}, tmp_path, table="my.csv"), "", 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "a.jpg,1,train\nb.jpg,2,test\nb.jpg,2,val\n",
            r"1 images are in both val \(1\) and test \(1\), such as \['b.jpg'\]",
        ),
        ("a.jpg,1,train\nb.jpg,2,test\n./a.jpg,2,test\n", r"in both train \(1\) and test \(2\)"),
        (
            "a.jpg,1,train\nb.jpg,2,val\n",
            r"the splits \['train', 'val'\]; train and test are needed",
        ),
    ],
)
def test_load_checks_the_splits(tmp_path, rows, message):
    touch(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path, "my.csv", "path,label,split\n" + rows)
    with pytest.raises(ValueError, match=message):
        readers.load(config({"name": "sources.own"}, tmp_path, table="my.csv"), "", 0)


def test_load_refuses_an_empty_split(tmp_path):
    touch(tmp_path, "0/a.jpg", "0/b.jpg")
    with pytest.raises(ValueError, match="the test split is empty"):
        readers.load(config({"name": "sources.folder"}, tmp_path), "", 0)


def test_tfds_data_sets(tmp_path):
    from jaxord.data import arrayrecord

    def examples(n):
        for row in range(n):
            encoded = io.BytesIO()
            Image.new("RGB", (4, 4), (row, 0, 0)).save(encoded, "PNG")
            yield {"image": encoded.getvalue(), "score": np.float32(row), "file": f"{row}.png"}

    def features(tfds):
        shape = {"image": tfds.features.Image(shape=(None, None, 3)), "file": tfds.features.Text()}
        return {**shape, "score": tfds.features.Scalar(np.float32)}

    arrayrecord.write_store(tmp_path, features, {"train": examples(10), "test": examples(3)})
    settings = {"dataset": "store", "target": "score", "path": "file"}
    splits = sources.tfds_dataset(tmp_path, **settings, **RUN)
    assert {split: len(part) for split, part in splits.items()} == {"train": 10, "test": 3}
    assert splits["train"].paths[7] == "7.png" and splits["train"].targets[7] == 7
    assert Image.open(io.BytesIO(splits["train"].read(7))).getpixel((0, 0)) == (7, 0, 0)
    cut = sources.tfds_dataset(
        tmp_path, splits={"train": "train[:80%]", "test": "train[80%:]"}, **settings, **RUN
    )
    assert (len(cut["train"]), cut["test"].targets.tolist()) == (8, [8, 9])
    with pytest.raises(
        ValueError, match=r"no feature 'target'; it has \['file', 'image', 'score'\]"
    ):
        sources.tfds_dataset(tmp_path, dataset="store", **RUN)
    with pytest.raises(ValueError, match="no TFDS data set 'mine' under"):
        sources.tfds_dataset(tmp_path, dataset="mine", **RUN)
    info = tmp_path / "store" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="stored as tfrecord, which only TensorFlow reads"):
        sources.tfds_dataset(tmp_path, **settings, **RUN)


def test_demo_readers_are_found():
    assert readers.reader({"name": "demo.digits"}) is demo.digits
