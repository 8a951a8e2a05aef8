"""ConOrd: contrastive order learning, where every pair attracts and repels by its label gap.

B batch, D embedding, R reference points, G largest gap of a table of weights.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxord.losses.log_space import log_mass
from jaxord.losses.pairs import BLOCK, mean_over_blocks
from jaxord.losses.settings import choose
from jaxord.vectors import inner, length, unit

_Pair = tuple[Array, Array]
_ByGap = Callable[..., Any]  # (gap, *table, epsilon) -> (attraction a, repulsion b)


def conord(
    image_embeds: Array,
    target: Array,
    pair_weights: Array | None = None,
    *,
    temperature: float = 0.07,
    epsilon: float = 1e-7,
    weights: str = "VIII",
    anchor_norm: bool = False,
    block: int = BLOCK,
) -> Array:
    """ConOrd's contrastive order loss (Eq 3): attraction by a_ij, repulsion by b_ij.

        mean over i of -log[ sum_j a_ij e^(kappa_ij / t) / sum_j b_ij e^(kappa_ij / t) ],  j != i

        weights  kappa     attraction a          repulsion b
        I        z.z       1/(g + eps)           1
        II       z.z       1/(g + eps)           g
        III      z.z       1/(g^2 + eps)         1
        IV       z.z       1/(g^2 + eps)         g^2
        V-VIII   -|z-z|^2  as I-IV               as I-IV
        IX       -|z-z|^2  1/(D^2 + eps)         D^2, D = 0 if g = 0, else 5
        X        -|z-z|^2  the table `pair_weights` by min(g, G)
        XI       -|z-z|^2  1/sqrt(g + eps)       sqrt(g)
        XII      -|z-z|^2  1/(log(1+g) + eps)    log(1+g)
        XIII     -|z-z|^2  1/(g + eps) and g where g < 10, else 1/10 and 10

    z unit features, t the temperature, g = |target_i - target_j|; weights are rows of the paper's
    Tables 1, 7 and 14. On the sphere -|z_i - z_j|^2 = 2 z_i.z_j - 2, whose constant cancels: V-VIII
    are I-IV at half the temperature. The loss may be negative. A batch of one label has no
    repelling sample: 0, gradient 0. As printed, Eq 3 has a factor 1/|A| = 1/(B-1) before one
    logarithm; beside `center` as printed the order would then hardly count, so it is off by
    default. Trap: XIII's 10, IX's 5 and epsilon are on the label's scale.

    Args:
      target: f32[B], or f32[B, A] for angles, whose gap is the sum of their absolute differences.
      pair_weights: f32[2, G+1], > 0, attraction and repulsion by the rounded gap; for "X" only.
      epsilon: keeps the attraction of equal labels finite.
      anchor_norm: divide by |A|, as printed.
    """
    if (weights == "X") != (pair_weights is not None):
        state = "is missing" if pair_weights is None else "was given"
        message = f"weights is {weights!r} and the table pair_weights {state}"
        raise ValueError(f"{message}; expected a table with 'X' only")
    by_gap = functools.partial(choose("weights", weights, _WEIGHTS), epsilon=epsilon)
    kappa = 1.0 if weights in ("I", "II", "III", "IV") else 2.0
    table = () if pair_weights is None else (jnp.asarray(pair_weights, jnp.float32),)
    scale = kappa / temperature
    return -_log_ratio(image_embeds, target, by_gap, scale, anchor_norm, block, *table)


def expected_error(
    image_embeds: Array,
    target: Array,
    *,
    temperature: float = 0.07,
    anchor_norm: bool = False,
    block: int = BLOCK,
) -> Array:
    """Log of the error of picking a neighbour at random by similarity (ConOrd Eq 2, L_MAE).

        mean over i of log[ sum_j g_ij e^(kappa_ij / t) / sum_j e^(kappa_ij / t) ],  j != i

    kappa = -|z_i - z_j|^2 on unit features, as in `conord`, with which the paper compares it; Eq 2
    leaves kappa open. A batch of one label has no error: 0, gradient 0. Arguments as `conord`.
    """
    scale = 2.0 / temperature
    return _log_ratio(
        image_embeds, target, lambda gap: (gap, jnp.ones_like(gap)), scale, anchor_norm, block
    )


def center(
    image_embeds: Array, reference_points: Array, reference: Array, *, reduction: str = "mean"
) -> Array:
    """Distance of each embedding to its reference point (ConOrd Eq 8).

        mean over i of |z_i - mu_(reference_i)|_2,  z_i = image_embeds_i / |image_embeds_i|

    The norm, not its square; the points are not normalised. Eq 8 is a sum over the batch, about
    1,000 times stronger than `conord` as printed; the mean suits `conord` without its 1/|A|.

    Args:
      reference: i32[B], or f32[B], where a fraction interpolates the two neighbouring points.
      reduction: "mean" or "sum".
    """
    points = jnp.asarray(reference_points, jnp.float32)
    if jnp.issubdtype(reference.dtype, jnp.floating):
        low = jnp.clip(jnp.floor(reference), 0, max(len(points) - 2, 0)).astype(jnp.int32)
        share = (reference - low)[:, None]
        high = jnp.minimum(low + 1, len(points) - 1)
        own = (1 - share) * points[low] + share * points[high]  # [B, D]
    else:
        own = points[reference]
    reduce = choose("reduction", reduction, {"mean": jnp.mean, "sum": jnp.sum})
    return reduce(length(unit(image_embeds) - own))


def _log_ratio(
    x: Array, target: Array, by_gap: _ByGap, scale: float, norm: bool, block: int, *table: Array
) -> Array:
    """Mean over i of log[ sum_j a_ij e^(scale z_i.z_j) / sum_j b_ij e^(scale z_i.z_j) ]."""
    z = unit(x)
    size = len(z)
    labels = jnp.asarray(target, jnp.float32).reshape(size, -1)  # [B, A]

    def of_anchors(z_anchor: Array, label: Array, own: Array, *columns: Array) -> Array:
        z, labels, *table = columns
        gap = jnp.abs(label[:, None] - labels).sum(axis=-1)  # [rows, B]
        other = own[:, None] != jnp.arange(size)
        scores = scale * inner(z_anchor, z)
        a, b = (jnp.where(other, weight, 0.0) for weight in by_gap(gap, *table))
        a_top, a_rest, a_present = log_mass(scores, a)
        b_top, b_rest, b_present = log_mass(scores, b)
        return jnp.where(a_present & b_present, (a_top - b_top) + (a_rest - b_rest), 0.0)

    loss = mean_over_blocks(of_anchors, (z, labels, jnp.arange(size)), (z, labels, *table), block)
    return loss / max(size - 1, 1) if norm else loss


def _plain(gap: Array, epsilon: float) -> _Pair:
    return 1 / (gap + epsilon), jnp.ones_like(gap)


def _ratio(gap: Array, epsilon: float) -> _Pair:
    return 1 / (gap + epsilon), gap


def _from_table(gap: Array, table: Array, epsilon: float) -> Array:
    return table[:, jnp.minimum(jnp.rint(gap).astype(jnp.int32), table.shape[1] - 1)]


def _capped(gap: Array, epsilon: float) -> _Pair:
    return jnp.where(gap < 10, 1 / (gap + epsilon), 0.1), jnp.minimum(gap, 10.0)


_WEIGHTS: dict[str, _ByGap] = {
    **dict.fromkeys(("I", "V"), _plain),
    **dict.fromkeys(("II", "VI"), _ratio),
    **dict.fromkeys(("III", "VII"), lambda gap, epsilon: _plain(gap * gap, epsilon)),
    **dict.fromkeys(("IV", "VIII"), lambda gap, epsilon: _ratio(gap * gap, epsilon)),
    "IX": lambda gap, epsilon: _ratio(jnp.where(gap > 0, 25.0, 0.0), epsilon),
    "X": _from_table,
    "XI": lambda gap, epsilon: (1 / jnp.sqrt(gap + epsilon), jnp.sqrt(gap)),
    "XII": lambda gap, epsilon: _ratio(jnp.log1p(gap), epsilon),
    "XIII": _capped,
}
