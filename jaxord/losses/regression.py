"""Losses between a predicted value and the target.

B batch, G groups, M components of a mixture. `weight` multiplies each sample's loss before the
plain mean over the batch, which is not divided by the sum of the weights: those of
label-distribution smoothing have mean 1 over the training set, not in each batch.
"""

import jax
import jax.numpy as jnp

from jaxord.losses.rank import choose, log_mass, negative_log_share


def l1(value: jax.Array, target: jax.Array, weight: jax.Array | None = None) -> jax.Array:
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


def mse(value: jax.Array, target: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Mean squared error: mean of weight * (value - target)^2, without a factor 1/2.

    Args, Returns, Raises: as `l1`.
    """
    return _mean(jnp.square(_error(value, target)), weight)


def huber(
    value: jax.Array, target: jax.Array, weight: jax.Array | None = None, *, beta: float = 1.0
) -> jax.Array:
    """Quadratic for small errors, absolute for large ones.

    mean of weight * ( e^2 / (2 beta) if |e| < beta else |e| - beta / 2 ),  e = value - target

    The form of the imbalanced-regression programs, whose slope is 1 for large errors at any beta
    (torch calls it smooth L1); Huber's own function is beta times this.

    Args:
      value, target, weight: as `l1`.
      beta: error at which the two pieces meet, > 0, on the scale of the target.

    Returns:
      f32[].

    Raises:
      ValueError: shapes that differ, or beta <= 0.
    """
    if beta <= 0:
        raise ValueError(
            f"beta is {beta}; expected a number above 0 (for the absolute error use l1)"
        )
    error = _magnitude(_error(value, target))
    inside = jnp.minimum(error, beta)
    return _mean(inside * inside / (2 * beta) + (error - inside), weight)  # both pieces at once


def focal_l1(
    value: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    *,
    beta: float = 0.2,
    gamma: float = 1.0,
    power: int = 1,
) -> jax.Array:
    """An error that counts less where it is small: mean of weight |e|^power tanh(beta |e| / 2)^gamma, e = value - target.

    The factor |2 sigmoid(beta |e|) - 1|^gamma of Focal-R (Yang et al. 2021), written as the tanh that it is. It is
    differentiated too, as in that program.

    Args:
      value, target, weight: as `l1`.
      beta: per unit of the label, so it has to follow the label's scale.
      gamma: > 0; larger ones forget small errors more.
      power: 1 for ages, 2 for sentences, as in the programs.

    Returns:
      f32[].

    Raises:
      ValueError: shapes that differ.
    """
    error = _magnitude(_error(value, target))
    wrong = error > 0
    share = jnp.tanh(
        beta / 2 * jnp.where(wrong, error, 1.0)
    )  # a power of 0 may have an infinite slope
    return _mean(jnp.where(wrong, error**power * share**gamma, 0.0), weight)


def balanced_mse(value: jax.Array, target: jax.Array, noise_scale: jax.Array) -> jax.Array:
    """Balanced MSE over the batch (BMC): is the own target the one that the value picks among those
    of the batch?

    2 sigma^2 * mean over i of -log[ e^s_ii / sum_j e^s_ij ],  s_ij = -(value_i - target_j)^2 / (2 sigma^2)

    Ren et al. 2022. The factor 2 sigma^2 is held constant in the gradient. An equal target of
    another sample is a candidate like any other, so log(number of equal targets) is the least that
    a sample can reach.

    Args:
      value: [B], on the scale of the target.
      target: f32[B].
      noise_scale: f32[], sigma > 0, learnable.

    Returns:
      f32[].

    Raises:
      ValueError: shapes that differ.
    """
    own = _error(value, target)
    across = jnp.asarray(value, jnp.float32)[:, None] - jnp.asarray(target, jnp.float32)  # [B, B]
    spread = 2 * jnp.square(jnp.asarray(noise_scale, jnp.float32))
    others = 1.0 - jnp.eye(own.size)
    loss = negative_log_share(-jnp.square(own) / spread, -jnp.square(across) / spread, others)
    return jax.lax.stop_gradient(spread) * loss.mean()


def balanced_mse_gai(
    value: jax.Array,
    target: jax.Array,
    noise_scale: jax.Array,
    mixture_weights: jax.Array,
    mixture_means: jax.Array,
    mixture_variances: jax.Array,
) -> jax.Array:
    """Balanced MSE with the training labels as a mixture of Gaussians (GAI), in place of those of
    the batch.

    2 sigma^2 * mean over i of [ e_i^2 / (2 sigma^2) + log sigma
      + log sum_m w_m (v_m + sigma^2)^(-1/2) e^(-(value_i - mu_m)^2 / (2 (v_m + sigma^2))) ],  e = value - target

    Ren et al. 2022; the factor 2 sigma^2 is held constant in the gradient. Where a label is
    frequent the last term pushes the value away from it. The loss may be negative. Trap: mixture
    and sigma are on the scale of the target.

    Args:
      value: [B], on the scale of the target.
      target: f32[B].
      noise_scale: f32[], sigma > 0, learnable.
      mixture_weights: f32[M], sum 1.
      mixture_means: f32[M].
      mixture_variances: f32[M], >= 0.

    Returns:
      f32[].

    Raises:
      ValueError: shapes that differ.
    """
    squared = jnp.square(_error(value, target))
    weights, means, variances, sigma = (
        jnp.asarray(x, jnp.float32)
        for x in (mixture_weights, mixture_means, mixture_variances, noise_scale)
    )
    noise = jnp.square(sigma)
    apart = jnp.square(jnp.asarray(value, jnp.float32)[:, None] - means) / (
        2 * (variances + noise)
    )  # [B, M]
    # sigma / sqrt(v + sigma^2) in one logarithm: two of them would cancel.
    top, rest, _ = log_mass(
        -apart - jnp.log1p(variances / noise) / 2, jnp.broadcast_to(weights, apart.shape)
    )
    constant = jax.lax.stop_gradient(2 * noise)
    return (constant * (squared / (2 * noise)) + constant * (top + rest)).mean()


def expert(
    expert_values: jax.Array,
    target: jax.Array,
    group: jax.Array,
    weight: jax.Array | None = None,
    *,
    reduction: str = "mean",
) -> jax.Array:
    """Squared error of the expert of the true group (Group-DIR Eq 3).

    mean over i of weight_i (expert_values[i, group_i] - target_i)^2

    Only that expert learns from the sample. At test the group is the predicted one
    (`inference.experts`).

    Args:
      expert_values: [B, G], on the scale of the target.
      target: f32[B].
      group: i32[B].
      weight: f32[B], optional.
      reduction: "mean" over the batch; "sum" is the equation's, whose step size grows with the
        batch.

    Returns:
      f32[].

    Raises:
      ValueError: shapes that differ, or an unknown reduction.
    """
    loss = mse(jnp.take_along_axis(expert_values, group[:, None], axis=1)[:, 0], target, weight)
    return loss * choose("reduction", reduction, {"mean": 1, "sum": target.size})


def _error(value: jax.Array, target: jax.Array) -> jax.Array:
    # [B, 1] against [B] would broadcast to [B, B] and train on nonsense.
    if value.shape != target.shape:
        raise ValueError(
            f"value has shape {value.shape} and target {target.shape}; expected the same"
        )
    return jnp.asarray(value, jnp.float32) - jnp.asarray(target, jnp.float32)


def _magnitude(error: jax.Array) -> jax.Array:
    return jnp.sign(error) * error  # the gradient of jnp.abs is 1 at 0


def _mean(loss: jax.Array, weight: jax.Array | None) -> jax.Array:
    if weight is None:
        return loss.mean()
    if weight.shape != loss.shape:
        raise ValueError(
            f"weight has shape {weight.shape}; expected {loss.shape}, one for each sample"
        )
    return (jnp.asarray(weight, jnp.float32) * loss).mean()
