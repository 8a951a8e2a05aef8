"""Records: the examples of a split, where they lie and what is known of them."""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np

from jaxord.data import arrayrecord
from jaxord.data.splits import named

SHOWN = 5  # of a list of faults
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}


@dataclasses.dataclass(frozen=True)
class Records:
    """Images or other inputs, and labels of one split, N rows, nothing decoded.

    Rows that are taken or concatenated are read into memory, a memmap's too, unless they are
    consecutive.

    Attributes:
        paths: N strings, what users know a row by.
        targets: f32[N], labels on the scale of the metric.
        read: row -> encoded bytes; None where there are no images.
        columns: name -> array[N], what else is known of a row.
        name: for messages: "morph train".
        stamp: changes when the bytes change; part of the key of caches.
        inputs: name -> array[N, ...] in memory or in a file, whose rows travel with the batch as
          they are. An array xs that
            is padded along its last axis has a mask x_mask of the same shape: sentences,
            sentence_mask.
        annotations: f32[N, A], the several labels of an image, padded with nan; None where it has
          just the target.
        vocabulary: the words that ids in `inputs` stand for; the same in all splits.
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

    def __len__(self):
        return len(self.paths)

    def take(self, rows):
        """The records of these rows, in this order."""
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


def concatenate(parts):
    """Several records as one, under the name of the first."""
    starts = np.cumsum([0, *map(len, parts)])

    def read(row):
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part].read(row - int(starts[part]))

    return Records(
        paths=tuple(path for part in parts for path in part.paths),
        targets=np.concatenate([part.targets for part in parts]),
        read=parts[0].read and read,
        columns={
            name: np.concatenate([part.columns[name] for part in parts])
            for name in parts[0].columns
        },
        name=parts[0].name,
        stamp=" ".join(part.stamp for part in parts),
        inputs={
            name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs
        },
        annotations=_all_annotations(parts),
        vocabulary=parts[0].vocabulary,
    )


def _take(array, rows):
    """array[rows]; a view where the rows are consecutive, so that a memmap stays in its file."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return array[rows[0] : rows[0] + len(rows)]
    return array[rows]


def _all_annotations(parts):
    """f32[N, A] with the largest A of the parts; a part without annotations has its targets
    there."""
    if all(part.annotations is None for part in parts):
        return None
    each = [
        part.targets[:, None] if part.annotations is None else part.annotations for part in parts
    ]
    wide = max(labels.shape[1] for labels in each)
    padded = [
        np.pad(labels, ((0, 0), (0, wide - labels.shape[1])), constant_values=np.nan)
        for labels in each
    ]
    return np.concatenate(padded).astype(np.float32)


def require(root, files, about):
    """Full paths of list files; ValueError with everything that is wanted, and `about`, where one
    is missing."""
    missing = [file for file in files if not os.path.isfile(os.path.join(root, file))]
    if missing:
        raise ValueError(f"missing under {os.path.abspath(root)}: {', '.join(missing)}\n{about}")
    return [os.path.join(root, file) for file in files]


def image_records(root, paths, targets, *, name, about, columns=None):
    """Records of image files under a root, or of the prepared store there (tools/prepare_data.py).

    Args:
        root: folder.
        paths: N paths relative to it.
        targets: f32[N].
        name: for messages.
        about: where the data come from and how they lie, for the message about missing files.
        columns: name -> array[N].

    Raises:
        ValueError: paths that leave the root, are no files or are not there: all are counted, the
          first five shown.
    """
    paths = tuple(os.path.normpath(path) for path in paths)
    store = arrayrecord.find(root)
    if store:
        slots = {path: slot for slot, path in enumerate(arrayrecord.metadata(store)["paths"])}
        source = arrayrecord.source(store, "images", "image")
        places = [slots.get(path) for path in paths]
        faults = [(row, "not in the store") for row, place in enumerate(places) if place is None]
        stamp = arrayrecord.stamp(store)

        def read(row):
            return source[places[row]]["image"]

    else:
        base = os.path.realpath(root)
        checked = [check_file(base, path) for path in paths]
        faults = [(row, reason) for row, (reason, _) in enumerate(checked) if reason]
        stamp = hashlib.sha256(repr([mark for _, mark in checked]).encode()).hexdigest()

        def read(row):
            return pathlib.Path(root, paths[row]).read_bytes()

    if faults:
        shown = [f"row {row}, {paths[row]}: {reason}" for row, reason in faults[:SHOWN]]
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        title = f"{name}: {len(faults)} of {len(paths)} images cannot be had under {os.path.abspath(root)}"
        raise ValueError("\n  ".join([title, *shown, *more]) + f"\n{about}")
    return Records(paths, np.asarray(targets, np.float32), read, dict(columns or {}), name, stamp)


def check_file(base, path):
    """(reason why the file is refused or "", its size and time)."""
    if os.path.isabs(path) or ".." in pathlib.PurePath(path).parts:
        return "leads out of the root; paths are relative to it", ()
    full = os.path.join(base, path)
    try:
        real = os.path.realpath(full, strict=True)
        status = os.stat(real)
    except (OSError, ValueError):
        return "not there", ()
    if os.path.commonpath([base, real]) != base:
        return f"is a link that leaves the root, to {real}", ()
    if not os.path.isfile(real):
        return "not a file", ()
    return "", (path, status.st_size, status.st_mtime_ns)


def by_split(records, names, where):
    """{"train": Records, ...} by the name of its split that each record has."""
    unknown = sorted(set(names) - set(SPLITS))
    if unknown:
        raise ValueError(f"{where} has the splits {unknown[:SHOWN]}; known are {sorted(SPLITS)}")
    ours = np.array([SPLITS[name] for name in names])
    return {
        split: named(records.take(np.flatnonzero(ours == split)), split)
        for split in dict.fromkeys(SPLITS.values())
        if split in ours
    }
