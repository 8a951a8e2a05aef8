"""Losses on the logits of ranks, of groups and of the thresholds between ranks.

B batch, K ranks, G groups.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxord.losses.log_space import negative_log_share, own_scores


def cross_entropy(logits: Array, rank: Array) -> Array:
    """Cross-entropy of the rank: mean over i of -log softmax(logits_i)[rank_i]."""
    logits = jnp.asarray(logits, jnp.float32)
    own = own_scores(logits, rank)  # [B]
    negative = 1.0 - jax.nn.one_hot(rank, logits.shape[1])  # [B, K]
    return negative_log_share(own, logits, negative).mean()


def descending_soft_label(group_logits: Array, group: Array, *, beta: float = 1.0) -> Array:
    """Cross-entropy against a target that falls with the distance from the true group.

        mean over i of -sum_k q_ik log softmax(group_logits_i)_k
        q_ik proportional to e^(-beta |k - group_i|)

    Group-DIR Eq 4, which lacks the minus sign and sums over the batch. Its q is
    softmax(|G| - beta |k - g|), where |G| cancels. The minimum is the entropy of q, not 0. A large
    beta gives the plain cross-entropy.
    """
    logits = jnp.asarray(group_logits, jnp.float32)
    apart = jnp.abs(jnp.arange(logits.shape[1]) - group[:, None]).astype(jnp.float32)  # [B, G]
    terms = jax.nn.softmax(-beta * apart, axis=1) * jax.nn.log_softmax(logits, axis=1)
    return -terms.sum(axis=1).mean()


def logit_adjusted(
    group_logits: Array, group: Array, group_prior: Array, *, tau: float = 1.0
) -> Array:
    """Cross-entropy of the group on logits + tau log(prior): frequent groups must win by more.

        mean over i of -log[ pi_g^tau e^s_g / sum_k pi_k^tau e^s_k ],  g = group_i

    Menon et al. 2021, pi the group's share in training. The adjustment is for training only:
    inference takes `group_logits` as is. tau = 0 gives the plain cross-entropy. Trap: a group with
    prior 0 is no candidate, so it must not be in the batch.
    """
    logits = jnp.asarray(group_logits, jnp.float32)
    prior = jnp.asarray(group_prior, jnp.float32)
    own = own_scores(logits, group)  # [B]
    other = 1.0 - jax.nn.one_hot(group, logits.shape[1])  # [B, G]
    return negative_log_share(own, logits, other * (prior / prior[group][:, None]) ** tau).mean()


def coral(threshold_logits: Array, rank: Array) -> Array:
    """CORAL: each threshold k asks "is the rank above k?" of every sample.

        mean over i of sum_k BCE(sigmoid(threshold_logits_ik), 1[rank_i > k]),  k = 0..K-2

    Cao et al. 2020. The head's thresholds share their weights, which keeps the answers consistent.
    """
    return _threshold_errors(threshold_logits, rank).sum(axis=1).mean()


def corn(threshold_logits: Array, rank: Array) -> Array:
    """CORN: threshold k asks "is the rank above k?" only of samples whose rank is at least k.

        mean over all (i, k <= rank_i) of BCE(sigmoid(threshold_logits_ik), 1[rank_i > k])

    Shi et al. 2021. The sigmoids are conditional probabilities: `inference.thresholds` needs
    conditional=True. The divisor counts questions, so high ranks, asked more of them, weigh more.
    """
    errors = _threshold_errors(threshold_logits, rank)
    asked = rank[:, None] >= jnp.arange(errors.shape[1])  # [B, K-1]
    return jnp.where(asked, errors, 0.0).sum() / asked.sum()


def _threshold_errors(threshold_logits: Array, rank: Array) -> Array:
    """f32[B, K-1], the cross-entropy of each threshold's answer."""
    logits = jnp.asarray(threshold_logits, jnp.float32)
    above = rank[:, None] > jnp.arange(logits.shape[1])  # [B, K-1]
    return jax.nn.softplus(jnp.where(above, -logits, logits))
