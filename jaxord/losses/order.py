"""Regularisers of features: their order or their spread should follow that of the labels.

B batch, D embedding.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxord.losses.places import ascending, place
from jaxord.vectors import distances, inner, length, unit


def ranksim(
    image_features: jax.Array, target: jax.Array, *, interpolation: float = 2.0
) -> jax.Array:
    """RankSim: the neighbours of a sample in feature space should rank as its neighbours in label
    space.

    sum over i of mean over j of ( r_j(cos(x_i, x_.)) - r_j(-|y_i - y_.|) )^2,  r_j(a) = (1 + #{k: a_k > a_j}) / M

    over the M distinct labels of the batch, each by its first sample; the sample itself is among
    its neighbours. Ranks are piecewise constant, so their gradient is that of a blackbox
    (Vlastelica et al. 2020): d loss / d a = (r(a + interpolation * g) - r(a)) / interpolation, with
    g = d loss / d r.

    Gong et al. 2022, from its formulas. It is added to a regression loss, with weights such as 100.

    Args:
      image_features: [B, D], what the regression head sees.
      target: f32[B].
      interpolation: > 0; larger ones move further and blur more.

    Returns:
      f32[].
    """
    x, target = unit(image_features), jnp.asarray(target, jnp.float32)
    first = _first_of_label(target)
    by_feature = _ranks(inner(x, x), first, interpolation)
    by_label = _ranks(-jnp.abs(target[:, None] - target), first, interpolation)
    among = first[:, None] & first
    return jnp.where(among, jnp.square(by_feature - by_label), 0.0).sum() / first.sum()


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _ranks(scores: jax.Array, among: jax.Array, interpolation: float) -> jax.Array:
    """Descending ranks within each row among the marked columns, in (0, 1]; f32[B, B], bool[B] ->
    f32[B, B]."""
    marked = jnp.where(among, scores, -jnp.inf)
    not_above = place(ascending(marked), scores, "right")
    return (1.0 + among.size - not_above) / among.sum()


def _ranks_forward(scores: jax.Array, among: jax.Array, interpolation: float) -> tuple[Any, Any]:
    ranks = _ranks(scores, among, interpolation)
    return ranks, (scores, among, ranks)


def _ranks_backward(interpolation: float, saved: Any, gradient: jax.Array) -> tuple[Any, ...]:
    scores, among, ranks = saved
    moved = _ranks(scores + interpolation * gradient, among, interpolation)
    return jnp.where(among, moved - ranks, 0.0) / (interpolation + 1e-8), None


_ranks.defvjp(_ranks_forward, _ranks_backward)


def ordinal_entropy(image_features: jax.Array, target: jax.Array) -> jax.Array:
    """Ordinal entropy: the centres of the labels spread out by their gaps, the samples gather
    around them.

    mean over i of |u_i - c_(y_i)|  -  mean over pairs of labels a < b of w_ab |c_a - c_b|

    u unit features, c_a the mean feature of label a, made a unit vector, w = (gap - smallest gap) /
    largest gap over the pairs of the batch: the nearest labels do not repel, and with two labels
    none do. The first mean is over the samples whose label another one shares, because a sample
    alone is its own centre.

    Zhang et al. 2023 (needylove/OrdinalEntropy, whose program for age squares the distance of the
    first mean).

    Args:
      image_features: [B, D].
      target: f32[B].

    Returns:
      f32[].
    """
    x, target = jnp.asarray(image_features, jnp.float32), jnp.asarray(target, jnp.float32)
    same = target[:, None] == target
    number = same.sum(axis=1)
    centre = unit(
        jnp.matmul(same.astype(jnp.float32), x, precision="highest") / number[:, None]
    )  # [B, D]
    first = _first_of_label(target)
    pair = first[:, None] & first & (target[:, None] < target)

    gap = jnp.abs(target[:, None] - target)
    some = pair.any()
    largest = jnp.where(some, jnp.max(jnp.where(pair, gap, 0.0)), 1.0)
    smallest = jnp.where(some, jnp.min(jnp.where(pair, gap, jnp.inf)), 0.0)
    spread = jnp.where(pair, (gap - smallest) / largest * distances(centre, centre), 0.0)

    shared = number > 1
    tightness = jnp.where(shared, length(unit(x) - centre), 0.0)
    return tightness.sum() / jnp.maximum(shared.sum(), 1) - spread.sum() / jnp.maximum(
        pair.sum(), 1
    )


def _first_of_label(target: jax.Array) -> jax.Array:
    """bool[B]: whether no earlier sample has the label."""
    return jnp.argmax(target[:, None] == target, axis=1) == jnp.arange(target.size)
