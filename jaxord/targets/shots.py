"""Many, median and few shot: errors by how often the training split holds a label; and how groups
are hit.

In numpy, over a whole split at once, as jaxord.metrics. N samples, G groups.
"""

import collections

import numpy as np

SHOTS = ("many", "median", "few")

# The STS-B-DIR benchmark's 50 bins of 0.1 (Yang et al. 2021), as its fixed lists have them. What is
# in neither is few: bins with up to 27 training pairs, so the bound behind the lists is not the 20
# of the age sets.
STSB_BINS = 50
STSB_MANY = (0, *range(10, 50, 2), 49)
STSB_MEDIAN = (2, 4, 6, 8, 27, 35, 37)


def of(config, train_targets, targets):
    """The partition that each sample belongs to.

    "count": by the number of training samples with the same label, more than `many`: many; fewer
    than `few`: few, and so is a label that training lacks; else median. A label is the bin floor((y
    - low) / width); one whose decimals put it on an edge begins a bin, whatever their rounding
    (within 1e-4 of a bin). "stsb": by the fixed lists of STS-B-DIR, whose edges are rounded to
    float32; the training targets are not read. Trap: scores are decimals that lie on the edges.
    With float64 edges a quarter of the benchmark's pairs come into another bin, and so do an eighth
    of them after a division by 5 in float32 and back: give scores as they were read.

    Args:
      config: the `shots` part of a config: kind, many, few, width, low.
      train_targets: [M], targets of the training split, on the scale of the metric.
      targets: [N], to be divided.

    Returns:
      array[N] of "many", "median" and "few".

    Raises:
      ValueError: an unknown kind, targets that are not [N], scores outside 0..5 for "stsb", or a
        width that is not positive.
    """
    train_targets, targets = np.asarray(train_targets, np.float32), np.asarray(targets, np.float32)
    if train_targets.ndim != 1 or targets.ndim != 1:
        raise ValueError(
            f"targets have the shapes {train_targets.shape} and {targets.shape}; shots divide numbers, [N]"
        )
    if config.kind == "stsb":
        bins = stsb_bins(targets)
        many, median = np.isin(bins, STSB_MANY), np.isin(bins, STSB_MEDIAN)
    elif config.kind == "count":
        if config.width <= 0:
            raise ValueError(
                f"shots.width is {config.width}; it is the width of a label's bin, 1.0 for integers"
            )
        train_bins, bins = _bins(train_targets, config), _bins(targets, config)
        seen = collections.Counter(train_bins.tolist())
        count = np.array([seen[label] for label in bins.tolist()], np.int64)
        many, median = count > config.many, (count >= config.few) & (count > 0)
    else:
        raise ValueError(f"shots.kind is {config.kind!r}; it takes 'count' or 'stsb'")
    return np.where(many, "many", np.where(median, "median", "few"))


def _bins(targets, config):
    return np.floor((targets.astype(np.float64) - config.low) / config.width + 1e-4)


def stsb_bins(targets):
    """i64[N]: STS-B-DIR's bin 0..49 of scores in 0..5; 5 belongs to the last.

    Args:
      targets: f32[N].

    Raises:
      ValueError: a score outside 0..5.
    """
    targets = np.asarray(targets, np.float32)
    if not ((targets >= 0) & (targets <= 5)).all():
        raise ValueError(
            f"scores reach from {targets.min():g} to {targets.max():g}; the bins of STS-B cover 0 to 5"
        )
    edges = np.linspace(0, 5, STSB_BINS + 1).astype(np.float32)
    return np.minimum(np.searchsorted(edges, targets, side="right") - 1, STSB_BINS - 1)


def histogram(group, predicted_group, count):
    """How many samples each group has and is given, and how far its samples miss (Group-DIR Figures
    2, 4 and 5).

    Args:
      group: [N], integers 0..G-1.
      predicted_group: [N], integers 0..G-1.
      count: G.

    Returns:
      (i64[G] samples of each group, i64[G] samples predicted to be of each group, f64[G] mean |predicted - true| over the
      samples of each true group, nan where there is none).

    Raises:
      ValueError: arrays that do not pair up, or groups outside 0..G-1.
    """
    group, predicted_group = np.asarray(group), np.asarray(predicted_group)
    if group.ndim != 1 or group.shape != predicted_group.shape:
        raise ValueError(
            f"group has shape {group.shape} and predicted_group {predicted_group.shape}; expected both [N]"
        )
    for title, found in (("group", group), ("predicted_group", predicted_group)):
        if len(found) and (found.min() < 0 or found.max() >= count):
            raise ValueError(
                f"{title} reaches from {found.min()} to {found.max()}; {count} groups are 0 to {count - 1}"
            )
    true, predicted = (
        np.bincount(group, minlength=count),
        np.bincount(predicted_group, minlength=count),
    )
    total = np.bincount(group, np.abs(predicted_group - group), count)
    return true, predicted, np.where(true > 0, total / np.maximum(true, 1), np.nan)
