"""Readers of rated photographs; the target is the mean opinion score (MOS) on the set's own scale.

A list is a table with a header line in any dialect. Its column of names is called image_name,
img_name, Image name or name, that of scores MOS or mos; others are kept as columns. A spreadsheet
(.xlsx) is read once its sheet is exported as CSV under the same name.

Ten random splits into 80 percent for training and 20 for testing, folds 0 to 9: fold k is split
k + 1 of the lists (two files, or a column ratio802_seed<seed>_split<k + 1>, whose held-out fifth
pyiqa calls val). If the lists lack it, it is drawn with the seed and the fold.
"""

import os
import re

from jaxord.data import matlab
from jaxord.data.data_sets import DataSet, published
from jaxord.data.records import by_split, concatenate
from jaxord.data.splits import split_records
from jaxord.data.tables import Table, read_table

FOLDS = tuple(str(k) for k in range(10))
# Column names of the dialects; "_" and capitals do not count.
NAMES = ("image name", "img name", "name", "img name/patch name", "image number")
SCORES = ("mos", "average subjective grade")
OFFICIAL = r"official_split|set|split"
RANDOM = r"ratio\d+_seed\d+_split_?\d+"
OFFICIAL_SPLITS = {"training": "train", "0": "train", "1": "val", "2": "test"}  # besides the usual
FLIVE_LABELS = ("labels_image.csv", "labels640.csv", "labels=640_padded.csv")
FLIVE_PAIR = ("train_image_split.csv", "test_image_split.csv")


def bid(root, *, fold, seed, table="", images="images"):
    """BID, 586 photographs with real blur, MOS 0 to 5, ten random splits."""
    pair = ("BID_train_split_{}.csv", "BID_test_split_{}.csv")
    lists = ("DatabaseGrades.csv",)
    return _ten_splits(published(root, "bid", images), fold, seed, table, lists, pair)


def clive(root, *, fold, seed, table="", images="Images"):
    """CLIVE (LIVE In the Wild), 1,162 photographs, MOS 0 to 100, ten random splits; column std."""
    lists = ("meta_info_LIVEChallengeDataset.csv", "Data/AllMOS_release.mat")
    pair = ("CLIVE_training_split_{}.csv", "CLIVE_test_split_{}.csv")
    # t1.bmp to t7.bmp trained the raters; they are left out, as everywhere.
    leave = r"(trainingImages/)?t\d+\.bmp"
    return _ten_splits(published(root, "clive", images), fold, seed, table, lists, pair, leave)


def koniq(root, *, fold, seed, table="", images="images", protocol="random"):
    """KonIQ-10k, 10,073 photographs, MOS 0 to 100; columns c1 to c5 (shares of the grades), SD.

    `protocol` is "random", ten random splits, or "official", 7,058 / 1,000 / 2,015, without folds.
    Images have 512 x 384 or 1024 x 768 pixels. koniq10k_scores_and_distributions.csv is no `table`:
    its column MOS is on another scale.
    """
    lists = ("koniq10k_distributions_sets.csv", "meta_info_KonIQ10kDataset.csv")
    pair = ("KonIQ10K_train_split_{}.csv", "KonIQ10K_test_split_{}.csv")
    data_set = published(root, "koniq", images)
    return _ten_splits(data_set, fold, seed, table, lists, pair, protocol=protocol)


def spaq(root, *, fold, seed, table="", images="images"):
    """SPAQ, 11,125 photographs of smartphones, MOS 0 to 100, ten random splits; five attributes."""
    lists = ("MOS and Image attribute scores.csv", "meta_info_SPAQDataset.csv")
    pair = ("SPAQ_train_split_{}.csv", "SPAQ_test_split_{}.csv")
    return _ten_splits(published(root, "spaq", images), fold, seed, table, lists, pair)


def flive(root, *, fold, seed, table="", images="images"):
    """FLIVE (PaQ-2-PiQ), 39,810 photographs, MOS 0 to 100, official split; patches are left out.

    QCN's lists have no validation split; others have one, which is not trained on.
    """
    data_set = published(root, "flive", images)
    if not table and data_set.has(*FLIVE_PAIR):
        return _train_and_test(data_set, FLIVE_PAIR)
    if not table and data_set.has(FLIVE_LABELS[0]):
        labels, test, padded = data_set.tables(FLIVE_LABELS)
        flags = zip(padded.texts("name_image"), padded.texts("is_valid"), strict=True)
        split_of = {name: "val" for name, flag in flags if flag.lower() in ("true", "1")}
        # A test image stays one, whatever the list of validation images says.
        split_of |= dict.fromkeys(test.texts("name_image"), "test")
        names = [split_of.get(name, "train") for name in labels.texts("name")]
        return by_split(_records(data_set, labels), names, labels.path)
    lists, leave = ("meta_info_FLIVEDataset.csv",), r"patches/.*"
    return _ten_splits(data_set, fold, seed, table, lists, leave=leave, protocol="official")


