"""Readers of videos whose quality people have rated.

Lists and the folder `videos` lie under the root. `fold` and `seed` are those of the run. Targets
are mean opinion scores on the scale of the list. The inputs of the records are what
`jaxord.data.video` makes of each video once: `frames`, which are views of the image tower, and
`motion`, maps of SlowFast's Fast pathway.
"""

import collections
import dataclasses
import pathlib
import re

import numpy as np

from jaxord import binding
from jaxord.data import matlab, readers, video
from jaxord.data.inputs import Given, files, size_of_file
from jaxord.data.records import image_records, require
from jaxord.data.splits import carve, named, split_records
from jaxord.data.tables import read_table

VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".y4m", ".m4v")
FORM = (
    "frames",
    "clips",
    "clip_frames",
    "clip_size",
    "resize",
    "stored_size",
)  # settings of what a video becomes
LAYOUT = "layout: <root>/{table}; the videos in any folders under <root>/videos, known by their names without extension"


def lsvq(root, *, fold, seed, lists="patchvq", test="test", val_fraction=0.0, extract=None):
    """LSVQ (Ying et al. 2021): 28,000 videos to train on, 7,220 to test on or 3,561 of 1080p; MOS 0
    to 100.

    Args:
        root: folder.
        fold: with `seed`, fixes the draw of a validation split.
        seed: of the run.
        lists: "patchvq": labels_train_test.csv, whose column is_test makes the split, and
          labels_test_1080p.csv, both of
            baidut/PatchVQ; "modularbvqa": LSVQ_whole_{train,test,test_1080p}.csv, of which the
            first is not public.
        test: "test", or "1080p".
        val_fraction: share of the training list to select on.
        extract: settings of `jaxord.data.video.extract`.
    """
    about = (
        "lists: baidut/PatchVQ on GitHub, release v0.1 (labels_train_test.csv, labels_test_1080p.csv); or"
        " winwinwenwen77/ModularBVQA, data/LSVQ_whole_*.csv. Videos: LSVQ, Patch-VQ of Ying et al., by request to LIVE (the"
        " University of Texas at Austin).\n"
        "layout: <root>/<lists>.csv; <root>/videos/<name of the list>.mp4"
    )
    if lists not in ("patchvq", "modularbvqa") or test not in ("test", "1080p"):
        raise ValueError(
            f"lsvq has lists {lists!r}, test {test!r}; they are 'patchvq' or 'modularbvqa', 'test' or '1080p'"
        )
    if lists == "patchvq":
        files = ["labels_train_test.csv"] + ["labels_test_1080p.csv"] * (test == "1080p")
        tables = [read_table(file) for file in require(root, files, about)]
        tested = [text.lower() == "true" for text in tables[0].texts("is_test")]
        tables = [
            tables[0].where([not flag for flag in tested]),
            tables[-1] if test == "1080p" else tables[0].where(tested),
        ]
    else:
        files = ["LSVQ_whole_train.csv", f"LSVQ_whole_test{'_1080p' * (test == '1080p')}.csv"]
        tables = [read_table(file) for file in require(root, files, about)]

    def listed(table):
        paths = [f"videos/{name}.mp4" for name in table.texts("name")]
        return image_records(root, paths, table.numbers("mos"), name="lsvq", about=about)

    def only(split):
        return lambda records: {split: named(records, split)}

    train, tested = (listed(table) for table in tables)
    carved = _splits(
        train,
        root,
        extract,
        lambda records: carve(only("train")(records), val_fraction, seed, fold),
    )
    return {**carved, **_splits(tested, root, extract, only("test"))}


