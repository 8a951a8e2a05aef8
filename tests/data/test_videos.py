"""Which frames are taken, what a crash leaves behind, and the list files of every data set, on
videos made here."""

import fractions
import re

import av
import numpy as np
import pytest

from jaxord.data import video
from jaxord.data.readers import videos
from tests.data.test_sources import write

RUN = {"fold": "0", "seed": 0}
FORM = {
    "frames": 8,
    "clips": 8,
    "clip_frames": 4,
    "clip_size": 32,
    "resize": "square",
    "stored_size": 16,
}
STEP = 4  # of the brightness from frame to frame


def film(path, frames, first=0, picture=None):
    """A video whose frame i has the brightness 4 (first + i), with frames stored out of order as
    usual."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=fractions.Fraction(30))
        stream.width, stream.height, stream.pix_fmt, stream.options = (
            48,
            32,
            "yuv420p",
            {"bf": "2", "qp": "0"},
        )
        for i in range(frames):
            pixels = (
                np.full((32, 48, 3), STEP * (first + i), np.uint8) if picture is None else picture
            )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def numbers(pixels):
    """The number that each picture's brightness stands for."""
    return np.round(pixels.astype(float).mean((-3, -2, -1)) / STEP).astype(int).tolist()


@pytest.fixture(scope="module")
def sixty(tmp_path_factory):
    return film(tmp_path_factory.mktemp("film") / "sixty.mp4", 60)


@pytest.fixture
def network(monkeypatch):
    """Instead of the Fast pathway: each clip's brightness; counts the videos."""
    seen = []

    def motion(clips):
        seen.append(len(clips))
        return np.broadcast_to(
            clips.mean((1, 2, 3, 4))[:, None, None, None, None], (len(clips), 4, 1, 1, 256)
        )

    monkeypatch.setattr(video, "fast_motion", lambda weights: motion)
    return seen


def test_frames_are_the_middle_of_equal_parts_and_clips_begin_with_the_parts(sixty):
    images, size, clips = video.decode_video(sixty, **{**FORM, "frames": 5, "clips": 3})
    assert images.shape == (5, 16, 16, 3) and images.dtype == np.uint8 and size == (16, 16)
    assert numbers(images) == [6, 18, 30, 42, 54]
    assert clips.shape == (3, 4, 32, 32, 3)
    assert [numbers(clip) for clip in clips] == [[0, 1, 2, 3], [20, 21, 22, 23], [40, 41, 42, 43]]


def test_the_last_frame_pads_clips(tmp_path):
    short = film(tmp_path / "short.mp4", 3, first=10)
    images, _, clips = video.decode_video(short, **{**FORM, "frames": 4, "clips": 2})
    assert numbers(images) == [10, 11, 11, 12]
    assert [numbers(clip) for clip in clips] == [[10, 11, 12, 12], [11, 12, 12, 12]]
    assert video.decode_video(short, **{**FORM, "clips": 0})[2].size == 0


def test_the_shorter_form_keeps_the_aspect_and_pads(sixty):
    images, size, _ = video.decode_video(sixty, **{**FORM, "resize": "shorter", "clips": 0})
    assert images.shape == (8, 32, 32, 3) and size == (16, 24)
    assert not images[:, 16:].any() and not images[:, :, 24:].any() and images[1:, :16, :24].all()


def test_rotation_that_the_file_asks_for_is_applied(tmp_path):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16] = 240  # bright above; turned clockwise: bright to the right
    path = film(tmp_path / "phone.mp4", 4, picture=picture)
    content = bytearray(path.read_bytes())
    matrix = (
        content.index(b"tkhd") + 44
    )  # behind version, times, id, duration, layer, group and volume
    one, minus = (1 << 16).to_bytes(4, "big"), (2**32 - (1 << 16)).to_bytes(4, "big")
    content[matrix : matrix + 20] = bytes(4) + one + bytes(4) + minus + bytes(4)
    path.write_bytes(content)
    images, size, clips = video.decode_video(path, **{**FORM, "resize": "shorter"})
    assert size == (24, 16)
    for turned in (images[0, :24, :16], clips[0, 0]):
        half = turned.shape[1] // 2
        assert turned[:, : half - 2].mean() < 20 and turned[:, half + 2 :].mean() > 220


