"""Inference rules: from the arrays of the model to one predicted value a sample, on the scale of
the label.

Same convention as the losses: positional parameters are names of arrays, keyword-only ones
  settings. All in float32.
B batch, K ranks, G groups, R reference points, D embedding, N gallery, A angles of a label (gaze).
"""

import functools

import jax
import jax.export
import jax.numpy as jnp

from jaxord.vectors import distances, inner, unit

__all__ = [
    "expectation",
    "argmax",
    "value",
    "experts",
    "true_expert",
    "thresholds",
    "nearest_reference",
    "knn",
    "neighbours",
]

_Pair = tuple[jax.Array, jax.Array]


def expectation(logits: jax.Array, rank_values: jax.Array) -> jax.Array:
    """Expected value of the rank: sum_k softmax(logits)_k * rank_values_k.

    Args:
      logits: [B, K].
      rank_values: f32[K].

    Returns:
      f32[B], between the smallest and the largest rank value.
    """
    probabilities = jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=1)
    # A matrix product would run in reduced precision (TF32, bfloat16) on accelerators.
    return (probabilities * jnp.asarray(rank_values, jnp.float32)).sum(axis=1)


def argmax(logits: jax.Array, rank_values: jax.Array) -> jax.Array:
    """Value of the most probable rank; of equal ones the first.

    Args:
      logits: [B, K].
      rank_values: f32[K].

    Returns:
      f32[B].
    """
    return jnp.asarray(rank_values, jnp.float32)[jnp.argmax(logits, axis=1)]


def value(value: jax.Array) -> jax.Array:
    """The value that a regression head predicts, as it is.

    Args:
      value: [B].

    Returns:
      f32[B].
    """
    return jnp.asarray(value, jnp.float32)


def experts(expert_values: jax.Array, group_logits: jax.Array) -> jax.Array:
    """The value of the expert of the most probable group; of equally probable ones the first.

    Args:
      expert_values: [B, G].
      group_logits: [B, G].

    Returns:
      f32[B].
    """
    return true_expert(expert_values, jnp.argmax(group_logits, axis=1))


def true_expert(expert_values: jax.Array, group: jax.Array) -> jax.Array:
    """The value of the expert of the true group: for analysis, since it reads the label.

    Args:
      expert_values: [B, G].
      group: i32[B].

    Returns:
      f32[B].
    """
    return jnp.take_along_axis(
        jnp.asarray(expert_values, jnp.float32), jnp.asarray(group)[:, None], axis=1
    )[:, 0]


def thresholds(
    threshold_logits: jax.Array, rank_values: jax.Array, *, conditional: bool = False
) -> jax.Array:
    """Value of the rank reached by counting the thresholds that are more probably passed than not.

    rank = number of k with P(rank > k) > 1/2;  P(rank > k) = sigmoid(threshold_logits_k), or with conditional
    thresholds the product of the sigmoids up to k

    Args:
      threshold_logits: [B, K-1].
      rank_values: f32[K].
      conditional: False for heads trained by `coral`, True for `corn`.

    Returns:
      f32[B].
    """
    logits = jnp.asarray(threshold_logits, jnp.float32)
    passed = (
        jnp.cumsum(jax.nn.log_sigmoid(logits), axis=1) > -jnp.log(2.0)
        if conditional
        else logits > 0
    )
    return jnp.asarray(rank_values, jnp.float32)[passed.sum(axis=1)]


def nearest_reference(
    image_embeds: jax.Array, reference_points: jax.Array, reference_values: jax.Array
) -> jax.Array:
    """Value of the reference point nearest to the unit embedding; of equally near ones the first.

    Args:
      image_embeds: [B, D].
      reference_points: [R, D], as they are, as in `losses.center`.
      reference_values: f32[R].

    Returns:
      f32[B].
    """
    nearest = jnp.argmin(
        distances(unit(image_embeds), jnp.asarray(reference_points, jnp.float32)), axis=1
    )
    return jnp.asarray(reference_values, jnp.float32)[nearest]


