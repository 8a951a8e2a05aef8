"""Contrastive losses between the embeddings of a batch.

B batch, K ranks, D embedding. No array of B x B x B entries arises, and of the B x B pairs `block`
at once.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxord.losses.blocks import BLOCK, mean_over_blocks
from jaxord.losses.places import ascending, place
from jaxord.losses.rank import choose, log_mass
from jaxord.vectors import distances, inner, unit

_Pair = tuple[jax.Array, jax.Array]


def supcon(
    image_embeds: jax.Array,
    rank: jax.Array,
    index: jax.Array | None = None,
    *,
    temperature: float = 0.07,
    positives: str = "rank",
    block: int = BLOCK,
) -> jax.Array:
    """Supervised contrastive loss: samples of the same rank attract, all others repel alike (ConOrd
    Eq 1).

    mean over i of mean over p in P(i) of -log[ e^(z_i.z_p / temperature) / sum_{j != i} e^(z_i.z_j
    / temperature) ]

    Khosla et al. 2020, on unit features z. An anchor without a positive counts 0 and stays in the
    mean. With several positives the least value of an anchor is log |P(i)|.

    Args:
      image_embeds: [B, D].
      rank: i32[B].
      index: i32[B], row of the record, the same for two augmentations of one image; for
        positives="view".
      temperature: > 0.
      positives: P(i) is all others of the same "rank", or the other rows of the same image, "view".
      block: pairs at once.

    Returns:
      f32[].

    Raises:
      ValueError: unknown positives; "view" without an index.
    """
    label = choose("positives", positives, {"rank": rank, "view": index})
    if label is None:
        raise ValueError(
            "positives='view' needs the array 'index', the same for the views of an image; found none"
        )
    z = unit(image_embeds)

    def of_anchors(
        z_anchor: jax.Array, label_anchor: jax.Array, own: jax.Array, z: jax.Array, label: jax.Array
    ) -> jax.Array:
        other = own[:, None] != jnp.arange(label.size)  # [rows, B]
        positive = other & (label_anchor[:, None] == label)
        scores = inner(z_anchor, z) / temperature
        top, rest, _ = log_mass(scores, other.astype(jnp.float32))
        number = positive.sum(axis=1)
        above = jnp.where(positive, top[:, None] - scores, 0.0).sum(axis=1) / jnp.maximum(number, 1)
        return jnp.where(number > 0, above + rest, 0.0)

    return mean_over_blocks(of_anchors, (z, label, jnp.arange(rank.size)), (z, label), block)


def rnc(
    image_embeds: jax.Array,
    target: jax.Array,
    *,
    temperature: float = 2.0,
    similarity: str = "l2",
    block: int = BLOCK,
) -> jax.Array:
    """Rank-N-Contrast: each other sample must be nearer than all that are at least as far in label.

    mean over i, j != i of -log[ e^s_ij / sum_{k != i: |y_i - y_k| >= |y_i - y_j|} e^s_ik ],  s = sim / temperature

    Zha et al. 2023 (ConOrd Eq 7), exactly, ties of the float32 differences included. In the order
    of the labels the candidates of a pair are the first few samples and the last few, so running
    sums from either end give every denominator: O(B^2 log B). Traps: "l2" is minus the distance
    (not its square) of features that are not normalised, and temperature 2 belongs to it; "cosine"
    wants about 0.1. Two views of an image are two samples at label distance 0.

    Args:
      image_embeds: [B, D].
      target: f32[B].
      temperature: > 0.
      similarity: "l2" on raw features, or "cosine".
      block: pairs at once.

    Returns:
      f32[]; 0 for a batch of one.

    Raises:
      ValueError: a target of more than one number, or an unknown similarity.
    """
    if target.ndim != 1:
        raise ValueError(
            f"target has shape {target.shape}; rnc ranks the differences of one number a sample, [B]"
        )
    x, target = jnp.asarray(image_embeds, jnp.float32), jnp.asarray(target, jnp.float32)
    compare = choose(
        "similarity", similarity, {"l2": lambda a, b: -distances(a, b), "cosine": inner}
    )
    x = unit(x) if similarity == "cosine" else x
    order = jnp.argsort(target)  # columns ascend in label; anchors stay where they are

    def of_anchors(
        x_anchor: jax.Array,
        label_anchor: jax.Array,
        own: jax.Array,
        columns: jax.Array,
        label: jax.Array,
    ) -> jax.Array:
        scores = compare(x_anchor, columns) / temperature  # [rows, B]
        return _against_farther(
            scores, label - label_anchor[:, None], own[:, None] == jnp.arange(label.size)
        )

    rows = x, target, jnp.argsort(order)
    return mean_over_blocks(of_anchors, rows, (x[order], target[order]), block) / max(
        target.size - 1, 1
    )


def group_contrastive(
    image_embeds: jax.Array,
    group: jax.Array,
    *,
    temperature: float = 2.0,
    similarity: str = "l2",
    block: int = BLOCK,
) -> jax.Array:
    """Group-aware contrastive loss (Group-DIR Eq 2): `rnc` on the numbers of the groups.

    mean over i, j != i of -log[ e^s_ij / sum_{k != i: |g_i - g_k| >= |g_i - g_j|} e^s_ik ]

    The paper names cosine similarity "e.g." and takes RnC's temperature, 2, at which cosine is
    almost flat. The defaults are RnC's pair; the alternative is similarity="cosine" with
    temperature=0.1.

    Args:
      image_embeds: [B, D].
      group: i32[B].
      temperature, similarity, block, Returns, Raises: as `rnc`.
    """
    return rnc(
        image_embeds,
        group.astype(jnp.float32),
        temperature=temperature,
        similarity=similarity,
        block=block,
    )


@jax.custom_vjp
def _against_farther(scores: jax.Array, gap: jax.Array, own: jax.Array) -> jax.Array:
    """sum_j [ log sum_{k: |gap_k| >= |gap_j|} e^scores_k - scores_j ] for each row, j and k without the own sample.

    Args:
      scores: f32[rows, B].
      gap: f32[rows, B], label minus the anchor's, ascending along a row.
      own: bool[rows, B], the anchor itself.

    Returns:
      f32[rows].
    """
    return _against_farther_forward(scores, gap, own)[0]


def _against_farther_forward(scores: jax.Array, gap: jax.Array, own: jax.Array) -> tuple[Any, Any]:
    sums = _running(
        _both_ways(jnp.where(own, _NOTHING, scores)), _both_ways(jnp.where(own, 0.0, 1.0))
    )
    size, apart = scores.shape[1], jnp.abs(gap)
    low = place(
        gap, -apart, "right"
    )  # so many lie as far below; as far above, but where both are all, at a gap of 0:
    high = size - jnp.maximum(place(gap, apart, "left"), low)
    top, mass = _total(sums, low, high)
    loss = jnp.where(own, 0.0, (top - scores) + jnp.log(jnp.where(own, 1.0, mass)))
    return loss.sum(axis=1), (scores, gap, own, top, mass)


def _against_farther_backward(saved: Any, gradient: jax.Array) -> tuple[Any, ...]:
    # Sample k is a candidate of each j that is no farther than itself. With S_j the sum of j's
    # candidates, d / d s_k is sum_{j: |gap_j| <= |gap_k|} e^s_k / S_j - 1: a running sum from the
    # anchor outwards, of positive terms only.
    scores, gap, own, top, mass = saved
    size, apart = scores.shape[1], jnp.abs(gap)
    outwards = ~_both_ways(own) & jnp.stack([gap >= 0, jnp.flip(gap, axis=1) < 0])
    share = _both_ways(1 / jnp.where(own, 1.0, mass))
    sums = _running(
        jnp.where(outwards, -_both_ways(top), _NOTHING), jnp.where(outwards, share, 0.0)
    )
    highest, total = _total(sums, place(gap, apart, "right"), size - place(gap, -apart, "left"))
    slope = jnp.where(own, 0.0, total * jnp.exp(jnp.where(own, 0.0, scores + highest)) - 1)
    return gradient[:, None] * slope, None, None


_against_farther.defvjp(_against_farther_forward, _against_farther_backward)

# A sum of exponentials mass * e^top is held as (top, mass): only differences of scores are
# exponentiated, and the log of a mass is never added to a score of 10^5, which would round it to
# 10^-2.
_NOTHING = float(
    jnp.finfo(jnp.float32).min
)  # top of an empty sum; its differences stay finite, unlike those of -inf


def _add(a: _Pair, b: _Pair) -> _Pair:
    top, less = jnp.maximum(a[0], b[0]), jnp.exp(-jnp.abs(a[0] - b[0]))
    return top, jnp.where(a[0] < b[0], a[1] * less + b[1], a[1] + b[1] * less)


def _both_ways(x: jax.Array) -> jax.Array:
    """[rows, B] -> [2, rows, B]: from the lowest label upwards, from the highest downwards."""
    return jnp.stack([x, jnp.flip(x, axis=1)])


def _running(top: jax.Array, mass: jax.Array) -> _Pair:
    """Sums of the first n entries, n = 0..B: two f32[2, rows, B+1].

    Of sqrt(B) pieces at once, step by step, then of what the pieces before each hold together: 2
    additions an entry.
    """
    size = top.shape[2] + 1
    steps = math.isqrt(size - 1) + 1
    count = -(-size // steps)

    def cut(
        x: jax.Array, empty: float
    ) -> jax.Array:  # [2, rows, B] -> [steps, 2, rows, count], behind an empty sum
        filled = jnp.pad(x, ((0, 0), (0, 0), (1, count * steps - size)), constant_values=empty)
        return jnp.moveaxis(filled.reshape(*x.shape[:2], count, steps), 3, 0)

    def along(parts: _Pair) -> _Pair:
        def add(total: _Pair, part: _Pair) -> tuple[_Pair, _Pair]:
            total = _add(total, part)
            return total, total

        nothing = jnp.full_like(parts[0][0], _NOTHING), jnp.zeros_like(parts[1][0])
        return jax.lax.scan(add, nothing, parts)[1]

    pieces = along((cut(top, _NOTHING), cut(mass, 0.0)))
    tops, masses = along(
        (jnp.moveaxis(pieces[0][-1], 2, 0), jnp.moveaxis(pieces[1][-1], 2, 0))
    )  # [count, 2, rows]
    behind = ((1, 0), (0, 0), (0, 0))
    tops, masses = (
        jnp.pad(tops[:-1], behind, constant_values=_NOTHING),
        jnp.pad(masses[:-1], behind),
    )

    def back(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 3).reshape(*top.shape[:2], -1)[:, :, :size]

    tops, masses = _add((jnp.moveaxis(tops, 0, 2), jnp.moveaxis(masses, 0, 2)), pieces)
    return back(tops), back(masses)


def _total(sums: _Pair, low: jax.Array, high: jax.Array) -> _Pair:
    """Sum of the first `low` upwards and the first `high` downwards: two f32[rows, B]."""

    def of(way: int, number: jax.Array) -> _Pair:
        tops, masses = (jnp.take_along_axis(part[way], number, axis=1) for part in sums)
        return tops, masses

    return _add(of(0, low), of(1, high))


def cloc(
    image_embeds: jax.Array,
    rank: jax.Array,
    margins: jax.Array,
    *,
    reduction: str = "program",
    block: int = BLOCK,
) -> jax.Array:
    """CLOC's multi-margin n-pair loss: positives nearer than negatives by the margin between their
    ranks.

    mean over anchors i of sum over p in P(i), q in Q(i) of relu(m_iq - cos(z_i, z_p) + cos(z_i,
    z_q)) / n_i
    m_iq = |c_(rank_i) - c_(rank_q)|,  c_k = margins_0 + ... + margins_(k-1);  P(i) others of the rank, Q(i) other ranks

    Pitawela et al. 2025; its runs add cross_entropy. The program (dpitawela/CLOC) means over q and
    then divides the sum over p by the number of pairs: n_i = |P| |Q|^2, so the loss falls with the
    batch; "mean" is the plain n_i = |P| |Q|. An anchor without a positive or a negative counts 0
    and stays in the mean. The slope in the kink is 0. Pairs are counted in sorted rows, not formed:
    O(B^2 log B). Trap: the gradient only ever lowers margins.

    Args:
      image_embeds: [B, D].
      rank: i32[B].
      margins: f32[K-1], >= 0, between neighbouring ranks.
      reduction: "program" or "mean", of the pairs of an anchor.
      block: pairs at once.

    Returns:
      f32[].

    Raises:
      ValueError: unknown reduction.
    """
    extra = choose("reduction", reduction, {"program": 1, "mean": 0})
    z = unit(image_embeds)
    position = jnp.pad(jnp.cumsum(jnp.asarray(margins, jnp.float32)), (1, 0))[rank]  # [B]

    def of_anchors(
        z_anchor: jax.Array,
        rank_anchor: jax.Array,
        position_anchor: jax.Array,
        own: jax.Array,
        z: jax.Array,
        rank: jax.Array,
        position: jax.Array,
    ) -> jax.Array:
        ahead = jnp.sign(rank_anchor[:, None] - rank)  # [rows, B]
        positive, negative = (ahead == 0) & (own[:, None] != jnp.arange(rank.size)), ahead != 0
        near = inner(z_anchor, z)
        far = near + ahead * (
            position_anchor[:, None] - position
        )  # not the abs, whose slope is lost at a margin of 0
        # Once the pairs with far_q > near_p are counted, the loss is linear in both.
        above, below = jnp.where(negative, far, -jnp.inf), jnp.where(positive, near, jnp.inf)
        by_positive = jnp.where(positive, rank.size - place(ascending(above), near, "right"), 0)
        by_negative = jnp.where(negative, place(ascending(below), far, "left"), 0)
        p, q = positive.sum(axis=1), negative.sum(axis=1)
        pairs = jnp.maximum((p * q).astype(jnp.float32) * jnp.maximum(q, 1) ** extra, 1.0)
        return (by_negative * far - by_positive * near).sum(axis=1) / pairs

    return mean_over_blocks(
        of_anchors, (z, rank, position, jnp.arange(rank.size)), (z, rank, position), block
    )
