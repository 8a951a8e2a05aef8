"""Losses between a predicted value and the target.

B batch, M components of a mixture. `weight` multiplies each sample's loss before the plain mean
over the batch, which is not divided by the sum of the weights: those of label distribution
smoothing have mean 1 over the training set, not in each batch.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxord.losses.log_space import log_mass, negative_log_share, own_scores
from jaxord.losses.settings import choose


def l1(value: Array, target: Array, weight: Array | None = None) -> Array:
    """Mean absolute error: mean of weight * |value - target|; an exact hit has gradient 0."""
    return _mean(_magnitude(_error(value, target)), weight)


def mse(value: Array, target: Array, weight: Array | None = None) -> Array:
    """Mean squared error, without a factor 1/2: mean of weight * (value - target)^2."""
    return _mean(jnp.square(_error(value, target)), weight)


def huber(value: Array, target: Array, weight: Array | None = None, *, beta: float = 1.0) -> Array:
    """Quadratic for small errors, absolute for large ones.

        mean of weight * ( e^2 / (2 beta) if |e| < beta else |e| - beta / 2 ),  e = value - target

    The form of the imbalanced-regression programs, whose slope is 1 for large errors at any beta
    (torch calls it smooth L1). Huber's own function is beta times this. Trap: beta > 0 is on the
    scale of the target.
    """
    if beta <= 0:
        raise ValueError(f"beta is {beta}; expected a number above 0 (l1 is the absolute error)")
    error = _magnitude(_error(value, target))
    inside = jnp.minimum(error, beta)
    # Both pieces at once: beyond beta the first is the constant beta / 2.
    return _mean(inside * inside / (2 * beta) + (error - inside), weight)


def focal_l1(
    value: Array,
    target: Array,
    weight: Array | None = None,
    *,
    beta: float = 0.2,
    gamma: float = 1.0,
    power: int = 1,
) -> Array:
    """An error that counts less where it is small.

        mean of weight |e|^power tanh(beta |e| / 2)^gamma,  e = value - target

    The tanh is the factor 2 sigmoid(beta |e|) - 1 of Focal-R (Yang et al. 2021). It is
    differentiated too, as in that program.

    Args:
      beta: per unit of the label, so it must follow the label's scale.
      gamma: above 0; a larger one forgets small errors more.
      power: 1 for ages, 2 for sentences, as in the programs.
    """
    error = _magnitude(_error(value, target))
    wrong = error > 0
    # The slope of a power may be infinite at 0: exact hits use an error of 1, then count 0.
    share = jnp.tanh(beta / 2 * jnp.where(wrong, error, 1.0))
    return _mean(jnp.where(wrong, error**power * share**gamma, 0.0), weight)


def balanced_mse(value: Array, target: Array, noise_scale: Array) -> Array:
    """Balanced MSE over the batch (BMC): each value should pick its own target among all.

        2 sigma^2 * mean over i of -log[ e^s_ii / sum_j e^s_ij ]
        s_ij = -(value_i - target_j)^2 / (2 sigma^2)

    Ren et al. 2022; sigma > 0 is the learnable noise_scale. The gradient holds the factor 2 sigma^2
    constant. An equal target of another sample is a candidate too, so the minimum of a sample is
    log(number of equal targets).
    """
    own = _error(value, target)
    across = jnp.asarray(value, jnp.float32)[:, None] - jnp.asarray(target, jnp.float32)  # [B, B]
    spread = 2 * jnp.square(jnp.asarray(noise_scale, jnp.float32))
    others = 1.0 - jnp.eye(own.size)
    loss = negative_log_share(-jnp.square(own) / spread, -jnp.square(across) / spread, others)
    return jax.lax.stop_gradient(spread) * loss.mean()


def balanced_mse_gai(
    value: Array,
    target: Array,
    noise_scale: Array,
    mixture_weights: Array,
    mixture_means: Array,
    mixture_variances: Array,
) -> Array:
    """Balanced MSE with a mixture of Gaussians (GAI) in place of the batch's labels.

        2 sigma^2 * mean over i of [ e_i^2 / (2 sigma^2) + log sigma
          + log sum_m w_m (v_m + sigma^2)^(-1/2) e^(-(value_i - mu_m)^2 / (2 (v_m + sigma^2))) ]
        e = value - target

    Ren et al. 2022, sigma as in `balanced_mse`. Where a label is frequent, the last term pushes the
    value away from it. The loss may be negative. Trap: mixture and sigma are on the scale of the
    target. mixture_weights w, of sum 1, mixture_means mu and mixture_variances v >= 0 are f32[M].
    """
    squared = jnp.square(_error(value, target))
    arrays = mixture_weights, mixture_means, mixture_variances, noise_scale
    weights, means, variances, sigma = (jnp.asarray(x, jnp.float32) for x in arrays)
    noise = jnp.square(sigma)
    across = jnp.square(jnp.asarray(value, jnp.float32)[:, None] - means)  # [B, M]
    apart = across / (2 * (variances + noise))
    # sigma / sqrt(v + sigma^2) in one logarithm: two of them would cancel.
    scores = -apart - jnp.log1p(variances / noise) / 2
    top, rest, _ = log_mass(scores, jnp.broadcast_to(weights, apart.shape))
    constant = jax.lax.stop_gradient(2 * noise)
    return (constant * (squared / (2 * noise)) + constant * (top + rest)).mean()


def expert(
    expert_values: Array,
    target: Array,
    group: Array,
    weight: Array | None = None,
    *,
    reduction: str = "mean",
) -> Array:
    """Squared error of the expert of the true group (Group-DIR Eq 3).

        mean over i of weight_i (expert_values[i, group_i] - target_i)^2

    Only that expert learns from the sample. `inference.experts` takes the predicted group. The
    reduction is "mean" or, as in the equation, "sum", whose step size grows with B.
    """
    loss = mse(own_scores(expert_values, group), target, weight)
    return loss * choose("reduction", reduction, {"mean": 1, "sum": target.size})


def _error(value: Array, target: Array) -> Array:
    # [B, 1] against [B] would broadcast to [B, B] and train on nonsense.
    if value.shape != target.shape:
        raise ValueError(f"value has shape {value.shape} and target {target.shape}; expected equal")
    return jnp.asarray(value, jnp.float32) - jnp.asarray(target, jnp.float32)


def _magnitude(error: Array) -> Array:
    return jnp.sign(error) * error  # the gradient of jnp.abs is 1 at 0


def _mean(loss: Array, weight: Array | None) -> Array:
    if weight is None:
        return loss.mean()
    if weight.shape != loss.shape:
        raise ValueError(f"weight has shape {weight.shape}; expected {loss.shape}, one a sample")
    return (jnp.asarray(weight, jnp.float32) * loss).mean()
