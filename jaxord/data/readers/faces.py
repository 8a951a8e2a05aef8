"""Readers of face data sets; the target is the age in years, for Adience the class 0 to 7.

Images are aligned beforehand.
"""

import dataclasses

import numpy as np

from jaxord.data.data_sets import published
from jaxord.data.records import SPLITS, concatenate
from jaxord.data.splits import carve

HEADLESS = ("filename", "age")  # columns of lists without a header line
# MORPH's settings with a training and a test list: column names, then the files of a fold.
MORPH_PAIRS = {
    "A": ((), "Setting_1_fold{}_train.txt", "Setting_1_fold{}_test.txt"),
    "ordinalclip": (HEADLESS, "ET_proto_train.txt", "ET_proto_val.txt"),
}
# Those with one list, whose column `fold` is the fold that tests a row.
MORPH_COLUMNS = {"random": "Setting_3.txt", "subject": "Setting_4.txt"}
# Those with a list a fold: column names, file, number of folds, the split of the fold's own file.
MORPH_FOLDS = {
    "B": ((), "Setting_2_fold{}.txt", 3, "train"),
    "l2rclip_random": (HEADLESS, "settingC/morph_C_0{}.txt", 5, "test"),
    "l2rclip_subject": (HEADLESS, "settingD/morph_D_0{}.txt", 5, "test"),
}


def morph(root, *, fold, seed, setting="A", images="images", label_offset=0.0, val_fraction=0.0):
    """MORPH II; columns gender (1 is male) and race (0 is Caucasian) in setting A.

    Settings:
      "A": five random 80/20 splits of 5,492 Caucasian faces (order learning, MWR), folds 0 to 4.
      "B": three sets of 7,000 faces, folds 0 to 2: the fold's set trains, the other two test.
      "random" (MWR's RS), "subject" (MWR's SE, no person on both sides): 55,134 faces in five
        parts; the fold's part tests.
      "l2rclip_random", "l2rclip_subject": the same in L2RCLIP's lists, a file a fold.
      "ordinalclip": the one split of OrdinalCLIP and NumCLIP, whose validation file is the test
        file. Labels may hold age + 1: then label_offset=1, which is subtracted. If an image has
        several labels, the training split keeps them all as its annotations.
    """
    data_set = published(root, "morph", images)
    tables = _morph_tables(data_set, setting, fold)
    splits = {}
    for split in ("train", "test"):
        form = {"offset": label_offset, "several": setting == "ordinalclip"}
        parts = [_faces(data_set, table, split, **form) for table in tables[split]]
        splits[split] = concatenate(parts)
    annotations = tables["train"][0].annotations("age") if setting == "ordinalclip" else None
    if annotations is not None:
        annotations -= np.float32(label_offset)
    splits["train"] = dataclasses.replace(splits["train"], annotations=annotations)
    splits = carve(splits, val_fraction, seed, fold)
    # Annotations serve training; a validation split cut from it is judged by its targets.
    bare = {name: dataclasses.replace(part, annotations=None) for name, part in splits.items()}
    return {**bare, "train": splits["train"]}


def _morph_tables(data_set, setting, fold):
    """{"train": tables, "test": tables} of a setting of MORPH II."""
    data_set.check("setting", setting, [*MORPH_PAIRS, *MORPH_COLUMNS, *MORPH_FOLDS])
    if setting in MORPH_PAIRS:
        columns, *files = MORPH_PAIRS[setting]
        train, test = data_set.tables([file.format(fold) for file in files], columns)
        return {"train": [train], "test": [test]}
    if setting in MORPH_COLUMNS:
        (table,) = data_set.tables([MORPH_COLUMNS[setting]])
        tested = [number == fold for number in table.texts("fold")]
        train = table.where([not flag for flag in tested])
        return {"train": [train], "test": [table.where(tested)]}
    columns, file, count, of_fold = MORPH_FOLDS[setting]
    data_set.check(f"fold of setting {setting!r}", fold, [str(k) for k in range(count)])
    chosen, rest = _fold_and_rest(data_set, file, count, columns, fold)
    train, test = (chosen, rest) if of_fold == "train" else (rest, chosen)
    return {"train": train, "test": test}


def _fold_and_rest(data_set, file, count, columns, fold):
    """([the fold's table], the others) of a data set with a list a fold."""
    tables = data_set.tables([file.format(k) for k in range(count)], columns)
    return [tables.pop(int(fold))], tables


