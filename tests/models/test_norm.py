"""Layer normalisation against its equation in float64; gradients are complex-step derivatives of
that equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxord.models.norm import layer_norm

EPSILON = 1e-5


def loss(x, scale, bias, weights):
    """The equation, row by row; analytic, so that complex steps differentiate it to machine
    precision."""
    total = 0
    for row, weight in zip(
        x.reshape(-1, x.shape[-1]), weights.reshape(-1, x.shape[-1]), strict=True
    ):
        mean = sum(row) / len(row)
        variance = sum((value - mean) ** 2 for value in row) / len(row)
        total = total + np.sum(weight * (scale * (row - mean) / np.sqrt(variance + EPSILON) + bias))
    return total


def derivative(arrays, which, step=1e-30):
    out = np.zeros_like(arrays[which])
    for at in np.ndindex(out.shape):
        moved = [array.astype(np.complex128) for array in arrays]
        moved[which][at] += 1j * step
        out[at] = loss(*moved).imag / step
    return out


@pytest.mark.parametrize("shift, spread", [(0.0, 1.0), (50.0, 1.0), (0.0, 0.0), (0.0, 1e3)])
def test_value_and_gradients_are_those_of_the_equation(shift, spread):
    rng = np.random.default_rng(0)
    x, weights = shift + spread * rng.normal(size=(2, 3, 8)), rng.normal(size=(2, 3, 8))
    x, weights = (
        x.astype(np.float32).astype(np.float64),
        weights.astype(np.float32).astype(np.float64),
    )
    arrays = x, rng.normal(size=8).round(2), rng.normal(size=8).round(2), weights

    def ours(x, scale, bias):
        return (
            jnp.asarray(weights, jnp.float32) * layer_norm(x, scale, bias, EPSILON, jnp.float32)
        ).sum()

    value, found = jax.value_and_grad(ours, (0, 1, 2))(
        *(jnp.asarray(array, jnp.float32) for array in arrays[:3])
    )
    np.testing.assert_allclose(value, loss(*arrays), rtol=1e-5, atol=1e-5)
    for which, got in enumerate(found):
        expected = derivative(arrays, which)
        assert np.abs(got - expected).max() <= 2e-5 * max(np.abs(expected).max(), 1e-3), which


def test_half_precision_goes_in_and_out_and_the_arithmetic_is_float32():
    x = (300 + jax.random.normal(jax.random.key(2), (4, 24))).astype(
        jnp.bfloat16
    )  # bfloat16 alone cannot centre this
    found, back = jax.vjp(
        lambda x: layer_norm(x, jnp.ones(24), jnp.zeros(24), EPSILON, jnp.bfloat16), x
    )
    assert found.dtype == jnp.bfloat16 and back(found)[0].dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + EPSILON)
    np.testing.assert_allclose(
        np.asarray(found, np.float64), exact, atol=0.01
    )  # measured 0.003, the result's rounding
