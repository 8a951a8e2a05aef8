"""Metrics of a whole split, in numpy and float64: correlations do not average over batches.

Most are `(prediction, target) -> float` or `(predicted_rank, rank) -> float`; parameter names say
which arrays a metric takes, settings are keyword-only. `prediction` and `target` are on the scale
of the label, as are errors; `predicted_rank` and `rank` are indices 0..K-1, rounded by the caller.

An undefined metric is nan, never a number: a correlation or kappa of constants, anything computed
from a nan prediction. Empty arrays and arrays of different shapes raise ValueError.

N samples, K ranks, G groups, D embedding.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts when they are used: stats takes a second

__all__ = ["mae", "mse", "rank_mae", "rmse", "geometric_mean_error", "balanced_mae"]
__all__ += ["amae", "mmae", "accuracy", "accuracy_within", "cumulative_score", "qwk"]
__all__ += ["srcc", "pcc", "krcc", "angular_error", "ranked_probability_score"]
__all__ += ["group_accuracy", "group_distance", "ordinality_score"]

_ERRORS = ("mae", "rank_mae", "mse", "rmse", "geometric_mean_error", "balanced_mae", "amae", "mmae")
LOWER_IS_BETTER = (*_ERRORS, "angular_error", "ranked_probability_score", "group_distance")
SCALARS, ANGLES = (), (2,)  # shape of one sample's label: a number, or pitch and yaw

Array = npt.NDArray[Any]


def mae(prediction: Array, target: Array) -> float:
    """Mean absolute error; both [N], or [N, 2] for two angles, whose errors are averaged."""
    prediction, target = _aligned(prediction, target, SCALARS, ANGLES)
    return float(np.abs(prediction - target).mean())


def mse(prediction: Array, target: Array) -> float:
    """Mean squared error; both [N], or [N, 2] for two angles."""
    prediction, target = _aligned(prediction, target, SCALARS, ANGLES)
    return float(np.square(prediction - target).mean())


def rank_mae(predicted_rank: Array, rank: Array) -> float:
    """Mean absolute error in ranks, of predictions rounded to a rank: the MAE of Adience."""
    return mae(predicted_rank, rank)


def rmse(prediction: Array, target: Array) -> float:
    """Root of the mean squared error; both [N], or [N, 2] for two angles."""
    return float(np.sqrt(mse(prediction, target)))


def geometric_mean_error(prediction: Array, target: Array) -> float:
    """exp(mean(log|prediction - target|)), the "GM" of imbalanced regression.

    An error of exactly 0 counts as 1e-10. Trap: on integer predictions a few exact hits decide it.
    """
    prediction, target = _aligned(prediction, target)
    error = np.abs(prediction - target)
    return float(np.exp(np.log(np.where(error == 0, 1e-10, error)).mean()))


def balanced_mae(prediction: Array, target: Array) -> float:
    """Mean over the distinct targets of the mean absolute error on each (bMAE)."""
    return float(_error_by_label(prediction, target).mean())


def amae(predicted_rank: Array, rank: Array) -> float:
    """Average over the ranks present of the mean absolute error in ranks."""
    return float(_error_by_label(predicted_rank, rank).mean())


def mmae(predicted_rank: Array, rank: Array) -> float:
    """Maximum over the ranks present of the mean absolute error in ranks."""
    return float(_error_by_label(predicted_rank, rank).max())


def accuracy(predicted_rank: Array, rank: Array) -> float:
    """Share of samples with the right rank, 0..1."""
    return _share_within(predicted_rank, rank, 0)


def accuracy_within(predicted_rank: Array, rank: Array, *, tolerance: int = 1) -> float:
    """Share of samples at most `tolerance` ranks off, 0..1; 1 is the "1-off" of age groups."""
    return _share_within(predicted_rank, rank, tolerance)


def cumulative_score(prediction: Array, target: Array, *, threshold: float = 5) -> float:
    """Share of samples with |prediction - target| <= threshold, 0..1: CS(5) of age."""
    return _share_within(prediction, target, threshold)


def qwk(predicted_rank: Array, rank: Array) -> float:
    """Cohen's kappa with quadratic weights, -1..1; nan where both are the same constant.

        1 - mean((a_i - b_i)^2) / mean over all pairs i, j of (a_i - b_j)^2

    1 is agreement, 0 the level of two independent raters with these frequencies. Equals
    scikit-learn's cohen_kappa_score with weights="quadratic" and labels=range(K). Trap: without
    `labels` scikit-learn closes the gaps of absent ranks, so 0 and 2 may become neighbours.
    """
    a, b = _aligned(predicted_rank, rank)
    expected = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    return float(1 - np.square(a - b).mean() / expected) if expected != 0 else float("nan")


def srcc(prediction: Array, target: Array) -> float:
    """Spearman's rank correlation, Pearson's on average ranks, -1..1; nan of a constant."""
    return _correlation(scipy.stats.spearmanr, prediction, target)


def pcc(prediction: Array, target: Array) -> float:
    """Pearson's correlation, -1..1; nan of a constant. No logistic fit, as in some papers."""
    return _correlation(scipy.stats.pearsonr, prediction, target)


