import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxord.inference
from jaxord import binding

VALUES = np.array([6.0, 15.5, 26.5, 49.5, 82.5], np.float32)


def test_expectation_by_hand():
    logits = jnp.log(jnp.array([[1.0, 2.0, 1.0], [1.0, 1.0, 6.0]]))
    found = jaxord.inference.expectation(logits, jnp.array([0.0, 10.0, 40.0]))
    np.testing.assert_allclose(found, [15.0, 31.25], rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 100.0, 10_000.0])
def test_expectation_against_float64(scale):
    logits = (scale * np.random.default_rng(0).normal(size=(7, 5))).astype(np.float32)
    power = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    oracle = [sum(p * v for p, v in zip(row, VALUES, strict=True)) / sum(row) for row in power]
    found = jaxord.inference.expectation(jnp.asarray(logits), jnp.asarray(VALUES))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, oracle, rtol=1e-6)


def test_expectation_of_ties_is_the_mean_value():
    found = jaxord.inference.expectation(jnp.full((2, 5), 3e5), jnp.asarray(VALUES))
    np.testing.assert_allclose(found, [36.0, 36.0], rtol=1e-6)


def test_expectation_takes_bfloat16_logits_in_float32():
    logits = jnp.array([[0.0, 1.0]], jnp.bfloat16)
    found = jaxord.inference.expectation(logits, jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-1.0))], rtol=1e-6)


def test_expectation_has_a_finite_gradient_at_extreme_logits():
    logits = jnp.array([[3e5, -3e5, 0.0, 3e5, 1.0]])
    gradient = jax.grad(lambda x: jaxord.inference.expectation(x, jnp.asarray(VALUES)).sum())(logits)
    np.testing.assert_allclose(gradient, [[0.25 * (6 - 49.5), 0, 0, 0.25 * (49.5 - 6), 0]], rtol=1e-6)


def test_argmax_gives_the_value_of_the_first_largest():
    logits = jnp.array([[0.0, 2.0, 1.0, 0.0, -1.0], [3.0, 3.0, 3.0, 3.0, 3.0], [-9.0, -8.0, -7.0, -6.0, -5.0]])
    found = jaxord.inference.argmax(logits, jnp.asarray(VALUES))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [15.5, 6.0, 82.5])


def test_value_is_passed_on_in_float32():
    found = jaxord.inference.value(jnp.array([1.5, -2.0], jnp.bfloat16))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [1.5, -2.0])


def test_rules_are_found_and_called_by_the_names_of_their_arrays():
    arrays = {"logits": jnp.eye(5), "rank_values": jnp.asarray(VALUES), "value": jnp.arange(5.0), "image_embeds": None}
    expected = {"argmax": VALUES, "value": np.arange(5.0)}
    for name, answer in expected.items():
        rule = binding.lookup(jaxord.inference, name)
        np.testing.assert_array_equal(binding.bind(rule, arrays), answer)
    assert binding.needs(jaxord.inference.expectation) == (["logits", "rank_values"], [])
