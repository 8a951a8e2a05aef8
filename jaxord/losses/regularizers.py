"""Regularizers of features: their order or their spread should follow that of the labels.

B batch, D embedding, M distinct labels of the batch.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxord.losses.pairs import ascending, insertion_index
from jaxord.vectors import distances, inner, length, unit


def ranksim(image_features: Array, target: Array, *, interpolation: float = 2.0) -> Array:
    """RankSim: neighbours in feature space should rank as neighbours in label space do.

        sum over i of mean over j of ( r_j(cos(x_i, x_.)) - r_j(-|y_i - y_.|) )^2
        r_j(a) = (1 + #{k: a_k > a_j}) / M
        gradient of r: (r(a + interpolation * g) - r(a)) / interpolation,  g = d loss / d r

    The sums run over the first sample of each label and include j = i. Ranks are piecewise
    constant, so their gradient is that of a blackbox (Vlastelica et al. 2020): a larger
    interpolation moves further and blurs more. Gong et al. 2022, from its formulas. Takes the input
    of the regression head and is added to its loss, with a weight such as 100.
    """
    x = unit(image_features)
    target = jnp.asarray(target, jnp.float32)
    first = _first_of_label(target)
    by_feature = _ranks(inner(x, x), first, interpolation)
    by_label = _ranks(-jnp.abs(target[:, None] - target), first, interpolation)
    among = first[:, None] & first
    return jnp.where(among, jnp.square(by_feature - by_label), 0.0).sum() / first.sum()


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _ranks(scores: Array, among: Array, interpolation: float) -> Array:
    """Descending ranks in (0, 1] in each row of f32[B, B] among the columns marked by bool[B]."""
    marked = jnp.where(among, scores, -jnp.inf)
    not_above = insertion_index(ascending(marked), scores, "right")
    return (1.0 + among.size - not_above) / among.sum()


def _ranks_forward(scores: Array, among: Array, interpolation: float) -> tuple[Any, Any]:
    ranks = _ranks(scores, among, interpolation)
    return ranks, (scores, among, ranks)


def _ranks_backward(interpolation: float, saved: Any, gradient: Array) -> tuple[Any, ...]:
    scores, among, ranks = saved
    moved = _ranks(scores + interpolation * gradient, among, interpolation)
    return jnp.where(among, moved - ranks, 0.0) / (interpolation + 1e-8), None


_ranks.defvjp(_ranks_forward, _ranks_backward)


def ordinal_entropy(image_features: Array, target: Array) -> Array:
    """Ordinal entropy: centres of labels spread by their gaps, samples gather around them.

        mean over i of |u_i - c_(y_i)|  -  mean over pairs of labels a < b of w_ab |c_a - c_b|
        w_ab = (|a - b| - smallest gap of the batch) / largest gap

    u unit features, c_a the mean feature of label a as a unit vector. The nearest labels do not
    repel, so with two labels none do. The first mean leaves out samples alone with their label,
    which are their own centre. Zhang et al. 2023 (needylove/OrdinalEntropy, whose program for age
    squares the first distance).
    """
    x = jnp.asarray(image_features, jnp.float32)
    target = jnp.asarray(target, jnp.float32)
    same = target[:, None] == target
    number = same.sum(axis=1)
    total = jnp.matmul(same.astype(jnp.float32), x, precision="highest")
    centre = unit(total / number[:, None])  # [B, D]
    first = _first_of_label(target)
    pair = first[:, None] & first & (target[:, None] < target)

    # A batch of one label has no pair: the placeholders keep every number finite.
    gap = jnp.abs(target[:, None] - target)
    any_pair = pair.any()
    largest = jnp.where(any_pair, jnp.max(jnp.where(pair, gap, 0.0)), 1.0)
    smallest = jnp.where(any_pair, jnp.min(jnp.where(pair, gap, jnp.inf)), 0.0)
    spread = jnp.where(pair, (gap - smallest) / largest * distances(centre, centre), 0.0)

    shared = number > 1
    tightness = jnp.where(shared, length(unit(x) - centre), 0.0)
    attraction = tightness.sum() / jnp.maximum(shared.sum(), 1)
    return attraction - spread.sum() / jnp.maximum(pair.sum(), 1)


def _first_of_label(target: Array) -> Array:
    """bool[B]: whether no earlier sample has the label."""
    return jnp.argmax(target[:, None] == target, axis=1) == jnp.arange(target.size)
