"""Readers of list files of every dialect, of folders, tables and TFDS data sets.

A reader is a function `reader(root, *, fold, seed, settings)` -> {"train": Records, "val": Records,
"test": Records}; `val` is absent where a protocol has none. A config names it: config.data.reader =
dict(name="sources.folder").
"""

import os
import pathlib
import re

import numpy as np

from jaxord.data import arrayrecord
from jaxord.data.records import IMAGES, SHOWN, SPLITS, Records, by_split, image_records
from jaxord.data.splits import carve, split_records
from jaxord.data.tables import read_table


def own(
    root,
    *,
    fold,
    seed,
    table="",
    path_column="path",
    label_column="label",
    split_column="split",
    fractions=(0.7, 0.1, 0.2),
    val_fraction=0.0,
):
    """A user's own data: `csv` where a table is given, else `folder`."""
    if not table:
        return folder(root, fold=fold, seed=seed, fractions=fractions, val_fraction=val_fraction)
    names = {"path_column": path_column, "label_column": label_column, "split_column": split_column}
    return csv(
        root,
        fold=fold,
        seed=seed,
        table=table,
        fractions=fractions,
        val_fraction=val_fraction,
        **names,
    )


def folder(root, *, fold, seed, fractions=(0.7, 0.1, 0.2), val_fraction=0.0):
    """A user's images in a sub-folder for each rank; no code, no list.

    Numeric folder names are the targets. Other names are ranks in natural order (grade2 before
    grade10), targets 0, 1, 2, ..., and the column `rank_name` keeps them. Sub-folders train, val
    (or valid, validation, dev) and test, each with the ranks inside, are taken as the splits; else
    the splits are drawn.

    Args:
        root: folder.
        fold: with `seed`, fixes the draw of the splits.
        seed: of the run.
        fractions: shares of train, val and test, where they are drawn; val 0 makes none.
        val_fraction: share of the training split that is cut off for validation, where the data
          bring splits without one.
    """
    about = (
        "layout: <root>/<rank>/<image> or <root>/{train,val,test}/<rank>/<image>, images in "
        + ", ".join(IMAGES)
    )
    paths = _image_paths(root)
    heads = {path.split("/")[0] for path in paths}
    in_splits = bool(heads) and heads <= set(SPLITS)
    depth = 1 if in_splits else 0
    stray = [path for path in paths if path.count("/") <= depth]
    ranks = [path.split("/")[depth] for path in paths if path.count("/") > depth]
    targets, fault = _numbers(ranks), ""
    if stray or not paths:
        fault = f"{stray[:SHOWN]} lie in no rank" if stray else "no images"
    elif targets is None and len(set(ranks)) == 1:
        fault = f"all images lie in {ranks[0]!r}, which is no number,"
    if fault:
        tables = sorted(path.name for path in pathlib.Path(root).glob("*.csv"))
        hint = (
            f"\nif {tables[0]} has their labels: --config.data.table={tables[0]}" if tables else ""
        )
        raise ValueError(f"folder: {fault} under {os.path.abspath(root)}\n{about}{hint}")
    targets = _natural_order(ranks) if targets is None else targets
    columns = {"rank_name": np.array(ranks)}
    records = image_records(root, paths, targets, name="folder", about=about, columns=columns)
    if in_splits:
        return carve(
            by_split(records, [path.split("/")[0] for path in paths], os.path.abspath(root)),
            val_fraction,
            seed,
            fold,
        )
    return split_records(
        records, dict(zip(("train", "val", "test"), fractions, strict=True)), seed, fold
    )


