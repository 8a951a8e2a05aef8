"""ConOrd: contrastive order learning, in which every pair attracts and repels by the gap of its
labels.

B batch, D embedding, G largest gap of a table of weights.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxord.losses.blocks import BLOCK, mean_over_blocks
from jaxord.losses.rank import choose, log_mass
from jaxord.vectors import inner, unit


def conord(
    image_embeds: jax.Array,
    target: jax.Array,
    pair_weights: jax.Array | None = None,
    *,
    temperature: float = 0.07,
    epsilon: float = 1e-7,
    weights: str = "VIII",
    anchor_norm: bool = False,
    block: int = BLOCK,
) -> jax.Array:
    """ConOrd's contrastive order loss (Eq 3): attraction by a_ij, repulsion by b_ij.

    mean over i of -log[ sum_{j != i} a_ij e^(kappa_ij / temperature) / sum_{j != i} b_ij
    e^(kappa_ij / temperature) ]

    z unit features, g = |target_i - target_j|. Rows of the paper's Tables 1, 7 and 14:
      I     z.z         1/(g + eps)     1             IX    -|z-z|^2  1/(D^2 + eps)  D^2, D = 0 if g = 0, else 5
      II    z.z         1/(g + eps)     g             X     -|z-z|^2  the table `pair_weights` by min(g, G)
      III   z.z         1/(g^2 + eps)   1             XI    -|z-z|^2  1/sqrt(g + eps)       sqrt(g)
      IV    z.z         1/(g^2 + eps)   g^2           XII   -|z-z|^2  1/(log(1+g) + eps)    log(1+g)
      V-VIII            kappa = -|z_i - z_j|^2, as I-IV
      XIII  -|z-z|^2    1/(g + eps) and g where g < 10, else 1/10 and 10
    On the sphere -|z_i - z_j|^2 = 2 z_i.z_j - 2, whose constant cancels: V-VIII are I-IV at half the temperature.

    The loss may be negative. An anchor without a repelling sample is left out, which happens to all
    at once: when the batch has one label only (0, gradient 0). As printed, Eq 3 has a factor 1/|A|
    = 1/(B-1) in front of one logarithm; beside `center` as printed the order would then hardly
    count, so it is off by default. Trap: XIII's 10, IX's 5 and epsilon are on the label's scale. Eq
    6 of the paper is the gradient of the i-th summand only.

    Args:
      image_embeds: [B, D].
      target: f32[B], or f32[B, A] for several angles, whose gap is the sum of their absolute
        differences.
      pair_weights: f32[2, G+1], > 0, attraction and repulsion by the gap, rounded to whole numbers:
        for "X" only.
      temperature: > 0.
      epsilon: keeps the attraction of equal labels finite.
      weights: "I" to "XIII".
      anchor_norm: divide by |A|, as printed.
      block: pairs at once.

    Returns:
      f32[].

    Raises:
      ValueError: unknown weights; "X" without a table, or a table without "X".
    """
    if (weights == "X") != (pair_weights is not None):
        state = "is missing" if pair_weights is None else "was given"
        raise ValueError(
            f"weights is {weights!r} and the table pair_weights {state}; only 'X' takes one, and needs it"
        )

    def by_gap(gap: jax.Array, *table: jax.Array) -> jax.Array:
        if weights == "X":
            return table[0][:, jnp.minimum(jnp.rint(gap).astype(jnp.int32), table[0].shape[1] - 1)]
        return choose("weights", weights, _WEIGHTS)(gap, epsilon)

    kappa = 1.0 if weights in ("I", "II", "III", "IV") else 2.0
    table = () if pair_weights is None else (jnp.asarray(pair_weights, jnp.float32),)
    return -_log_ratio(image_embeds, target, by_gap, table, kappa / temperature, anchor_norm, block)


def expected_error(
    image_embeds: jax.Array,
    target: jax.Array,
    *,
    temperature: float = 0.07,
    anchor_norm: bool = False,
    block: int = BLOCK,
) -> jax.Array:
    """Logarithm of the error that picking a neighbour at random by similarity would make (ConOrd Eq
    2, L_MAE).

    mean over i of log[ sum_{j != i} g_ij e^(kappa_ij / temperature) / sum_{j != i} e^(kappa_ij /
    temperature) ]

    kappa = -|z_i - z_j|^2 on unit features, as in `conord`, which the paper compares it with; Eq 2 leaves kappa open. A
    batch of one label has no error to take the logarithm of: 0, gradient 0.

    Args, Returns: as `conord`.
    """
    return _log_ratio(
        image_embeds,
        target,
        lambda gap: (gap, jnp.ones_like(gap)),
        (),
        2.0 / temperature,
        anchor_norm,
        block,
    )


def _log_ratio(
    image_embeds: jax.Array,
    target: jax.Array,
    by_gap: Callable[..., Any],
    table: tuple[jax.Array, ...],
    scale: float,
    anchor_norm: bool,
    block: int,
) -> jax.Array:
    """Mean over i of log[ sum_j first_ij e^(scale z_i.z_j) / sum_j second_ij e^(scale z_i.z_j) ];
    by_gap(gap, *table)."""
    z, target = unit(image_embeds), jnp.asarray(target, jnp.float32)
    size = len(z)
    labels = target.reshape(size, -1)  # [B, A]

    def of_anchors(
        z_anchor: jax.Array,
        label: jax.Array,
        own: jax.Array,
        z: jax.Array,
        labels: jax.Array,
        *table: jax.Array,
    ) -> jax.Array:
        gap = jnp.abs(label[:, None] - labels).sum(axis=-1)  # [rows, B]
        other = own[:, None] != jnp.arange(size)
        scores = scale * inner(z_anchor, z)
        first, second = (jnp.where(other, weight, 0.0) for weight in by_gap(gap, *table))
        first_top, first_rest, some_first = log_mass(scores, first)
        second_top, second_rest, some_second = log_mass(scores, second)
        ratio = (first_top - second_top) + (first_rest - second_rest)
        return jnp.where(some_first & some_second, ratio, 0.0)

    loss = mean_over_blocks(of_anchors, (z, labels, jnp.arange(size)), (z, labels, *table), block)
    return loss / max(size - 1, 1) if anchor_norm else loss


def _plain(gap: jax.Array, epsilon: float) -> tuple[jax.Array, ...]:
    return 1 / (gap + epsilon), jnp.ones_like(gap)


def _ratio(gap: jax.Array, epsilon: float) -> tuple[jax.Array, ...]:
    return 1 / (gap + epsilon), gap


# (gap, epsilon) -> (attraction a, repulsion b)
_WEIGHTS = {
    "I": _plain,
    "II": _ratio,
    "III": lambda gap, epsilon: _plain(gap * gap, epsilon),
    "IV": lambda gap, epsilon: _ratio(gap * gap, epsilon),
    "V": _plain,
    "VI": _ratio,
    "VII": lambda gap, epsilon: _plain(gap * gap, epsilon),
    "VIII": lambda gap, epsilon: _ratio(gap * gap, epsilon),
    "IX": lambda gap, epsilon: _ratio(jnp.where(gap > 0, 25.0, 0.0), epsilon),
    "X": None,  # a table
    "XI": lambda gap, epsilon: (1 / jnp.sqrt(gap + epsilon), jnp.sqrt(gap)),
    "XII": lambda gap, epsilon: _ratio(jnp.log1p(gap), epsilon),
    "XIII": lambda gap, epsilon: (
        jnp.where(gap < 10, 1 / (gap + epsilon), 0.1),
        jnp.minimum(gap, 10.0),
    ),
}
