"""Losses between embeddings against loops in float64 written from their equations, and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxord.losses import cloc, conord, rnc, supcon
from tests.losses.contrastive_loops import (
    INPUTS,
    LOOPS,
    MARGINS,
    TABLE,
    TARGETS,
    D,
    agree,
    compiled,
    compute,
    features,
    labels_of,
    oracle,
    quick,
    slope,
)

CASES = [
    {"name": "supcon"},
    {"name": "supcon", "positives": "view", "temperature": 0.5},
    {"name": "rnc"},
    {"name": "rnc", "similarity": "cosine", "temperature": 0.1},
    {"name": "group_contrastive"},
    {"name": "conord"},
    {"name": "conord", "temperature": 0.5, "epsilon": 1e-3, "anchor_norm": True},
    {"name": "expected_error"},
    {"name": "expected_error", "temperature": 0.5, "anchor_norm": True},
    {"name": "cloc"},
    {"name": "cloc", "reduction": "mean"},
]
each_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "-".join(map(str, case.values()))
)


# Against the loops.


@each_case
def test_value_and_gradient_agree_with_the_loop_in_float64(case):
    for (x, labels), value, gradient in zip(INPUTS, *compute(case, INPUTS), strict=True):
        agree(value, gradient, *oracle(case, x, labels))


@each_case
def test_the_order_of_the_batch_does_not_matter(case):
    order = np.array([4, 2, 6, 0, 5, 1, 3])
    permuted = [
        (x[order], {name: label[order] for name, label in labels.items()}) for x, labels in INPUTS
    ]
    values, gradients = compute(case, INPUTS)
    permuted_values, permuted_gradients = compute(case, permuted)
    np.testing.assert_allclose(values, permuted_values, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(gradients[:, order], permuted_gradients, atol=1e-5)


SHARP = [
    {"name": "supcon", "temperature": 7e-6},
    {"name": "rnc"},
    {"name": "rnc", "similarity": "cosine", "temperature": 1e-5},
    {"name": "conord", "temperature": 7e-6},
    {"name": "expected_error", "temperature": 7e-6},
]


@pytest.mark.parametrize("case", SHARP, ids=lambda case: "-".join(map(str, case.values())))
def test_scores_times_10_000(case):
    scaled = [(x * np.float32(1e4), labels) for x, labels in INPUTS]
    for (x, labels), value, gradient in zip(scaled, *compute(case, scaled), strict=True):
        expected, expected_gradient = oracle(case, x, labels)
        # A cosine known to 1e-7 over a temperature of 1e-5 is a score known to 1e-2.
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-2)
        if case == {"name": "rnc"}:
            agree(value, gradient, expected, expected_gradient)


@pytest.mark.parametrize("name", LOOPS)
def test_one_sample_has_no_loss_and_no_gradient(name):
    arrays = {key: label[:1] for key, label in labels_of([4]).items()}
    value, gradient = compiled((("name", name),), False)(jnp.ones((1, D)), arrays)
    assert value == 0 and not gradient.any()


# By hand.


def test_supcon_by_hand():
    # Samples 0, 1 at a right angle share a rank; 2 is opposite to 1. Scores at temperature 1: 0, 0
    # and -1.
    x, rank = jnp.array([[2.0, 0.0], [0.0, 1.0], [0.0, -3.0]]), jnp.array([1, 1, 0])
    assert quick(supcon, x, rank, temperature=1.0) == pytest.approx(
        (np.log(2) + np.log(1 + np.exp(-1)) + 0) / 3
    )


def test_rnc_by_hand():
    # On a line, at temperature 1: features 0, 1, 3 with labels 0, 1, 1. From sample 0 both others
    # are as far in label; from 1 and 2 the twin in label has everyone as candidate, sample 0 only
    # itself.
    found = quick(
        rnc, jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0.0, 1.0, 1.0]), temperature=1.0
    )
    both = np.log(np.exp(-1) + np.exp(-3))
    expected = (
        (both + 1)
        + (both + 3)
        + (np.log(np.exp(-2) + np.exp(-1)) + 2)
        + (np.log(np.exp(-2) + np.exp(-3)) + 2)
    )
    assert found == pytest.approx(expected / 6)


def test_cloc_by_hand():
    # Anchors 0 and 1 are a positive pair at cosine 0; negative 2 has cosines 1 and 0; margin 0.5.
    # Anchor 2 has none.
    x, rank = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([0, 0, 1])
    assert quick(cloc, x, rank, jnp.array([0.5])) == pytest.approx((1.5 + 0.5) / 3)
    np.testing.assert_allclose(
        slope(lambda margins: cloc(x, rank, margins), jnp.array([0.5, 7.0])), [2 / 3, 0]
    )


def test_a_margin_of_zero_has_the_slope_of_a_growing_margin():
    x = jnp.asarray(features())
    rank = jnp.array([0, 0, 1, 1, 0, 1, 0])
    assert slope(lambda margins: cloc(x, rank, margins), jnp.array([0.0]))[0] > 0


# What users can cause.


REFUSED = [
    (
        supcon,
        "rank",
        {"positives": "class"},
        r"positives is 'class'; expected one of \['rank', 'view'\]",
    ),
    (supcon, "rank", {"positives": "view"}, "needs the array 'index'"),
    (
        rnc,
        "target",
        {"similarity": "L2"},
        r"similarity is 'L2'; expected one of \['cosine', 'l2'\]",
    ),
    (conord, "target", {"weights": "XIV"}, "weights is 'XIV'; expected one of"),
    (conord, "target", {"weights": "X"}, "weights is 'X' and the table pair_weights is missing"),
]


@pytest.mark.parametrize("loss, label, settings, message", REFUSED, ids=lambda case: str(case)[:20])
def test_what_does_not_fit_is_refused(loss, label, settings, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            functools.partial(loss, **settings), features(), labels_of(TARGETS["some equal"])[label]
        )


def test_arrays_that_do_not_fit_are_refused():
    x, labels = features(), labels_of(TARGETS["some equal"])
    with pytest.raises(ValueError, match=r"target has shape \(7, 2\)"):
        jax.eval_shape(rnc, x, np.zeros((7, 2)))
    with pytest.raises(ValueError, match="weights is 'VIII' and the table pair_weights was given"):
        jax.eval_shape(conord, x, labels["target"], TABLE)
    with pytest.raises(
        ValueError, match=r"reduction is 'sum'; expected one of \['mean', 'program'\]"
    ):
        jax.eval_shape(functools.partial(cloc, reduction="sum"), x, labels["rank"], MARGINS)
