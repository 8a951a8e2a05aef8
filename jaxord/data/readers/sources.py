"""Readers of a user's own folders and tables, and of TFDS data sets.

`fractions` are the shares of train, val and test in drawn splits; val 0 makes none.
"""

import collections
import dataclasses
import os
import pathlib
import re

import numpy as np

from jaxord.data import arrayrecord
from jaxord.data.rank_order import known_ranks, labels_of, no_order
from jaxord.data.records import IMAGES, SHOWN, SPLITS, Records, by_split, image_records, located
from jaxord.data.splits import SHARES, carve, three_splits
from jaxord.data.tables import number, user_table

MOST_NAMES = 128  # of words in a column of labels; more are no ranks


def own(
    root,
    *,
    fold,
    seed,
    table="",
    path_column="path",
    label_column="label",
    split_column="split",
    images="",
    suffix="",
    fractions=SHARES,
    val_fraction=0.0,
    ranks=None,
):
    """A user's own data: `csv` if a table is given, else `folder`."""
    shared = {"fold": fold, "seed": seed, "fractions": fractions, "val_fraction": val_fraction}
    shared["ranks"] = ranks
    if not table:
        return folder(root, **shared)
    columns = {"path_column": path_column, "label_column": label_column}
    columns |= {"split_column": split_column, "images": images, "suffix": suffix}
    return csv(root, table=table, **columns, **shared)


def folder(root, *, fold, seed, fractions=SHARES, val_fraction=0.0, ranks=None):
    """A user's images in a sub-folder for each rank; no code, no list.

    Numeric folder names are the targets; `rank_order` says how others are ordered. The column
    `rank_name` keeps the names. Sub-folders train, val and test (or training, valid, validation,
    dev, testing, in any case) with the ranks inside are the splits; without them the splits are
    drawn. Links to folders are followed inside the root.
    """
    layout = "layout: <root>/<rank>/<image> or <root>/{train,val,test}/<rank>/<image>"
    about = f"{layout}, images in {', '.join(IMAGES)}"
    root = os.path.expanduser(root)
    paths, others = _files_under(root)
    tops = [path.split("/")[0] for path in paths]
    where, splits = f"folder: {os.path.abspath(root)}", {top for top in tops if _is_split(top)}
    if splits and splits != set(tops):
        ranks_beside = sorted(set(tops) - splits)[:SHOWN]
        mixture = f"the splits {sorted(splits)} lie beside {ranks_beside}"
        raise ValueError(f"{where}: {mixture}; move them into the splits, or away\n{about}")
    depth = 1 if splits else 0
    stray = [path for path in paths if path.count("/") <= depth]
    inside = [path.split("/") for path in paths if path.count("/") > depth]
    names = [parts[depth] for parts in inside]
    if stray or not names or (len(set(names)) == 1 and number(names[0]) is None):
        _refuse(root, stray, names, others, about)
    _refuse_empty(others, inside, depth, where, about)
    _refuse_nested(inside, depth, where, about)
    labels, note = labels_of(sorted(set(names)), known_ranks(ranks), where)
    targets = [labels[name] for name in names]
    columns = {"rank_name": np.array(names)}
    records = image_records(root, paths, targets, name="folder", about=about, columns=columns)
    records = dataclasses.replace(records, notes=tuple(filter(None, (note, _passed_over(others)))))
    if splits:
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
    images="",
    suffix="",
    fractions=SHARES,
    val_fraction=0.0,
    ranks=None,
):
    """A user's table: columns of image paths, labels, perhaps splits.

    `table` is a file under the root or a path of its own; image paths are relative to the folder
    `images` of the root, and `suffix` ends those that do not end as images do. Numbers instead of
    column names, from 0, belong to a table without a header line. If it lacks the column of splits,
    they are drawn. With folds, "{}" names a split column for each: split_column="split_{}". Labels
    that are words take their order from the names of the ranks. Other columns keep their text;
    reports can be broken down by them.
    """
    about = "layout: a table with a header line (CSV, tab or semicolon; .xlsx, .parquet, .jsonl), "
    about += "image paths relative to config.data.root and data.reader.images, with "
    about += "data.reader.suffix if they have none"
    root, table = os.path.expanduser(root), os.path.expanduser(table)
    under_root = os.path.join(root, table)
    file = next((path for path in (under_root, table) if os.path.isfile(path)), None)
    if not table or not file:
        tried = f"the table is {table!r}, but neither {under_root} nor {table} is a file"
        raise ValueError(f"{tried} (config.data.table)\n{about}")
    path_column, label_column = str(path_column), str(label_column)
    rows, split_column = user_table(file, path_column), str(split_column).replace("{}", fold)
    columns = rows.text_columns(leave=(path_column, label_column, split_column))
    paths = [located(path, images, suffix) for path in rows.texts(path_column)]
    targets, note = _table_labels(rows, label_column, known_ranks(ranks))
    if note:
        columns["rank_name"] = np.array([text.strip() for text in rows.texts(label_column)])
    elif "rank_name" in columns:
        _check_rank_names(rows, targets, columns["rank_name"].tolist())
    records = image_records(root, paths, targets, name="csv", about=about, columns=columns)
    records = dataclasses.replace(records, notes=(note,) if note else ())
    if split_column in rows.names:
        return carve(by_split(records, rows.texts(split_column), file), val_fraction, seed, fold)
    return three_splits(records, fractions, seed, fold)


