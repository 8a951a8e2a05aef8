"""Readers of gaze and of outdoor temperatures, on lists made here."""

import collections

import numpy as np
import pytest

from jaxord.data import readers
from tests.data.files import touch, write
from tools import prepare_data


def gaze(root, **settings):
    return readers.reader({"name": "gaze.mpiifacegaze"})(
        root, **{"fold": "0", "seed": 0, **settings}
    )


def sky(root, **settings):
    return readers.reader({"name": "outdoor.skyfinder"})(
        root, **{"fold": "", "seed": 0, **settings}
    )


def people(splits):
    return {
        split: sorted(set(part.columns["participant"].tolist())) for split, part in splits.items()
    }


def gaze_list(root, participants=15, images=2):
    names = [f"p{k:02d}" for k in range(participants)]
    lines = [
        f"{name}/{n}.jpg,0.{n},-0.{k:02d},{name}"
        for k, name in enumerate(names)
        for n in range(images)
    ]
    write(root, "gaze.csv", "path,pitch,yaw,participant", *lines)
    touch(root, *(line.split(",")[0] for line in lines))


def annotation(path, centre, target):
    """A line of the data set's own: 28 fields."""
    return " ".join([path, *["0"] * 20, *map(str, (*centre, *target)), "left"])


def test_no_participant_is_in_two_splits(tmp_path):
    gaze_list(tmp_path)
    tested = collections.Counter()
    for fold in range(15):
        splits = gaze(tmp_path, fold=str(fold))
        found = people(splits)
        assert {split: len(names) for split, names in found.items()} == {
            "train": 11,
            "val": 2,
            "test": 2,
        }
        assert len(set().union(*found.values())) == 15
        tested.update(found["test"])
    assert set(tested.values()) == {2} and len(tested) == 15
    assert people(gaze(tmp_path, fold="14"))["test"] == ["p00", "p14"]
    left_out = people(gaze(tmp_path, fold="3", test=1, val=0))
    assert left_out["test"] == ["p03"] and len(left_out["train"]) == 14 and "val" not in left_out


def test_gaze_targets_are_pairs(tmp_path):
    gaze_list(tmp_path, participants=5)
    test = gaze(tmp_path, fold="2")["test"]
    assert test.targets.shape == (4, 2) and test.targets.dtype == np.float32
    np.testing.assert_allclose(test.targets, [[0, -0.02], [0.1, -0.02], [0, -0.03], [0.1, -0.03]])
    assert test.read(1) == b"p02/1.jpg"


def test_angles_of_the_annotations(tmp_path):
    centre = (27.792112, 23.422692, 524.537075)
    target = (11.040978, 166.869249, -27.728178)
    for k in range(15):
        lines = [
            annotation("day01/0005.jpg", centre, target),
            annotation("day01/0009.jpg", (0, 0, 500), (0, 0, k - 20)),
        ]
        write(tmp_path, f"p{k:02d}/p{k:02d}.txt", *lines)
        touch(tmp_path, f"p{k:02d}/day01/0005.jpg", f"p{k:02d}/day01/0009.jpg")
    splits = gaze(tmp_path)
    assert splits["test"].paths == tuple(
        f"p0{k}/day01/{n}.jpg" for k in (0, 1) for n in ("0005", "0009")
    )
    assert people(splits)["val"] == ["p02", "p03"]
    pitch, yaw = splits["test"].targets[0].astype(float)
    # In float32 a gaze of 571 mm is known to 3e-5 mm.
    direction = np.subtract(target, centre) / np.linalg.norm(np.subtract(target, centre))
    back = -np.array([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)])
    np.testing.assert_allclose(back, direction, atol=2e-7)
    assert pitch < 0 < yaw  # down, and towards -x
    np.testing.assert_array_equal(splits["test"].targets[1], [0, 0])  # into the camera
    write(tmp_path, "p07/p07.txt", annotation("day01/0005.jpg", target, target))
    with pytest.raises(
        ValueError, match="p07.txt, line 1: the gaze target is the centre of the face"
    ):
        gaze(tmp_path)
    write(tmp_path, "p07/p07.txt", "day01/0005.jpg 1 2 3")
    with pytest.raises(ValueError, match="p07.txt, line 1: 4 fields, expected 28"):
        gaze(tmp_path)


def test_gaze_messages(tmp_path):
    with pytest.raises(ValueError) as error:
        gaze(tmp_path)
    text = str(error.value)
    assert text.startswith(f"missing under {tmp_path}: p00/p00.txt, p01/p01.txt")
    assert "lists: " in text and "mages: " in text and "layout: <root>/gaze.csv" in text
    gaze_list(tmp_path, participants=4)
    with pytest.raises(ValueError, match="test=2 and val=2 participants of 4; one at least"):
        gaze(tmp_path)
    with pytest.raises(ValueError, match=r"fold is '4'; it is one of \['0', '1', '2', '3'\]"):
        gaze(tmp_path, fold="4", val=1)
    write(tmp_path, "degrees.csv", "path,pitch,yaw,participant", "p00/0.jpg,12.5,3,p00")
    with pytest.raises(
        ValueError, match="degrees.csv: pitch and yaw reach 12.5; they are angles in radians"
    ):
        gaze(tmp_path, table="degrees.csv")