def knn(
    image_embeds: jax.Array,
    gallery_embeds: jax.Array,
    gallery_targets: jax.Array,
    *,
    k: int,
    block: int = 8192,
) -> jax.Array:
    """Mean label of the k nearest of the gallery, not rounded (ConOrd Eq 10).

    Args:
      image_embeds, gallery_embeds, gallery_targets, k, block: as of `neighbours`; each of several
      angles is averaged on its
        own.

    Returns:
      f32[B] or f32[B, A].
    """
    return neighbours(image_embeds, gallery_embeds, gallery_targets, k=k, block=block).mean(axis=1)


def neighbours(
    image_embeds: jax.Array,
    gallery_embeds: jax.Array,
    gallery_targets: jax.Array,
    *,
    k: int,
    block: int = 8192,
) -> jax.Array:
    """Labels of the k nearest of the gallery, nearest first.

    Nearest by Euclidean distance of unit embeddings, which is the order of their inner product;
    equally near ones in the order of the gallery. Exact: the gallery passes in blocks, and each
    query keeps its k best so far. Distances are compared as |g - c|^2 / 2 - (q - c).(g - c) with
    the gallery's mean c: of a gallery that has gathered in one direction all inner products are 1
    but for the seventh digit.

    Args:
      image_embeds: [B, D].
      gallery_embeds: [N, D], of the training split with the evaluation transform.
      gallery_targets: f32[N] or f32[N, A].
      k: neighbours, 1 to N.
      block: rows of the gallery at once.

    Returns:
      f32[B, k] or f32[B, k, A].

    Raises:
      ValueError: k below 1 or above N.
    """
    size = len(gallery_embeds)
    if not 1 <= k <= size:
        raise ValueError(
            f"k is {k}, but the gallery has {size} samples; expected 1 to {size} neighbours"
        )
    nearest = _nearest(
        jnp.asarray(image_embeds), jnp.asarray(gallery_embeds), k, min(block, size)
    )  # [B, k]
    return jnp.asarray(gallery_targets, jnp.float32)[nearest]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _nearest(queries: jax.Array, gallery: jax.Array, k: int, block: int) -> jax.Array:
    """Indices i32[B, k] of the nearest rows of the gallery, nearest first."""
    size, count = len(gallery), -(-len(gallery) // block)
    blocks = unit(jnp.pad(gallery, ((0, count * block - size), (0, 0)))).reshape(count, block, -1)
    places = jnp.arange(count * block).reshape(count, block)
    centre = blocks.sum(axis=(0, 1)) / size
    queries = unit(queries) - centre
    halves = jnp.where(
        places < size, jnp.square(blocks - centre).sum(axis=2) / 2, jnp.inf
    )  # what fills up is never near
    if jax.export.is_symbolic_dim(
        queries.shape[0]
    ):  # of an exported program, whose caller chooses the size of a batch
        return jax.lax.top_k(
            inner(queries, (blocks - centre).reshape(count * block, -1)) - halves.reshape(-1), k
        )[1]

    def of_queries(some: jax.Array) -> jax.Array:  # [Q, D]
        def closer(best: _Pair, part: tuple[jax.Array, ...]) -> tuple[_Pair, None]:
            rows, half, place = part
            scores = jnp.concatenate(
                [best[0], inner(some, rows - centre) - half], axis=1
            )  # [Q, k + block]
            place = jnp.concatenate([best[1], jnp.broadcast_to(place, (len(some), block))], axis=1)
            scores, at = jax.lax.top_k(
                scores, k
            )  # of equal scores the first, so those already kept go before
            return (scores, jnp.take_along_axis(place, at, axis=1)), None

        nothing = jnp.full((len(some), k), -jnp.inf), jnp.zeros((len(some), k), places.dtype)
        return jax.lax.scan(closer, nothing, (blocks, halves, places))[0][1]

    return jax.lax.map(lambda query: of_queries(query[None])[0], queries, batch_size=256)
