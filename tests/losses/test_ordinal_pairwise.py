"""L2RCLIP's losses between images and the texts of ranks, against loops in float64 written from
their equations.

B batch, K ranks, D embedding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxord.losses import asymmetric_contrastive, info_nce, ordinal_pairwise
from tests.oracle import FAST, complex_step, log_sum_exp, norm, units

B, K, D = 5, 4, 3
VALUES = np.array([6.0, 16.0, 26.5, 60.0], np.float32)
RANKS = {"some equal": [3, 0, 3, 1, 0], "one rank": [2, 2, 2, 2, 2], "neighbours": [1, 2, 1, 1, 2]}


def draw(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


@functools.cache
def compiled(loss, argnums, **settings):
    """Value and gradients, for the ranks of all kinds at once."""
    differentiated = jax.value_and_grad(functools.partial(loss, **settings), argnums)
    axes = (0, 0) if loss is asymmetric_contrastive else (None, None, 0, None)
    return jax.jit(jax.vmap(differentiated, axes), compiler_options=FAST)


# The asymmetrical contrastive loss.


def loop_asymmetric(logits, rank, direction):
    total = 0
    for i, y in enumerate(rank):
        own = [z for z in range(len(rank)) if rank[z] == y]
        for z in own:
            if direction in ("i2t", "both"):
                total = total - (
                    logits[i, rank[z]] - log_sum_exp([logits[i, c] for c in rank])
                ) / len(own)
            if direction in ("t2i", "both"):
                total = total - (logits[z, y] - log_sum_exp(list(logits[:, y]))) / len(own)
    return total / len(rank)


@pytest.mark.parametrize("scale", [1, 10_000])
@pytest.mark.parametrize("direction", ["i2t", "t2i", "both"])
def test_asymmetric_contrastive_agrees_with_the_loop_of_equation_7(direction, scale):
    logits = np.stack([np.float32(scale) * draw(B, K, seed) for seed in range(len(RANKS))])
    values, gradients = compiled(asymmetric_contrastive, 0, direction=direction)(
        logits, jnp.array(list(RANKS.values()))
    )
    for x, rank, value, gradient in zip(logits, RANKS.values(), values, gradients, strict=True):
        expected, expected_gradient = complex_step(
            lambda x, rank=rank: loop_asymmetric(x, rank, direction), x
        )
        assert float(value) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=2e-7)


def test_asymmetric_contrastive_is_info_nce():
    logits, rank = draw(B, K), RANKS["some equal"]
    found = jax.jit(info_nce, compiler_options=FAST)(logits, jnp.array(rank))
    assert float(found) == pytest.approx(
        loop_asymmetric(logits.astype(np.float64), rank, "both"), rel=1e-6
    )


# The ordinal pairwise loss.


def scaled(gaps, weight_scale):
    """Weights of the pairs that are summed, from their gaps."""
    if weight_scale == "pairs":
        return [(g - min(gaps)) / max(gaps) if max(gaps) > 0 else 0.0 for g in gaps]
    return [
        g / (float(VALUES.max() - VALUES.min()) if weight_scale == "span" else 1.0) for g in gaps
    ]


def loop_pairwise(both, rank, strength=0.5, form="inner", weight_scale="span"):
    """both: the images above the texts."""
    size, values = len(rank), VALUES.astype(np.float64)
    v, r = units(both[:size]), units(both[size:])
    own = [r[y] for y in rank]
    if form == "inner":
        pairs = [(i, j) for i in range(size) for j in range(size) if i != j]
        terms = [(v[i] + strength * own[i]) @ own[j] for i, j in pairs]
        gaps = [abs(values[rank[i]] - values[rank[j]]) for i, j in pairs]
        tightness = -np.mean([v[i] @ own[i] for i in range(size)])
        return tightness + sum(
            w * t for w, t in zip(scaled(gaps, weight_scale), terms, strict=True)
        ) / max(len(pairs), 1)
    if strength > 0:
        pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
        terms = [norm(v[i] - own[j]) + strength * norm(own[i] - own[j]) for i, j in pairs]
        gaps = [abs(values[rank[i]] - values[rank[j]]) for i, j in pairs]
    else:
        pairs = [(i, c) for i in range(size) for c in range(len(r))]
        terms = [norm(v[i] - r[c]) for i, c in pairs]
        gaps = [abs(values[rank[i]] - values[c]) for i, c in pairs]
    tightness = np.mean([np.sum((v[i] - own[i]) ** 2) for i in range(size)]) * (
        0.5 if strength > 0 else 1
    )
    return tightness - sum(
        w * t for w, t in zip(scaled(gaps, weight_scale), terms, strict=True)
    ) / max(len(pairs), 1)


CASES = [
    {},
    {"strength": 0.0},
    {"weight_scale": "raw", "strength": 2.0},
    {"weight_scale": "pairs"},
    {"form": "euclid"},
    {"form": "euclid", "strength": 0.0},
    {"form": "euclid", "weight_scale": "pairs"},
    {"form": "euclid", "weight_scale": "pairs", "strength": 0.0},
]
each_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "-".join(map(str, case.values())) or "default"
)


def pairwise(case, images, texts, ranks):
    values, gradients = compiled(ordinal_pairwise, (0, 1), **case)(
        images, texts, jnp.asarray(ranks), VALUES
    )
    assert values.dtype == jnp.float32
    return np.asarray(values), np.concatenate(gradients, axis=1)


@each_case
def test_ordinal_pairwise_agrees_with_the_loop(case):
    ranks, texts = list(RANKS.values()), draw(K, D, 1)
    on_their_texts = np.concatenate(
        [3 * texts[[3, 0]], draw(3, D)]
    )  # of ranks[0]; on the text of another is a kink
    for images in (draw(B, D), 1e4 * draw(B, D, 2), on_their_texts):
        if images is on_their_texts:
            ranks = ranks[:1] * 3
        for rank, value, gradient in zip(ranks, *pairwise(case, images, texts, ranks), strict=True):
            both = np.concatenate([images, texts])
            expected, expected_gradient = complex_step(
                lambda x, rank=rank: loop_pairwise(x, rank, **case), both
            )
            assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)
            np.testing.assert_allclose(
                gradient, expected_gradient, rtol=1e-5, atol=1e-6 * abs(expected_gradient).max()
            )


@pytest.mark.parametrize(
    "case", [{}, {"form": "euclid", "weight_scale": "pairs"}], ids=["inner", "euclid"]
)
def test_one_sample_has_no_pair(case):
    image, texts = draw(1, D), draw(K, D, 1)
    (value,), gradient = pairwise(case, image, texts, [[2]])
    assert value == pytest.approx(
        loop_pairwise(np.concatenate([image, texts]).astype(np.float64), [2], **case), rel=1e-5
    )
    assert np.isfinite(gradient).all()


@each_case
def test_the_order_of_the_batch_matters_only_in_the_program_of_stage_1(case):
    order, rank, images, texts = (
        [2, 0, 4, 1, 3],
        np.array(RANKS["some equal"]),
        draw(B, D),
        draw(K, D, 1),
    )
    value = pairwise(case, images, texts, [rank] * 3)[0][0]
    permuted = pairwise(case, images[order], texts, [rank[order]] * 3)[0][0]
    by_pairs_of_later = case.get("form") == "euclid" and case.get("strength", 0.5) > 0
    assert (value == pytest.approx(permuted, rel=1e-5)) != by_pairs_of_later


def quick(images, texts, rank, **settings):
    loss = jax.jit(functools.partial(ordinal_pairwise, **settings), compiler_options=FAST)
    return float(loss(images, texts, rank, VALUES))


def test_ordinal_pairwise_by_hand():
    # Two images on the axes and texts of values 6, 16, 26.5, 60 (span 54): ranks 0 and 3, weight 1.
    images, texts = (
        np.array([[2.0, 0.0], [0.0, 1.0]]),
        np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.6, 0.8]]),
    )
    rank = jnp.array([0, 3])
    found = quick(images, texts, rank)
    # v0.r3 = .6, v1.r0 = 0, r0.r3 = .6; v0.r0 = 1, v1.r3 = .8.
    assert found == pytest.approx((0.6 + 0 + 0.5 * (0.6 + 0.6)) / 2 - (1 + 0.8) / 2)
    stage_1 = quick(images, texts, rank, form="euclid")
    assert stage_1 == pytest.approx((0 + 0.4) / 2 / 2 - np.sqrt(0.8) - 0.5 * np.sqrt(0.8))


def test_only_the_direction_of_features_counts():
    images, texts, ranks = draw(B, D), draw(K, D, 1), list(RANKS.values())
    for case in ({}, {"form": "euclid"}):
        values, _ = pairwise(case, images, texts, ranks)
        np.testing.assert_allclose(
            pairwise(case, 7 * images, 0.1 * texts, ranks)[0], values, atol=1e-6
        )


def test_unknown_settings_are_refused():
    arrays = draw(B, D), draw(K, D), jnp.array(RANKS["some equal"]), VALUES
    with pytest.raises(
        ValueError, match=r"form is 'cosine'; expected one of \['euclid', 'inner'\]"
    ):
        jax.eval_shape(functools.partial(ordinal_pairwise, form="cosine"), *arrays)
    with pytest.raises(
        ValueError, match=r"weight_scale is 'max'; expected one of \['pairs', 'raw', 'span'\]"
    ):
        jax.eval_shape(functools.partial(ordinal_pairwise, weight_scale="max"), *arrays)
    with pytest.raises(ValueError, match="direction is 'sum'"):
        jax.eval_shape(
            functools.partial(asymmetric_contrastive, direction="sum"), draw(B, K), arrays[2]
        )
