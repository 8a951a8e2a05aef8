"""Metrics in numpy and float64, over a whole split at once: correlations do not average over
batches.

Most are `(prediction, target) -> float` or `(predicted_rank, rank) -> float`; the names of the
parameters say which arrays one takes, settings are keyword-only. `prediction` and `target` are on
the scale of the label, `predicted_rank` and `rank` are indices 0..K-1 (rounding is the caller's).

A metric that is not defined is nan, never a number: a correlation or kappa of constants, and
anything computed from a prediction that is nan. Arrays that are empty or differ in shape raise
ValueError.

N samples, K ranks, G groups, D embedding.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are used: stats takes a second

__all__ = [
    "mae",
    "mse",
    "rank_mae",
    "rmse",
    "geometric_mean_error",
    "balanced_mae",
    "amae",
    "mmae",
    "accuracy",
    "accuracy_within",
    "cumulative_score",
    "qwk",
    "srcc",
    "pcc",
    "krcc",
    "angular_error",
    "ranked_probability_score",
    "group_accuracy",
    "group_distance",
    "ordinality_score",
]

Array = npt.NDArray[Any]

# Of the metrics below, those of which less is better.
LOWER_IS_BETTER = (
    "mae",
    "rank_mae",
    "mse",
    "rmse",
    "geometric_mean_error",
    "balanced_mae",
    "amae",
    "mmae",
    "angular_error",
    "ranked_probability_score",
    "group_distance",
)
SCALARS, ANGLES = (), (2,)  # shape of one sample's label: a number, or pitch and yaw


def mae(prediction: Array, target: Array) -> float:
    """Mean absolute error, on the scale of the label; both [N], or [N, 2] for two angles, whose
    errors are averaged."""
    prediction, target = _aligned(prediction, target, SCALARS, ANGLES)
    return float(np.abs(prediction - target).mean())


def mse(prediction: Array, target: Array) -> float:
    """Mean squared error, on the squared scale of the label; both [N], or [N, 2] for two angles."""
    prediction, target = _aligned(prediction, target, SCALARS, ANGLES)
    return float(np.square(prediction - target).mean())


def rank_mae(predicted_rank: Array, rank: Array) -> float:
    """Mean absolute error of the ranks, predictions rounded to one: the MAE of class labels, as for
    Adience."""
    return mae(predicted_rank, rank)


def rmse(prediction: Array, target: Array) -> float:
    """Root of the mean squared error, on the scale of the label; both [N], or [N, 2] for two
    angles."""
    return float(np.sqrt(mse(prediction, target)))


def geometric_mean_error(prediction: Array, target: Array) -> float:
    """exp(mean(log|prediction - target|)), on the scale of the label; an error of exactly 0 counts as 1e-10.

    The "GM" of imbalanced regression. Trap: on integer predictions a few exact hits decide it.
    """
    prediction, target = _aligned(prediction, target)
    error = np.abs(prediction - target)
    return float(np.exp(np.log(np.where(error == 0, 1e-10, error)).mean()))


def balanced_mae(prediction: Array, target: Array) -> float:
    """Mean over the distinct targets of the mean absolute error on each (bMAE): a rare label counts
    as any other."""
    return float(_error_by_label(prediction, target).mean())


def amae(predicted_rank: Array, rank: Array) -> float:
    """Average over the ranks present of the mean absolute error, in ranks: `balanced_mae` of the
    ranks."""
    return float(_error_by_label(predicted_rank, rank).mean())


def mmae(predicted_rank: Array, rank: Array) -> float:
    """Maximum over the ranks present of the mean absolute error, in ranks: the error on the worst
    class."""
    return float(_error_by_label(predicted_rank, rank).max())


def accuracy(predicted_rank: Array, rank: Array) -> float:
    """Share of samples with the right rank, 0..1."""
    return _share_within(predicted_rank, rank, 0)


def accuracy_within(predicted_rank: Array, rank: Array, *, tolerance: int = 1) -> float:
    """Share of samples at most `tolerance` ranks off, 0..1; with 1 the "1-off" accuracy of age
    groups."""
    return _share_within(predicted_rank, rank, tolerance)


def cumulative_score(prediction: Array, target: Array, *, threshold: float = 5) -> float:
    """Share of samples with |prediction - target| <= threshold, 0..1; on the scale of the label: CS(5) of age."""
    return _share_within(prediction, target, threshold)


def qwk(predicted_rank: Array, rank: Array) -> float:
    """Cohen's kappa with quadratic weights: 1 - mean((a_i - b_i)^2) / mean over all pairs i, j of
    (a_i - b_j)^2.

    1 is agreement, 0 what two independent raters of these frequencies reach. It equals
    scikit-learn's cohen_kappa_score with weights="quadratic" and labels=range(K). Without `labels`
    scikit-learn closes the gaps of ranks that do not occur, and then 0 and 2 are neighbours.

    Returns:
      float in -1..1; nan where both are the same constant.
    """
    a, b = _aligned(predicted_rank, rank)
    expected = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    return float(1 - np.square(a - b).mean() / expected) if expected != 0 else float("nan")


def srcc(prediction: Array, target: Array) -> float:
    """Spearman's rank correlation: Pearson's on average ranks, -1..1; nan where either is
    constant."""
    return _correlation(scipy.stats.spearmanr, prediction, target)


def pcc(prediction: Array, target: Array) -> float:
    """Pearson's correlation, -1..1, without the logistic fit of some quality papers; nan where
    either is constant."""
    return _correlation(scipy.stats.pearsonr, prediction, target)


def krcc(prediction: Array, target: Array) -> float:
    """Kendall's tau-b, which corrects for ties, -1..1; nan where either is constant."""
    return _correlation(scipy.stats.kendalltau, prediction, target)


