"""Predictions and their errors.

N samples, K ranks.
"""

import numpy as np

from jaxord.report.figures import style

MANY = 2500  # points from which on their density is drawn
MOST_RANKS = 20  # rows of a confusion matrix
FEW_VALUES = 20  # distinct values up to which points are spread, to uncover each other
PARTS = {"many": style.COLOURS[0], "median": style.COLOURS[4], "few": style.COLOURS[1]}


@style.drawn
def predicted_against_true(panels):
    """Predicted over true labels, panels {title: (prediction [N], target [N])}.

    Above 2,500 samples their density. Few distinct values are spread by up to a third of the
    smallest distance between two.
    """
    is_dense = any(len(target) > MANY for _, target in panels.values())
    figure, axes = style.canvas(len(panels), width=4.8 if is_dense else 4.0, height=4.0)
    diagonal = {"color": style.DARK, "linewidth": 1, "linestyle": "--", "label": "equal"}
    for ax, (title, pair) in zip(axes, panels.items(), strict=True):
        prediction, target = (np.asarray(values, float) for values in pair)
        low, high = min(prediction.min(), target.min()), max(prediction.max(), target.max())
        # Both axes have one scale, so that the diagonal halves the square.
        margin = 0.05 * (high - low or 1)
        ax.plot([low, high], [low, high], zorder=3, **diagonal)
        if len(target) > MANY:
            x, y = target, prediction
            cells = ax.hexbin(x, y, gridsize=45, mincnt=1, bins="log", linewidths=0.1)
            figure.colorbar(cells, ax=ax, label="samples", shrink=0.8)
        else:
            x, y = _spread(target, 0), _spread(prediction, 1)
            look = {"s": 14, "alpha": 0.35, "linewidths": 0, "color": style.COLOURS[0]}
            ax.scatter(x, y, rasterized=len(target) > 800, **look)
        shown = np.concatenate([x, y])
        edges = shown.min() - margin, shown.max() + margin
        ax.set(title=title, xlabel="true", ylabel="predicted", aspect="equal")
        ax.set(xlim=edges, ylim=edges)
    return figure


def _spread(values, seed):
    distinct = np.unique(values)
    if not 1 < len(distinct) <= FEW_VALUES:
        return values
    shift = np.random.default_rng(seed).uniform(-1 / 3, 1 / 3, len(values))
    return values + shift * np.diff(distinct).min()


