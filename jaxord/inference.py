"""Inference rules: from the arrays of the model to one predicted value a sample.

Same convention as the losses: positional parameters are names of arrays, keyword-only ones
settings. All compute in float32 and return f32[B] on the scale of the label. The first of equals
wins.

B batch, K ranks, G groups, R reference points, D embedding, N gallery, A angles of a label (gaze).
"""

import functools
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from jax import Array

from jaxord.vectors import distances, inner, unit

__all__ = ["expectation", "argmax", "value", "experts", "true_expert", "thresholds"]
__all__ += ["nearest_reference", "knn", "neighbours"]

# Each rule in torch, for the README of an export; {name} stands for an array or a setting. A key is
# a rule, or a rule with a setting that is true. The program itself is in export/predict_torch.py.
TORCH_LINES = {
    "expectation": "({logits}.softmax(1) * {rank_values}).sum(1)",
    "argmax": "{rank_values}[{logits}.argmax(1)]",
    "value": "{value}",
    "experts": "{expert_values}.gather(1, {group_logits}.argmax(1)[:, None])[:, 0]",
    "thresholds": "{rank_values}[({threshold_logits} > 0).sum(1)]",
    "thresholds conditional": (
        "{rank_values}[({threshold_logits}.sigmoid().cumprod(1) > 0.5).sum(1)]"
    ),
    "nearest_reference": (
        "{reference_values}[torch.cdist(unit({image_embeds}), {reference_points}).argmin(1)]"
    ),
    "knn": (
        "{gallery_targets}[torch.cdist(unit({image_embeds}), unit({gallery_embeds}), "
        'compute_mode="donot_use_mm_for_euclid_dist").topk({k}, largest=False).indices].mean(1)'
    ),
}

_Best = tuple[Array, Array]  # scores and rows of the gallery


def expectation(logits: Array, rank_values: Array) -> Array:
    """Expectation, sum_k softmax(logits)_k rank_values_k; logits [B, K], rank_values f32[K]."""
    probabilities = jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=1)
    # A matrix product would run in reduced precision (TF32, bfloat16) on accelerators.
    return (probabilities * jnp.asarray(rank_values, jnp.float32)).sum(axis=1)


def argmax(logits: Array, rank_values: Array) -> Array:
    """Value of the most probable rank; logits [B, K], rank_values f32[K]."""
    return jnp.asarray(rank_values, jnp.float32)[jnp.argmax(logits, axis=1)]


def value(value: Array) -> Array:
    """Value [B] of a regression head, as it is."""
    return jnp.asarray(value, jnp.float32)


def experts(expert_values: Array, group_logits: Array) -> Array:
    """Value of the expert of the most probable group; expert_values, group_logits [B, G]."""
    return true_expert(expert_values, jnp.argmax(group_logits, axis=1))


def true_expert(expert_values: Array, group: Array) -> Array:
    """Value of the expert of the true group i32[B]; reads the label, so for analysis only."""
    values = jnp.asarray(expert_values, jnp.float32)
    return jnp.take_along_axis(values, jnp.asarray(group)[:, None], axis=1)[:, 0]


def thresholds(threshold_logits: Array, rank_values: Array, *, conditional: bool = False) -> Array:
    """Value of the rank that counts the thresholds more probably passed than not.

        rank = number of k with P(rank > k) > 1/2
        P(rank > k) = sigmoid(threshold_logits_k), if conditional the product of sigmoids up to k

    Args:
      threshold_logits, rank_values: [B, K-1], f32[K].
      conditional: False for heads trained by `coral`, True for `corn`.
    """
    logits = jnp.asarray(threshold_logits, jnp.float32)
    passed = logits > 0
    if conditional:
        passed = jnp.cumsum(jax.nn.log_sigmoid(logits), axis=1) > -jnp.log(2.0)
    return jnp.asarray(rank_values, jnp.float32)[passed.sum(axis=1)]


def nearest_reference(
    image_embeds: Array, reference_points: Array, reference_values: Array
) -> Array:
    """Value of the reference point nearest to the unit embedding.

    image_embeds [B, D]; reference_points [R, D], as they are, as in `losses.center`;
    reference_values f32[R].
    """
    points = jnp.asarray(reference_points, jnp.float32)
    nearest = jnp.argmin(distances(unit(image_embeds), points), axis=1)
    return jnp.asarray(reference_values, jnp.float32)[nearest]