def angular_error(prediction: Array, target: Array) -> float:
    """Mean angle between the two directions of gaze, in degrees.

    angle = arccos of the inner product of the unit vectors (-cos p sin y, -sin p, -cos p cos y), p
    pitch, y yaw

    Computed as 2 arcsin sqrt(sin^2(dp / 2) + cos p cos p' sin^2(dy / 2)), the same angle: arccos
    keeps no digits of a small one.

    Args:
      prediction: [N, 2], pitch and yaw in radians.
      target: [N, 2].

    Returns:
      float, 0..180.
    """
    prediction, target = _aligned(prediction, target, ANGLES)
    pitch, yaw = (np.square(np.sin((prediction - target) / 2))).T  # [N] each
    chord = pitch + np.cos(prediction[:, 0]) * np.cos(target[:, 0]) * yaw
    return float(np.degrees(2 * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))).mean())


def ranked_probability_score(probabilities: Array, rank: Array) -> float:
    """Squared distance of the predicted distribution function to the step at the true rank,
    averaged over the samples.

    mean_i sum_k (F_ik - 1[rank_i <= k])^2,  F_ik = sum_{j <= k} p_ij

    Not divided by the number of thresholds K - 1, as some do: 0 is a sure hit, K - 1 the surest and
    farthest miss, and of a one-hot distribution it is the absolute error in ranks. Epstein 1969;
    Murphy 1971.

    Args:
      probabilities: [N, K], not logits.
      rank: [N], integers 0..K-1.

    Returns:
      float, 0..K-1.

    Raises:
      ValueError: another shape, rows that do not sum to one, or a rank outside 0..K-1.
    """
    probabilities, rank = _rows(probabilities, rank, "probabilities", "[N, K]", "rank")
    reached = np.cumsum(probabilities, axis=1)  # [N, K]
    if (np.abs(reached[:, -1] - 1) > 1e-3).any():  # false of nan
        worst = reached[np.nanargmax(np.abs(reached[:, -1] - 1)), -1]
        raise ValueError(
            f"a row of the probabilities sums to {worst:g}; expected 1, give the softmax of logits"
        )
    step = rank[:, None] <= np.arange(probabilities.shape[1])
    return float(np.square(reached - step).sum(axis=1).mean())


def group_accuracy(group_logits: Array, group: Array) -> float:
    """Share of samples whose most probable group is the true one, 0..1 (Group-DIR Figure 7).

    Args:
      group_logits: [N, G]; of equal ones the first counts.
      group: [N], integers 0..G-1.
    """
    return accuracy(*_most_probable(group_logits, group))


def group_distance(group_logits: Array, group: Array) -> float:
    """Mean distance, in groups, of the most probable group to the true one; arguments as in
    `group_accuracy`."""
    return mae(*_most_probable(group_logits, group))