def csv(
    root,
    *,
    fold,
    seed,
    table,
    path_column="path",
    label_column="label",
    split_column="split",
    fractions=(0.7, 0.1, 0.2),
    val_fraction=0.0,
):
    """A user's table with a header line: a column of image paths, one of labels, perhaps one of
    splits.

    All other columns are kept, and reports can be broken down by them. With folds, a split column
    of its own for each is named by "{}": split_column="split_{}".

    Args:
        root: folder that the paths are relative to.
        fold: with `seed`, fixes the draw of the splits; fills "{}" in `split_column`.
        seed: of the run.
        table: file under `root`, or a path of its own.
        path_column: name of the column.
        label_column: name of the column.
        split_column: name of the column; where the table has none, the splits are drawn.
        fractions: shares of train, val and test, where they are drawn; val 0 makes none.
        val_fraction: share of the training split that is cut off for validation, where the data
          bring splits without one.
    """
    about = "layout: a table with a header line (CSV, tab or semicolon), image paths relative to config.data.root"
    inside = os.path.join(root, table)
    found = next((path for path in (inside, table) if os.path.isfile(path)), None)
    if not table or not found:
        raise ValueError(
            f"the table is {table!r}, but neither {inside} nor {table} is a file (config.data.table)\n{about}"
        )
    rows = read_table(found)
    split_column = split_column.replace("{}", fold)
    columns = rows.columns(leave=(path_column, label_column, split_column))
    records = image_records(
        root,
        rows.texts(path_column),
        rows.numbers(label_column),
        name="csv",
        about=about,
        columns=columns,
    )
    if split_column in rows.names:
        return carve(by_split(records, rows.texts(split_column), found), val_fraction, seed, fold)
    return split_records(
        records, dict(zip(("train", "val", "test"), fractions, strict=True)), seed, fold
    )


def tfds_dataset(
    root, *, fold, seed, dataset, image="image", target="target", path="path", splits=()
):
    """A TFDS data set stored as ArrayRecord, read without TensorFlow; images stay encoded until
    they are needed.

    Args:
        root: TFDS's data_dir.
        fold: fills "{}" in the names of `splits`.
        seed: not used; the data set's splits are what they are.
        dataset: folder under root: "my_set", "my_set/my_config" or with the version; without, the
          newest is taken.
        image: name of the image feature.
        target: name of the number that is the label.
        path: name of the feature that users know an image by; where there is none, "<split>/<row>".
        splits: ours -> TFDS's, slices too: dict(train="train[:80%]", test="train[80%:]"); () takes
          train,
            validation and test, those that there are.
    """
    where = arrayrecord.find(root, dataset)
    if where is None:
        raise ValueError(
            f"no TFDS data set {dataset!r} under {os.path.abspath(root)}; it has a folder with dataset_info.json, "
            "made by download_and_prepare(file_format='array_record')"
        )
    info = arrayrecord.builder(where).info
    for name in (image, target):
        if name not in info.features:
            raise ValueError(f"{where} has no feature {name!r}; it has {sorted(info.features)}")
    if not splits:
        splits = {SPLITS[name]: name for name in info.splits if name in SPLITS}
    return {
        ours: _tfds_records(where, theirs.replace("{}", fold), image, target, path)
        for ours, theirs in splits.items()
    }


def _image_paths(root):
    """Sorted relative paths of all images under a root, or of those in its store; hidden files do
    not count."""
    store = arrayrecord.find(root)
    if store:
        return sorted(arrayrecord.metadata(store)["paths"])
    found = (
        path.relative_to(root)
        for path in pathlib.Path(root).rglob("*")
        if path.suffix.lower() in IMAGES
    )
    return sorted(
        path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)
    )


def _numbers(names):
    """The names as floats; None where one is no number."""
    try:
        return [float(name) for name in names]
    except ValueError:
        return None


def _natural_order(names):
    """Each name's place among the distinct ones."""
    order = {name: i for i, name in enumerate(sorted(set(names), key=_natural))}
    return [order[name] for name in names]


def _natural(name):
    """Sorts grade2 before grade10."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)]


def _tfds_records(where, split, image, target, path):
    source = arrayrecord.source(where, split, image)
    rows = [
        {name: value for name, value in source[row].items() if name != image}
        for row in range(len(source))
    ]
    scalars = [name for name, value in (rows[0] if rows else {}).items() if np.ndim(value) == 0]
    columns = {name: np.array([_text(row[name]) for row in rows]) for name in scalars}
    targets = np.asarray(columns.pop(target, ()), np.float32)
    paths = tuple(map(str, columns.pop(path, [f"{split}/{row}" for row in range(len(source))])))
    title = where.parents[1].name if where.parent.name == arrayrecord.STORE else where.parent.name

    def read(row):
        return source[row][image]

    return Records(
        paths, targets, read, columns, f"{title} {split}", arrayrecord.stamp(where) + split
    )


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