def konvid(root, *, fold, seed, table="KoNViD_1k_mos.csv", fractions=(0.8, 0.0, 0.2), extract=None):
    """KoNViD-1k (Hosu et al. 2017): 1,200 videos of 540p, MOS 1 to 5; no public split, so one is
    drawn for each fold.

    Args:
        root: folder.
        fold: with `seed`, fixes the draw of the splits.
        seed: of the run.
        table: the data set's own list (flickr_id, mos), or ModularBVQA's KoNViD-1k_data.mat.
        fractions: shares of train, val and test; val 0 makes none.
        extract: settings of `jaxord.data.video.extract`.
    """
    about = (
        "lists: KoNViD_1k_mos.csv comes with the data set. Videos: KoNViD-1k of Hosu et al., database.mmsp-kn.de.\n"
        + LAYOUT.format(table=table)
    )
    names, scores = _rated(root, table, about, ("flickr_id", "mos"), ("video_names", "scores"))
    names = [
        name.split("_")[0] for name in names
    ]  # the .mat has <flickr_id>_<what it was cut from>
    return _drawn("konvid", root, names, scores, about, fractions, seed, fold, extract)


def live_vqc(root, *, fold, seed, table="data.mat", fractions=(0.8, 0.0, 0.2), extract=None):
    """LIVE-VQC (Sinno and Bovik 2018): 585 videos from phones, MOS 0 to 100; no public split, so
    one is drawn for each fold.

    Args:
        root: folder.
        fold: with `seed`, fixes the draw of the splits.
        seed: of the run.
        table: the data set's own list (video_list, mos), or a CSV file with the columns File and
          MOS.
        fractions: shares of train, val and test; val 0 makes none.
        extract: settings of `jaxord.data.video.extract`.
    """
    about = (
        "lists: data.mat comes with the data set. Videos: LIVE-VQC of Sinno and Bovik, by request to LIVE (the University of"
        " Texas at Austin).\n" + LAYOUT.format(table=table)
    )
    names, scores = _rated(root, table, about, ("File", "MOS"), ("video_list", "mos"))
    return _drawn("live_vqc", root, names, scores, about, fractions, seed, fold, extract)


def cvd2014(
    root,
    *,
    fold,
    seed,
    table="CVD2014_Realignment_MOS.csv",
    fractions=(0.8, 0.0, 0.2),
    extract=None,
):
    """CVD2014 (Nuutinen et al. 2016): 234 videos of 78 cameras, realigned MOS -6.5 to 93.4; a split
    is drawn for each fold.

    Scenes are the same in both splits, only their recordings differ.

    Args:
        root: folder.
        fold: with `seed`, fixes the draw of the splits.
        seed: of the run.
        table: the data set's Realignment_MOS.csv (semicolons, decimal commas), or as ModularBVQA
          names it.
        fractions: shares of train, val and test; val 0 makes none.
        extract: settings of `jaxord.data.video.extract`.
    """
    about = (
        "lists: Realignment_MOS.csv comes with the data set; also winwinwenwen77/ModularBVQA on GitHub,"
        " data/CVD2014_Realignment_MOS.csv. Videos: CVD2014 of Nuutinen et al. (Zenodo 2646315).\n"
        + LAYOUT.format(table=table)
    )
    names, scores = _rated(root, table, about, ("File_name", "Realignment MOS"), ())
    return _drawn("cvd2014", root, names, scores, about, fractions, seed, fold, extract)


def youtube_ugc(
    root, *, fold, seed, table="YOUTUBE_UGC_metadata.csv", fractions=(0.8, 0.0, 0.2), extract=None
):
    """YouTube-UGC (Wang et al. 2019): about 1,140 videos of 20 s, MOS 1 to 5; no public split, so
    one is drawn for each fold.

    Args:
        root: folder.
        fold: with `seed`, fixes the draw of the splits.
        seed: of the run.
        table: VIDEVAL's list (vid, MOSFull), or ModularBVQA's youtube_ugc_data.mat.
        fractions: shares of train, val and test; val 0 makes none.
        extract: settings of `jaxord.data.video.extract`.
    """
    about = (
        "lists: vztu/VIDEVAL on GitHub, features/YOUTUBE_UGC_metadata.csv. Videos: YouTube-UGC of Wang, Inguva and Adsumilli,"
        " media.withyoutube.com.\n" + LAYOUT.format(table=table)
    )
    names, scores = _rated(root, table, about, ("vid", "MOSFull"), ("video_names", "scores"))
    return _drawn("youtube_ugc", root, names, scores, about, fractions, seed, fold, extract)


