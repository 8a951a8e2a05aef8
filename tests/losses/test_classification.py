"""Losses on logits of groups and thresholds against loops in float64.

B batch, G groups.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import check, compute, draw, log_sum_exp

B, G = 6, 4
GROUP = [2, 0, 2, 3, 0, 0]
PRIOR = np.array([0.5, 0.0, 0.3, 0.2], np.float32)  # no training sample has group 1


# Groups.


def loop_soft_label(x, group, beta=1.0):
    total = 0
    for s, g in zip(x, group, strict=True):
        target = [np.exp(-beta * abs(k - g)) for k in range(len(s))]
        total = total - sum(
            t / sum(target) * (s[k] - log_sum_exp(list(s))) for k, t in enumerate(target)
        )
    return total / len(x)


def loop_logit_adjusted(x, group, prior=PRIOR, tau=1.0):
    total = 0
    for s, g in zip(x, group, strict=True):
        adjusted = [s[k] + tau * np.log(p) for k, p in enumerate(prior.astype(np.float64)) if p > 0]
        total = total + log_sum_exp(adjusted) - s[g] - tau * np.log(np.float64(prior[g]))
    return total / len(x)


@pytest.mark.parametrize("scale", [1, 100, 10_000])
def test_losses_of_groups_agree_with_the_loop(scale):
    x, group = np.float32(scale) * draw(B, G), jnp.array(GROUP)
    check(lambda x: loop_soft_label(x, GROUP), x, "descending_soft_label", group)
    check(lambda x: loop_soft_label(x, GROUP, 0.3), x, "descending_soft_label", group, beta=0.3)
    check(lambda x: loop_logit_adjusted(x, GROUP), x, "logit_adjusted", group, PRIOR)
    check(
        lambda x: loop_logit_adjusted(x, GROUP, tau=2.0), x, "logit_adjusted", group, PRIOR, tau=2.0
    )


def test_the_soft_label_of_the_paper():
    # At logits 0 the gradient of the cross-entropy is softmax - q: P4's example, beta 1, 5 groups,
    # group 1.
    _, gradient = compute("descending_soft_label", np.zeros((1, 5)), np.array([1]))
    np.testing.assert_allclose(
        0.2 - gradient[0], [0.1915, 0.5206, 0.1915, 0.0705, 0.0259], atol=5e-5
    )


def test_without_a_prior_logit_adjustment_is_cross_entropy():
    x, group = draw(B, G), np.array(GROUP)
    plain, _ = compute("cross_entropy", x, group)
    assert compute("logit_adjusted", x, group, PRIOR, tau=0.0)[0] == pytest.approx(plain, rel=1e-6)
    assert compute("logit_adjusted", x, group, np.full(G, 0.25))[0] == pytest.approx(
        plain, rel=1e-6
    )
    assert compute("logit_adjusted", np.zeros((1, 2)), np.array([0]), np.array([0.25, 0.75]))[
        0
    ] == pytest.approx(np.log(4))


# Thresholds.

RANK = [0, 3, 1, 4, 4, 2]


def binary(x, answer):
    return log_sum_exp([0 * x, -x if answer else x])


def loop_coral(x):
    return sum(binary(x[i, k], RANK[i] > k) for i in range(B) for k in range(x.shape[1])) / B


def loop_corn(x):
    asked = [(i, k) for i in range(B) for k in range(x.shape[1]) if RANK[i] >= k]
    return sum(binary(x[i, k], RANK[i] > k) for i, k in asked) / len(asked)


@pytest.mark.parametrize("scale", [1, 10_000])
def test_losses_of_thresholds_agree_with_the_loop(scale):
    x = np.float32(scale) * draw(B, 4)
    check(loop_coral, x, "coral", np.array(RANK))
    check(loop_corn, x, "corn", np.array(RANK))


def test_losses_of_thresholds_by_hand():
    # Rank 1 of three: above 0, not above 1. Rank 0: only the first question is asked by CORN.
    logits, rank = np.log([[3.0, 1.0], [1.0, 7.0]]), np.array([1, 0])
    one, two = np.log(4 / 3) + np.log(2), np.log(2)
    assert compute("coral", logits, rank)[0] == pytest.approx((one + two + np.log(8)) / 2)
    assert compute("corn", logits, rank)[0] == pytest.approx((one + two) / 3)