def library(root, count=6):
    """KoNViD's list and videos."""
    for i in range(count):
        film(root / f"videos/part{i % 2}/{100 + i}.mp4", 9, first=i)
    write(
        root,
        "KoNViD_1k_mos.csv",
        '"flickr_id","mos"\n' + "".join(f"{100 + i},{1 + i / 2}\n" for i in range(count)),
    )


def test_splits_share_one_extraction(tmp_path, network):
    library(tmp_path)
    settings = {**FORM, "motion_weights": "random"}
    splits = videos.konvid(tmp_path, fractions=(0.5, 0.0, 0.5), extract=settings, **RUN)
    assert {name: len(part) for name, part in splits.items()} == {"train": 3, "test": 3}
    for part in splits.values():
        assert part.read is None and sorted(part.inputs) == ["frames", "motion", "size"]
        frames, motion = part.inputs["frames"], part.inputs["motion"]
        assert frames.shape == (3, 8, 16, 16, 3) and frames.dtype == np.uint8 and len(frames) == 3
        assert (
            motion.shape == (3, 8, 4, 1, 1, 256)
            and motion.dtype == np.float16
            and motion[:1].shape[0] == 1
        )
        first = [int(path[-5]) for path in part.paths]  # 10<i>.mp4 begins with the brightness of i
        np.testing.assert_array_equal(part.targets, [1 + i / 2 for i in first])
        assert numbers(np.asarray(frames)[:, 0]) == first == numbers(frames[np.arange(3)][:, 0])
        np.testing.assert_array_equal(part.take([2, 0]).inputs["size"], [[16, 16], [16, 16]])
        assert numbers(part.take([2, 0]).inputs["frames"][:, 0]) == [first[2], first[0]]
    again = videos.konvid(tmp_path, fractions=(0.5, 0.0, 0.5), extract=settings, fold="1", seed=3)
    assert len(network) == 6, "another fold extracts nothing"
    assert again["train"].paths != splits["train"].paths
    larger = videos.konvid(tmp_path, extract={**settings, "stored_size": 24}, **RUN)
    assert larger["train"].inputs["frames"].shape[2:] == (24, 24, 3)
    assert len(network) == 6, "other frames leave the motion as it is"
    assert sorted(
        videos.konvid(tmp_path, extract={**settings, "clips": 0}, **RUN)["test"].inputs
    ) == ["frames", "size"]
    videos.konvid(tmp_path, extract={**settings, "clip_frames": 8}, **RUN)
    assert len(network) == 12, "other clips do not"
    assert len([path for path in (tmp_path / "extracted").iterdir() if path.is_dir()]) == 4
    film(tmp_path / "videos/part0/100.mp4", 9, first=20)
    videos.konvid(tmp_path, extract=settings, **RUN)
    assert len(network) == 18, "another file changes both"


def test_a_crash_loses_no_video(tmp_path, monkeypatch, network):
    library(tmp_path)
    settings = {**FORM, "motion_weights": "random", "workers": 1, "cache": str(tmp_path / "cache")}
    decode, tried = video.decode_video, []

    def crash(path, **form):
        tried.append(path.name)
        if len(tried) == 4:
            raise KeyboardInterrupt
        return decode(path, **form)

    monkeypatch.setattr(video, "decode_video", crash)
    with pytest.raises(KeyboardInterrupt):
        videos.konvid(tmp_path, extract=settings, **RUN)
    assert not [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")], (
        "nothing half done"
    )
    finished = len(network)
    assert finished >= 2
    monkeypatch.setattr(video, "decode_video", decode)
    train = videos.konvid(tmp_path, extract=settings, **RUN)["train"]
    assert len(network) == 6
    assert numbers(train.inputs["frames"][:][:, 0]) == [int(path[-5]) for path in train.paths]


