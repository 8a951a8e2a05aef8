"""Losses of predicted values against loops in float64.

B batch, G groups, M components.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxord.losses import balanced_mse, balanced_mse_gai, expert, focal_l1, huber, l1, mse
from tests.oracle import FAST, check, complex_step, compute, draw, log_sum_exp, magnitude

B, G = 6, 4
GROUP = [2, 0, 2, 3, 0, 0]
TARGET = np.array([2.5, -1.0, 2.5, 7.0, 0.25, 3.0], np.float32)


VALUE = np.array([1.0, 4.0, 2.0, -3.0, 7.25], np.float32)
LABEL = np.array([1.0, 2.0, 2.5, 5.0, 7.0], np.float32)  # errors 0, 2, -0.5, -8, 0.25
WEIGHT = np.array([1.0, 0.5, 2.0, 0.0, 4.0], np.float32)


def piece(e, beta):
    e = magnitude(e)
    return e * e / (2 * beta) if e.real < beta else e - beta / 2


REGRESSIONS = {
    "l1": (l1, magnitude),
    "mse": (mse, lambda e: e * e),
    "huber": (huber, lambda e: piece(e, 1.0)),
    "huber 0.3": (functools.partial(huber, beta=0.3), lambda e: piece(e, 0.3)),
}


def test_regression_losses_by_hand():
    assert l1(VALUE, LABEL) == pytest.approx((0 + 2 + 0.5 + 8 + 0.25) / 5)
    assert l1(VALUE, LABEL, WEIGHT) == pytest.approx(
        (0 + 1 + 1 + 0 + 1) / 5
    )  # divided by B, not by the weights' sum
    assert mse(VALUE, LABEL) == pytest.approx((0 + 4 + 0.25 + 64 + 0.0625) / 5)
    assert huber(VALUE, LABEL) == pytest.approx((0 + 1.5 + 0.125 + 7.5 + 0.03125) / 5)
    assert huber(VALUE, LABEL, beta=0.25) == pytest.approx((0 + 1.875 + 0.375 + 7.875 + 0.125) / 5)


@pytest.mark.parametrize("name", REGRESSIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_regression_losses_agree_with_the_loop_in_float64(name, weighted):
    loss, of_error = REGRESSIONS[name]
    differentiated = jax.jit(jax.value_and_grad(loss))
    rng = np.random.default_rng(4)
    for scale in (1, 100, 10_000):
        value, target = (scale * rng.normal(size=(2, 9))).astype(np.float32)
        weight = rng.uniform(size=9).astype(np.float32)
        # The error is exact to half a unit of the larger of value and target: drawn apart, so 1e-5
        # relative holds.
        found, gradient = (
            differentiated(value, target, weight) if weighted else differentiated(value, target)
        )

        def loop(x, target=target, weight=weight):
            terms = [of_error(a - float(b)) for a, b in zip(x, target, strict=True)]
            return sum(
                t * (float(w) if weighted else 1.0) for t, w in zip(terms, weight, strict=True)
            ) / len(terms)

        expected, expected_gradient = complex_step(loop, value)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5)


def test_exact_hits_have_no_gradient():
    for loss, _ in REGRESSIONS.values():
        assert not np.asarray(jax.grad(loss)(jnp.asarray(LABEL), jnp.asarray(LABEL))).any()


def test_regression_losses_refuse_what_would_broadcast():
    for loss in (l1, mse, huber):
        with pytest.raises(ValueError, match=r"value has shape \(5, 1\) and target \(5,\)"):
            loss(VALUE[:, None], LABEL)
        with pytest.raises(ValueError, match=r"weight has shape \(1,\); expected \(5,\)"):
            loss(VALUE, LABEL, WEIGHT[:1])
    with pytest.raises(ValueError, match="beta is 0"):
        huber(VALUE, LABEL, beta=0)


def loop_focal(x, weight=(1,) * B, beta=0.2, gamma=1.0, power=1):
    total = 0
    for a, b, w in zip(x, TARGET, weight, strict=True):
        e = magnitude(a - float(b))
        total = (
            total
            + (
                float(w) * e**power * (2 / (1 + np.exp(-beta * e)) - 1) ** gamma
                if e.real > 0
                else 0
            )
            / B
        )
    return total


def loop_balanced(x, target=TARGET):
    """x: the values and, last, sigma; the leading 2 sigma^2 is held constant."""
    spread, target = 2 * x[-1] ** 2, target.astype(np.float64)
    rows = [[-((p - t) ** 2) / spread for t in target] for p in x[:-1]]
    return spread.real / len(rows) * sum(log_sum_exp(row) - row[i] for i, row in enumerate(rows))


@pytest.mark.parametrize("scale", [1, 10_000])
def test_focal_l1_agrees_with_the_loop(scale):
    x = np.float32(scale) * draw(B)
    x[3] = TARGET[3]  # an exact hit
    weight = np.linspace(0, 2, B).astype(np.float32)
    for settings in ({}, {"beta": 1.0, "gamma": 0.5}, {"gamma": 2.0, "power": 2}):
        check(
            lambda x, settings=settings: loop_focal(x, weight, **settings),
            x,
            "focal_l1",
            TARGET,
            weight,
            **settings,
        )


@pytest.mark.parametrize("scale, sigma", [(1, 0.7), (1, 30.0), (10_000, 1.0)])
def test_balanced_mse_agrees_with_the_loop(scale, sigma):
    target = np.float32(scale) * TARGET
    x = np.append(np.float32(scale) * draw(B), np.float32(sigma))
    differentiated = jax.jit(jax.value_and_grad(balanced_mse, (0, 2)), compiler_options=FAST)
    value, gradient = differentiated(jnp.asarray(x[:-1]), target, x[-1])
    expected, expected_gradient = complex_step(lambda x: loop_balanced(x, target), x)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(
        np.append(*gradient), expected_gradient, rtol=2e-5, atol=1e-6 * scale
    )


def test_balanced_mse_of_one_sample_is_zero():
    value, gradient = compute("balanced_mse", np.array([3.0]), np.array([5.0]), 2.0)
    assert value == 0 and not gradient.any()


def test_losses_of_values_refuse_what_would_broadcast():
    for loss in (focal_l1, functools.partial(balanced_mse, noise_scale=1.0)):
        with pytest.raises(ValueError, match=r"value has shape \(6, 1\) and target \(6,\)"):
            loss(draw(B, 1), TARGET)


def test_only_the_expert_of_the_true_group_is_held_to_the_target():
    x, weight = 3 * draw(B, G), np.linspace(0, 2, B).astype(np.float32)

    def loop(x, weight):
        return sum(
            float(w) * (x[i, GROUP[i]] - float(TARGET[i])) ** 2 for i, w in enumerate(weight)
        )

    check(lambda x: loop(x, [1] * B) / B, x, "expert", TARGET, np.array(GROUP))
    check(lambda x: loop(x, [1] * B), x, "expert", TARGET, np.array(GROUP), reduction="sum")
    check(lambda x: loop(x, weight) / B, x, "expert", TARGET, np.array(GROUP), weight)
    with pytest.raises(ValueError, match=r"reduction is 'max'; expected one of \['mean', 'sum'\]"):
        jax.eval_shape(functools.partial(expert, reduction="max"), x, TARGET, np.array(GROUP))


# A mixture.

WEIGHTS = np.array([0.5, 0.3, 0.2, 0.0], np.float32)
MEANS = np.array([0.0, 3.0, 8.0, 100.0], np.float32)
VARIANCES = np.array([1.0, 0.25, 4.0, 1.0], np.float32)
DIFFERENTIATED = jax.jit(jax.value_and_grad(balanced_mse_gai, (0, 2)))


def loop_gai(x, target, weights, means, variances):
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


def check_gai(value, sigma, scale=1.0, rtol=1e-5):
    arrays = [
        np.float32(scale) * TARGET,
        WEIGHTS,
        np.float32(scale) * MEANS,
        np.float32(scale) ** 2 * VARIANCES,
    ]
    x = np.append(np.float32(scale) * value.astype(np.float32), np.float32(sigma))
    found, gradient = DIFFERENTIATED(x[:-1], arrays[0], x[-1], *arrays[1:])
    expected, expected_gradient = complex_step(
        lambda x: loop_gai(x, *(a.astype(np.float64) for a in arrays)), x
    )
    assert found.dtype == jnp.float32 and float(found) == pytest.approx(expected, rel=rtol)
    gradient = np.append(*gradient)
    np.testing.assert_allclose(
        gradient, expected_gradient, rtol=rtol, atol=1e-6 * abs(expected_gradient).max()
    )


@pytest.mark.parametrize("sigma", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_gai_agrees_with_the_loop(sigma, scale):
    check_gai(np.random.default_rng(0).normal(3, 4, 6), sigma, scale)


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
