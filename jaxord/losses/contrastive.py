"""Contrastive losses between the embeddings of a batch.

B batch, K ranks, D embedding. No array has B x B x B entries, and only `block` of the B x B pairs
are held at once.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxord.losses.log_space import log_mass
from jaxord.losses.pairs import BLOCK, ascending, insertion_index, mean_over_blocks
from jaxord.losses.settings import choose
from jaxord.vectors import distances, inner, unit


def supcon(
    image_embeds: Array,
    rank: Array,
    index: Array | None = None,
    *,
    temperature: float = 0.07,
    positives: str = "rank",
    block: int = BLOCK,
) -> Array:
    """Supervised contrastive loss: samples of a rank attract, all others repel alike (ConOrd Eq 1).

        mean over i of mean over p in P(i) of
          -log[ e^(z_i.z_p / temperature) / sum_{j != i} e^(z_i.z_j / temperature) ]

    Khosla et al. 2020, on unit features z. An anchor without a positive counts 0; with several, its
    minimum is log |P(i)|.

    Args:
      index: i32[B], row of the record, the same for all views of an image.
      positives: P(i) is all others of the same "rank", or the other rows of the same index, "view".
    """
    label = choose("positives", positives, {"rank": rank, "view": index})
    if label is None:
        raise ValueError("positives='view' needs the array 'index', equal for an image's views")
    z = unit(image_embeds)

    def of_anchors(z_anchor: Array, label_anchor: Array, own: Array, *columns: Array) -> Array:
        z, label = columns
        other = own[:, None] != jnp.arange(label.size)  # [rows, B]
        positive = other & (label_anchor[:, None] == label)
        scores = inner(z_anchor, z) / temperature
        top, rest, _ = log_mass(scores, other.astype(jnp.float32))
        number = positive.sum(axis=1)
        above = jnp.where(positive, top[:, None] - scores, 0.0).sum(axis=1) / jnp.maximum(number, 1)
        return jnp.where(number > 0, above + rest, 0.0)

    return mean_over_blocks(of_anchors, (z, label, jnp.arange(rank.size)), (z, label), block)


def rnc(
    image_embeds: Array,
    target: Array,
    *,
    temperature: float = 2.0,
    similarity: str = "l2",
    block: int = BLOCK,
) -> Array:
    """Rank-N-Contrast: each other sample must be nearer than all at least as far in label.

        mean over i, j != i of -log[ e^s_ij / sum_{k != i: |y_i - y_k| >= |y_i - y_j|} e^s_ik ]
        s = similarity / temperature

    Zha et al. 2023 (ConOrd Eq 7), exact, including ties. In the order of the labels, the candidates
    of a pair are the first few samples and the last few, so running sums from both ends give every
    denominator: O(B^2 log B). Traps: "l2" is minus the distance, not its square, of features that
    are not normalised, and temperature 2 belongs to it; "cosine" needs about 0.1.

    Args:
      target: f32[B]; several numbers a sample are a ValueError.
      similarity: "l2" on raw features, or "cosine".
    """
    if target.ndim != 1:
        raise ValueError(f"target has shape {target.shape}; expected [B]: rnc ranks single numbers")
    x = jnp.asarray(image_embeds, jnp.float32)
    target = jnp.asarray(target, jnp.float32)
    similarities = {"l2": lambda a, b: -distances(a, b), "cosine": inner}
    compare = choose("similarity", similarity, similarities)
    x = unit(x) if similarity == "cosine" else x
    # Columns ascend in label; anchors stay where they are.
    order = jnp.argsort(target)

    def of_anchors(x_anchor: Array, label_anchor: Array, place: Array, *columns: Array) -> Array:
        x, label = columns
        scores = compare(x_anchor, x) / temperature  # [rows, B]
        own = place[:, None] == jnp.arange(label.size)
        return _against_farther(scores, label - label_anchor[:, None], own)

    rows = x, target, jnp.argsort(order)
    loss = mean_over_blocks(of_anchors, rows, (x[order], target[order]), block)
    return loss / max(target.size - 1, 1)


def group_contrastive(
    image_embeds: Array,
    group: Array,
    *,
    temperature: float = 2.0,
    similarity: str = "l2",
    block: int = BLOCK,
) -> Array:
    """Group-aware contrastive loss (Group-DIR Eq 2): `rnc` on group numbers.

        mean over i, j != i of -log[ e^s_ij / sum_{k != i: |g_i - g_k| >= |g_i - g_j|} e^s_ik ]

    The paper names cosine similarity "e.g." and takes RnC's temperature, 2, at which cosine is
    almost flat: with "cosine", set temperature to 0.1. Settings as `rnc`.
    """
    labels = group.astype(jnp.float32)
    return rnc(image_embeds, labels, temperature=temperature, similarity=similarity, block=block)


@jax.custom_vjp
def _against_farther(scores: Array, gap: Array, own: Array) -> Array:
    """f32[rows], sum_j [ log sum_{k: |gap_k| >= |gap_j|} e^scores_k - scores_j ]; all [rows, B]."""
    # gap is the label minus the anchor's and ascends along a row; own marks the anchor itself,
    # which is neither j nor k.
    return _against_farther_forward(scores, gap, own)[0]


def _against_farther_forward(scores: Array, gap: Array, own: Array) -> tuple[Array, Any]:
    tops = _both_ways(jnp.where(own, _NOTHING, scores))
    sums = _running(tops, _both_ways(jnp.where(own, 0.0, 1.0)))
    size = scores.shape[1]
    apart = jnp.abs(gap)
    # Candidates of j: `low` lie as far below the anchor, `high` as far above. At a gap of 0 both
    # would be all samples, hence the maximum.
    low = insertion_index(gap, -apart, "right")
    high = size - jnp.maximum(insertion_index(gap, apart, "left"), low)
    top, mass = _total(sums, low, high)
    loss = jnp.where(own, 0.0, (top - scores) + jnp.log(jnp.where(own, 1.0, mass)))
    return loss.sum(axis=1), (scores, gap, own, top, mass)


def _against_farther_backward(saved: Any, gradient: Array) -> tuple[Any, ...]:
    # Sample k is a candidate of each j that is no farther than k. With S_j the sum over the
    # candidates of j, d / d s_k is sum_{j: |gap_j| <= |gap_k|} e^s_k / S_j - 1: a running sum from
    # the anchor outwards, of positive terms only.
    scores, gap, own, top, mass = saved
    size = scores.shape[1]
    apart = jnp.abs(gap)
    outwards = ~_both_ways(own) & jnp.stack([gap >= 0, jnp.flip(gap, axis=1) < 0])
    share = _both_ways(1 / jnp.where(own, 1.0, mass))
    tops = jnp.where(outwards, -_both_ways(top), _NOTHING)
    sums = _running(tops, jnp.where(outwards, share, 0.0))
    low = insertion_index(gap, apart, "right")
    highest, total = _total(sums, low, size - insertion_index(gap, -apart, "left"))
    slope = jnp.where(own, 0.0, total * jnp.exp(jnp.where(own, 0.0, scores + highest)) - 1)
    return gradient[:, None] * slope, None, None


_against_farther.defvjp(_against_farther_forward, _against_farther_backward)

# A sum of exponentials mass * e^top is held as (top, mass): only differences of scores are
# exponentiated, and a log mass is never added to a score of 10^5, which would round it to 10^-2.
_Sum = tuple[Array, Array]
# Top of an empty sum: its differences stay finite, unlike those of -inf.
_NOTHING = float(jnp.finfo(jnp.float32).min)


def _add(a: Sequence[Array], b: Sequence[Array]) -> _Sum:
    less = jnp.exp(-jnp.abs(a[0] - b[0]))
    mass = jnp.where(a[0] < b[0], a[1] * less + b[1], a[1] + b[1] * less)
    return jnp.maximum(a[0], b[0]), mass


def _both_ways(x: Array) -> Array:
    """[rows, B] -> [2, rows, B]: from the lowest label upwards, from the highest downwards."""
    return jnp.stack([x, jnp.flip(x, axis=1)])


def _running(top: Array, mass: Array) -> _Sum:
    """Sums of the first n entries, n = 0..B: two f32[2, rows, B+1]."""
    # Runs through sqrt(B) pieces in parallel, then adds to each the sum of all pieces before it:
    # two additions an entry.
    size = top.shape[2] + 1
    steps = math.isqrt(size - 1) + 1
    count = -(-size // steps)

    def cut(x: Array, empty: float) -> Array:  # [2, rows, B] -> [steps, 2, rows, count]
        padding = ((0, 0), (0, 0), (1, count * steps - size))  # the first sum is empty
        padded = jnp.pad(x, padding, constant_values=empty)
        return jnp.moveaxis(padded.reshape(*x.shape[:2], count, steps), 3, 0)

    def join(x: Array) -> Array:  # [steps, 2, rows, count] -> [2, rows, B+1]
        return jnp.moveaxis(x, 0, 3).reshape(*top.shape[:2], -1)[:, :, :size]

    def along(parts: _Sum) -> _Sum:
        nothing = jnp.full_like(parts[0][0], _NOTHING), jnp.zeros_like(parts[1][0])
        return jax.lax.scan(lambda total, part: (_add(total, part),) * 2, nothing, parts)[1]

    def before(ends: Array, empty: float) -> Array:  # [count, 2, rows] -> [2, rows, count]
        shifted = jnp.pad(ends[:-1], ((1, 0), (0, 0), (0, 0)), constant_values=empty)
        return jnp.moveaxis(shifted, 0, 2)

    pieces = along((cut(top, _NOTHING), cut(mass, 0.0)))
    tops, masses = along((jnp.moveaxis(pieces[0][-1], 2, 0), jnp.moveaxis(pieces[1][-1], 2, 0)))
    tops, masses = _add((before(tops, _NOTHING), before(masses, 0.0)), pieces)
    return join(tops), join(masses)


def _total(sums: _Sum, low: Array, high: Array) -> _Sum:
    """Sum of the first `low` upwards and the first `high` downwards: two f32[rows, B]."""
    upwards = [jnp.take_along_axis(part[0], low, axis=1) for part in sums]
    downwards = [jnp.take_along_axis(part[1], high, axis=1) for part in sums]
    return _add(upwards, downwards)


def cloc(
    image_embeds: Array,
    rank: Array,
    margins: Array,
    *,
    reduction: str = "program",
    block: int = BLOCK,
) -> Array:
    """CLOC's multi-margin n-pair loss: positives nearer than negatives by their ranks' margin.

        mean over i of sum over p in P(i), q in Q(i) of relu(m_iq - z_i.z_p + z_i.z_q) / n_i
        m_iq = |c_(rank_i) - c_(rank_q)|,  c_k = margins_0 + ... + margins_(k-1)

    Pitawela et al. 2025, on unit features z; P(i) others of the rank, Q(i) other ranks. Its runs
    add cross_entropy. The program (dpitawela/CLOC) averages over q, then divides the sum over p by
    the number of pairs: n_i = |P| |Q|^2, so the loss falls with the batch; "mean" is the plain
    n_i = |P| |Q|. An anchor without a positive or a negative counts 0. The slope in the kink is 0.
    Pairs are counted in sorted rows: O(B^2 log B). Trap: the gradient only ever lowers margins.

    Args:
      margins: f32[K-1], >= 0, between neighbouring ranks.
      reduction: "program" or "mean".
    """
    extra = choose("reduction", reduction, {"program": 1, "mean": 0})
    z = unit(image_embeds)
    position = jnp.pad(jnp.cumsum(jnp.asarray(margins, jnp.float32)), (1, 0))[rank]  # [B]

    def of_anchors(*arrays: Array) -> Array:
        z_anchor, rank_anchor, position_anchor, own, z, rank, position = arrays
        ahead = jnp.sign(rank_anchor[:, None] - rank)  # [rows, B]
        positive = (ahead == 0) & (own[:, None] != jnp.arange(rank.size))
        negative = ahead != 0
        near = inner(z_anchor, z)
        # Signed, not the absolute value, whose slope is lost at a margin of 0.
        far = near + ahead * (position_anchor[:, None] - position)
        # Once the pairs with far_q > near_p are counted, the loss is linear in both.
        above = jnp.where(negative, far, -jnp.inf)
        below = jnp.where(positive, near, jnp.inf)
        not_above = insertion_index(ascending(above), near, "right")
        by_positive = jnp.where(positive, rank.size - not_above, 0)
        by_negative = jnp.where(negative, insertion_index(ascending(below), far, "left"), 0)
        p, q = positive.sum(axis=1), negative.sum(axis=1)
        pairs = jnp.maximum((p * q).astype(jnp.float32) * jnp.maximum(q, 1) ** extra, 1.0)
        return (by_negative * far - by_positive * near).sum(axis=1) / pairs

    columns = z, rank, position
    return mean_over_blocks(of_anchors, (*columns, jnp.arange(rank.size)), columns, block)
