"""Losses on the logits of the ranks, of the groups and of the thresholds between ranks.

B batch, K ranks, G groups.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def negative_log_share(own: jax.Array, others: jax.Array, weights: jax.Array) -> jax.Array:
    """-log of the share that the own score has among itself and the weighted others.

    -log[ e^own / (e^own + sum_j weights_j e^others_j) ] = softplus(log sum_j weights_j e^others_j -
    own)

    Every cross-entropy and contrastive loss is this one function. The softplus form keeps the
    relative precision of losses and gradients near 0, where `1 - p` would lose it, and differences
    of scores are taken before anything is added to them, because logits of 10^5 are only known to
    10^-2 once a log weight has been added.

    Args:
      own: f32[...], score of the positive.
      others: f32[..., J], scores of the candidates.
      weights: f32[..., J], >= 0 and constant; 0 removes a candidate, which includes the positive
        itself.

    Returns:
      f32[...]; exactly 0, with gradient 0, where no candidate is left.
    """
    return log_share(own, *log_mass(others, weights))


def log_share(own: jax.Array, top: jax.Array, mass: jax.Array, some: jax.Array) -> jax.Array:
    """`negative_log_share` of a score among itself and the candidates whose `log_mass` is known."""
    return jnp.where(some, jax.nn.softplus((top - own) + mass), 0.0)


def log_mass(scores: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """log sum_j weights_j e^scores_j, as the sum of its largest score and a small rest, which are
    kept apart.

    Args:
      scores: f32[..., J].
      weights: f32[..., J]; entries that are not > 0 are left out.

    Returns:
      (f32[...] largest score, held constant; f32[...] the rest, which carries the gradient;
      bool[...] whether any entry was left). Both parts are 0 where none was.
    """
    kept = weights > 0
    some = kept.any(axis=-1)
    top = jnp.max(jnp.where(kept, scores, -jnp.inf), axis=-1)
    top = jax.lax.stop_gradient(jnp.where(some, top, 0.0))
    # Both branches of each `where` are finite: the one not taken has the gradient 0 * derivative,
    # nan if that is inf.
    shifted = jnp.where(kept, scores - top[..., None], 0.0)
    mass = jnp.where(kept, weights * jnp.exp(shifted), 0.0).sum(axis=-1)
    return top, jnp.log(jnp.where(some, mass, 1.0)), some


def choose(setting: str, name: str, choices: Mapping[str, Any]) -> Any:
    """choices[name], or a ValueError that lists them."""
    if name not in choices:
        raise ValueError(f"{setting} is {name!r}; expected one of {sorted(choices)}")
    return choices[name]


def cross_entropy(logits: jax.Array, rank: jax.Array) -> jax.Array:
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


def text_image_kl(logits: jax.Array, rank: jax.Array, *, sharpness: float = 10.0) -> jax.Array:
    """KL divergence, for each rank in the batch, from the images that carry it to those its text
    picks.

    mean over the ranks c present of KL(q_c || softmax_j(logits_jc)),  q_c = softmax_j(sharpness * 1[rank_j = c])

    OrdinalCLIP's second term (xk-huang/OrdinalCLIP, runner.py:142-158). It is divided by the number
    of ranks present, not by B or K. The target keeps some mass on the other images (at sharpness
    10, e^-10 of an own image's each), so the minimum 0 is reached at finite logits.

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
    divergence = (jnp.exp(target) * (target - jax.nn.log_softmax(by_text, axis=1))).sum(
        axis=1
    )  # [K]
    present = carries.any(axis=1)
    return jnp.where(present, divergence, 0.0).sum() / present.sum()


def descending_soft_label(
    group_logits: jax.Array, group: jax.Array, *, beta: float = 1.0
) -> jax.Array:
    """Cross-entropy against a target that falls off with the distance from the true group
    (Group-DIR Eq 4).

    mean over i of -sum_k q_ik log softmax(group_logits_i)_k,  q_ik proportional to e^(-beta |k - group_i|)

    The paper's q is softmax(|G| - beta |k - g|), in which |G| cancels; its Eq 4 lacks the minus sign and is a sum over
    the batch. The least value is the entropy of q, not 0.

    Args:
      group_logits: [B, G].
      group: i32[B].
      beta: how fast the target falls; large ones give the plain cross-entropy.

    Returns:
      f32[].
    """
    logits = jnp.asarray(group_logits, jnp.float32)
    apart = jnp.abs(jnp.arange(logits.shape[1]) - group[:, None]).astype(jnp.float32)  # [B, G]
    return (
        -(jax.nn.softmax(-beta * apart, axis=1) * jax.nn.log_softmax(logits, axis=1))
        .sum(axis=1)
        .mean()
    )


def logit_adjusted(
    group_logits: jax.Array, group: jax.Array, group_prior: jax.Array, *, tau: float = 1.0
) -> jax.Array:
    """Cross-entropy of the group on logits + tau log(prior), so that frequent groups have to win by
    more.

    mean over i of -log[ pi_g^tau e^s_g / sum_k pi_k^tau e^s_k ],  g = group_i

    Menon et al. 2021. A rule on `group_logits` takes them as they are: the adjustment is for
    training only.

    Args:
      group_logits: [B, G].
      group: i32[B].
      group_prior: f32[G], share of each group in the training set; above 0 for every group of the
        batch, while a group with 0 is no candidate.
      tau: 0 gives the plain cross-entropy.

    Returns:
      f32[].
    """
    logits = jnp.asarray(group_logits, jnp.float32)
    prior = jnp.asarray(group_prior, jnp.float32)
    own = jnp.take_along_axis(logits, group[:, None], axis=1)[:, 0]  # [B]
    other = 1.0 - jax.nn.one_hot(group, logits.shape[1])  # [B, G]
    return negative_log_share(own, logits, other * (prior / prior[group][:, None]) ** tau).mean()


def coral(threshold_logits: jax.Array, rank: jax.Array) -> jax.Array:
    """CORAL: one binary question a threshold, "is the rank above k?", with independent answers.

    mean over i of sum_k BCE(sigmoid(threshold_logits_ik), 1[rank_i > k]),  k = 0..K-2

    Cao et al. 2020. The thresholds of the head share their weights, which keeps the answers
    consistent.

    Args:
      threshold_logits: [B, K-1].
      rank: i32[B].

    Returns:
      f32[].
    """
    return _threshold_errors(threshold_logits, rank).sum(axis=1).mean()


def corn(threshold_logits: jax.Array, rank: jax.Array) -> jax.Array:
    """CORN: threshold k answers "is the rank above k?" only for samples whose rank is at least k.

    sum over i and k <= rank_i of BCE(sigmoid(threshold_logits_ik), 1[rank_i > k]) / number of these
    (i, k)

    Shi et al. 2021. The sigmoids are conditional probabilities: `inference.thresholds` needs
    conditional=True. The divisor is the number of questions asked, so samples of high ranks, who
    get more of them, weigh more.

    Args:
      threshold_logits: [B, K-1].
      rank: i32[B].

    Returns:
      f32[].
    """
    errors = _threshold_errors(threshold_logits, rank)
    asked = rank[:, None] >= jnp.arange(errors.shape[1])  # [B, K-1]
    return jnp.where(asked, errors, 0.0).sum() / asked.sum()


def _threshold_errors(threshold_logits: jax.Array, rank: jax.Array) -> jax.Array:
    logits = jnp.asarray(threshold_logits, jnp.float32)
    above = rank[:, None] > jnp.arange(logits.shape[1])  # [B, K-1]
    return jax.nn.softplus(jnp.where(above, -logits, logits))
