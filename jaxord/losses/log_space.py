"""Weighted sums of exponentials in log space, of which the cross-entropies and contrasts are made.

B batch, J candidates.
"""

import jax
import jax.numpy as jnp
from jax import Array


def own_scores(scores: Array, index: Array) -> Array:
    """[B], the score of each row of [B, J] at its own index i32[B]."""
    return jnp.take_along_axis(scores, index[:, None], axis=1)[:, 0]


def negative_log_share(own: Array, others: Array, weights: Array) -> Array:
    """Negative log of the share of a score among itself and weighted other scores.

        -log[ e^own / (e^own + sum_j weights_j e^others_j) ]
          = softplus(log sum_j weights_j e^others_j - own)

    Softplus keeps the relative precision of values and gradients near 0, where 1 - p loses it.
    Scores are subtracted before a log weight is added, which would round a score of 10^5 to 10^-2.
    Without a candidate value and gradient are exactly 0.

    Args:
      own, others: f32[...], f32[..., J], scores of the positive and of the candidates.
      weights: f32[..., J], >= 0 and constant; 0 removes a candidate, the positive itself included.
    """
    return log_share(own, *log_mass(others, weights))


def log_share(own: Array, top: Array, rest: Array, present: Array) -> Array:
    """`negative_log_share` among candidates whose `log_mass` is known."""
    return jnp.where(present, jax.nn.softplus((top - own) + rest), 0.0)


def log_mass(scores: Array, weights: Array) -> tuple[Array, Array, Array]:
    """log sum_j weights_j e^scores_j as the largest score and the rest, kept apart.

    Both f32[..., J]; leaves out entries whose weight is not > 0. Returns the largest score, held
    constant, and the rest, which carries the gradient: f32[...], both 0 without an entry. Then
    bool[...], whether any entry is present.
    """
    kept = weights > 0
    present = kept.any(axis=-1)
    top = jnp.max(jnp.where(kept, scores, -jnp.inf), axis=-1)
    top = jax.lax.stop_gradient(jnp.where(present, top, 0.0))
    # Both branches of each `where` are finite: the gradient of the one not taken is 0 times its
    # derivative, nan if that is inf.
    shifted = jnp.where(kept, scores - top[..., None], 0.0)
    mass = jnp.where(kept, weights * jnp.exp(shifted), 0.0).sum(axis=-1)
    return top, jnp.log(jnp.where(present, mass, 1.0)), present