def knn(
    image_embeds: Array, gallery_embeds: Array, gallery_targets: Array, *, k: int, block: int = 8192
) -> Array:
    """Mean label of the k nearest gallery samples, not rounded (ConOrd Eq 10).

    Arguments as `neighbours`. Returns f32[B, A] for angles, each averaged by itself.
    """
    return neighbours(image_embeds, gallery_embeds, gallery_targets, k=k, block=block).mean(axis=1)


def neighbours(
    image_embeds: Array, gallery_embeds: Array, gallery_targets: Array, *, k: int, block: int = 8192
) -> Array:
    """Labels of the k nearest gallery samples, nearest first; equals in the order of the gallery.

    Exact, by the Euclidean distance of unit embeddings, which orders as their inner product does.
    The gallery passes in blocks, and each query keeps its k best so far. When embeddings are nearly
    parallel, inner products agree to seven digits, so the gallery's mean c centres both first:
    compared is |g - c|^2 / 2 - (q - c).(g - c).

    Args:
      image_embeds: [B, D].
      gallery_embeds: [N, D], of the training split with the evaluation transform.
      gallery_targets: f32[N] or f32[N, A].
      k: neighbours; a ValueError unless 1 to N.
      block: rows of the gallery at once.

    Returns:
      f32[B, k] or f32[B, k, A].
    """
    size = len(gallery_embeds)
    if not 1 <= k <= size:
        raise ValueError(f"k is {k}, but the gallery has {size} samples; expected 1 to {size}")
    queries = jnp.asarray(image_embeds)
    nearest = _nearest(queries, jnp.asarray(gallery_embeds), k, min(block, size))  # [B, k]
    return jnp.asarray(gallery_targets, jnp.float32)[nearest]


def uncertainty(neighbours: Any = None, probabilities: Any = None, rank_values: Any = None) -> Any:
    """Standard deviation of the neighbours' labels, else of the distribution over the ranks.

    sqrt(mean_j (y_j - mean y)^2), with several angles the root of the sum of their variances; or
    sqrt(sum_k p_k (v_k - sum_l p_l v_l)^2). No rule: not in `__all__`.

    Args:
      neighbours: labels y, [B, k] or [B, k, A]; numpy or jax, which also computes the result.
      probabilities: p, [B, K].
      rank_values: v, [K].

    Returns:
      [B] in the precision of the arguments; None with neither neighbours nor rank values.
    """
    if neighbours is not None:
        variance = ((neighbours - neighbours.mean(1, keepdims=True)) ** 2).mean(1)
        variance = variance if variance.ndim == 1 else variance.sum(1)
    elif probabilities is not None and rank_values is not None:
        centre = (probabilities * rank_values).sum(1, keepdims=True)
        variance = (probabilities * (rank_values - centre) ** 2).sum(1)
    else:
        return None
    return variance.__array_namespace__().sqrt(variance)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _nearest(queries: Array, gallery: Array, k: int, block: int) -> Array:
    """Indices i32[B, k] of the nearest rows of the gallery, nearest first."""
    size = len(gallery)
    count = -(-size // block)
    blocks = unit(jnp.pad(gallery, ((0, count * block - size), (0, 0)))).reshape(count, block, -1)
    row_ids = jnp.arange(count * block).reshape(count, block)
    centre = blocks.sum(axis=(0, 1)) / size
    queries = unit(queries) - centre
    # Padding is never near.
    halves = jnp.where(row_ids < size, jnp.square(blocks - centre).sum(axis=2) / 2, jnp.inf)
    if jax.export.is_symbolic_dim(queries.shape[0]):
        # In an exported program the caller chooses the batch size: no loop over the queries.
        rows = (blocks - centre).reshape(count * block, -1)
        return jax.lax.top_k(inner(queries, rows) - halves.reshape(-1), k)[1]

    def of_query(query: Array) -> Array:  # [D] -> [k]
        def closer(best: _Best, part: tuple[Array, ...]) -> tuple[_Best, None]:
            rows, half, ids = part
            scores = jnp.concatenate([best[0], inner(query[None], rows - centre) - half], axis=1)
            ids = jnp.concatenate([best[1], ids[None]], axis=1)  # [1, k + block]
            # top_k takes the first of equals, so those already kept go before.
            scores, kept = jax.lax.top_k(scores, k)
            return (scores, jnp.take_along_axis(ids, kept, axis=1)), None

        nothing = jnp.full((1, k), -jnp.inf), jnp.zeros((1, k), row_ids.dtype)
        return jax.lax.scan(closer, nothing, (blocks, halves, row_ids))[0][1][0]

    return jax.lax.map(of_query, queries, batch_size=256)