def test_broken_videos_are_named_or_left_out(tmp_path, network):
    library(tmp_path)
    (tmp_path / "videos/part0/102.mp4").write_bytes(b"no video at all")
    settings = {**FORM, "motion_weights": "random"}
    fault = "row 2, videos/part0/102.mp4: InvalidDataError"
    pattern = rf"konvid: 1 of 6 videos cannot be decoded .*\n  {fault}"
    with pytest.raises(ValueError, match=pattern):
        videos.konvid(tmp_path, extract=settings, **RUN)
    splits = videos.konvid(
        tmp_path, extract={**settings, "broken": "skip", "broken_share": 0.5}, **RUN
    )
    assert len(network) == 5, "the five good ones were kept"
    assert sum(map(len, splits.values())) == 5 and "102" not in str(
        [part.paths for part in splits.values()]
    )
    for part in splits.values():
        assert numbers(part.inputs["frames"][:][:, 0]) == [int(path[-5]) for path in part.paths]
    with pytest.raises(ValueError, match=pattern):
        videos.konvid(tmp_path, extract=settings, **RUN)


def test_settings_that_cannot_be(tmp_path, monkeypatch):
    library(tmp_path, 1)
    for settings, message in (
        ({}, "pytorchvideo's model zoo"),
        ({"motion_weights": "gone.safetensors"}, r"cannot read gone.safetensors: No such file"),
        ({"clip_size": 30}, "clip_size 30"),
        ({"frame": 8}, "extract has no setting 'frame'. Did you mean 'frames'?"),
    ):
        with pytest.raises(ValueError, match=message):
            videos.konvid(tmp_path, extract=settings, **RUN)
    monkeypatch.setattr(video.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(
        ValueError,
        match=r"arrays take 6,152 bytes more, but the disk of .* has 10; set config.data.reader.ex",
    ):
        videos.konvid(tmp_path, extract={**FORM, "clips": 0}, **RUN)


@pytest.fixture
def listed(monkeypatch):
    """Readers without extraction: videos need not be videos."""
    monkeypatch.setattr(video, "extract", lambda records, root: ({}, np.arange(len(records))))


def touch(root, *names):
    for name in names:
        write(root, f"videos/{name}", name)


def shown(splits):
    return {
        split: dict(zip(part.paths, part.targets.tolist(), strict=True))
        for split, part in splits.items()
    }


def test_lsvq(tmp_path, listed):
    names = ["yfcc-batch1/1", "yfcc-batch1/2", "ia-batch2/1", "ia-batch2/3"]
    touch(tmp_path, *(f"{name}.mp4" for name in names), "big/9.mp4")
    lines = [f'{name},"[0, 1]",{40 + i}.5,{i == 3}' for i, name in enumerate(names)]
    write(tmp_path, "labels_train_test.csv", "\n".join(["name,p1,mos,is_test", *lines]) + "\n")
    write(tmp_path, "labels_test_1080p.csv", 'name,p1,mos,is_valid\nbig/9,"[0, 1]",77.25,False\n')
    train = {f"videos/{name}.mp4": 40.5 + i for i, name in enumerate(names[:3])}
    splits = videos.lsvq(tmp_path, **RUN)
    assert shown(splits) == {"train": train, "test": {"videos/ia-batch2/3.mp4": 43.5}}
    assert splits["train"].name == "lsvq train"
    large = videos.lsvq(tmp_path, test="1080p", val_fraction=1 / 3, **RUN)
    assert large["val"].name == "lsvq val" and len(large["train"]) == 2
    assert shown(large)["test"] == {"videos/big/9.mp4": 77.25}
    with pytest.raises(
        ValueError,
        match="missing under .*: LSVQ_whole_train.csv, LSVQ_whole_test_1080p.csv\nlists: baidut",
    ):
        videos.lsvq(tmp_path, lists="modularbvqa", test="1080p", **RUN)
    for split, line in (("train", lines[0]), ("test", lines[1])):
        write(tmp_path, f"LSVQ_whole_{split}.csv", f"name,p1,mos,is_test\n{line}\n")
    whole = {
        "train": {"videos/yfcc-batch1/1.mp4": 40.5},
        "test": {"videos/yfcc-batch1/2.mp4": 41.5},
    }
    assert shown(videos.lsvq(tmp_path, lists="modularbvqa", **RUN)) == whole
    with pytest.raises(ValueError, match="lsvq: lists is 'mine'"):
        videos.lsvq(tmp_path, lists="mine", **RUN)


def cells(*names):
    """A MATLAB cell array, as scipy writes one."""
    array = np.empty((len(names), 1), object)
    array[:, 0] = names
    return array


def test_the_lists_of_the_smaller_sets(tmp_path, listed):
    import scipy.io

    def both(reader, root, **settings):
        parts = shown(reader(root, fractions=(0.5, 0.0, 0.5), **settings, **RUN))
        return {**parts["train"], **parts["test"]}

    root = tmp_path / "konvid"
    touch(root, "a/1.mp4", "2.mp4")
    scipy.io.savemat(
        root / "set.mat", {"video_names": cells("1_cut.mp4", "2_cut.mp4"), "scores": [[3.5], [2.0]]}
    )
    assert both(videos.konvid, root, table="set.mat") == {"videos/a/1.mp4": 3.5, "videos/2.mp4": 2}
    with pytest.raises(
        ValueError,
        match=r"set.mat is no MATLAB file .* with \['video_list', 'mos'\]: KeyError 'video_list'",
    ):
        both(videos.live_vqc, root, table="set.mat")
    touch(root, "b/1.mp4")
    with pytest.raises(
        ValueError, match=re.escape("more than once, such as ['videos/a/1.mp4', 'videos/b/1.mp4']")
    ):
        both(videos.konvid, root, table="set.mat")

    root = tmp_path / "live"
    touch(root, "Video/A001.mp4", "Video/B002.mp4")
    scipy.io.savemat(
        root / "data.mat", {"video_list": cells("A001.mp4", "B002.mp4"), "mos": [[80.25], [12.5]]}
    )
    expected = {"videos/Video/A001.mp4": 80.25, "videos/Video/B002.mp4": 12.5}
    assert both(videos.live_vqc, root) == expected
    write(root, "list.csv", "File,MOS,width\nA001.mp4,80.25,404\nB002.mp4,12.5,404\n")
    assert both(videos.live_vqc, root, table="list.csv") == expected

    root = tmp_path / "cvd"
    touch(root, "Test1/City/Test01_City_D01.avi", "Test4/City/Test04_City_D06.avi")
    rows = "City;Test01_City_D01;71,17;67,25;;;;\nCity;Test04_City_D06;4,58;-6,50;;;;\n"
    rows += 2 * ";;;;;;;\n"
    write(
        root,
        "CVD2014_Realignment_MOS.csv",
        "Content;File_name;Original MOS;Realignment MOS;;;;\n" + rows,
    )
    assert both(videos.cvd2014, root) == {
        "videos/Test1/City/Test01_City_D01.avi": 67.25,
        "videos/Test4/City/Test04_City_D06.avi": -6.5,
    }

    root = tmp_path / "ugc"
    touch(root, "Gaming_1080P-0ef8.mkv", "Vlog_720P-20f8.mp4")
    write(
        root,
        "YOUTUBE_UGC_metadata.csv",
        "vid,MOSFull\nGaming_1080P-0ef8,3.5\nVlog_720P-20f8,4.25\n",
    )
    expected = {"videos/Gaming_1080P-0ef8.mkv": 3.5, "videos/Vlog_720P-20f8.mp4": 4.25}
    assert both(videos.youtube_ugc, root) == expected
    names = cells("Gaming_1080P-0ef8.mkv", "Vlog_720P-20f8.mp4")
    scipy.io.savemat(
        root / "youtube_ugc_data.mat", {"video_names": names, "scores": [[3.5, 4.25]]}
    )  # a row here
    assert both(videos.youtube_ugc, root, table="youtube_ugc_data.mat") == expected
    (root / "videos/Vlog_720P-20f8.mp4").unlink()
    with pytest.raises(
        ValueError, match="row 1, videos/Vlog_720P-20f8: not there\nlists: vztu/VIDEVAL"
    ):
        both(videos.youtube_ugc, root)
