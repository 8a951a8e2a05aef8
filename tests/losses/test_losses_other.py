"""Losses to points, of groups, thresholds, values and ranks, against loops in float64; the names of
all losses.

B batch, K ranks, G groups, R reference points, D embedding.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxord.losses
from jaxord import binding
from jaxord.losses import balanced_mse, center, expert, focal_l1
from tests.oracle import complex_step, log_sum_exp, magnitude, norm, units

B, G, D = 6, 4, 3
GROUP = [2, 0, 2, 3, 0, 0]
TARGET = np.array([2.5, -1.0, 2.5, 7.0, 0.25, 3.0], np.float32)
PRIOR = np.array([0.5, 0.0, 0.3, 0.2], np.float32)  # no training sample has group 1
FAST = {"xla_backend_optimization_level": 0}  # tests wait for the compiler, not for the code


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


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


# Values.


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
        # All but image 0, which lies on its point up to rounding: there the slope has no direction.
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


# Ranks of similarities.


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


# The convention.

ARRAYS = {
    "cross_entropy info_nce fcrc text_image_kl asymmetric_contrastive": "logits rank",
    "ordinal_pairwise": "image_embeds text_embeds rank rank_values",
    "supcon": "image_embeds rank [index]",
    "rnc expected_error": "image_embeds target",
    "group_contrastive": "image_embeds group",
    "conord": "image_embeds target [pair_weights]",
    "center": "image_embeds reference_points reference",
    "cloc": "image_embeds rank margins",
    "expert": "expert_values target group [weight]",
    "descending_soft_label": "group_logits group",
    "logit_adjusted": "group_logits group group_prior",
    "l1 mse huber": "value target [weight]",
    "balanced_mse": "value target noise_scale",
    "balanced_mse_gai": "value target noise_scale mixture_weights mixture_means mixture_variances",
    "focal_l1": "value target [weight]",
    "ranksim ordinal_entropy": "image_features target",
    "coral corn": "threshold_logits rank",
}


def test_every_loss_takes_the_arrays_it_should():
    wanted = {name: arrays for names, arrays in ARRAYS.items() for name in names.split()}
    assert sorted(wanted) == jaxord.losses.__all__
    for name, arrays in wanted.items():
        loss = binding.lookup(jaxord.losses, name)
        required, optional = binding.needs(loss)
        assert " ".join(required + [f"[{array}]" for array in optional]) == arrays
        assert all(
            p.default is not p.empty
            for p in inspect.signature(loss).parameters.values()
            if p.kind == p.KEYWORD_ONLY
        )
        assert inspect.getdoc(loss)


def test_every_loss_of_bfloat16_is_a_float32_number():
    floats = {
        "logits": (B, 5),
        "value": (B,),
        "target": (B,),
        "weight": (B,),
        "image_embeds": (B, D),
        "text_embeds": (5, D),
        "image_features": (B, D),
        "rank_values": (5,),
        "reference_points": (4, D),
        "expert_values": (B, G),
        "noise_scale": (),
        "group_logits": (B, G),
        "group_prior": (G,),
        "threshold_logits": (B, 4),
        "margins": (4,),
        "mixture_weights": (2,),
        "mixture_means": (2,),
        "mixture_variances": (2,),
    }
    arrays = {name: jax.ShapeDtypeStruct(shape, jnp.bfloat16) for name, shape in floats.items()}
    arrays |= {
        name: jax.ShapeDtypeStruct((B,), jnp.int32)
        for name in ("rank", "group", "index", "reference")
    }
    for name in jaxord.losses.__all__:
        found = jax.eval_shape(
            functools.partial(binding.bind, getattr(jaxord.losses, name)), arrays
        )
        assert (found.shape, found.dtype) == ((), jnp.float32), name


def test_helpers_are_no_losses():
    for name in ("mean_over_blocks", "unit", "distances", "log_mass", "choose"):
        with pytest.raises(ValueError, match=f"has no '{name}'"):
            binding.lookup(jaxord.losses, name)
