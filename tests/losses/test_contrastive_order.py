"""ConOrd's tables of weights and its reference points, against loops in float64 and by hand.

B batch, D embedding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxord.losses import center, conord
from tests.losses.contrastive_loops import (
    INPUTS,
    LOOPS,
    TABLE,
    TARGETS,
    agree,
    compiled,
    features,
    loop_conord,
    oracle,
    quick,
    slope,
    stacked,
)
from tests.oracle import FAST, complex_step, compute, draw, norm, units

B, D = 6, 3


def test_all_rows_of_the_tables_of_conord_agree_with_the_loop():
    rows = "I II III IV V VI VII IX X XI XII XIII".split()  # test_contrastive has VIII, the default

    def of(x, target):
        return {
            row: jax.value_and_grad(conord)(x, target, *[TABLE] * (row == "X"), weights=row)
            for row in rows
        }

    some = INPUTS[::2]
    x, arrays = stacked(some)
    found = jax.jit(jax.vmap(of), compiler_options=FAST)(x, arrays["target"])
    for row in rows:
        for (x, labels), *answer in zip(some, *map(np.asarray, found[row]), strict=True):
            agree(*answer, *oracle({"name": "conord", "weights": row}, x, labels))


@pytest.mark.parametrize("name", ["conord", "expected_error"])
def test_two_angles_are_compared_by_the_sum_of_their_differences(name):
    x = features()
    target = np.round(np.random.default_rng(1).normal(size=(7, 2)), 1).astype(np.float32)
    value, gradient = compiled((("name", name),), False)(
        jnp.asarray(x), {"target": jnp.asarray(target)}
    )
    agree(
        value,
        gradient,
        *complex_step(lambda moved: LOOPS[name][0](moved, target.astype(np.float64).tolist()), x),
    )


def test_the_table_of_conord_x_learns():
    x, target = features(), TARGETS["some equal"]
    gradient = slope(lambda table: conord(x, jnp.asarray(target), table, weights="X"), TABLE)
    x64 = x.astype(np.float64)
    _, expected = complex_step(
        lambda table: loop_conord(x64, target, weights="X", table=table), TABLE
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_conord_by_hand():
    # An angle of 60 degrees between labels 0 and 2, 180 between 0 and 5, 120 between 2 and 5; kappa
    # -1, -4, -3.
    x = jnp.array([[1.0, 0.0], [0.5, np.sqrt(0.75)], [-1.0, 0.0]])
    terms = [
        (np.exp(-1) / 4 + np.exp(-4) / 25) / (4 * np.exp(-1) + 25 * np.exp(-4)),
        (np.exp(-1) / 4 + np.exp(-3) / 9) / (4 * np.exp(-1) + 9 * np.exp(-3)),
        (np.exp(-4) / 25 + np.exp(-3) / 9) / (25 * np.exp(-4) + 9 * np.exp(-3)),
    ]
    found = quick(conord, x, jnp.array([0.0, 2.0, 5.0]), temperature=1.0)
    assert found == pytest.approx(-np.mean(np.log(terms)), rel=1e-6)
    literal = quick(conord, x, jnp.array([0.0, 2.0, 5.0]), temperature=1.0, anchor_norm=True)
    assert literal == pytest.approx(-np.mean(np.log(terms)) / 2, rel=1e-6)


def test_on_the_sphere_squared_distance_is_cosine_at_half_the_temperature():
    x, target = jnp.asarray(features()), jnp.asarray(TARGETS["some equal"])
    for by_distance, by_cosine in [("V", "I"), ("VIII", "IV")]:
        expected = quick(conord, x, target, weights=by_cosine, temperature=0.25)
        assert quick(conord, x, target, weights=by_distance, temperature=0.5) == pytest.approx(
            expected, rel=1e-6
        )


# Reference points.


def loop_center(both, reference, points=4):
    z, mu = units(both[:-points]), both[-points:]
    total = 0
    for row, at in zip(z, reference, strict=True):
        low = min(int(np.floor(at)), points - 2)
        total = total + norm(row - ((1 - (at - low)) * mu[low] + (at - low) * mu[low + 1]))
    return total


@pytest.mark.parametrize(
    "reference",
    [np.array([3, 0, 1, 3, 2, 2]), np.array([0.25, 3, 1.5, 2.875, 0, 2], np.float32)],
    ids=["index", "fraction"],
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_center_agrees_with_the_loop(reference, reduction):
    differentiated = jax.jit(
        jax.value_and_grad(functools.partial(center, reduction=reduction), (0, 1))
    )
    images, points = 5 * draw(B, D), draw(4, D, seed=1)
    points[3] = images[0] / np.linalg.norm(images[0].astype(np.float64))
    for scale in (1, np.float32(1e4)):
        value, gradient = differentiated(scale * images, points, jnp.asarray(reference))
        divisor = B if reduction == "mean" else 1
        both = np.concatenate([scale * images, points])
        expected, expected_gradient = complex_step(
            lambda x, d=divisor: loop_center(x, reference.tolist()) / d, both
        )
        assert float(value) == pytest.approx(expected, rel=1e-6)
        # All but image 0, which lies on its point up to rounding: the slope has no direction.
        keep = np.r_[1:B, B : B + 3]
        np.testing.assert_allclose(
            np.concatenate(gradient)[keep], expected_gradient[keep], rtol=1e-5, atol=1e-7
        )


def test_center_by_hand():
    points = jnp.array([[0.0, 1.0], [2.0, 0.0]])
    images = jnp.array([[0.0, 7.0], [3.0, 0.0]])
    value, gradient = compute("center", images, points, np.array([0, 1]))
    assert value == 0.5  # on its point, and one away
    np.testing.assert_allclose(
        gradient, 0, atol=1e-7
    )  # at the point, and straight towards it: nothing to turn
    assert compute("center", images, points, np.array([0.5, 1.0]))[0] == pytest.approx(
        (np.sqrt(1.25) + 1) / 2
    )
    assert compute("center", images, points[:1], np.array([0.0, 0.0]))[0] == pytest.approx(
        np.sqrt(2) / 2
    )  # one point
    with pytest.raises(
        ValueError, match=r"reduction is 'total'; expected one of \['mean', 'sum'\]"
    ):
        jax.eval_shape(
            functools.partial(center, reduction="total"), images, points, np.array([0, 1])
        )
