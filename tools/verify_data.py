"""Reads every row of a data set as training does, lists the unusable ones and trains nothing.

    python tools/verify_data.py --config=configs/folder.py --config.data.root=my/

Takes the flags of the training's command. Reads every split of every chosen fold, each file once.
Each bad row gives a line of tab-separated fields: split, row in it, path, reason. The exit code is
0 if all is well, else 1.
"""

import collections
import copy
import functools
import sys

import numpy as np

from jaxord import main
from jaxord.data import faults, readers, storage
from jaxord.workdir.layout import chosen_folds

Row = collections.namedtuple("Row", "split row path reason")
ESCAPES = str.maketrans({"\n": "\\n", "\t": "\\t"})


def verify(config):
    """Reads all that a config trains and is tested on, few-shot and shift left aside.

    Returns ([Row], {split: number of its rows}); row -1 is a fault that no row is to blame for.
    With folds a split is called "train, fold 3".
    """
    data = copy.deepcopy(config.data).unlock()
    # All rows are read, unchanged: a row that few-shot leaves out today may be drawn tomorrow.
    data.shots, data.shift.labels, data.corruption.name = 0, 0, ""
    bad, sizes, checked = [], {}, {}
    for fold in chosen_folds(config):
        with faults.collecting() as collected:
            try:
                splits = readers.load(data, fold, config.seed, config.ranks)
            except ValueError as error:
                labels = [(path, reason) for _, path, reason in collected.labels]
                reasons = [*collected.files.items(), *labels, (data.root, str(error))]
                return [*bad, *(Row("", -1, *reason) for reason in reasons)], sizes
        for split, records in splits.items():
            title = f"{split}, fold {fold}" if fold else split
            sizes[title] = len(records)
            wrong = wrong_labels(records, config.ranks, collected.labels)
            reasons = unreadable_files(records, data, collected.files, checked) | wrong
            bad += [Row(title, i, records.paths[i], reasons[i]) for i in sorted(reasons)]
    return bad, sizes


def unreadable_files(records, data, refused, checked):
    """{row: reason} of a split's files that cannot be read or decoded.

    `refused`, {path: reason}, must not be read; `checked`, {path: reason or ""}, were read before,
    and this adds its own.
    """
    if records.read is not None:
        known = refused.keys() | checked.keys()
        new = [row for row, path in enumerate(records.paths) if path not in known]
        decode = functools.partial(storage.decode_row, records, data=data)
        broken = storage.each_row(decode, new, data.workers)
        checked |= {records.paths[row]: broken.get(row, "") for row in new}
    reasons = [refused.get(path) or checked.get(path, "") for path in records.paths]
    return {row: reason for row, reason in enumerate(reasons) if reason}


def wrong_labels(records, ranks, refused):
    """{row: reason} of labels that are no numbers, or lie outside the config's ranks."""
    targets = np.asarray(records.targets, np.float64).reshape(len(records), -1)
    reasons = {}
    for row in np.flatnonzero(~np.isfinite(targets).all(1)).tolist():
        known = (reason for fields, _, reason in refused if records.paths[row] in fields)
        reasons[row] = next(known, f"the label {targets[row].tolist()} is not a number")
    limits = (*ranks.edges, ranks.last) if ranks.edges else tuple(ranks.labels)
    if limits and limits[0] < limits[-1] and targets.shape[1] == 1:
        low, high = limits[0], limits[-1]
        for row in np.flatnonzero((targets[:, 0] < low) | (targets[:, 0] > high)).tolist():
            place = f"outside the ranks, {low:g} to {high:g}"
            reasons[row] = f"the label {targets[row, 0]:g} is {place}"
    return reasons


def printable(value):
    """A field of the output, with escapes for what cannot be printed or would end the field."""
    return str(value).encode("utf-8", "backslashreplace").decode().translate(ESCAPES)


def run(arguments):
    """Runs the command; returns the exit code."""
    main.parse(arguments)
    main.check("train")
    bad, sizes = verify(main.read_config())
    for row in bad:
        print("\t".join(map(printable, row)))
    for split, size in sizes.items():
        print(f"{split}: {size:,} rows, {sum(row.split == split for row in bad):,} bad")
    print(f"bad: {len(bad):,}" if bad else "all rows are good")
    return int(bool(bad))


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv))
    except ValueError as error:
        sys.exit(f"error: {error}")
