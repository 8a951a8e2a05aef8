"""Readers of videos whose quality people have rated.

Lists and the folder `videos` lie under the root. Targets are mean opinion scores on the scale of
the list. The inputs of the records are made once by `jaxord.data.video`: `frames`, views for the
image tower, and `motion`, maps of SlowFast's Fast pathway. The setting `extract` holds settings of
`jaxord.data.video.extract`, `fractions` the shares of train, val and test (val 0 makes none) in
splits drawn for each fold, as the smaller sets have no public one.
"""

import collections
import dataclasses
import functools
import pathlib
import re

import numpy as np

from jaxord import binding
from jaxord.data import matlab, readers, video
from jaxord.data.data_sets import published
from jaxord.data.inputs import InputKind, files, size_of_file
from jaxord.data.splits import carve, named, three_splits
from jaxord.data.tables import read_table

VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".y4m", ".m4v")
ENDING = re.compile(f"({'|'.join(map(re.escape, VIDEOS))})$", re.IGNORECASE)
# Settings of extract that decide what a video becomes.
FORM = ("frames", "clips", "clip_frames", "clip_size", "resize", "stored_size")
SHARES = (0.8, 0.0, 0.2)
CVD2014, YOUTUBE_UGC = "CVD2014_Realignment_MOS.csv", "YOUTUBE_UGC_metadata.csv"


def lsvq(root, *, fold, seed, lists="patchvq", test="test", val_fraction=0.0, extract=None):
    """LSVQ (Ying et al. 2021), MOS 0 to 100: 28,000 videos train, 7,220 or 3,561 of 1080p test.

    `lists` is "patchvq", labels_train_test.csv (split by its column is_test) and
    labels_test_1080p.csv, or "modularbvqa", LSVQ_whole_*.csv; `test` is "test" or "1080p".
    """
    data_set = published(root, "lsvq", "videos")
    data_set.check("lists", lists, ("patchvq", "modularbvqa"))
    data_set.check("test", test, ("test", "1080p"))
    large = ["labels_test_1080p.csv"] if test == "1080p" else []
    if lists == "patchvq":
        labels, *tests = data_set.tables(["labels_train_test.csv", *large])
        tested = [text.lower() == "true" for text in labels.texts("is_test")]
        train = labels.where([not flag for flag in tested])
        test_table = tests[0] if tests else labels.where(tested)
    else:
        suffix = "test_1080p" if large else "test"
        train, test_table = data_set.tables(["LSVQ_whole_train.csv", f"LSVQ_whole_{suffix}.csv"])

    def listed(table):
        paths = [f"{name}.mp4" for name in table.texts("name")]
        return data_set.records(paths, table.numbers("mos"))

    # Both lists are checked before the long extraction of the first.
    (train, fill_train), (tested, fill_test) = (
        _extracted(records, root, extract) for records in [listed(train), listed(test_table)]
    )
    splits = carve({"train": named(train, "train")}, val_fraction, seed, fold)
    return {**fill_train(splits), **fill_test({"test": named(tested, "test")})}


def konvid(root, *, fold, seed, table="KoNViD_1k_mos.csv", fractions=SHARES, extract=None):
    """KoNViD-1k (Hosu et al. 2017): 1,200 videos of 540p, MOS 1 to 5."""
    data_set = published(root, "konvid", table=table)
    names, scores = _rated(data_set, table, ("flickr_id", "mos"), ("video_names", "scores"))
    names = [name.split("_")[0] for name in names]  # the .mat adds the source: <flickr_id>_<source>
    return _drawn(data_set, names, scores, fractions, seed, fold, extract)


def live_vqc(root, *, fold, seed, table="data.mat", fractions=SHARES, extract=None):
    """LIVE-VQC (Sinno and Bovik 2018): 585 videos from phones, MOS 0 to 100."""
    data_set = published(root, "live_vqc", table=table)
    names, scores = _rated(data_set, table, ("File", "MOS"), ("video_list", "mos"))
    return _drawn(data_set, names, scores, fractions, seed, fold, extract)


