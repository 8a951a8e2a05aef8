"""Which rows of the records take part: random splits, few-shot, distribution shift."""

import collections
import dataclasses
import random

import numpy as np


def shuffled(n, *key):
    """i64[n]: an order of 0..n-1 that depends on the key only, in every version of numpy."""
    words = [
        word % 2**32
        for part in key
        for word in ([part] if isinstance(part, int) else part.encode())
    ]
    return np.argsort(np.random.Philox(np.random.SeedSequence(words)).random_raw(n), kind="stable")


def split_records(records, fractions, *key):
    """Cuts records at random, with the same share of each label in each split.

    Of a label with n images the splits get round(n * fraction) up to rounding of the running sum;
    labels too rare for every split to get one are cut together, as if they were one label.

    Args:
        records: all.
        fractions: split name -> share; a share of 0 makes no split; they sum to 1.
        key: integers and strings that fix the draw: seed and fold.

    Returns:
        {split name: Records}, each in the order of `records`.
    """
    shares = {name: share for name, share in fractions.items() if share}
    if min(fractions.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(
            f"shares of the splits are {dict(fractions)}; they must not be negative and sum to 1"
        )
    values, labels, counts = np.unique(records.targets, return_inverse=True, return_counts=True)
    labels = np.where(counts[labels] * min(shares.values()) < 1, -1, labels)
    chosen = {name: [] for name in shares}
    order = shuffled(len(records), *key)
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        cuts = np.round(np.cumsum(list(shares.values())) * len(rows)).astype(int)[:-1]
        for name, part in zip(shares, np.split(rows, cuts), strict=True):
            chosen[name].extend(part)
    return {name: named(records.take(np.sort(rows)), name) for name, rows in chosen.items()}


def named(records, split):
    """The same records, whose messages say which split they are."""
    return dataclasses.replace(records, name=f"{records.name} {split}")


def select_shots(records, shots, seed):
    """Few-shot: `shots` random images of each label, all where there are fewer (OrdinalCLIP's
    protocol).

    Labels come in the order of their first appearance and are drawn from with random.sample, as the
    protocol's program.
    """
    draw = random.Random(seed)
    groups = _rows_by_label(records)
    rows = [
        row
        for group in groups.values()
        for row in (draw.sample(group, shots) if len(group) >= shots else group)
    ]
    return records.take(rows)


def select_shift(records, labels, keep, choice, seed):
    """Distribution shift: some labels keep only a share of their images, max(int(n * keep), 1)
    drawn at random.

    Args:
        records: the training split.
        labels: how many labels are thinned out.
        keep: share that they keep.
        choice: "top": the most frequent labels (the public program); "random": any (the papers'
          text).
        seed: of the draw.
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
    return records.take([row for group in groups.values() for row in group])


def _rows_by_label(records):
    groups = collections.defaultdict(list)
    for row, label in enumerate(records.targets.tolist()):
        groups[label].append(row)
    return groups


def carve(splits, val_fraction, *key):
    """The splits with a validation split cut from the training one; unchanged where val_fraction is
    0.

    For protocols without a validation split. Images of one subject may come to lie on both sides.

    Raises:
        ValueError: there is a validation split already.
    """
    if not val_fraction:
        return splits
    if "val" in splits:
        raise ValueError(
            f"val_fraction is {val_fraction}, but the protocol has a validation split; set it to 0"
        )
    train = dataclasses.replace(splits["train"], name=splits["train"].name.removesuffix(" train"))
    return {
        **splits,
        **split_records(train, {"train": 1 - val_fraction, "val": val_fraction}, *key),
    }
