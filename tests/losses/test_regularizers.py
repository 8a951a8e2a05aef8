"""Regularizers of features against loops in float64. B batch, D embedding."""

import numpy as np
import pytest

from tests.oracle import check, complex_step, compute, draw, norm, units

B, D = 6, 3
TARGET = np.array([2.5, -1.0, 2.5, 7.0, 0.25, 3.0], np.float32)


def ranks_of(row):
    return np.array([(1 + sum(other > own for other in row)) / len(row) for own in row])


def loop_ranksim(x, target, interpolation):
    """Value, and the gradient by the blackbox rule: that of the linear function whose slopes the
    rule gives."""
    kept = [i for i, y in enumerate(target) if y not in target[:i]]

    def cosines(x):
        z = units(x[kept])
        return z @ z.T

    cosine, value, slopes = cosines(x.astype(np.float64)), 0, []
    for i, row in enumerate(cosine):
        wanted = ranks_of([-abs(target[kept[i]] - target[j]) for j in kept])
        gradient = 2 * (ranks_of(row) - wanted) / len(kept)
        value += np.mean((ranks_of(row) - wanted) ** 2)
        slopes.append(
            (ranks_of(row + interpolation * gradient) - ranks_of(row)) / (interpolation + 1e-8)
        )
    return value, complex_step(lambda x: np.sum(np.array(slopes) * cosines(x)), x)[1]


@pytest.mark.parametrize("interpolation", [2.0, 0.3])
def test_ranksim_agrees_with_the_loop(interpolation):
    for seed, target in enumerate(
        [[3, 0, 3, 4, 1, 0, 9, 2], [0.5, 8, 2, 3.25, 90, 41, 1, 7], [2] * 8]
    ):
        x = draw(8, D, seed=seed)
        value, gradient = compute(
            "ranksim", x, np.array(target, np.float32), interpolation=interpolation
        )
        expected, expected_gradient = loop_ranksim(x, target, interpolation)
        assert value == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_ranksim_is_zero_where_features_are_in_order_and_pulls_them_there():
    angle, target = np.array([0.0, 0.1, 0.3, 0.7, 1.5]), np.array([0, 1, 3, 7, 15], np.float32)
    on_an_arc = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    value, gradient = compute("ranksim", on_an_arc, target)
    assert value == 0 and np.abs(gradient).max() < 1e-7  # rounding of the unit features: up to 3e-8
    x = on_an_arc[[0, 2, 1, 3, 4]]
    first = compute("ranksim", x, target)[0]
    for _ in range(200):
        x = x - 0.02 * compute("ranksim", x, target)[1]
    assert first > 0 and compute("ranksim", x, target)[0] < first / 2


def loop_ordinal_entropy(x, target):
    labels = sorted(set(target))
    centre = {
        y: np.mean(x[[i for i, other in enumerate(target) if other == y]], axis=0) for y in labels
    }
    centre = {y: c / norm(c) for y, c in centre.items()}
    pairs = [(a, b) for a in labels for b in labels if a < b]
    gaps = [b - a for a, b in pairs]
    spread = sum(
        (b - a - min(gaps)) / max(gaps) * norm(centre[a] - centre[b]) for a, b in pairs
    ) / max(len(pairs), 1)
    shared = [i for i, y in enumerate(target) if target.count(y) > 1]
    return -spread + sum(norm(x[i] / norm(x[i]) - centre[target[i]]) for i in shared) / max(
        len(shared), 1
    )


@pytest.mark.parametrize("scale", [1, 10_000])
def test_ordinal_entropy_agrees_with_the_loop(scale):
    for seed, target in enumerate(
        [[3, 0, 3, 4, 0, 3], [0.5, 8, 2, 3.25, 90, 41], [2] * 6, [1, 1, 5, 5, 5, 1]]
    ):
        x = np.float32(scale) * draw(6, D, seed=seed)
        labels = [float(y) for y in target]
        check(
            lambda x, y=labels: loop_ordinal_entropy(x, y),
            x,
            "ordinal_entropy",
            np.array(target, np.float32),
            atol=2e-6,
        )


@pytest.mark.parametrize("name", ["ranksim", "ordinal_entropy"])
def test_regularisers_of_few_samples_and_in_any_order(name):
    value, gradient = compute(name, draw(1, D), np.array([4.0], np.float32))
    assert value == 0 and not gradient.any()
    compute(name, np.ones((B, D)), TARGET)  # finite where all features are equal
    # Of equal labels ranksim takes the first, so the twins have equal features here.
    x, order = draw(B, D), [3, 2, 5, 0, 4, 1]
    x[2] = x[0]
    value, gradient = compute(name, x, TARGET)
    permuted, permuted_gradient = compute(name, x[order], TARGET[order])
    assert permuted == pytest.approx(value, rel=1e-6)
    if name == "ordinal_entropy":
        np.testing.assert_allclose(permuted_gradient, gradient[order], atol=1e-6)