def adience(root, *, fold, seed, lists="l2rclip", images="images", val_fraction=0.0):
    """Adience, 17,470 faces in eight age groups: the fold, 0 to 4, tests, the others train.

    Lists: "l2rclip", a file a fold, or "poe", a folder a fold with age_train.txt and age_val.txt,
    which is the test list unless the folder has age_test.txt too.
    """
    data_set = published(root, "adience", images)
    data_set.check("lists", lists, ("l2rclip", "poe"))
    data_set.check("fold", fold, [str(k) for k in range(5)])
    if lists == "l2rclip":
        test, train = _fold_and_rest(data_set, "simplified_adience_{}.txt", 5, HEADLESS, fold)
        tables = {"train": train, "test": test}
    else:
        stem = f"test_fold_is_{fold}/age_"
        names = ["train", "val", "test"] if data_set.has(f"{stem}test.txt") else ["train", "val"]
        read = data_set.tables([f"{stem}{name}.txt" for name in names], HEADLESS)
        # The last list is the test list, whatever it is called.
        splits = [*names[:-1], "test"]
        tables = {split: [table] for split, table in zip(splits, read, strict=True)}
    splits = {}
    for split, parts in tables.items():
        paths = [path for table in parts for path in table.texts("filename")]
        ages = np.concatenate([table.numbers("age") for table in parts])
        splits[split] = data_set.records(paths, ages, split=split)
    return carve(splits, val_fraction, seed, fold)


def clap2015(root, *, fold, seed, train_on="train+val", images="images"):
    """ChaLearn LAP 2015, apparent age; column stdv, the annotators' standard deviation.

    `train_on` is "train+val", as for the published figures (no validation split then), or "train".
    `images` may hold "{split}", which stands for train, val, test.
    """
    data_set = published(root, "clap2015", images)
    data_set.check("train_on", train_on, ("train", "train+val"))
    return _train_on(_by_column(data_set, "total_2015.csv", "filename", "database"), train_on)


def cacd(root, *, fold, seed, train_on="train", images="images"):
    """CACD, celebrities of 14 to 62 years.

    `train_on` is "train", the 1,800 celebrities with noisy labels (val for selection), or "val",
    the 80 clean ones (no validation split then). `images` may hold "{split}", as in `clap2015`.
    """
    data_set = published(root, "cacd", images)
    data_set.check("train_on", train_on, ("train", "val"))
    return _train_on(_by_column(data_set, "CACD.csv", "filename", "fold"), train_on)


def agedb(root, *, fold, seed, images=""):
    """AgeDB-DIR: 12,208 / 2,140 / 2,140 faces, long-tailed in training only."""
    return _by_column(published(root, "agedb", images), "agedb.csv", "path", "split")


def imdb_wiki(root, *, fold, seed, images=""):
    """IMDB-WIKI-DIR: 191,500 / 11,000 / 11,000 faces, long-tailed in training only."""
    return _by_column(published(root, "imdb_wiki", images), "imdb_wiki.csv", "path", "split")


def utk(root, *, fold, seed, images="images", val_fraction=0.0):
    """UTKFace, ages 21 to 60, 13,146 / 3,287 faces (the split of CORAL, Gustafsson and Berg)."""
    data_set = published(root, "utk", images)
    train, test = data_set.tables(["UTK_train_coral.csv", "UTK_test_coral.csv"])
    splits = {"train": _faces(data_set, train, "train"), "test": _faces(data_set, test, "test")}
    return carve(splits, val_fraction, seed, fold)


def _faces(data_set, table, split, path="filename", offset=0.0, several=False):
    """Records of the faces of a table; `several` labels in a field are annotations."""
    columns = table.columns(leave=(path, "age", "database", "fold", "split"))
    ages = table.numbers("age", several) - offset
    return data_set.records(table.texts(path), ages, columns, split)


def _by_column(data_set, file, path, column):
    """{split: Records} of a list by the split names in a column, which must hold all three."""
    (table,) = data_set.tables([file])
    names = table.texts(column)
    splits = [SPLITS.get(name) for name in names]
    if set(splits) != {"train", "val", "test"}:
        holds = f"{table.path}: the column {column!r} holds {sorted(set(names))}"
        raise ValueError(f"{holds}, expected train, val and test")

    def records(split):
        return _faces(data_set, table.where([name == split for name in splits]), split, path)

    return {split: records(split) for split in ("train", "val", "test")}


def _train_on(splits, train_on):
    """The splits, trained on those that `train_on` names; none of them serves selection."""
    names = train_on.split("+")
    chosen = {"train": concatenate([splits[name] for name in names]), "test": splits["test"]}
    return chosen if "val" in names else {**chosen, "val": splits["val"]}
