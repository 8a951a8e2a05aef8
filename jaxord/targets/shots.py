"""Many, median and few shot: how often the training split holds a label; how groups are hit.

Numpy, over a whole split at once, as in jaxord.metrics. N samples, M training samples, G groups.
"""

import collections

import numpy as np

SHOTS = ("many", "median", "few")

# The 50 bins of STS-B-DIR (Yang et al. 2021), by its fixed lists. Bins in neither list are few:
# they hold up to 27 training pairs, so the lists were not made with the age sets' bound of 20.
STSB_BINS = 50
STSB_MANY = (0, *range(10, 50, 2), 49)
STSB_MEDIAN = (2, 4, 6, 8, 27, 35, 37)


def partition(config, train_targets, targets):
    """Divides samples into many, median and few shot.

    Kind "count" counts the training samples in a label's bin, floor((y - low) / width): more than
    `many` are many, fewer than `few` or none are few, the rest median. A label within 1e-4 of a bin
    below an edge opens the next bin, so rounding moves no decimal. Kind "stsb" takes the fixed
    lists of STS-B-DIR and ignores the training targets.

    Trap: scores lie on the float32 edges of STS-B-DIR. With float64 edges a quarter of the pairs
    change their bin, and an eighth after a division by 5 in float32 and back: pass scores as read.

    `config` is the `shots` of a config; train_targets [M] and targets [N] are on the scale of the
    metric. Returns array[N] of "many", "median" and "few".
    """
    train_targets, targets = np.asarray(train_targets, np.float32), np.asarray(targets, np.float32)
    shapes = f"{train_targets.shape} and {targets.shape}"
    if train_targets.ndim != 1 or targets.ndim != 1:
        raise ValueError(f"targets have the shapes {shapes}; shots divide numbers, [N]")
    # The published lists of bins, not counts, define the shots of STS-B-DIR.
    if config.kind == "stsb":
        bins = stsb_bins(targets)
        many, median = np.isin(bins, STSB_MANY), np.isin(bins, STSB_MEDIAN)
    elif config.kind == "count":
        if config.width <= 0:
            raise ValueError(f"shots.width is {config.width}; expected more, 1.0 for integers")
        samples = collections.Counter(_bins(train_targets, config))
        count = np.array([samples[label] for label in _bins(targets, config)], np.int64)
        many, median = count > config.many, (count >= config.few) & (count > 0)
    else:
        raise ValueError(f"shots.kind is {config.kind!r}; it takes 'count' or 'stsb'")
    return np.where(many, "many", np.where(median, "median", "few"))


def _bins(targets, config):
    return np.floor((targets.astype(np.float64) - config.low) / config.width + 1e-4).tolist()


def stsb_bins(targets):
    """i64[N]: STS-B-DIR's bin 0..49 of scores f32[N] in 0..5; 5 is in the last bin."""
    targets = np.asarray(targets, np.float32)
    if not ((targets >= 0) & (targets <= 5)).all():
        scores = f"scores reach from {targets.min():g} to {targets.max():g}"
        raise ValueError(f"{scores}; the bins of STS-B cover 0 to 5")
    edges = np.linspace(0, 5, STSB_BINS + 1).astype(np.float32)
    return np.minimum(np.searchsorted(edges, targets, side="right") - 1, STSB_BINS - 1)


def histogram(group, predicted_group, count):
    """Sizes of true and predicted groups, and mean distances (Group-DIR Figures 2, 4 and 5).

    Of integers [N] in 0..G-1, G = count. Returns (i64[G] samples of each group, i64[G] samples
    predicted to be of each group, f64[G] mean |predicted - true| over the samples of each true
    group, nan for an empty one).
    """
    group, predicted_group = np.asarray(group), np.asarray(predicted_group)
    if group.ndim != 1 or group.shape != predicted_group.shape:
        shapes = f"group has shape {group.shape} and predicted_group {predicted_group.shape}"
        raise ValueError(f"{shapes}; expected both [N]")
    for title, groups in (("group", group), ("predicted_group", predicted_group)):
        if len(groups) and (groups.min() < 0 or groups.max() >= count):
            reach = f"{title} reaches from {groups.min()} to {groups.max()}"
            raise ValueError(f"{reach}; {count} groups are 0 to {count - 1}")
    true = np.bincount(group, minlength=count)
    predicted = np.bincount(predicted_group, minlength=count)
    total = np.bincount(group, np.abs(predicted_group - group), count)
    return true, predicted, np.where(true > 0, total / np.maximum(true, 1), np.nan)
