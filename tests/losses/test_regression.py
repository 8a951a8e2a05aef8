"""Balanced MSE by a mixture, against a loop in float64. B batch, M components."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxord.losses import balanced_mse_gai
from tests.oracle import complex_step, log_sum_exp

TARGET = np.array([2.5, -1.0, 2.5, 7.0, 0.25, 3.0], np.float32)
WEIGHTS = np.array([0.5, 0.3, 0.2, 0.0], np.float32)
MEANS = np.array([0.0, 3.0, 8.0, 100.0], np.float32)
VARIANCES = np.array([1.0, 0.25, 4.0, 1.0], np.float32)
DIFFERENTIATED = jax.jit(jax.value_and_grad(balanced_mse_gai, (0, 2)))


def loop(x, target, weights, means, variances):
    """x: the values and, last, sigma; the leading 2 sigma^2 is held constant."""
    noise, total = x[-1] ** 2, 0
    for p, t in zip(x[:-1], target, strict=True):
        parts = [
            np.log(w) - np.log(v + noise) / 2 - (p - m) ** 2 / (2 * (v + noise))
            for w, m, v in zip(weights, means, variances, strict=True)
            if w > 0
        ]
        total = total + (p - t) ** 2 / (2 * noise) + np.log(noise) / 2 + log_sum_exp(parts)
    return 2 * noise.real * total / len(target)


def check(value, sigma, scale=1.0, rtol=1e-5):
    arrays = [
        np.float32(scale) * TARGET,
        WEIGHTS,
        np.float32(scale) * MEANS,
        np.float32(scale) ** 2 * VARIANCES,
    ]
    x = np.append(np.float32(scale) * value.astype(np.float32), np.float32(sigma))
    found, gradient = DIFFERENTIATED(x[:-1], arrays[0], x[-1], *arrays[1:])
    expected, expected_gradient = complex_step(
        lambda x: loop(x, *(a.astype(np.float64) for a in arrays)), x
    )
    assert found.dtype == jnp.float32 and float(found) == pytest.approx(expected, rel=rtol)
    gradient = np.append(*gradient)
    np.testing.assert_allclose(
        gradient, expected_gradient, rtol=rtol, atol=1e-6 * abs(expected_gradient).max()
    )


@pytest.mark.parametrize("sigma", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_gai_agrees_with_the_loop(sigma, scale):
    check(np.random.default_rng(0).normal(3, 4, 6), sigma, scale)


def test_gai_of_one_component_by_hand():
    # Labels N(0, 3), sigma 1: 2 [ (p - t)^2 / 2 - p^2 / 8 + log(1 / 2) ].
    found, _ = DIFFERENTIATED(
        jnp.array([4.0]), jnp.array([1.0]), 1.0, jnp.ones(1), jnp.zeros(1), jnp.full(1, 3.0)
    )
    assert float(found) == pytest.approx(2 * (4.5 - 2 - np.log(2)))


def test_gai_is_finite_for_extreme_values():
    for value, sigma, variance in (
        (1e6, 1e-3, 0.0),
        (-1e6, 1e4, 1.0),
        (1e4, 1e-6, 1e4),
        (0.0, 1e-6, 0.0),
    ):
        arrays = (
            jnp.full(6, value),
            TARGET,
            jnp.float32(sigma),
            WEIGHTS,
            MEANS,
            jnp.full(4, variance),
        )
        found, gradient = DIFFERENTIATED(*arrays)
        assert np.isfinite(found) and all(np.isfinite(g).all() for g in gradient), (
            value,
            sigma,
            variance,
        )
    with pytest.raises(ValueError, match=r"value has shape \(6, 1\) and target \(6,\)"):
        balanced_mse_gai(jnp.zeros((6, 1)), TARGET, 1.0, WEIGHTS, MEANS, VARIANCES)
