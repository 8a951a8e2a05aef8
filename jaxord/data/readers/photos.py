"""Readers of photographs ranked as a whole: the decade they were taken in, their beauty."""

import dataclasses

import numpy as np

from jaxord.data.data_sets import published
from jaxord.data.records import concatenate
from jaxord.data.splits import carve, named, split_records

DECADES = ("1930s", "1940s", "1950s", "1960s", "1970s")
CATEGORIES = ("animals", "nature", "people", "urban")
AESTHETICS_FOLDS = {
    "fixed": CATEGORIES,
    "five_fold": [f"{category}-{part}" for category in CATEGORIES for part in range(5)],
}


def hci(root, *, fold, seed):
    """Historical colour images: 265 photographs of each decade, targets 0 (1930s) to 4 (1970s).

    No split files are public, and 265 do not hold ten disjoint test sets of 50: each fold, 0 to 9,
    is a random split of its own into 210 / 5 / 50 of each decade.
    """
    data_set = published(root, "hci")  # its lists write images/ themselves
    tables = data_set.tables([f"{decade}.txt" for decade in DECADES], ("path", "decade"))
    paths, targets = [], []
    for target, (decade, table) in enumerate(zip(DECADES, tables, strict=True)):
        wrong = sorted(set(table.texts("decade")) - {decade})
        if wrong:
            raise ValueError(f"{table.path} holds the decades {wrong[:5]}, expected {decade} only")
        paths += table.texts("path")
        targets += [target] * len(table.rows)
    shares = {"train": 210 / 265, "val": 5 / 265, "test": 50 / 265}
    return split_records(data_set.records(paths, targets), shares, seed, fold)


def aesthetics(root, *, fold, seed, protocol="fixed", val_fraction=0.0):
    """Image aesthetics (Flickr photographs), targets 0 (unacceptable) to 4 (exceptional).

    Each of the four categories is trained on by itself: a fold is one, such as "people". Grades are
    very uneven: put the share of the commonest beside every accuracy. `protocol` is "fixed", the
    released 80/20 lists without a validation split (published runs select on the test list), or
    "five_fold" with folds "people-0" to "people-4": a fifth of each grade tests, 75 percent of all
    train, 5 validate.
    """
    data_set = published(root, "aesthetics", "images")
    data_set.check("protocol", protocol, AESTHETICS_FOLDS)
    data_set.check(f"fold of protocol {protocol!r}", fold, AESTHETICS_FOLDS[protocol])
    category, _, part = fold.partition("-")
    data_set = dataclasses.replace(data_set, name=f"aesthetics {category}")
    lists = ("train", "test") if protocol == "fixed" else ("datasets",)
    tables = data_set.tables([f"{category}_{name}.txt" for name in lists], ("path", "grade"))
    parts = [_graded(data_set, table) for table in tables]
    if protocol == "fixed":
        splits = {split: named(records, split) for split, records in zip(lists, parts, strict=True)}
        return carve(splits, val_fraction, seed, fold)
    if val_fraction:
        hint = "'five_fold' validates on 5 percent"
        raise ValueError(f"val_fraction is a setting of the protocol 'fixed'; {hint}")
    # The fifths do not depend on the fold, so each photograph is tested once.
    fifths = split_records(parts[0], {str(k): 0.2 for k in range(5)}, seed)
    rest = concatenate([records for k, records in fifths.items() if k != part])
    rest = dataclasses.replace(rest, name=data_set.name)
    splits = split_records(rest, {"train": 75 / 80, "val": 5 / 80}, seed, fold)
    return {**splits, "test": dataclasses.replace(fifths[part], name=f"{data_set.name} test")}


def _graded(data_set, table):
    """Records of lines `id.png grade`, grades 1 to 5."""
    grades = table.numbers("grade")
    for line, grade in zip(table.lines, grades, strict=True):
        if grade not in (1, 2, 3, 4, 5):
            raise ValueError(f"{table.path}, line {line}: grade {grade:g}, expected 1 to 5")
    return data_set.records(table.texts("path"), grades - np.float32(1))