def ordinality_score(text_embeds: Array) -> float:
    """Share, 0..1 (papers print percent), of text pairs whose similarity falls when the later moves
    one rank on.

    sum_{i < K-1} sum_{i <= j < K-1} 1[s_ij > s_i,j+1] / (K (K-1) / 2),  s = cosine

    The diagonal (j = i) counts, ties are violations. L2RCLIP; xk-huang/OrdinalCLIP,
    scripts/vis_ordinality.py:70-78.

    Args:
      text_embeds: [K, D], one row a rank in order; not normalised.

    Returns:
      float; nan for fewer than two texts, or where a text is zero or not finite.

    Raises:
      ValueError: not two-dimensional.
    """
    text_embeds = np.asarray(text_embeds, np.float64)
    if text_embeds.ndim != 2:
        raise ValueError(f"text_embeds has shape {text_embeds.shape}; expected [K, D]")
    length = np.linalg.norm(text_embeds, axis=1, keepdims=True)
    if len(length) < 2 or not (np.isfinite(length) & (length > 0)).all():
        return float("nan")
    unit = text_embeds / length
    # einsum adds up every pair in the same order, so equal texts tie exactly; a BLAS promises
    # nothing of the kind.
    similarity = np.einsum("id,jd->ij", unit, unit)  # [K, K]
    falls = (
        similarity[:, :-1] > similarity[:, 1:]
    )  # [K, K-1], entry i, j compares s_ij with s_i,j+1
    return float(falls[np.triu_indices(len(length) - 1)].mean())


def _aligned(prediction: Array, target: Array, *labels: tuple[int, ...]) -> Any:
    """Both as float64, not empty and of one shape; broadcasting would hide [N, 1] against [N].

    labels: allowed shapes of one sample's label; a number where none is given.
    """
    prediction, target = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    labels = labels or (SCALARS,)
    if (
        prediction.shape != target.shape
        or target.shape[1:] not in labels
        or target.ndim == 0
        or target.size == 0
    ):
        expected = " or ".join(f"[{', '.join(map(str, ('N', *label)))}]" for label in labels)
        raise ValueError(
            f"prediction has shape {prediction.shape} and target {target.shape}; expected both {expected} with N >= 1"
        )
    return prediction, target


def _rows(rows: Array, index: Array, title: str, shape: str, index_title: str) -> Any:
    """A matrix in float64, and for each of its rows one of its columns."""
    rows, index = np.asarray(rows, np.float64), np.asarray(index)
    if rows.ndim != 2 or index.shape != rows.shape[:1] or rows.size == 0:
        raise ValueError(
            f"{title} has shape {rows.shape} and {index_title} {index.shape}; expected {shape} and [N] with N >= 1"
        )
    if index.min() < 0 or index.max() >= rows.shape[1]:
        raise ValueError(
            f"{index_title} reaches from {index.min()} to {index.max()}; the {rows.shape[1]} columns of {title} allow "
            f"0 to {rows.shape[1] - 1}"
        )
    return rows, index


def _most_probable(group_logits: Array, group: Array) -> Any:
    """Predicted and true group [N]; nan where a logit is."""
    group_logits, group = _rows(group_logits, group, "group_logits", "[N, G]", "group")
    return np.where(np.isnan(group_logits).any(axis=1), np.nan, group_logits.argmax(axis=1)), group


def _error_by_label(prediction: Array, target: Array) -> Any:
    """Mean absolute error on each distinct target, f64[labels]."""
    prediction, target = _aligned(prediction, target)
    labels, of = np.unique(target, return_inverse=True)
    return np.bincount(of, np.abs(prediction - target), len(labels)) / np.bincount(
        of, minlength=len(labels)
    )


def _share_within(prediction: Array, target: Array, tolerance: float) -> Any:
    """Share of samples with |prediction - target| <= tolerance; nan if any error is, since nan <= x is merely false."""
    prediction, target = _aligned(prediction, target)
    error = np.abs(prediction - target)
    return float((error <= tolerance).mean()) if not np.isnan(error).any() else float("nan")


def _correlation(function: Callable[..., Any], prediction: Array, target: Array) -> Any:
    prediction, target = _aligned(prediction, target)
    if np.ptp(prediction) == 0 or np.ptp(target) == 0:  # scipy warns, or raises for a single sample
        return float("nan")
    return float(function(prediction, target).statistic)
