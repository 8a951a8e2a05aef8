"""What was predicted, and how far it is from the truth.

N samples, K ranks, A numbers of a label.
"""

import numpy as np

from jaxord.report.figures import style

MANY = 2500  # points from which on their density is drawn
MOST_RANKS = 20  # rows of a confusion matrix
FEW_VALUES = (
    20  # distinct values up to which points are spread, so that they do not hide each other
)
PARTS = {"many": style.COLOURS[0], "median": style.COLOURS[4], "few": style.COLOURS[1]}


@style.drawn
def predicted_against_true(panels, unit=""):
    """Predicted over true labels beside the line on which they are equal; of more than 2,500 the
    density.

    Where labels or predictions have few distinct values they are spread by up to a third of the
    distance between two.

    Args:
      panels: {title: (prediction [N], target [N])}.
      unit: of the labels, for the axes.
    """
    dense = any(len(target) > MANY for _, target in panels.values())
    figure, axes = style.canvas(len(panels), width=4.8 if dense else 4.0, height=4.0)
    for ax, (title, pair) in zip(axes, panels.items(), strict=True):
        prediction, target = (np.asarray(values, float) for values in pair)
        many = len(target) > MANY
        x, y = (target, prediction) if many else (_spread(target, 0), _spread(prediction, 1))
        both, shown = np.concatenate([prediction, target]), np.concatenate([x, y])
        low, high = both.min(), both.max()
        margin = 0.05 * (high - low or 1)
        ax.plot(
            [low, high],
            [low, high],
            color=style.DARK,
            linewidth=1,
            linestyle="--",
            label="equal",
            zorder=3,
        )
        if many:
            cells = ax.hexbin(x, y, gridsize=45, mincnt=1, bins="log", linewidths=0.1)
            figure.colorbar(cells, ax=ax, label="samples", shrink=0.8)
        else:
            look = {
                "s": 14,
                "alpha": 0.35,
                "linewidths": 0,
                "color": style.COLOURS[0],
                "rasterized": len(target) > 800,
            }
            ax.scatter(x, y, **look)
        ax.set(title=title, xlabel=f"true {unit}", ylabel=f"predicted {unit}", aspect="equal")
        edges = shown.min() - margin, shown.max() + margin
        ax.set(xlim=edges, ylim=edges)
    return figure


def _spread(values, seed):
    distinct = np.unique(values)
    if not 1 < len(distinct) <= FEW_VALUES:
        return values
    return (
        values
        + np.random.default_rng(seed).uniform(-1 / 3, 1 / 3, len(values)) * np.diff(distinct).min()
    )


