"""Sections from predictions.csv: predictions against labels, and where the errors are.

Arguments and results are those of jaxord.report.results.
"""

import numpy as np

from jaxord.report import page, runs
from jaxord.report.figures import groups, predictions
from jaxord.report.results import ORACLE

PANELS = 3  # rules beside each other
CLASSES = 30  # distinct values of a column up to which each is a class
NO_RANKS = "the labels are two angles and have no ranks."
PEOPLE = (
    "Groups of people can differ in their errors; predictions about people are for decision "
    "support at most."
)


def same_ranks(folds):
    """The folds with the first one's ranks, which can share a figure."""
    first = folds[0].ranks

    def fits(ranks):
        return ranks.names == first.names and np.array_equal(ranks.values, first.values)

    return [fold for fold in folds if fits(fold.ranks)]


def scatter(folds, model):
    """Predicted against true."""
    test = runs.pooled(folds)
    target, rule = test.target, folds[0].headline
    if target.ndim > 1:
        angles = zip(test.values[rule].T, target.T, strict=True)
        panels = {f"{rule}, angle {k}": pair for k, pair in enumerate(angles)}
    else:
        rules = [rule for rule in test.values if rule != ORACLE][:PANELS]
        panels = {rule: (test.values[rule], target) for rule in rules}
    caption = f"{len(target):,} test samples. On the dashed line the prediction is the label."
    if len(target) <= predictions.MANY:
        caption += " Labels or predictions with few values are spread a little to uncover points."
    return [page.picture(predictions.predicted_against_true(panels), caption)]


def confusion(folds, model):
    """True against predicted ranks."""
    ranks, rule = folds[0].ranks, folds[0].headline
    if ranks is None:
        return NO_RANKS
    test = runs.pooled(same_ranks(folds))
    rank, predicted = ranks.index(test.target), ranks.index(test.values[rule])
    off = np.abs(rank.astype(int) - predicted)
    caption = (
        f"Ranks of {rule}, rounded to the nearest; {(off == 0).mean():.1%} are right and "
        f"{(off <= 1).mean():.1%} at most one rank off. Each row adds up to 1."
    )
    if len(ranks.names) > predictions.MOST_RANKS:
        caption += " Neighbouring ranks are taken together."
    return [page.picture(predictions.confusion(rank, predicted, ranks.names), caption)]


def by_label(folds, model):
    """Errors of each label."""
    ranks = folds[0].ranks
    if ranks is None:
        return NO_RANKS
    folds = same_ranks(folds)
    rank = ranks.index(runs.pooled(folds).target)
    error = np.concatenate([fold.error for fold in folds])
    train_ranks = ranks.index(np.concatenate([fold.train_targets for fold in folds]))
    count = np.bincount(train_ranks, minlength=len(ranks.names))
    shots = folds[0].config.shots
    # A fold's own training labels decide which of its labels are few-shot.
    part = np.concatenate([fold.part for fold in folds]) if shots.kind else None
    figure = predictions.error_by_rank(rank, error, count, ranks.names, part)
    bounds = {
        "": "",
        "count": f" Many-shot labels have more than {shots.many} training samples, few-shot ones "
        f"fewer than {shots.few}.",
        "stsb": " Many, median and few shot are the fixed lists of STS-B-DIR.",
    }
    caption = f"Absolute error of {folds[0].headline} by true label, and samples of each label."
    return [page.picture(figure, caption + bounds[shots.kind])]


def cumulative(folds, model):
    """Share within a tolerance."""
    test = runs.pooled(folds)
    values = {rule: values for rule, values in test.values.items() if rule != ORACLE}
    # A fold's constant is the median of its own training labels.
    values["constant"] = np.concatenate(
        [0 * fold.test.target + np.median(fold.train_targets, axis=0) for fold in folds]
    )
    errors = {rule: runs.distance(some, test.target) for rule, some in values.items()}
    caption = "Share of the test samples that are predicted within t."
    return [page.picture(predictions.cumulative_score(errors), caption)]


def of_groups(folds, model):
    """Hits and misses of Group-DIR's groups."""
    found = runs.read_groups(folds[0].folder)
    if found is None:
        return "the method has no groups."
    true, predicted, distance = found
    scale = "Test samples of each group, true and predicted, on a logarithmic scale."
    scale += f" Fold {folds[0].name}." if len(folds) > 1 else ""
    off = (
        "Mean distance in groups between prediction and truth, by true group; bars are its samples."
    )
    return [
        page.picture(groups.histograms({"test split": (true, predicted)}), scale),
        page.picture(groups.distance({"": distance}, true), off),
    ]


def by_column(folds, model):
    """Errors by the data's further columns."""
    parts, left_out = [], []
    error = np.concatenate([fold.error for fold in folds])
    for name, values in runs.pooled(folds).extra.items():
        classes = _classes(values)
        # Names of files and the like say nothing about groups.
        if classes is None:
            left_out.append(name)
            continue
        caption = (
            f"Mean absolute error by {name}, with its 95 % interval and the number of test "
            "samples; dashed: over all samples."
        )
        figure = predictions.error_by_column(error, classes)
        parts += [page.heading(name), page.picture(figure, caption)]
    if not parts:
        return "the data have no further column with classes."
    note = PEOPLE
    if left_out:
        note += f" Not shown, a value for nearly each sample: {', '.join(left_out)}."
    return [*parts, page.note(note)]


def _classes(values):
    """A column as names of classes; None if nearly each value differs.

    Numbers with many values are divided into five ranges of equally many samples.
    """
    distinct = np.unique(values)
    if len(distinct) <= CLASSES:
        return values
    try:
        numbers = values.astype(float)
    except ValueError:
        return values if len(distinct) < len(values) / 5 else None
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, 6)))
    place = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    return np.array([f"{edges[k]:.3g} to {edges[k + 1]:.3g}" for k in place])