def meta_info(root, *, fold, seed, table, images="images", protocol="random"):
    """Any rated images with a list in pyiqa's form (meta_info_*.csv): name, mos, splits.

    `table` lies under the root or is a path of its own. `protocol` is "random", ten random splits,
    or "official", the column official_split, set or split, without folds.
    """
    data_set = published(root, "meta_info", images, table)
    return _ten_splits(data_set, fold, seed, table, protocol=protocol)


def _ten_splits(data_set, fold, seed, table, lists=(), pair=(), leave="", protocol="random"):
    """The fold's split of the lists, else a drawn one; or the official split.

    `lists` are files of all images (the first that exists counts), `pair` the training and the test
    list of a split, "{}" its number. Images whose names match `leave` are left out.
    """
    data_set.check("protocol", protocol, ("random", "official"))
    official = protocol == "official"
    if not official:
        data_set.check("fold", fold, FOLDS)
    if pair and not official and not table:
        files = [file.format(int(fold) + 1) for file in pair]
        if data_set.has(*files):
            return _train_and_test(data_set, files)
    # Both lists of one split name all images together.
    tables = _all_images(data_set, table, lists, [file.format(1) for file in pair])
    if leave:
        tables = [part.where([not re.fullmatch(leave, n) for n in _names(part)]) for part in tables]
    records = concatenate([_records(data_set, part) for part in tables])
    first = tables[0]
    pattern = OFFICIAL if official else rf"ratio802_seed\d+_split_?0*{int(fold) + 1}"
    column = next((column for column in first.names if re.fullmatch(pattern, column)), None)
    if column:
        ours = OFFICIAL_SPLITS if official else {"val": "test"}
        splits = [ours.get(text, text) for part in tables for text in part.texts(column)]
        return by_split(records, splits, f"{first.path}, column {column!r},")
    if official:
        missing = f"{first.path} has no column official_split, set or split"
        raise ValueError(f"{missing}; it has {list(first.names)}")
    return split_records(records, {"train": 0.8, "test": 0.2}, seed, fold)


def _train_and_test(data_set, files):
    """The splits train and test from two lists."""
    train, test = data_set.tables(files)
    return {"train": _records(data_set, train, "train"), "test": _records(data_set, test, "test")}


def _all_images(data_set, table, lists, pair):
    """Tables that name all images together: `table`, else the first of `lists`, else `pair`."""
    if table:
        outside = os.path.isfile(table) and not data_set.has(table)
        return [read_table(table)] if outside else data_set.tables([table])
    choices = [[file] for file in lists] + ([pair] if pair else [])
    for files in choices:
        if data_set.has(*files):
            is_matlab = files[0].endswith(".mat")
            return [_matlab_table(data_set)] if is_matlab else data_set.tables(files)
    sheets = {file: os.path.splitext(file)[0] + ".xlsx" for files in choices for file in files}
    hint = "{1} is a spreadsheet: export its sheet as {0}\n".format
    hints = [hint(*names) for names in sheets.items() if data_set.has(names[1])]
    expected = " or ".join(" with ".join(files) for files in choices) or "config.data.table"
    missing = f"missing under {os.path.abspath(data_set.root)}: {expected}"
    raise ValueError(f"{missing}\n{''.join(hints)}{data_set.about}")


def _matlab_table(data_set):
    """The three MATLAB files of CLIVE as one table."""
    keys = ("AllImages_release", "AllMOS_release", "AllStdDev_release")
    about = "CLIVE's folder Data needs all three files"
    folder = DataSet(os.path.join(data_set.root, "Data"), data_set.name, about)
    files = folder.files([f"{key}.mat" for key in keys])
    columns = [matlab.read(file, [key])[0] for key, file in zip(keys, files, strict=True)]
    rows = tuple(zip(*(map(str, column) for column in columns), strict=True))
    return Table(files[1], ("image_name", "MOS", "std"), rows, tuple(range(1, len(rows) + 1)))


def _records(data_set, table, split=""):
    """Records of the images of a list."""
    path = _column(table, NAMES, "names")
    score = _column(table, SCORES, "opinion scores")
    splits = [column for column in table.names if re.fullmatch(f"{OFFICIAL}|{RANDOM}", column)]
    columns = table.columns(leave=(path, score, *splits))
    return data_set.records(_names(table), table.numbers(score), columns, split)


def _names(table):
    """The image names in a list; BID's own list has numbers instead."""
    column = _column(table, NAMES, "names")
    if _lower(column) == "image number":
        return [f"DatabaseImage{number:04.0f}.JPG" for number in table.numbers(column)]
    return table.texts(column)


def _column(table, choices, content):
    """The name of the first column that is one of `choices`."""
    for column in table.names:
        if _lower(column) in choices:
            return column
    missing = f"{table.path} has no column of {content}, one of {list(choices)}"
    raise ValueError(f"{missing}; it has {list(table.names)}")


def _lower(column):
    """A column name without capitals and underscores."""
    return column.lower().replace("_", " ")