def _table_labels(rows, column, known):
    """(numbers of a column of labels, note on their order): words are ranks that have names."""
    texts = [text.strip() for text in rows.texts(column)]
    names = sorted(set(texts))
    given = known.labels and not set(names) - set(known.labels)
    words = all(name and not re.match(r"[-+.]?[0-9]|nan$|inf", name, re.I) for name in names)
    numbers = rows.decimal_commas or any(number(name) is not None for name in names)
    if numbers or not (given or (words and len(names) <= MOST_NAMES)):
        return rows.numbers(column), ""
    where = f"{rows.path}, column {column!r}"
    if not known.closed and not set(names) & set(known.labels):
        line = f"{where} holds words, such as {texts[0]!r} in line {rows.lines[0]}"
        raise ValueError(f"{line}, expected numbers; {no_order(names)}")
    labels, note = labels_of(names, known, where)
    return [labels[text] for text in texts], note


def _check_rank_names(rows, targets, names):
    """Refuses a column rank_name that gives a label two names."""
    first = {}
    for line, label, name in zip(rows.lines, targets.tolist(), names, strict=True):
        if first.setdefault(label, name) != name:
            problem = f"label {label:g} has the rank_name {name!r}, expected {first[label]!r}"
            raise ValueError(f"{rows.path}, line {line}: {problem} as above; or rename the column")


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


def _is_split(name):
    return name.lower() in SPLITS


def _files_under(root):
    """(sorted relative paths of images, those of other files and of empty folders with a slash)
    under a root, or in its store; hidden files do not count.

    Follows links to folders; ValueError for one that leaves the root or leads back.
    """
    store = arrayrecord.find(root)
    if store:
        return sorted(arrayrecord.metadata(store)["paths"]), []
    base, images, others = os.path.realpath(root), [], []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if name[0] != "." and name != "__MACOSX")
        files = [name for name in files if name[0] != "."]
        relative = pathlib.PurePath(os.path.relpath(folder, root))
        for name in folders:
            _check_link(base, folder, name)
        if not folders and not files:
            others.append(f"{relative.as_posix()}/")
        for name in files:
            kind = images if name.lower().endswith(IMAGES) else others
            kind.append((relative / name).as_posix())
    return sorted(images), sorted(others)


def _check_link(base, folder, name):
    """Refuses a link to a folder that leaves the root or leads back to a folder above it."""
    path = os.path.join(folder, name)
    if not os.path.islink(path):
        return
    real, here = os.path.realpath(path), os.path.realpath(folder)
    if os.path.commonpath([base, real]) != base:
        raise ValueError(f"folder: {path} is a link that leaves the root, to {real}")
    if os.path.commonpath([real, here]) == real:
        raise ValueError(f"folder: {path} is a link that leads back, to {real}")


def _passed_over(others):
    """A sentence on files that are no images, by suffix; "" without."""
    files = [path for path in others if not path.endswith("/")]
    counts = collections.Counter(os.path.splitext(path)[1].lower() or "no suffix" for path in files)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
    return f"passed over, as no images: {kinds}" if files else ""


def _refuse_empty(others, inside, depth, where, about):
    """Refuses folders at the place of ranks that no image lies in.

    A split may have an empty folder for a rank that others have images of.
    """
    names, folders = {parts[depth] for parts in inside}, {tuple(p[: depth + 1]) for p in inside}
    empty = {}
    for path in others:
        parts = path.split("/")
        rank = tuple(parts[: depth + 1])
        in_rank = len(parts) > depth + 1 and (not depth or _is_split(parts[0]))
        if in_rank and rank not in folders and not (path.endswith("/") and parts[depth] in names):
            empty.setdefault("/".join(rank), []).append(path)
    if empty:
        name, files = next(iter(empty.items()))
        holds = _passed_over(files) or "it is empty"
        problem = f"no images in {sorted(empty)[:SHOWN]} ({name}: {holds})"
        raise ValueError(f"{where}: {problem}; convert its files, or move it away\n{about}")


def _refuse_nested(inside, depth, where, about):
    """Refuses ranks that lie in folders of another kind: cam1/0/a.jpg."""
    below = collections.defaultdict(set)
    for parts in inside:
        below[parts[depth]].add(parts[depth + 1] if len(parts) > depth + 2 else None)
    names = set().union(*below.values())
    same = len(below) > 1 and all(inner == names for inner in below.values())
    if same and len(names) > 1 and None not in names and any(number(top) is None for top in below):
        problem = f"each of {sorted(below)[:SHOWN]} has the folders {sorted(names)[:SHOWN]}"
        hint = "if these are the ranks, they come first: <root>/<rank>/<other folders>/<image>"
        raise ValueError(f"{where}: {problem}; {hint}\n{about}")


def _refuse(root, stray, ranks, others, about):
    """Raises the ValueError of a folder without ranks; names a table that may hold its labels."""
    fault = f"all images lie in {ranks[0]!r}, which is no number," if ranks else "no images"
    fault = f"{stray[:SHOWN]} lie in no rank" if stray else fault
    tables = sorted(path.name for path in pathlib.Path(root).glob("*.csv"))
    hint = f"\nif {tables[0]} has their labels: --config.data.table={tables[0]}" if tables else ""
    others = f" ({_passed_over(others)})" if _passed_over(others) else ""
    raise ValueError(f"folder: {fault} under {os.path.abspath(root)}{others}\n{about}{hint}")


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
