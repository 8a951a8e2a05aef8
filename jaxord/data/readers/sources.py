"""Readers of a user's own folders and tables, and of TFDS data sets.

`fractions` are the shares of train, val and test in drawn splits; val 0 makes none.
"""

import os
import pathlib
import re

import numpy as np

from jaxord.data import arrayrecord
from jaxord.data.records import IMAGES, SHOWN, SPLITS, Records, by_split, image_records
from jaxord.data.splits import SHARES, carve, three_splits
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
    fractions=SHARES,
    val_fraction=0.0,
):
    """A user's own data: `csv` if a table is given, else `folder`."""
    shared = {"fold": fold, "seed": seed, "fractions": fractions, "val_fraction": val_fraction}
    if not table:
        return folder(root, **shared)
    columns = {"path_column": path_column, "label_column": label_column}
    return csv(root, table=table, split_column=split_column, **columns, **shared)


def folder(root, *, fold, seed, fractions=SHARES, val_fraction=0.0):
    """A user's images in a sub-folder for each rank; no code, no list.

    Numeric folder names are the targets. Other names are ranks in natural order (grade2 before
    grade10) with targets 0, 1, 2, ..., and the column `rank_name` keeps them. Sub-folders train,
    val (or valid, validation, dev) and test with the ranks inside are the splits; without them the
    splits are drawn.
    """
    layout = "layout: <root>/<rank>/<image> or <root>/{train,val,test}/<rank>/<image>"
    about = f"{layout}, images in {', '.join(IMAGES)}"
    paths = _image_paths(root)
    tops = [path.split("/")[0] for path in paths]
    # Split folders count only if there is nothing else beside them.
    in_splits = bool(paths) and set(tops) <= set(SPLITS)
    depth = 1 if in_splits else 0
    stray = [path for path in paths if path.count("/") <= depth]
    ranks = [path.split("/")[depth] for path in paths if path.count("/") > depth]
    targets = _targets(ranks)
    if stray or not targets:
        _refuse(root, stray, ranks, about)
    columns = {"rank_name": np.array(ranks)}
    records = image_records(root, paths, targets, name="folder", about=about, columns=columns)
    if in_splits:
        return carve(by_split(records, tops, os.path.abspath(root)), val_fraction, seed, fold)
    return three_splits(records, fractions, seed, fold)


def csv(
    root,
    *,
    fold,
    seed,
    table,
    path_column="path",
    label_column="label",
    split_column="split",
    fractions=SHARES,
    val_fraction=0.0,
):
    """A user's table with a header line: columns of image paths, labels, perhaps splits.

    `table` is a file under the root or a path of its own; image paths are relative to the root. If
    it lacks the column of splits, they are drawn. With folds, "{}" names a split column for each:
    split_column="split_{}". Other columns are kept; reports can be broken down by them.
    """
    about = "layout: a table with a header line (CSV, tab or semicolon), image paths relative to"
    about += " config.data.root"
    inside = os.path.join(root, table)
    file = next((path for path in (inside, table) if os.path.isfile(path)), None)
    if not table or not file:
        tried = f"the table is {table!r}, but neither {inside} nor {table} is a file"
        raise ValueError(f"{tried} (config.data.table)\n{about}")
    rows = read_table(file)
    split_column = split_column.replace("{}", fold)
    columns = rows.columns(leave=(path_column, label_column, split_column))
    paths, targets = rows.texts(path_column), rows.numbers(label_column)
    records = image_records(root, paths, targets, name="csv", about=about, columns=columns)
    if split_column in rows.names:
        return carve(by_split(records, rows.texts(split_column), file), val_fraction, seed, fold)
    return three_splits(records, fractions, seed, fold)


def tfds_dataset(
    root, *, fold, seed, dataset, image="image", target="target", path="path", splits=()
):
    """A TFDS data set stored as ArrayRecord, read without TensorFlow; images stay encoded.

    The root is TFDS's data_dir, `dataset` a folder in it: "my_set", "my_set/my_config", or with the
    version, else the newest. `image`, `target` (a number) and `path` (by which users know an image;
    without it, "<split>/<row>") name features. `splits` gives our names of TFDS's splits or slices,
    in which the fold fills "{}": dict(train="train[:80%]", test="train[80%:]"); () takes those of
    train, validation and test that exist.
    """
    store = arrayrecord.find(root, dataset)
    if store is None:
        missing = f"no TFDS data set {dataset!r} under {os.path.abspath(root)}"
        hint = "made by download_and_prepare(file_format='array_record')"
        raise ValueError(f"{missing}; it has a folder with dataset_info.json, {hint}")
    info = arrayrecord.builder(store).info
    for name in (image, target):
        if name not in info.features:
            raise ValueError(f"{store} has no feature {name!r}; it has {sorted(info.features)}")
    splits = splits or {SPLITS[name]: name for name in info.splits if name in SPLITS}
    return {
        split: _tfds_records(store, name.replace("{}", fold), image, target, path)
        for split, name in splits.items()
    }


def _image_paths(root):
    """Sorted relative paths of all images under a root or in its store, without hidden files."""
    store = arrayrecord.find(root)
    if store:
        return sorted(arrayrecord.metadata(store)["paths"])
    paths = [path.relative_to(root) for path in pathlib.Path(root).rglob("*")]
    images = [path for path in paths if path.suffix.lower() in IMAGES]
    shown = [path for path in images if not any(part.startswith(".") for part in path.parts)]
    return sorted(path.as_posix() for path in shown)


def _targets(ranks):
    """The names of ranks as numbers, else their places in natural order; None for one such name."""
    try:
        return [float(name) for name in ranks]
    except ValueError:
        names = sorted(set(ranks), key=_natural)
    return [names.index(name) for name in ranks] if len(names) > 1 else None


def _natural(name):
    """Sorts grade2 before grade10."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)]


def _refuse(root, stray, ranks, about):
    """Raises the ValueError of a folder without ranks; names a table that may hold its labels."""
    fault = f"all images lie in {ranks[0]!r}, which is no number," if ranks else "no images"
    fault = f"{stray[:SHOWN]} lie in no rank" if stray else fault
    tables = sorted(path.name for path in pathlib.Path(root).glob("*.csv"))
    hint = f"\nif {tables[0]} has their labels: --config.data.table={tables[0]}" if tables else ""
    raise ValueError(f"folder: {fault} under {os.path.abspath(root)}\n{about}{hint}")


def _tfds_records(store, split, image, target, path):
    """Records of a split; scalar features become columns."""
    source = arrayrecord.source(store, split, image)
    count = len(source)
    rows = [{name: x for name, x in source[row].items() if name != image} for row in range(count)]
    scalars = [name for name, value in (rows[0] if rows else {}).items() if np.ndim(value) == 0]
    columns = {name: np.array([row[name] for row in rows]) for name in scalars}
    columns = {k: np.char.decode(x) if x.dtype.kind == "S" else x for k, x in columns.items()}
    targets = np.asarray(columns.pop(target, ()), np.float32)
    paths = tuple(map(str, columns.pop(path, [f"{split}/{row}" for row in range(count)])))
    # A store has the name of the folder around it.
    folder = store.parents[1] if store.parent.name == arrayrecord.STORE else store.parent
    name, stamp = f"{folder.name} {split}", arrayrecord.stamp(store) + split
    return Records(paths, targets, lambda row: source[row][image], columns, name, stamp)
