"""Loops in float64, their derivatives, and the comparison of a loss with its loop.

Loops take complex arrays: a derivative is imag(loss(x + ih)) / h with h = 1e-30.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxord.losses

FAST = {"xla_backend_optimization_level": 0}  # tests wait for the compiler, not for the code


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def complex_step(loop, x):
    """Value and gradient of a real function of the array `x`, in float64: exact to its last
    digits."""
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = x.astype(np.complex128)
        moved[index] += 1e-30j
        gradient[index] = np.imag(loop(moved)) / 1e-30
    return float(np.real(loop(x.astype(np.complex128)))), gradient


def log_sum_exp(scores):
    """Of a non-empty list; imaginary parts as small as 1e-26 survive, since nothing real is added
    to them."""
    top = max(s.real for s in scores)
    return top + np.log(sum(np.exp(s - top) for s in scores))


def magnitude(x):
    """|x|; at 0 with derivative 1."""
    return x if x.real >= 0 else -x


def norm(x):
    """Euclidean length; of zeros 0 with derivative 0."""
    squared = np.sum(x * x)
    return np.sqrt(squared) if squared.real > 0 else 0.0


def units(x):
    return np.array([row / norm(row) for row in x])


@functools.cache
def compiled(name, *settings):
    """Value and gradient along the first array."""
    loss = functools.partial(getattr(jaxord.losses, name), **dict(settings))
    return jax.jit(jax.value_and_grad(loss), compiler_options=FAST)


def compute(name, *arrays, **settings):
    value, gradient = compiled(name, *settings.items())(*map(jnp.asarray, arrays))
    assert value.dtype == jnp.float32 and value.shape == ()
    assert np.isfinite(value) and np.isfinite(gradient).all()
    return float(value), np.asarray(gradient)


def check(loop, x, name, *arrays, rtol=1e-5, atol=2e-7, **settings):
    """Value and gradient along `x` against the loop's; `atol` is relative to the gradient's largest
    entry."""
    value, gradient = compute(name, x, *arrays, **settings)
    expected, expected_gradient = complex_step(loop, x)
    assert value == pytest.approx(expected, rel=rtol, abs=1e-11)
    largest = max(abs(expected_gradient).max(), 1e-30)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=rtol, atol=atol * largest)