@style.drawn
def confusion(rank, predicted_rank, names, most=MOST_RANKS):
    """Share of each true rank (a row) that is predicted as each rank (a column); the counts where
    there is room.

    Args:
      rank, predicted_rank: [N], integers 0..K-1.
      names: K texts.
      most: rows; of more ranks two, three, ... neighbours are taken together.
    """
    step = -(-len(names) // most)
    if step > 1:
        groups = [names[k : k + step] for k in range(0, len(names), step)]
        names = [f"{group[0]} – {group[-1]}" if len(group) > 1 else group[0] for group in groups]
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (np.asarray(rank) // step, np.asarray(predicted_rank) // step), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(2.2 + 0.42 * len(names), 7.0)
    figure, (ax,) = style.canvas(1, width=side + 1.3 + 0.09 * max(map(len, names)), height=side)
    image = ax.imshow(
        np.where(counts, shares, np.nan), vmin=0, vmax=shares.max(), interpolation="nearest"
    )
    figure.colorbar(image, ax=ax, label="share of the true rank", shrink=0.8)
    ax.grid(False)
    ax.set_facecolor(
        "0.93"
    )  # where there is none: a rank that is never predicted is a column of its own too
    style.name_ticks(ax.xaxis, names)
    style.name_ticks(ax.yaxis, names)
    ax.set(xlabel="predicted", ylabel="true")
    for row, column in np.argwhere(counts) if len(names) <= 12 else ():
        colour = (
            "black" if shares[row, column] > 0.6 * shares.max() else "white"
        )  # viridis is light at its top
        ax.text(
            column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=9
        )
    return figure


@style.drawn
def error_by_rank(rank, error, train_count, names, part=None):
    """Mean absolute error of each rank with its standard error, over the number of training samples
    that it has.

    Args:
      rank: [N], integers 0..K-1.
      error: [N], absolute errors.
      train_count: [K], training samples of each rank.
      names: K texts.
      part: [N] of "many", "median" and "few", which colour the bars; None where there is no such
        partition.
    """
    rank, error, ranks = np.asarray(rank), np.asarray(error, float), len(names)
    counts = np.bincount(rank, minlength=ranks)
    mean = np.bincount(rank, error, ranks) / np.maximum(counts, 1)
    spread = np.bincount(rank, (error - mean[rank]) ** 2, ranks)
    standard = np.sqrt(spread / np.maximum(counts - 1, 1) / np.maximum(counts, 1))
    of = (
        {}
        if part is None
        else {r: _most_common(np.asarray(part)[rank == r]) for r in np.unique(rank)}
    )
    colours = [PARTS[of[r]] if r in of else style.COLOURS[0] for r in range(ranks)]
    figure, (above, below) = style.canvas(
        2, columns=1, width=min(max(5.0, 2 + 0.35 * ranks), 9.0), height=2.3, sharex=True
    )
    above.bar(range(ranks), np.where(counts > 0, mean, np.nan), color=colours, width=0.8)
    shown = counts > 1
    above.errorbar(
        np.flatnonzero(shown),
        mean[shown],
        standard[shown],
        fmt="none",
        ecolor=style.DARK,
        elinewidth=1,
    )
    for name in PARTS:
        if name in of.values():
            above.bar([0], [np.nan], color=PARTS[name], label=f"{name}-shot")
    above.set(ylabel="mean |error|", title="Error of each label, and its standard error")
    below.bar(np.arange(ranks) - 0.2, train_count, width=0.4, color=style.DARK, label="training")
    below.bar(np.arange(ranks) + 0.2, counts, width=0.4, color=style.COLOURS[5], label="test")
    filled = np.concatenate([train_count, counts])
    if filled.max() > 20 * max(filled[filled > 0].min(), 1):
        below.set_yscale("log")
        below.set_ylim(bottom=0.5)
    below.set(ylabel="samples", xlabel="true label")
    style.name_ticks(below.xaxis, names, most=25)
    for ax in (above, below):
        ax.grid(axis="x", visible=False)
    style.legend(figure, (above, below))
    return figure


def _most_common(values):
    names, counts = np.unique(values, return_counts=True)
    return names[counts.argmax()]


@style.drawn
def cumulative_score(errors):
    """Share of the samples whose error is at most t, over t: up and to the left is better.

    Args:
      errors: {label: absolute errors [N]}.
    """
    figure, (ax,) = style.canvas(1, width=5.6, height=3.4)
    edge = max(np.quantile(error, 0.98) for error in errors.values()) or 1.0
    for k, (label, error) in enumerate(errors.items()):
        error = np.sort(np.asarray(error, float))
        share = np.arange(1, len(error) + 1) / len(error)
        look = style.line(k, dashed=True)
        ax.plot(
            [0, *error, max(edge, error[-1])],
            [0, *share, 1],
            drawstyle="steps-post",
            label=label,
            **look,
        )
    ax.set(
        xlim=(0, edge),
        ylim=(0, 1.02),
        xlabel="t, on the scale of the label",
        ylabel="share with |error| ≤ t",
    )
    style.legend(figure, [ax])
    return figure


@style.drawn
def calibration(probabilities, rank, of="rank", bins=10):
    """How often the most probable rank is right where it is given a probability, and how often one
    is given.

    The expected calibration error in the title is sum_b n_b / N |accuracy_b - confidence_b| over equal bins.

    Args:
      probabilities: [N, K].
      rank: [N], integers 0..K-1.
      of: what a rank is called.
      bins: equal parts of 0..1.
    """
    confidence, hit = np.max(probabilities, 1), np.argmax(probabilities, 1) == np.asarray(rank)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    share, said = (np.bincount(place, x, bins) / np.maximum(count, 1) for x in (hit, confidence))
    figure, (left, right) = style.canvas(2, width=4.0, height=3.4)
    there = count > 0
    left.plot([0, 1], [0, 1], color=style.DARK, linestyle="--", linewidth=1)
    left.plot(said[there], share[there], marker="o", color=style.COLOURS[0])
    error = (count * np.abs(share - said)).sum() / len(hit)
    left.set(
        title=f"Expected calibration error {error:.3f}",
        xlabel=f"probability of the most probable {of}",
    )
    left.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    right.bar((np.arange(bins) + 0.5) / bins, count, width=0.9 / bins, color=style.COLOURS[0])
    right.set(
        title="How sure it is",
        xlabel=f"probability of the most probable {of}",
        ylabel="samples",
        xlim=(0, 1),
    )
    return figure


def _by_number(name):
    """Sorts "2" before "10", and ranges of numbers by where they begin."""
    try:
        return float(str(name).split()[0]), str(name)
    except (ValueError, IndexError):
        return np.inf, str(name)


@style.drawn
def error_by_column(error, values, most=14):
    """Mean absolute error for each value of a column, with its 95 % interval (1.96 standard errors)
    and number of samples.

    Args:
      error: [N], absolute errors.
      values: [N] texts.
      most: values shown, the most frequent; the others are taken together.
    """
    error, values = np.asarray(error, float), np.asarray(values).astype(object)
    names, counts = np.unique(values, return_counts=True)
    if len(names) > most:
        rare = names[np.argsort(-counts, kind="stable")[most - 1 :]]
        values = np.where(np.isin(values, rare), f"{len(rare)} others", values)
        names = [*sorted(set(names) - set(rare), key=_by_number), f"{len(rare)} others"]
    else:
        names = sorted(names, key=_by_number)
    figure, (ax,) = style.canvas(1, width=6.4, height=1.0 + 0.3 * len(names))
    for row, name in enumerate(names):
        of = error[values == name]
        half = 1.96 * of.std(ddof=1) / np.sqrt(len(of)) if len(of) > 1 else 0.0
        ax.errorbar(of.mean(), row, xerr=half, fmt="o", color=style.COLOURS[0], capsize=3)
    ax.axvline(error.mean(), color=style.DARK, linestyle="--", linewidth=1)
    texts = [
        f"{name if len(str(name)) < 28 else str(name)[:27] + '…'} ({(values == name).sum()})"
        for name in names
    ]
    ax.set_yticks(range(len(names)), texts)
    ax.set(xlabel="mean |error|", ylim=(len(names) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
    return figure
