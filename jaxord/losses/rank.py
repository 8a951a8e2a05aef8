"""Losses on the logits of the ranks.

B batch, K ranks.
"""

import jax
import jax.numpy as jnp


def negative_log_share(own, others, weights):
    """-log of the share that the own score has among itself and the weighted others.

    -log[ e^own / (e^own + sum_j weights_j e^others_j) ] = softplus(log sum_j weights_j e^others_j - own)

    Every cross-entropy and contrastive loss is this one function. The softplus form keeps the relative precision of
    losses and gradients near 0, where `1 - p` would lose it, and differences of scores are taken before anything is
    added to them, because logits of 10^5 are only known to 10^-2 once a log weight has been added.

    Args:
      own: f32[...], score of the positive.
      others: f32[..., J], scores of the candidates.
      weights: f32[..., J], >= 0 and constant; 0 removes a candidate, which includes the positive itself.

    Returns:
      f32[...]; exactly 0, with gradient 0, where no candidate is left.
    """
    kept = weights > 0
    some = kept.any(axis=-1)
    top = jnp.max(jnp.where(kept, others, -jnp.inf), axis=-1)
    top = jax.lax.stop_gradient(jnp.where(some, top, 0.0))
    # Both branches of each `where` are finite: the one not taken has the gradient 0 * derivative, nan if that is inf.
    shifted = jnp.where(kept, others - top[..., None], 0.0)
    mass = jnp.where(kept, weights * jnp.exp(shifted), 0.0).sum(axis=-1)
    gap = (top - own) + jnp.log(jnp.where(some, mass, 1.0))
    return jnp.where(some, jax.nn.softplus(gap), 0.0)


def cross_entropy(logits, rank):
    """Cross-entropy of the rank: mean over i of -log softmax(logits_i)[rank_i].

    Args:
      logits: [B, K].
      rank: i32[B].

    Returns:
      f32[].
    """
    logits = jnp.asarray(logits, jnp.float32)
    own = jnp.take_along_axis(logits, rank[:, None], axis=1)[:, 0]  # [B]
    negative = 1.0 - jax.nn.one_hot(rank, logits.shape[1])  # [B, K]
    return negative_log_share(own, logits, negative).mean()


def text_image_kl(logits, rank, *, sharpness=10.0):
    """KL divergence, for each rank in the batch, from the images that carry it to those its text picks.

    mean over the ranks c present of KL(q_c || softmax_j(logits_jc)),  q_c = softmax_j(sharpness * 1[rank_j = c])

    OrdinalCLIP's second term (xk-huang/OrdinalCLIP, runner.py:142-158). It is divided by the number of ranks present,
    not by B or K. The target keeps some mass on the other images (at sharpness 10, e^-10 of an own image's each), so
    the minimum 0 is reached at finite logits.

    Args:
      logits: [B, K].
      rank: i32[B].
      sharpness: logit of an own image in the target.

    Returns:
      f32[].
    """
    by_text = jnp.asarray(logits, jnp.float32).T  # [K, B]
    carries = rank == jnp.arange(by_text.shape[0])[:, None]  # [K, B]
    target = jax.nn.log_softmax(sharpness * carries.astype(jnp.float32), axis=1)
    divergence = (jnp.exp(target) * (target - jax.nn.log_softmax(by_text, axis=1))).sum(axis=1)  # [K]
    present = carries.any(axis=1)
    return jnp.where(present, divergence, 0.0).sum() / present.sum()