def given(data, vocabulary):
    """How a run on videos takes others: by their files, frames and motion as
    `jaxord.data.video` makes them.

    Motion needs the file of the Fast pathway's weights, where the config says it lies.

    Args:
        data: config.data.
        vocabulary: not used.

    Returns:
        jaxord.data.inputs.Given.

    Raises:
        ValueError: no weights.
    """
    entry = {
        **(binding.settings_of(readers.reader(data.reader))["extract"] or {}),
        "name": "extract",
    }
    settings = binding.settings_of(binding.with_settings(video.extract, entry))
    form = {name: settings[name] for name in FORM}
    network = video.fast_motion(settings["motion_weights"]) if form["clips"] else None

    def read(path):
        size_of_file(path)
        frames, size, clips = video.decode_video(path, **form)
        motion = {"motion": np.asarray(network(clips))} if network else {}
        return {"frames": frames, "size": np.array(size, np.int32), **motion}

    def listed(source, root):
        return files(source, root, VIDEOS, "videos")

    shapes = {
        name: shape
        for arrays in video.row_shapes(**form).values()
        for name, shape in arrays.items()
    }
    nothing = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
    return Given("videos", listed, read, nothing)


def _rated(root, table, about, columns, variables):
    """(names without extension, f32[N] scores) of a list: a text table's `columns` or a .mat file's
    `variables`."""
    (file,) = require(root, [table], about)
    if file.endswith(".mat") and variables:
        names, scores = _matlab(file, variables)
    else:
        rows = read_table(file)
        rows = rows.where(
            [bool(name) for name in rows.texts(columns[0])]
        )  # spreadsheets leave empty lines at the end
        names, scores = rows.texts(columns[0]), rows.numbers(columns[1])
    return [
        re.sub(rf"({'|'.join(map(re.escape, VIDEOS))})$", "", name, flags=re.IGNORECASE)
        for name in names
    ], scores


def _matlab(file, variables):
    """A cell array of names and the array of scores beside it."""
    names, scores = matlab.read(file, variables)
    if len(names) != len(scores):
        raise ValueError(
            f"{file} has {len(names)} {variables[0]}, but {len(scores)} {variables[1]}"
        )
    return names, np.asarray(scores, np.float32)


def _drawn(title, root, names, scores, about, fractions, seed, fold, extract):
    """{split: Records} of videos found by name, split at random."""
    files = collections.defaultdict(list)
    for path in sorted(pathlib.Path(root, "videos").rglob("*")):
        if path.suffix.lower() in VIDEOS:
            files[path.stem].append(path.relative_to(root).as_posix())
    doubled = [files[name] for name in names if len(files[name]) > 1]
    if doubled:
        raise ValueError(
            f"{title}: {len(doubled)} videos are there more than once, such as {doubled[0]}; leave one of each"
        )
    paths = [files[name][0] if files[name] else f"videos/{name}" for name in names]
    records = image_records(root, paths, scores, name=title, about=about)
    shares = dict(zip(("train", "val", "test"), fractions, strict=True))
    return _splits(
        records, root, extract, lambda records: split_records(records, shares, seed, fold)
    )


def _splits(records, root, settings, cut):
    """What `cut` makes of the records, with the extracted arrays as inputs; they do not depend on
    how it cuts."""
    entry = {**(settings or {}), "name": "extract"}
    arrays, kept = binding.with_settings(video.extract, entry)(records, root)
    splits = cut(dataclasses.replace(records, columns={"row": np.arange(len(records))}).take(kept))

    def filled(part):
        inputs = {name: video.Rows(array, part.columns["row"]) for name, array in arrays.items()}
        return dataclasses.replace(part, read=None, columns={}, inputs=inputs)

    return {split: filled(part) for split, part in splits.items()}
