"""Losses between a predicted value and the target.

B batch. `weight` multiplies each sample's loss before the plain mean over the batch, which is not divided by the sum of
the weights: those of label-distribution smoothing have mean 1 over the training set, not in each batch.
"""

import jax.numpy as jnp


def l1(value, target, weight=None):
    """Mean absolute error: mean of weight * |value - target|; the gradient of an exact hit is 0.

    Args:
      value: [B], on the scale of the target.
      target: f32[B].
      weight: f32[B], optional.

    Returns:
      f32[].

    Raises:
      ValueError: shapes that differ.
    """
    return _mean(_magnitude(_error(value, target)), weight)


def mse(value, target, weight=None):
    """Mean squared error: mean of weight * (value - target)^2, without a factor 1/2.

    Args, Returns, Raises: as `l1`.
    """
    return _mean(jnp.square(_error(value, target)), weight)


def huber(value, target, weight=None, *, beta=1.0):
    """Quadratic for small errors, absolute for large ones.

    mean of weight * ( e^2 / (2 beta) if |e| < beta else |e| - beta / 2 ),  e = value - target

    The form of the imbalanced-regression programs, whose slope is 1 for large errors at any beta (torch calls it smooth
    L1); Huber's own function is beta times this.

    Args:
      value, target, weight: as `l1`.
      beta: error at which the two pieces meet, > 0, on the scale of the target.

    Returns:
      f32[].

    Raises:
      ValueError: shapes that differ, or beta <= 0.
    """
    if beta <= 0:
        raise ValueError(f"beta is {beta}; expected a number above 0 (for the absolute error use l1)")
    error = _magnitude(_error(value, target))
    inside = jnp.minimum(error, beta)
    return _mean(inside * inside / (2 * beta) + (error - inside), weight)  # both pieces at once


def _error(value, target):
    # [B, 1] against [B] would broadcast to [B, B] and train on nonsense.
    if value.shape != target.shape:
        raise ValueError(f"value has shape {value.shape} and target {target.shape}; expected the same")
    return jnp.asarray(value, jnp.float32) - jnp.asarray(target, jnp.float32)


def _magnitude(error):
    return jnp.sign(error) * error  # the gradient of jnp.abs is 1 at 0


def _mean(loss, weight):
    if weight is None:
        return loss.mean()
    if weight.shape != loss.shape:
        raise ValueError(f"weight has shape {weight.shape}; expected {loss.shape}, one for each sample")
    return (jnp.asarray(weight, jnp.float32) * loss).mean()
