"""Which rows of the records take part: random splits, few-shot, distribution shift."""

import collections
import dataclasses
import random

import numpy as np

SHARES = (0.7, 0.1, 0.2)  # of train, val and test in drawn splits


def shuffled(n, *key):
    """i64[n]: an order of 0..n-1 that depends on the key only, in every version of numpy."""
    parts = [[part] if isinstance(part, int) else part.encode() for part in key]
    words = [word % 2**32 for part in parts for word in part]
    return np.argsort(np.random.Philox(np.random.SeedSequence(words)).random_raw(n), kind="stable")


def split_records(records, fractions, *key):
    """Cuts records at random, with the same share of each label in each split.

    Of a label with n images a split gets n * fraction, up to rounding of the running sum. Labels
    too rare to reach every split are cut together, as if they were one label. `fractions` maps
    split names to shares that sum to 1; 0 makes no split. The key, such as seed and fold, fixes the
    draw. Each split keeps the order of the records.
    """
    shares = {name: share for name, share in fractions.items() if share}
    if min(fractions.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        problem = f"shares of the splits are {dict(fractions)}"
        raise ValueError(f"{problem}; they must not be negative and sum to 1")
    _, labels, counts = np.unique(records.targets, return_inverse=True, return_counts=True)
    labels = np.where(counts[labels] * min(shares.values()) < 1, -1, labels)
    rows_of = {name: [] for name in shares}
    order = shuffled(len(records), *key)
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        # Cutting at the rounded running sum gives every row to exactly one split.
        cuts = np.round(np.cumsum(list(shares.values())) * len(rows)).astype(int)[:-1]
        for name, part in zip(shares, np.split(rows, cuts), strict=True):
            rows_of[name].extend(part)
    return {name: named(records.take(np.sort(rows)), name) for name, rows in rows_of.items()}


def three_splits(records, fractions, *key):
    """`split_records` into train, val and test by three shares; a share of 0 makes no split."""
    return split_records(records, dict(zip(("train", "val", "test"), fractions, strict=True)), *key)


def named(records, split):
    """The same records; messages about them name the split."""
    return dataclasses.replace(records, name=f"{records.name} {split}")


def select_shots(records, shots, seed):
    """Few-shot: `shots` random images of each label, or all if it has fewer.

    As in OrdinalCLIP's program, labels come in the order of their first appearance and are drawn
    from by random.sample.
    """
    draw = random.Random(seed)
    groups = _rows_by_label(records).values()
    few = [draw.sample(rows, shots) if len(rows) >= shots else rows for rows in groups]
    return records.take([row for rows in few for row in rows])


def select_shift(records, labels, keep, choice, seed):
    """Distribution shift: `labels` labels keep max(int(n * keep), 1) of their n images, at random.

    `choice` is "top", the most frequent labels (public program), or "random" (the papers' text).
    """
    draw = random.Random(seed)
    groups = _rows_by_label(records)
    if choice == "top":
        thinned = sorted(groups, key=lambda label: -len(groups[label]))[:labels]
    elif choice == "random":
        thinned = draw.sample(list(groups), min(labels, len(groups)))
    else:
        raise ValueError(f"config.data.shift.choice is {choice!r}; it is 'top' or 'random'")
    if not 0 < keep <= 1:
        raise ValueError(f"config.data.shift.keep is {keep}; it is a share in (0, 1]")
    for label in thinned:
        groups[label] = draw.sample(groups[label], max(int(len(groups[label]) * keep), 1))
    return records.take([row for rows in groups.values() for row in rows])


def _rows_by_label(records):
    groups = collections.defaultdict(list)
    for row, label in enumerate(records.targets.tolist()):
        groups[label].append(row)
    return groups


def carve(splits, val_fraction, *key):
    """Cuts a validation split from the training one, for protocols without; 0 changes nothing.

    Images of one subject may lie on both sides. ValueError if a validation split exists.
    """
    if not val_fraction:
        return splits
    if "val" in splits:
        problem = f"val_fraction is {val_fraction}, but the protocol has a validation split"
        raise ValueError(f"{problem}; set it to 0")
    train = dataclasses.replace(splits["train"], name=splits["train"].name.removesuffix(" train"))
    shares = {"train": 1 - val_fraction, "val": val_fraction}
    return {**splits, **split_records(train, shares, *key)}