def krcc(prediction: Array, target: Array) -> float:
    """Kendall's tau-b, which corrects for ties, -1..1; nan of a constant."""
    return _correlation(scipy.stats.kendalltau, prediction, target)


def angular_error(prediction: Array, target: Array) -> float:
    """Mean angle between two directions of gaze, in degrees, 0..180.

        angle = arccos of the inner product of the unit vectors (-cos p sin y, -sin p, -cos p cos y)
              = 2 arcsin sqrt(sin^2(dp / 2) + cos p cos p' sin^2(dy / 2)),  p pitch, y yaw

    Both [N, 2], pitch and yaw in radians. Computed by the second form: arccos keeps no digits of a
    small angle.
    """
    prediction, target = _aligned(prediction, target, ANGLES)
    pitch, yaw = (np.square(np.sin((prediction - target) / 2))).T  # [N] each
    chord = pitch + np.cos(prediction[:, 0]) * np.cos(target[:, 0]) * yaw
    return float(np.degrees(2 * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))).mean())


def ranked_probability_score(probabilities: Array, rank: Array) -> float:
    """Squared distance of the predicted distribution function to the step at the true rank, 0..K-1.

        mean_i sum_k (F_ik - 1[rank_i <= k])^2,  F_ik = sum_{j <= k} p_ij

    Not divided by the number of thresholds K - 1, as some do: 0 is a sure hit, K - 1 the surest and
    farthest miss. On a one-hot distribution it is the absolute error in ranks. Epstein 1969; Murphy
    1971.

    Args:
      probabilities: [N, K], not logits; rows that do not sum to 1 are a ValueError.
      rank: [N], integers 0..K-1.
    """
    probabilities, rank = _rows(probabilities, rank, "probabilities", "[N, K]", "rank")
    reached = np.cumsum(probabilities, axis=1)  # [N, K]
    off = np.abs(reached[:, -1] - 1)
    if (off > 1e-3).any():  # never true of nan
        worst = reached[np.nanargmax(off), -1]
        raise ValueError(f"a row of probabilities sums to {worst:g}; expected 1: take the softmax")
    step = rank[:, None] <= np.arange(probabilities.shape[1])
    return float(np.square(reached - step).sum(axis=1).mean())


def group_accuracy(group_logits: Array, group: Array) -> float:
    """Share of samples whose most probable group, of equals the first, is the true one, 0..1.

    Takes group_logits [N, G] and group [N], integers 0..G-1 (Group-DIR Figure 7).
    """
    return accuracy(*_most_probable(group_logits, group))


def group_distance(group_logits: Array, group: Array) -> float:
    """Mean distance, in groups, of the most probable group to the true one."""
    return mae(*_most_probable(group_logits, group))


