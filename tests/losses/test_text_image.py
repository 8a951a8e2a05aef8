"""Each loss against loops in float64 written from its equation; their gradients are complex-step
derivatives.

B batch, K ranks. The loops accept complex logits (oracle.py).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxord.losses
from jaxord import binding
from jaxord.losses import fcrc, info_nce
from tests.oracle import complex_step, log_sum_exp

K = 5
RANKS = {
    "duplicates": [3, 0, 3, 4, 0],
    "one sample a rank": [2, 0, 4, 1, 3],
    "one rank": [1, 1, 1, 1, 1],
    "neighbours": [2, 1, 1, 2, 2],
    "B = 1": [3],
}
GAPS = {
    "absolute": lambda a, b: abs(a - b),
    "sqrt": lambda a, b: abs(a - b) ** 0.5,
    "square": lambda a, b: (a - b) ** 2,
}


# The loops.


def loop_cross_entropy(logits, rank):
    return np.mean([log_sum_exp(list(row)) - row[y] for row, y in zip(logits, rank, strict=True)])


def loop_text_image_kl(logits, rank, sharpness=10.0):
    total = 0
    for c in set(rank):
        target = [sharpness * (y == c) for y in rank]
        for j, t in enumerate(target):
            log_q, log_p = (
                t - log_sum_exp(np.array(target)),
                logits[j, c] - log_sum_exp(logits[:, c]),
            )
            total = total + np.exp(log_q) * (log_q - log_p)
    return total / len(set(rank))


def share(own, others, weights):
    """-log[ e^own / (e^own + sum weights e^others) ], the fraction of Eq 4."""
    return (
        log_sum_exp([own] + [s + np.log(w) for s, w in zip(others, weights, strict=True) if w > 0])
        - own
    )


def normed(distances):
    """The weights of Eq 5: mean 1 over the negatives; all 0 if no distance is."""
    total = sum(distances)
    return [d * len(distances) / total if total > 0 else 0.0 for d in distances]


def loop_pairs(logits, rank, weights_of, direction):
    size, total = len(rank), 0
    score = {"i2t": lambda i, j: logits[i, rank[j]], "t2i": lambda i, j: logits[j, rank[i]]}
    for one in ("i2t", "t2i") if direction == "both" else (direction,):
        for i in range(size):
            others = [j for j in range(size) if j != i]
            weights = weights_of([(rank[i], rank[j]) for j in others])
            total = (
                total + share(score[one](i, i), [score[one](i, j) for j in others], weights) / size
            )
    return total


def loop_info_nce(logits, rank, direction="both"):
    return loop_pairs(logits, rank, lambda pairs: [1.0] * len(pairs), direction)


def loop_fcrc(logits, rank, form="pair", distance="absolute", direction="both"):
    gap, size, texts, both = GAPS[distance], len(rank), logits.shape[1], direction == "both"
    if form == "pair":
        return loop_pairs(
            logits, rank, lambda pairs: normed([gap(a, b) for a, b in pairs]), direction
        )
    total = 0
    if form == "class" and (both or direction == "i2t"):
        for i in range(size):
            others = [c for c in range(texts) if c != rank[i]]
            weights = normed([gap(rank[i], c) for c in others])
            total = (
                total + share(logits[i, rank[i]], [logits[i, c] for c in others], weights) / size
            )
    if form == "class" and (both or direction == "t2i"):
        for c in set(rank):
            own = [j for j in range(size) if rank[j] == c]
            others = [j for j in range(size) if rank[j] != c]
            weights = normed([gap(c, rank[j]) for j in others])
            scores = [logits[j, c] for j in others]
            total = total + np.mean([share(logits[j, c], scores, weights) for j in own]) / len(
                set(rank)
            )
    if form == "code":
        gaps = np.array([[gap(y, c) for c in range(texts)] for y in rank], np.float64)
        u, v = np.ones_like(gaps), np.ones_like(gaps)
        for i, j in zip(*np.nonzero(gaps), strict=True):
            u[i, j] = gaps[i, j] * (texts - 1) / sum(gaps[i, :])
            v[i, j] = gaps[i, j] * (texts - 1) / sum(gaps[:, j])
        total = total + (loop_cross_entropy(u * logits, rank) if both or direction == "i2t" else 0)
        total = total + (loop_text_image_kl(v * logits, rank) if both or direction == "t2i" else 0)
    return total


# The losses, compiled once for each setting and shape.

LOOPS = {
    "cross_entropy": loop_cross_entropy,
    "text_image_kl": loop_text_image_kl,
    "info_nce": loop_info_nce,
    "fcrc": loop_fcrc,
}
CASES = [
    {"name": "cross_entropy"},
    {"name": "text_image_kl"},
    {"name": "text_image_kl", "sharpness": 2.0},
    {"name": "info_nce", "direction": "i2t"},
    {"name": "info_nce", "direction": "t2i"},
    *[
        {"name": "fcrc", "form": f, "direction": d}
        for f in ("pair", "class", "code")
        for d in ("i2t", "t2i")
    ],
    *[
        {"name": "fcrc", "form": f, "distance": d}
        for f in ("pair", "class", "code")
        for d in ("sqrt", "square")
    ],
]
each_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "-".join(map(str, case.values()))
)


@functools.cache
def compiled(entry):
    return jax.jit(jax.value_and_grad(binding.configured(jaxord.losses, dict(entry))))


def value_and_gradient(case, logits, rank):
    value, gradient = compiled(tuple(case.items()))(
        jnp.asarray(logits, jnp.float32), jnp.asarray(rank, jnp.int32)
    )
    assert value.dtype == gradient.dtype == jnp.float32 and value.shape == ()
    return float(value), np.asarray(gradient)


def compute(name, logits, rank, **settings):
    return value_and_gradient({"name": name, **settings}, logits, rank)[0]


def oracle_of(case, logits, rank):
    settings = {k: v for k, v in case.items() if k != "name"}
    return complex_step(lambda x: LOOPS[case["name"]](x, rank, **settings), logits)


def draw(size, scale, seed=0):
    return (scale * np.random.default_rng(seed).normal(size=(size, K))).astype(np.float32)


# Against the loops.

INPUTS = {
    "normal": lambda size, scale: draw(size, scale),
    "some ties": lambda size, scale: np.float32(scale) * np.round(draw(size, 1, seed=2)),
    "all ties": lambda size, scale: np.full((size, K), 3.3 * scale, np.float32),
}


@pytest.mark.parametrize("scale", [1, 100, 10_000])
@pytest.mark.parametrize("kind", RANKS)
@each_case
def test_value_and_gradient_agree_with_the_loop_in_float64(case, kind, scale):
    rank = RANKS[kind]
    # 1e-5 relative. The absolute part of the value is the rounding of the loop itself (7.5e-13
    # measured). Gradients of cross_entropy and of fcrc's pair and class forms need none; in the
    # others an entry can be the small difference of terms of size 1/B (p - q of the KL, p - 1/2 of
    # two samples of one text), known to 1.3e-7 / B (measured).
    alone = case["name"] == "cross_entropy" or case.get("form") in ("pair", "class")
    for name, draw_logits in INPUTS.items():
        logits = draw_logits(len(rank), scale)
        value, gradient = value_and_gradient(case, logits, rank)
        expected_value, expected_gradient = oracle_of(case, logits, rank)
        assert np.isfinite(value) and np.isfinite(gradient).all(), name
        np.testing.assert_allclose(value, expected_value, rtol=1e-5, atol=1e-11, err_msg=name)
        np.testing.assert_allclose(
            gradient,
            expected_gradient,
            rtol=1e-5,
            atol=1e-12 if alone else 1e-6 / len(rank),
            err_msg=name,
        )


def test_the_loops_differentiate_as_finite_differences_do():
    logits, rank, step = draw(5, 1).astype(np.float64), RANKS["duplicates"], 1e-6
    for case in CASES:
        value, gradient = oracle_of(case, logits, rank)
        for index in [(0, 3), (1, 0), (2, 2)]:
            moved = logits.copy()
            moved[index] += step
            slope = (oracle_of(case, moved, rank)[0] - value) / step
            assert slope == pytest.approx(gradient[index], abs=1e-5)


@each_case
def test_the_order_of_the_batch_does_not_matter(case):
    logits, rank, order = draw(5, 10), np.array(RANKS["duplicates"]), np.array([4, 2, 0, 1, 3])
    value, gradient = value_and_gradient(case, logits, rank)
    permuted_value, permuted_gradient = value_and_gradient(case, logits[order], rank[order])
    assert value == pytest.approx(permuted_value, rel=1e-6)
    np.testing.assert_allclose(gradient[order], permuted_gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["one rank", "B = 1"])
@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_without_a_negative_loss_and_gradient_are_zero(kind, direction):
    rank = RANKS[kind]
    for form in ("pair", "class"):
        value, gradient = value_and_gradient(
            {"name": "fcrc", "form": form, "direction": direction}, draw(len(rank), 1e4), rank
        )
        if form == "pair" or direction == "t2i":
            assert value == 0
            assert not gradient.any()
        else:
            assert value > 0  # the other texts of "class" are always there


@pytest.mark.parametrize("form", ["pair", "class"])
def test_no_nan_arises_on_the_way_either(form):
    # Outside jit, where jax looks at each operation: users who hunt a nan must not be stopped by
    # ours.
    with jax.debug_nans(True):
        jax.grad(functools.partial(fcrc, form=form))(
            jnp.full((1, K), 1e6), jnp.asarray(RANKS["B = 1"])
        )


@pytest.mark.parametrize("name", ["cross_entropy", "info_nce", "fcrc"])
def test_a_loss_near_zero_keeps_its_relative_precision(name):
    case = {"name": name} | ({} if name == "cross_entropy" else {"direction": "i2t"})
    logits = np.zeros((5, K), np.float32)
    rank = np.arange(5)
    logits[0, 0] = logits[1, 1] = logits[2, 2] = logits[3, 3] = logits[4, 4] = 50
    value, gradient = value_and_gradient(case, logits, rank)
    assert value == pytest.approx(4 * np.exp(-50), rel=1e-5)
    assert np.diag(gradient) == pytest.approx(np.full(5, -4 * np.exp(-50) / 5), rel=1e-5)


def test_bfloat16_logits_are_computed_in_float32():
    logits, rank = jnp.asarray(draw(5, 10), jnp.bfloat16), jnp.asarray(RANKS["duplicates"])
    for name in LOOPS:
        found = jax.jit(getattr(jaxord.losses, name))(logits, rank)
        assert found.dtype == jnp.float32
        assert float(found) == pytest.approx(compute(name, logits, rank), rel=1e-6)


# By hand.


def test_cross_entropy_by_hand():
    logits = np.log([[1.0, 3.0], [2.0, 2.0], [1.0, 7.0]])
    assert compute("cross_entropy", logits, [1, 0, 0]) == pytest.approx(
        (np.log(4 / 3) + np.log(2) + np.log(8)) / 3
    )


def test_text_image_kl_by_hand():
    # Text 0 is carried by images 0 and 1, text 2 by image 2, text 1 by none; sharpness log 2 makes
    # the targets (2, 2, 1) / 5 and (1, 1, 2) / 4. All images are alike to text 0; text 2 sees
    # exactly its target.
    logits = np.log([[1.0, 5.0, 1.0], [1.0, 1e-3, 1.0], [1.0, 2.0, 2.0]])
    expected = (2 * 0.4 * np.log(0.4 * 3) + 0.2 * np.log(0.2 * 3) + 0) / 2
    assert compute("text_image_kl", logits, [0, 0, 2], sharpness=float(np.log(2))) == pytest.approx(
        expected, rel=1e-5
    )


def test_info_nce_by_hand():
    # Images 0 and 1 of rank 2, image 2 of rank 0; a sample of the same rank is a negative.
    logits, rank = np.log([[1.0, 9.0, 2.0], [1.0, 9.0, 4.0], [5.0, 9.0, 1.0]]), [2, 2, 0]
    i2t = (np.log(5 / 2) + np.log(9 / 4) + np.log(7 / 5)) / 3
    t2i = (np.log(7 / 2) + np.log(7 / 4) + np.log(7 / 5)) / 3
    assert compute("info_nce", logits, rank, direction="i2t") == pytest.approx(i2t)
    assert compute("info_nce", logits, rank, direction="t2i") == pytest.approx(t2i)
    assert compute("info_nce", logits, rank) == pytest.approx(i2t + t2i)


def test_fcrc_pair_by_hand():
    # Weights of image 0: 2 * 1/4, 2 * 3/4; of image 1: 2 * 1/3, 2 * 2/3; of image 2: 2 * 3/5, 2 *
    # 2/5.
    logits, rank = (
        np.log([[4.0, 2.0, 9.0, 2.0], [3.0, 2.0, 9.0, 3.0], [5.0, 5.0, 9.0, 1.0]]),
        [0, 1, 3],
    )
    i2t = (np.log((4 + 1 + 3) / 4) + np.log((2 + 2 + 4) / 2) + np.log((1 + 6 + 4) / 1)) / 3
    t2i = (
        np.log((4 + 1.5 + 7.5) / 4) + np.log((2 + 4 / 3 + 20 / 3) / 2) + np.log((1 + 2.4 + 2.4) / 1)
    ) / 3
    assert compute("fcrc", logits, rank, direction="i2t") == pytest.approx(i2t)
    assert compute("fcrc", logits, rank, direction="t2i") == pytest.approx(t2i)


def test_fcrc_class_by_hand():
    # Images 0 and 1 of rank 0, image 2 of rank 2; three texts. Image to text: weights (1, 2) * 2/3
    # from either end.
    logits, rank = np.log([[2.0, 3.0, 3.0], [1.0, 3.0, 6.0], [6.0, 3.0, 4.0]]), [0, 0, 2]
    i2t = (np.log((2 + 2 + 4) / 2) + np.log((1 + 2 + 8) / 1) + np.log((4 + 2 + 8) / 4)) / 3
    # Text 0 has one negative image (weight 1) and two images of its own, text 2 two negatives of
    # weight 1.
    t2i = ((np.log((2 + 6) / 2) + np.log((1 + 6) / 1)) / 2 + np.log((4 + 3 + 6) / 4)) / 2
    assert compute("fcrc", logits, rank, form="class", direction="i2t") == pytest.approx(i2t)
    assert compute("fcrc", logits, rank, form="class", direction="t2i") == pytest.approx(t2i)


def test_fcrc_code_by_hand():
    # u of rank 0: (1, 2/3, 4/3); of rank 1: (1, 1, 1), the plain cross-entropy.
    logits, rank = np.array([[0.3, 0.6, -0.9], [0.5, 0.1, 0.2]]), [0, 1]
    first = -np.log(np.exp(0.3) / (np.exp(0.3) + np.exp(0.4) + np.exp(-1.2)))
    second = -np.log(np.exp(0.1) / (np.exp(0.5) + np.exp(0.1) + np.exp(0.2)))
    assert compute("fcrc", logits, rank, form="code", direction="i2t") == pytest.approx(
        (first + second) / 2
    )
    # v: in either column the only negative has weight K - 1 = 2, not 1.
    own, kl = 1 / (1 + np.exp(-10)), 0
    for mine, other in ((0.3, 2 * 0.5), (0.1, 2 * 0.6)):
        p = np.exp(mine) / (np.exp(mine) + np.exp(other))
        kl += (own * np.log(own / p) + (1 - own) * np.log((1 - own) / (1 - p))) / 2
    assert compute("fcrc", logits, rank, form="code", direction="t2i") == pytest.approx(
        kl, rel=1e-5
    )


# Properties of the weights.


def weights_of(form, distance, rank):
    """The weights l_ij [B, K] of image to text. At equal scores the gradient of -log[e^s_y / (e^s_y
    + sum l e^s)] along a negative is l / (1 + sum l), along the own score minus the sum of these,
    and the loss is log(1 + sum l)."""
    case = {"name": "fcrc", "form": form, "distance": distance, "direction": "i2t"}
    _, gradient = value_and_gradient(case, np.zeros((len(rank), K)), rank)
    share = len(rank) * gradient  # [B, K]
    own = -share[np.arange(len(rank)), rank]  # sum l / (1 + sum l)
    weights = share / (1 - own)[:, None]
    weights[np.arange(len(rank)), rank] = 0
    return weights


@pytest.mark.parametrize("distance", GAPS)
@pytest.mark.parametrize("form", ["pair", "class"])
def test_weights_have_mean_one_over_the_negatives(form, distance):
    rank = RANKS["one sample a rank"]
    weights = weights_of(form, distance, rank)
    np.testing.assert_allclose(weights.sum(axis=1) / (K - 1), 1, rtol=1e-6)
    oracle = np.array([[GAPS[distance](y, c) for c in range(K)] for y in rank])
    np.testing.assert_allclose(
        weights, (K - 1) * oracle / oracle.sum(axis=1, keepdims=True), rtol=1e-5
    )


def test_a_duplicate_is_no_negative_but_counts_in_the_mean():
    rank = np.array(RANKS["duplicates"])  # 3 0 3 4 0
    weights = weights_of("pair", "absolute", rank)  # a text's weights add up over its samples
    np.testing.assert_allclose(weights.sum(axis=1) / 4, 1, rtol=1e-6)
    np.testing.assert_allclose(weights[0], [4 * 6 / 7, 0, 0, 0, 4 * 1 / 7], rtol=1e-5)


@pytest.mark.parametrize("distance", GAPS)
@pytest.mark.parametrize("form", ["pair", "class"])
def test_weights_and_density_ratios_of_ordered_features_have_negative_covariance(form, distance):
    rank = np.array(RANKS["one sample a rank"])
    angle = np.linspace(0, 2, K)
    ratio = np.exp(
        np.cos(angle[rank][:, None] - angle) / 0.1
    )  # f(z_i, w_c), features on an arc in order
    weights = weights_of(form, distance, rank)
    for i, own in enumerate(rank):
        negatives = np.arange(K) != own
        distances = np.abs(np.arange(K) - own)[negatives]
        covariance = np.cov(weights[i, negatives], ratio[i, negatives])[0, 1]
        # The middle rank's negatives are not all equally far, so no anchor is degenerate.
        assert len(set(distances)) > 1
        assert covariance < 0


@pytest.mark.parametrize("distance", GAPS)
def test_a_factor_on_the_distances_cancels(distance):
    logits, rank, factor = draw(5, 3), np.array(RANKS["duplicates"]), 7
    spread = np.zeros((5, factor * (K - 1) + 1))
    spread[:, ::factor] = logits
    scaled = compute("fcrc", spread, factor * rank, distance=distance)
    assert scaled == pytest.approx(compute("fcrc", logits, rank, distance=distance), rel=1e-6)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_with_all_weights_one_fcrc_is_info_nce(direction):
    logits, rank = draw(2, 3), [4, 1]  # two samples: the one negative has weight 1
    expected = compute("info_nce", logits, rank, direction=direction)
    assert compute("fcrc", logits, rank, direction=direction) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_with_every_rank_once_the_class_form_is_the_pair_form(direction):
    logits, rank = draw(5, 3), RANKS["one sample a rank"]
    pair, of_class = (
        compute("fcrc", logits, rank, form=f, direction=direction) for f in ("pair", "class")
    )
    assert pair == pytest.approx(of_class, rel=1e-6)


@pytest.mark.parametrize("form", ["pair", "class", "code"])
def test_both_directions_are_summed_and_the_default_is_pair_absolute_both(form):
    logits, rank = draw(5, 3), RANKS["duplicates"]
    parts = [compute("fcrc", logits, rank, form=form, direction=d) for d in ("i2t", "t2i")]
    assert compute("fcrc", logits, rank, form=form) == pytest.approx(sum(parts), rel=1e-6)
    default = compute("fcrc", logits, rank)
    assert default == compute(
        "fcrc", logits, rank, form="pair", distance="absolute", direction="both"
    )


def test_unknown_settings_are_refused():
    logits, rank = jnp.zeros((2, K)), jnp.array([0, 1])
    with pytest.raises(
        ValueError, match=r"form is 'pairs'; expected one of \['class', 'code', 'pair'\]"
    ):
        fcrc(logits, rank, form="pairs")
    with pytest.raises(
        ValueError, match=r"distance is 'l2'; expected one of \['absolute', 'sqrt', 'square'\]"
    ):
        fcrc(logits, rank, distance="l2")
    for loss in (fcrc, info_nce):
        with pytest.raises(
            ValueError, match=r"direction is 'sum'; expected one of \['both', 'i2t', 't2i'\]"
        ):
            loss(logits, rank, direction="sum")
