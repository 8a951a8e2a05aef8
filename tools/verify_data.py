"""Reads every row of a data set as training does, and lists each one that cannot be used, with the
reason; trains nothing.

    python tools/verify_data.py --config=configs/folder.py --config.data.root=my/

takes the flags of the training's command. Every split of every chosen fold is read, each file once.
A line for each bad row, separated by tabs: split, row in it, path, reason. The exit code is 0 where
all is well, 1 where it is not.
"""

import collections
import contextlib
import copy
import dataclasses
import functools
import math
import pathlib
import sys
from unittest import mock

sys.path.insert(
    0, str(pathlib.Path(__file__).parents[1])
)  # configs/ lies beside tools/ and is not installed

import numpy as np

from jaxord import main
from jaxord.data import readers, storage, tables, video
from jaxord.data import records as record_files
from jaxord.workdir.layout import chosen_folds

Row = collections.namedtuple("Row", "split row path reason")


def verify(config):
    """Reads all that a config trains and is tested on.

    Args:
      config: a whole config; few-shot and shift are left aside.

    Returns:
      ([Row], {split: number of its rows}); what no row is to blame for has the row -1. With folds a
      split is "train, fold 3".
    """
    data = copy.deepcopy(config.data).unlock()
    data.shots, data.shift.labels, data.corruption.name = 0, 0, ""
    rows, sizes, known = [], {}, {}
    for fold in chosen_folds(config):
        with reading_on() as (refused, labels):
            try:
                splits = readers.load(data, fold, config.seed)
            except ValueError as error:
                rows += [Row("", -1, path, reason) for path, reason in refused.items()]
                rows += [Row("", -1, path, reason) for _, path, reason in labels]
                return [*rows, Row("", -1, data.root, str(error))], sizes
        for split, records in splits.items():
            title = f"{split}, fold {fold}" if fold else split
            sizes[title] = len(records)
            faults = faults_of(records, data, refused, known) | wrong_labels(
                records, config.ranks, labels
            )
            rows += [
                Row(title, row, records.paths[row], reason)
                for row, reason in sorted(faults.items())
            ]
    return rows, sizes


@contextlib.contextmanager
def reading_on():
    """Readers go on behind what stops them in a training.

    Yields:
      ({path: why its file is refused}, [(fields, table, why a label is none)]), filled by the
      readers; such a label is nan.
    """
    refused, labels = {}, []
    check_file, labels_of = record_files.check_file, tables.Table.labels_of

    def check(base, path):
        reason, mark = check_file(base, path)
        if reason:
            refused[path] = reason
        return "", mark

    def read(table, name):
        found = []
        for line, fields in zip(table.lines, table.rows, strict=True):
            try:
                found += labels_of(dataclasses.replace(table, rows=(fields,), lines=(line,)), name)
            except ValueError as error:
                labels.append((fields, table.path, str(error)))
                found.append([math.nan])
        return found

    @functools.wraps(video.extract)
    def decoded(records, root, *, resize="square", stored_size=256, workers=4, **_):
        still = {"frames": 1, "clips": 0, "clip_frames": video.POOLED, "clip_size": 32}

        def one(row):
            path = pathlib.Path(root, records.paths[row])
            video.decode_video(path, **still, resize=resize, stored_size=stored_size)

        rest = [row for row, path in enumerate(records.paths) if path not in refused]
        for row, reason in storage.each_row(one, rest, workers).items():
            refused[records.paths[row]] = reason
        return {}, np.arange(len(records))

    with (
        mock.patch.object(record_files, "check_file", check),
        mock.patch.object(tables.Table, "labels_of", read),
        mock.patch.object(video, "extract", decoded),
    ):
        yield refused, labels


def faults_of(records, data, refused, known):
    """{row: reason} of files that cannot be had or decoded.

    Args:
      records: of a split.
      data: config.data.
      refused: {path: reason} of those that must not be read.
      known: {path: reason or ""} of those read before; those of this split are added.
    """
    if records.read is not None:
        new = [
            row
            for row, path in enumerate(records.paths)
            if path not in known and path not in refused
        ]
        decode = functools.partial(storage.decode_row, records, data=data)
        broken = storage.each_row(decode, new, data.workers)
        known |= {records.paths[row]: broken.get(row, "") for row in new}
    reasons = [refused.get(path) or known.get(path, "") for path in records.paths]
    return {row: reason for row, reason in enumerate(reasons) if reason}


def wrong_labels(records, ranks, labels):
    """{row: reason} of labels that are no numbers, or lie outside the ranks that the config
    gives."""
    targets, found = np.asarray(records.targets, np.float64).reshape(len(records), -1), {}
    for row in np.flatnonzero(~np.isfinite(targets).all(1)).tolist():
        named = (reason for fields, _, reason in labels if records.paths[row] in fields)
        found[row] = next(named, f"the label {targets[row].tolist()} is not a number")
    low, high = (
        (ranks.edges[0], ranks.last)
        if ranks.edges
        else (ranks.labels[0], ranks.labels[-1])
        if ranks.labels
        else (0, 0)
    )
    outside = (
        (targets < low).any(1) | (targets > high).any(1)
        if low < high and targets.shape[1] == 1
        else []
    )
    return found | {
        row: f"the label {targets[row, 0]:g} is outside the ranks, {low:g} to {high:g}"
        for row in np.flatnonzero(outside).tolist()
    }


def line_of(value):
    """A field of the output: what cannot be printed, or would end the field, is escaped."""
    return (
        str(value)
        .encode("utf-8", "backslashreplace")
        .decode()
        .replace("\n", "\\n")
        .replace("\t", "\\t")
    )


def run(arguments):
    """The command; returns the exit code."""
    main.parse(arguments)
    main.check("train")
    rows, sizes = verify(main.read_config())
    for row in rows:
        print("\t".join(map(line_of, row)))
    for split, size in sizes.items():
        print(f"{split}: {size:,} rows, {sum(row.split == split for row in rows):,} bad")
    print(f"bad: {len(rows):,}" if rows else "all rows are good")
    return int(bool(rows))


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv))
    except ValueError as error:
        sys.exit(f"error: {error}")