def cvd2014(root, *, fold, seed, table=CVD2014, fractions=SHARES, extract=None):
    """CVD2014 (Nuutinen et al. 2016): 234 videos, MOS -6.5 to 93.4; splits share scenes."""
    data_set = published(root, "cvd2014", table=table)
    names, scores = _rated(data_set, table, ("File_name", "Realignment MOS"))
    return _drawn(data_set, names, scores, fractions, seed, fold, extract)


def youtube_ugc(root, *, fold, seed, table=YOUTUBE_UGC, fractions=SHARES, extract=None):
    """YouTube-UGC (Wang et al. 2019): about 1,140 videos of 20 s, MOS 1 to 5."""
    data_set = published(root, "youtube_ugc", table=table)
    names, scores = _rated(data_set, table, ("vid", "MOSFull"), ("video_names", "scores"))
    return _drawn(data_set, names, scores, fractions, seed, fold, extract)


def input_kind(data, vocabulary):
    """A run on videos takes files; their motion needs the weights of the Fast pathway."""
    extract = binding.settings_of(readers.reader(data.reader))["extract"]
    settings = binding.settings_of(_with_settings(extract))
    form = {name: settings[name] for name in FORM}
    network = video.fast_motion(settings["motion_weights"]) if form["clips"] else None

    def read(path):
        size_of_file(path)  # refuses pipes
        frames, size, clips = video.decode_video(path, **form)
        motion = {"motion": np.asarray(network(clips))} if network else {}
        return {"frames": frames, "size": np.array(size, np.int32), **motion}

    listed = functools.partial(files, endings=VIDEOS, noun="videos")
    shapes = [item for arrays in video.row_shapes(**form).values() for item in arrays.items()]
    placeholder = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes}
    return InputKind("videos", listed, read, placeholder)


def _with_settings(extract):
    return binding.with_settings(video.extract, {**(extract or {}), "name": "extract"})


def _rated(data_set, table, columns, variables=()):
    """(names without extension, f32[N] scores): a table's `columns` or a .mat's `variables`."""
    (file,) = data_set.files([table])
    if file.endswith(".mat") and variables:
        names, scores = matlab.read(file, variables)
        if len(names) != len(scores):
            counts = f"{len(names)} {variables[0]}, but {len(scores)} {variables[1]}"
            raise ValueError(f"{file} has {counts}")
        scores = np.asarray(scores, np.float32)
    else:
        rows = read_table(file)
        rows = rows.where(rows.texts(columns[0]))  # spreadsheets end in empty lines
        names, scores = rows.texts(columns[0]), rows.numbers(columns[1])
    return [ENDING.sub("", name) for name in names], scores


def _drawn(data_set, names, scores, fractions, seed, fold, extract):
    """{split: Records} of videos found by name, split at random."""
    root = data_set.root
    paths_of = collections.defaultdict(list)
    for path in sorted(pathlib.Path(root, "videos").rglob("*")):
        if path.suffix.lower() in VIDEOS:
            paths_of[path.stem].append(path.relative_to(root).as_posix())
    doubled = [paths_of[name] for name in names if len(paths_of[name]) > 1]
    if doubled:
        count = f"{data_set.name}: {len(doubled)} videos are there more than once"
        raise ValueError(f"{count}, such as {doubled[0]}; leave one of each")
    # The check of the records reports a missing video under a path that cannot exist.
    paths = [paths_of[name][0] if paths_of[name] else f"videos/{name}" for name in names]
    records, filled = _extracted(data_set.records(paths, scores), root, extract)
    return filled(three_splits(records, fractions, seed, fold))


def _extracted(records, root, extract):
    """The decoded records, and a function that gives their splits the arrays as inputs."""
    # Extraction before the cut lets all folds share it.
    arrays, decoded = _with_settings(extract)(records, root)
    rows = {"row": np.arange(len(records))}

    def with_inputs(part):
        inputs = {name: video.Rows(array, part.columns["row"]) for name, array in arrays.items()}
        return dataclasses.replace(part, read=None, columns={}, inputs=inputs)

    def filled(splits):
        return {split: with_inputs(part) for split, part in splits.items()}

    return dataclasses.replace(records, columns=rows).take(decoded), filled