def ordinality_score(text_embeds: Array) -> float:
    """Share, 0..1, of text pairs whose similarity falls when the later text moves one rank on.

        sum_{i < K-1} sum_{i <= j < K-1} 1[s_ij > s_i,j+1] / (K (K-1) / 2),  s = cosine

    The diagonal (j = i) counts, ties are violations. Papers print percent. L2RCLIP;
    xk-huang/OrdinalCLIP, scripts/vis_ordinality.py:70-78.

    Takes text_embeds [K, D], one row a rank in order, not normalised. nan for fewer than two texts,
    or if a text is zero or not finite.
    """
    text_embeds = np.asarray(text_embeds, np.float64)
    if text_embeds.ndim != 2:
        raise ValueError(f"text_embeds has shape {text_embeds.shape}; expected [K, D]")
    length = np.linalg.norm(text_embeds, axis=1, keepdims=True)
    if len(length) < 2 or not (np.isfinite(length) & (length > 0)).all():
        return float("nan")
    unit = text_embeds / length
    # einsum sums every pair in the same order, so equal texts tie exactly; a BLAS may not.
    similarity = np.einsum("id,jd->ij", unit, unit)  # [K, K]
    falls = similarity[:, :-1] > similarity[:, 1:]  # [K, K-1], entry i, j: s_ij > s_i,j+1
    return float(falls[np.triu_indices(len(length) - 1)].mean())


def _aligned(prediction: Array, target: Array, *labels: tuple[int, ...]) -> Any:
    """Both as float64, not empty and of one shape; `labels` are the shapes allowed of one label."""
    # Broadcasting would hide [N, 1] against [N].
    prediction = np.asarray(prediction, np.float64)
    target = np.asarray(target, np.float64)
    labels = labels or (SCALARS,)
    fits = prediction.shape == target.shape and target.ndim > 0 and target.shape[1:] in labels
    if not fits or target.size == 0:
        expected = " or ".join(f"[{', '.join(map(str, ('N', *label)))}]" for label in labels)
        shapes = f"prediction has shape {prediction.shape} and target {target.shape}"
        raise ValueError(f"{shapes}; expected both {expected} with N >= 1")
    return prediction, target


def _rows(rows: Array, index: Array, title: str, shape: str, index_title: str) -> Any:
    """A matrix in float64, and one of its columns for each of its rows."""
    rows = np.asarray(rows, np.float64)
    index = np.asarray(index)
    if rows.ndim != 2 or index.shape != rows.shape[:1] or rows.size == 0:
        shapes = f"{title} has shape {rows.shape} and {index_title} {index.shape}"
        raise ValueError(f"{shapes}; expected {shape} and [N] with N >= 1")
    low, high, columns = index.min(), index.max(), rows.shape[1]
    if low < 0 or high >= columns:
        allowed = f"the {columns} columns of {title} allow 0 to {columns - 1}"
        raise ValueError(f"{index_title} reaches from {low} to {high}; {allowed}")
    return rows, index


def _most_probable(group_logits: Array, group: Array) -> Any:
    """Predicted and true group [N]; nan where a logit is."""
    group_logits, group = _rows(group_logits, group, "group_logits", "[N, G]", "group")
    unknown = np.isnan(group_logits).any(axis=1)
    return np.where(unknown, np.nan, group_logits.argmax(axis=1)), group


def _error_by_label(prediction: Array, target: Array) -> Any:
    """Mean absolute error on each distinct target, f64[labels]."""
    prediction, target = _aligned(prediction, target)
    _, label_ids, counts = np.unique(target, return_inverse=True, return_counts=True)
    return np.bincount(label_ids, np.abs(prediction - target), len(counts)) / counts


def _share_within(prediction: Array, target: Array, tolerance: float) -> Any:
    """Share of samples with |prediction - target| <= tolerance; nan if any error is nan."""
    prediction, target = _aligned(prediction, target)
    error = np.abs(prediction - target)
    return float("nan") if np.isnan(error).any() else float((error <= tolerance).mean())


def _correlation(function: Callable[..., Any], prediction: Array, target: Array) -> Any:
    prediction, target = _aligned(prediction, target)
    # scipy warns of a constant and raises for a single sample.
    if np.ptp(prediction) == 0 or np.ptp(target) == 0:
        return float("nan")
    return float(function(prediction, target).statistic)
