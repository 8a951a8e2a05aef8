"""Records: the examples of a split, where they lie and what is known of them."""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np

from jaxord.data import arrayrecord, faults
from jaxord.data.splits import named

SHOWN = 5  # faults that a message lists
IMAGES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
IMAGES += (".ppm", ".pgm")
NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLITS = {name: split for split, names in NAMES.items() for name in names}  # their names -> ours


@dataclasses.dataclass(frozen=True)
class Records:
    """Images or other inputs, and labels of one split: N rows, nothing decoded.

    Attributes:
      paths: N strings by which users know a row.
      targets: f32[N] or f32[N, 2], labels on the scale of the metric.
      read: row -> encoded bytes; None without images.
      columns: name -> array[N], what else is known of a row.
      name: for messages: "morph train".
      stamp: changes when the bytes change; part of the key of caches.
      inputs: name -> array[N, ...], in memory or in a file, whose rows join the batch unchanged. An
        array xs padded along its last axis has a mask x_mask of the same shape: sentences,
        sentence_mask.
      annotations: f32[N, A], several labels of an image, padded with nan; None if it has one.
      vocabulary: words for the ids in `inputs`, the same in all splits.
      notes: sentences on how a user's folder or table was understood.
    """

    paths: tuple
    targets: np.ndarray
    read: object
    columns: dict
    name: str
    stamp: str = ""
    inputs: dict = dataclasses.field(default_factory=dict)
    annotations: np.ndarray | None = None
    vocabulary: tuple = ()
    notes: tuple = ()

    def __len__(self):
        return len(self.paths)

    def take(self, rows):
        """The records of these rows, in this order; inputs are read unless rows are consecutive."""
        rows = np.asarray(rows, np.int64)
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            targets=self.targets[rows],
            read=self.read and (lambda row: self.read(int(rows[row]))),
            columns={name: column[rows] for name, column in self.columns.items()},
            inputs={name: _take(array, rows) for name, array in self.inputs.items()},
            annotations=None if self.annotations is None else self.annotations[rows],
        )


def _take(array, rows):
    """array[rows]; a view if the rows are consecutive, so that a memmap stays in its file."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return array[rows[0] : rows[0] + len(rows)]
    return array[rows]


def concatenate(parts):
    """Several records as one, under the name of the first."""
    starts = np.cumsum([0, *map(len, parts)])

    def read(row):
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part].read(row - int(starts[part]))

    def joined(field):
        arrays = [getattr(part, field) for part in parts]
        return {name: np.concatenate([part[name] for part in arrays]) for name in arrays[0]}

    # A part is read by its own reader, so stores and plain files can be mixed.
    return dataclasses.replace(
        parts[0],
        paths=tuple(path for part in parts for path in part.paths),
        targets=np.concatenate([part.targets for part in parts]),
        read=parts[0].read and read,
        columns=joined("columns"),
        stamp=" ".join(part.stamp for part in parts),
        inputs=joined("inputs"),
        annotations=_joined_annotations(parts),
    )


def _joined_annotations(parts):
    """f32[N, A], A the largest of the parts; targets stand in for a part without annotations."""
    if all(part.annotations is None for part in parts):
        return None
    labels = [p.targets[:, None] if p.annotations is None else p.annotations for p in parts]
    joined = np.full((sum(map(len, labels)), max(one.shape[1] for one in labels)), np.nan)
    start = 0
    for one in labels:
        joined[start : start + len(one), : one.shape[1]] = one
        start += len(one)
    return joined.astype(np.float32)


def image_records(root, paths, targets, *, name, about, columns=None):
    """Records of image files under a root, or of the prepared store there (tools/prepare_data.py).

    Paths are relative to the root. A ValueError counts those that leave it, are missing or no
    files, shows five, and ends with `about`: where the data come from and how they lie.
    """
    paths = tuple(os.path.normpath(path) for path in paths)
    store = arrayrecord.find(root)
    read, missing, stamp = _in_store(store, paths) if store else _in_folder(root, paths)
    if (collected := faults.active()) is not None:
        collected.files |= {paths[row]: reason for row, reason in missing}
    elif missing:
        title = f"{name}: {len(missing)} of {len(paths)} images cannot be read"
        shown = [f"row {row}, {paths[row]}: {reason}" for row, reason in missing[:SHOWN]]
        more = [f"and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
        lines = [f"{title} under {os.path.abspath(root)}", *shown, *more]
        raise ValueError("\n  ".join(lines) + f"\n{about}")
    return Records(paths, np.asarray(targets, np.float32), read, dict(columns or {}), name, stamp)


def located(path, images="", suffix=""):
    """The path of an image that a table names: under the folder `images`, and with the `suffix`
    unless it ends as images do; "" stays."""
    if path and suffix and not path.lower().endswith(IMAGES):
        path += suffix if suffix.startswith(".") else f".{suffix}"
    return os.path.join(images, path) if path else ""


def _in_store(store, paths):
    """(row -> bytes, [(row, fault), ...], stamp) of images in a store."""
    slots = {path: slot for slot, path in enumerate(arrayrecord.metadata(store)["paths"])}
    source = arrayrecord.source(store, "images", "image")
    missing = [(row, "not in the store") for row, path in enumerate(paths) if path not in slots]
    return lambda row: source[slots[paths[row]]]["image"], missing, arrayrecord.stamp(store)


def _in_folder(root, paths):
    """(row -> bytes, [(row, fault), ...], stamp) of image files."""
    base = os.path.realpath(root)
    checked = [check_file(base, path) for path in paths]
    missing = [(row, reason) for row, (reason, _) in enumerate(checked) if reason]
    stamp = hashlib.sha256(repr([mark for _, mark in checked]).encode()).hexdigest()
    return lambda row: pathlib.Path(root, paths[row]).read_bytes(), missing, stamp


def check_file(base, path):
    """(reason to refuse the file or "", (path, bytes, time))."""
    if os.path.isabs(path) or ".." in pathlib.PurePath(path).parts:
        return "leads out of the root; paths are relative to it", ()
    try:
        real = os.path.realpath(os.path.join(base, path), strict=True)
        status = os.stat(real)
    except (OSError, ValueError):
        return "not there", ()
    if os.path.commonpath([base, real]) != base:
        return f"is a link that leaves the root, to {real}", ()
    if not os.path.isfile(real):
        return "not a file", ()
    return "", (path, status.st_size, status.st_mtime_ns)


def by_split(records, names, where):
    """{"train": Records, ...} by the split name of each record, in any case; `where` is for the
    message."""
    names = [name.strip().lower() for name in names]
    unknown = sorted(set(names) - set(SPLITS))
    if unknown:
        raise ValueError(f"{where} has the splits {unknown[:SHOWN]}; known are {sorted(SPLITS)}")
    split_of = np.array([SPLITS[name] for name in names])
    rows = {split: np.flatnonzero(split_of == split) for split in dict.fromkeys(SPLITS.values())}
    return {split: named(records.take(rows[split]), split) for split in rows if len(rows[split])}
