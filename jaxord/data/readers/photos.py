"""Readers of photographs that are ranked as a whole: the decade they were taken in, how beautiful
they are.

Lists and the folder `images` lie under the root. `fold` and `seed` are those of the run.
"""

import dataclasses

import numpy as np

from jaxord.data.records import concatenate, image_records, require
from jaxord.data.splits import carve, named, split_records
from jaxord.data.tables import read_table

DECADES = ("1930s", "1940s", "1950s", "1960s", "1970s")
CATEGORIES = ("animals", "nature", "people", "urban")


def hci(root, *, fold, seed):
    """Historical colour images: 265 photographs of each decade, targets 0 (1930s) to 4 (1970s).

    There are no public split files, and ten disjoint test sets of 50 do not fit into 265: each fold
    is a random split of its own into 210 / 5 / 50 of each decade, fixed by the seed and the fold.

    Args:
        root: folder.
        fold: "0" to "9".
        seed: of the splits.
    """
    about = (
        "lists: raywang335/L2RCLIP on GitHub, datalist/hci (1930s.txt to 1970s.txt). Images: the historical colour"
        " image data set of Palermo, Hays and Efros, Dating Historical Color Images (Carnegie Mellon University).\n"
        "layout: <root>/{1930s,1940s,1950s,1960s,1970s}.txt; <root>/images/<file of the list>"
    )
    paths, targets = [], []
    for target, file in enumerate(require(root, [f"{decade}.txt" for decade in DECADES], about)):
        table = read_table(file, names=("path", "decade"))
        wrong = sorted(set(table.texts("decade")) - {DECADES[target]})
        if wrong:
            raise ValueError(
                f"{file} holds the decades {wrong[:5]}, expected {DECADES[target]} only"
            )
        paths += table.texts("path")
        targets += [target] * len(table.rows)
    records = image_records(root, paths, targets, name="hci", about=about)
    return split_records(
        records, {"train": 210 / 265, "val": 5 / 265, "test": 50 / 265}, seed, fold
    )


def aesthetics(root, *, fold, seed, protocol="fixed", val_fraction=0.0):
    """Image aesthetics (Flickr photographs of four categories), targets 0 (unacceptable) to 4
    (exceptional).

    Each category is trained on by itself, so a fold names one: "people". Protocols: "fixed": the
    released 80/20 lists, no validation split (published runs select on the test list); "five_fold",
    folds "people-0" to "people-4": a fifth of each grade is the test split, the rest is cut into 75
    and 5 percent of the whole.

    Grades are very uneven: put the commonest grade's share beside every accuracy.

    Args:
        root: folder.
        fold: "animals", "nature", "people" or "urban"; with "five_fold", a hyphen and 0 to 4
          follow.
        seed: of the five folds, of the draw of a validation split.
        protocol: see above.
        val_fraction: of "fixed": share of the training list to select on.
    """
    about = (
        "lists: raywang335/L2RCLIP on GitHub, datalist/crowdbeauty (<category>_{train,test,datasets}.txt)."
        " Images: the CrowdBeauty photographs of Schifanella, Redi and Aiello, An Image is Worth More than a Thousand"
        " Favorites, from Flickr.\n"
        "layout: <root>/<category>_{train,test,datasets}.txt; <root>/images/<file of the list>"
    )
    folds = {
        "fixed": CATEGORIES,
        "five_fold": tuple(f"{name}-{part}" for name in CATEGORIES for part in range(5)),
    }
    if protocol not in folds:
        raise ValueError(f"aesthetics has no protocol {protocol!r}; it is one of {sorted(folds)}")
    if fold not in folds[protocol]:
        raise ValueError(
            f"aesthetics, protocol {protocol!r}, has no fold {fold!r}; it is one of {list(folds[protocol])}"
        )
    category, _, part = fold.partition("-")
    lists = ("train", "test") if protocol == "fixed" else ("datasets",)
    files = require(root, [f"{category}_{name}.txt" for name in lists], about)
    parts = [_graded(root, file, f"aesthetics {category}", about) for file in files]
    if protocol == "fixed":
        splits = {split: named(records, split) for split, records in zip(lists, parts, strict=True)}
        return carve(splits, val_fraction, seed, fold)
    if val_fraction:
        raise ValueError(
            "val_fraction is of the protocol 'fixed'; 'five_fold' has a validation split of 5 percent"
        )
    fifths = split_records(parts[0], {str(k): 0.2 for k in range(5)}, seed)
    rest = concatenate([records for k, records in fifths.items() if k != part])
    rest = dataclasses.replace(rest, name=parts[0].name)
    splits = split_records(rest, {"train": 75 / 80, "val": 5 / 80}, seed, fold)
    return {**splits, "test": dataclasses.replace(fifths[part], name=f"{parts[0].name} test")}


def _graded(root, file, name, about):
    """Records of a list of lines `id.png grade`, grades 1 to 5."""
    table = read_table(file, names=("path", "grade"))
    grades = table.numbers("grade")
    for line, grade in zip(table.lines, grades, strict=True):
        if grade not in (1, 2, 3, 4, 5):
            raise ValueError(f"{file}, line {line}: grade {grade:g}, expected 1 to 5")
    paths = [f"images/{path}" for path in table.texts("path")]
    return image_records(root, paths, grades - np.float32(1), name=name, about=about)