def metadata(root):
    """The data set's own table: three cameras of 23, 20 and 5 pictures that count, one without
    images."""
    lines = ["Filename,CamId,Year,Hour,Min,TempM,night"]
    for camera, count in ((65, 23), (204, 20), (3395, 5)):
        lines += [f"{k}.jpg,{camera}.0,2013,11,{k},{camera % 50 - k},0.1" for k in range(count)]
        touch(root, *(f"images/{camera}/{k}.jpg" for k in range(count)))
    lines += [
        "0.jpg,65,2013,11,0,3,0.1",
        "90.jpg,65,2013,10,0,3,0.1",
    ]  # stands twice, at another hour
    lines += [
        "91.jpg,65,2013,11,0,-9999,0.1",
        "92.jpg,65,2013,11,0,,0.1",
        "0.jpg,999,2013,11,0,5,0.1",
    ]
    write(root, "complete_table_with_mcr.csv", *lines)


def cameras(splits):
    return {
        split: dict(collections.Counter(part.columns["camera"].tolist()))
        for split, part in splits.items()
    }


def test_skyfinder_divides_the_pictures_of_each_camera(tmp_path):
    metadata(tmp_path)
    splits = sky(tmp_path)
    assert cameras(splits) == {
        "train": {"65": 19, "204": 16, "3395": 5},
        "val": {"65": 2, "204": 2},
        "test": {"65": 2, "204": 2},
    }
    assert len({path for part in splits.values() for path in part.paths}) == 48
    path, target = splits["test"].paths[0], splits["test"].targets[0]
    _, camera, file = path.split("/")
    assert target == int(camera) % 50 - int(file.removesuffix(".jpg"))
    assert (
        sky(tmp_path)["test"].paths == splits["test"].paths != sky(tmp_path, seed=1)["test"].paths
    )
    with pytest.raises(
        ValueError, match=r"1 of 49 images cannot be read .*\n.*images/65/90.jpg: not there"
    ):
        sky(tmp_path, hours=())
    touch(tmp_path, "images/65/90.jpg")
    assert sum(map(len, sky(tmp_path, hours=()).values())) == 49
    assert sky(tmp_path, hours=(10,))["train"].targets.tolist() == [3]


def test_skyfinder_cameras_apart(tmp_path):
    metadata(tmp_path)
    found = cameras(sky(tmp_path, by="camera"))
    assert sorted(camera for each in found.values() for camera in each) == ["204", "3395", "65"]
    assert sorted(found) == ["test", "train", "val"]
    with pytest.raises(ValueError, match=r"by is 'cam'; it is one of \['image', 'camera'\]"):
        sky(tmp_path, by="cam")


def test_skyfinder_from_the_store(tmp_path):
    metadata(tmp_path / "sky")
    expected = sky(tmp_path / "sky")
    assert (
        prepare_data.prepare({"name": "outdoor.skyfinder"}, tmp_path / "sky", tmp_path / "data")
        == 48
    )
    stored = sky(tmp_path / "data")
    assert {split: part.paths for split, part in stored.items()} == {
        split: part.paths for split, part in expected.items()
    }
    assert stored["val"].read(1) == expected["val"].read(1)


def test_skyfinder_own_list(tmp_path):
    lines = ["a.jpg,-3.5,train,65,fog", "b.jpg,4,valid,65,", "c.jpg,20.25,test,7,"]
    write(tmp_path, "skyfinder.csv", "path,temperature,split,camera,weather", *lines)
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg")
    splits = sky(tmp_path)
    assert {split: part.targets.tolist() for split, part in splits.items()} == {
        "train": [-3.5],
        "val": [4],
        "test": [20.25],
    }
    assert splits["train"].columns["weather"].tolist() == ["fog"] and splits["test"].columns[
        "camera"
    ].tolist() == [7]
    write(tmp_path, "drawn.csv", "path,temperature,camera", *(f"{n}.jpg,1,{n}" for n in "abc"))
    assert sorted(sky(tmp_path, table="drawn.csv", by="camera")) == ["test", "train", "val"]
    write(tmp_path, "two.csv", "path,temperature,camera", "a.jpg,1,x", "b.jpg,1,y")
    with pytest.raises(ValueError, match="needs at least three cameras, there are"):
        sky(tmp_path, table="two.csv", by="camera")
    write(tmp_path, "bare.csv", "path,temperature", "a.jpg,1")
    with pytest.raises(ValueError, match="neither a column split nor a column camera"):
        sky(tmp_path, table="bare.csv")


def test_skyfinder_messages(tmp_path):
    with pytest.raises(ValueError) as error:
        sky(tmp_path)
    text = str(error.value)
    assert text.startswith(f"missing under {tmp_path}: complete_table_with_mcr.csv\n")
    assert "lists: " in text and "mages: " in text and "layout: <root>/" in text
    write(tmp_path, "complete_table_with_mcr.csv", "Filename,CamId,Hour,TempM", "0.jpg,65,11,5")
    with pytest.raises(
        ValueError, match="of the 1 rows of .* none has a temperature, .*there are 0 folders under"
    ):
        sky(tmp_path)