@style.drawn
def confusion(rank, predicted_rank, names, most=MOST_RANKS):
    """Share of each true rank (a row) that is predicted as each rank, with counts if there is room.

    Args:
      rank, predicted_rank: [N], integers 0..K-1.
      names: K texts.
      most: rows; of more ranks two, three, ... neighbours are taken together.
    """
    step = -(-len(names) // most)
    joined = [names[k : k + step] for k in range(0, len(names), step)]
    names = [f"{some[0]} – {some[-1]}" if len(some) > 1 else some[0] for some in joined]
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (np.asarray(rank) // step, np.asarray(predicted_rank) // step), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    highest = shares.max()
    side = min(2.2 + 0.42 * len(names), 7.0)
    figure, (ax,) = style.canvas(1, width=side + 1.3 + 0.09 * max(map(len, names)), height=side)
    filled = np.where(counts, shares, np.nan)
    image = ax.imshow(filled, vmin=0, vmax=highest, interpolation="nearest")
    figure.colorbar(image, ax=ax, label="share of the true rank", shrink=0.8)
    ax.grid(False)
    ax.set_facecolor("0.93")  # empty cells
    style.name_ticks(ax.xaxis, names)
    style.name_ticks(ax.yaxis, names)
    ax.set(xlabel="predicted", ylabel="true")
    for row, column in np.argwhere(counts) if len(names) <= 12 else ():
        # viridis is light at its top.
        colour = "black" if shares[row, column] > 0.6 * highest else "white"
        look = {"ha": "center", "va": "center", "color": colour, "fontsize": 9}
        ax.text(column, row, counts[row, column], **look)
    return figure


@style.drawn
def error_by_rank(rank, error, train_count, names, part=None):
    """Mean absolute error of each rank with its standard error, over the numbers of its samples.

    Args:
      rank: [N], integers 0..K-1.
      error: [N], absolute errors.
      train_count: [K], training samples of each rank.
      names: K texts.
      part: [N] of "many", "median" and "few", which colour the bars; None without such a partition.
    """
    rank, error, ranks = np.asarray(rank), np.asarray(error, float), len(names)
    width = min(max(5.0, 2 + 0.35 * ranks), 9.0)
    figure, (above, below) = style.canvas(2, columns=1, width=width, height=2.3, sharex=True)
    counts = np.bincount(rank, minlength=ranks)
    _error_bars(above, rank, error, counts, part)
    below.bar(np.arange(ranks) - 0.2, train_count, width=0.4, color=style.DARK, label="training")
    below.bar(np.arange(ranks) + 0.2, counts, width=0.4, color=style.COLOURS[5], label="test")
    # Long-tailed counts need a logarithmic axis.
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


def _error_bars(ax, rank, error, counts, part):
    ranks = len(counts)
    mean = np.bincount(rank, error, ranks) / np.maximum(counts, 1)
    squares = np.bincount(rank, (error - mean[rank]) ** 2, ranks)
    standard = np.sqrt(squares / np.maximum(counts - 1, 1) / np.maximum(counts, 1))
    part_of = {}
    for k in np.unique(rank) if part is not None else ():
        names, sizes = np.unique(np.asarray(part)[rank == k], return_counts=True)
        part_of[k] = names[sizes.argmax()]
    colours = [PARTS.get(part_of.get(k), style.COLOURS[0]) for k in range(ranks)]
    ax.bar(range(ranks), np.where(counts > 0, mean, np.nan), color=colours, width=0.8)
    several = np.flatnonzero(counts > 1)
    look = {"fmt": "none", "ecolor": style.DARK, "elinewidth": 1}
    ax.errorbar(several, mean[several], standard[several], **look)
    # Empty bars, for the legend.
    for name in PARTS:
        if name in part_of.values():
            ax.bar([0], [np.nan], color=PARTS[name], label=f"{name}-shot")
    ax.set(ylabel="mean |error|", title="Error of each label, and its standard error")


@style.drawn
def cumulative_score(errors):
    """Share of samples with an error of at most t, over t, of {label: absolute errors [N]}."""
    figure, (ax,) = style.canvas(1, width=5.6, height=3.4)
    edge = max(np.quantile(error, 0.98) for error in errors.values()) or 1.0
    for k, (label, error) in enumerate(errors.items()):
        error = np.sort(np.asarray(error, float))
        share = np.arange(1, len(error) + 1) / len(error)
        look = style.line(k, dashed=True) | {"drawstyle": "steps-post", "label": label}
        ax.plot([0, *error, max(edge, error[-1])], [0, *share, 1], **look)
    ax.set(xlim=(0, edge), ylim=(0, 1.02))
    ax.set(xlabel="t, on the scale of the label", ylabel="share with |error| ≤ t")
    style.legend(figure, [ax])
    return figure


@style.drawn
def calibration(probabilities, rank, of="rank", bins=10):
    """How often the most probable rank is right, and how often it is given each probability.

    The title has the expected calibration error sum_b n_b / N |accuracy_b - confidence_b| over
    `bins` of equal width.

    Args:
      probabilities: [N, K].
      rank: [N], integers 0..K-1.
      of: name of a rank.
    """
    confidence = np.max(probabilities, 1)
    is_right = np.argmax(probabilities, 1) == np.asarray(rank)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    share = np.bincount(place, is_right, bins) / np.maximum(count, 1)
    predicted = np.bincount(place, confidence, bins) / np.maximum(count, 1)
    error = (count * np.abs(share - predicted)).sum() / len(is_right)
    figure, (left, right) = style.canvas(2, width=4.0, height=3.4)
    left.plot([0, 1], [0, 1], color=style.DARK, linestyle="--", linewidth=1)
    # Empty bins have no accuracy.
    filled = count > 0
    left.plot(predicted[filled], share[filled], marker="o", color=style.COLOURS[0])
    x = f"probability of the most probable {of}"
    left.set(title=f"Expected calibration error {error:.3f}", xlabel=x)
    left.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    right.bar((np.arange(bins) + 0.5) / bins, count, width=0.9 / bins, color=style.COLOURS[0])
    right.set(title="How sure it is", xlabel=x, ylabel="samples", xlim=(0, 1))
    return figure


def _by_number(name):
    """Sorts "2" before "10", and ranges of numbers by where they begin."""
    try:
        return float(str(name).split()[0]), str(name)
    except (ValueError, IndexError):
        return np.inf, str(name)


@style.drawn
def error_by_column(error, values, most=14):
    """Mean absolute error for each value of a column, its 95 % interval (1.96 s.e.) and count.

    Args:
      error: [N], absolute errors.
      values: [N] texts.
      most: values shown, the most frequent; the others are taken together.
    """
    error, values = np.asarray(error, float), np.asarray(values).astype(object)
    names, counts = np.unique(values, return_counts=True)
    rest = []
    if len(names) > most:
        # One row less, for the others.
        rare = names[np.argsort(-counts, kind="stable")[most - 1 :]]
        rest = [f"{len(rare)} others"]
        values = np.where(np.isin(values, rare), rest[0], values)
        names = set(names) - set(rare)
    names, texts = [*sorted(names, key=_by_number), *rest], []
    figure, (ax,) = style.canvas(1, width=6.4, height=1.0 + 0.3 * len(names))
    for row, name in enumerate(names):
        part = error[values == name]
        half = 1.96 * part.std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else 0.0
        ax.errorbar(part.mean(), row, xerr=half, fmt="o", color=style.COLOURS[0], capsize=3)
        short = str(name) if len(str(name)) < 28 else f"{str(name)[:27]}…"
        texts.append(f"{short} ({len(part)})")
    ax.axvline(error.mean(), color=style.DARK, linestyle="--", linewidth=1)
    style.name_rows(ax, texts)
    ax.set(xlabel="mean |error|")
    ax.grid(axis="y", visible=False)
    return figure
