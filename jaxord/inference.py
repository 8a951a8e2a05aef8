"""Inference rules: from the arrays of the model to one predicted value a sample, on the scale of the label.

Same convention as the losses: positional parameters are names of arrays, keyword-only ones settings. All in float32.
B batch, K ranks.
"""

import jax
import jax.numpy as jnp


def expectation(logits, rank_values):
    """Expected value of the rank: sum_k softmax(logits)_k * rank_values_k.

    Args:
      logits: [B, K].
      rank_values: f32[K].

    Returns:
      f32[B], between the smallest and the largest rank value.
    """
    probabilities = jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=1)
    # A matrix product would run in reduced precision (TF32, bfloat16) on accelerators.
    return (probabilities * jnp.asarray(rank_values, jnp.float32)).sum(axis=1)


def argmax(logits, rank_values):
    """Value of the most probable rank; of equal ones the first.

    Args:
      logits: [B, K].
      rank_values: f32[K].

    Returns:
      f32[B].
    """
    return jnp.asarray(rank_values, jnp.float32)[jnp.argmax(logits, axis=1)]


def value(value):
    """The value that a regression head predicts, as it is.

    Args:
      value: [B].

    Returns:
      f32[B].
    """
    return jnp.asarray(value, jnp.float32)
