"""Losses between embeddings against loops in float64 written from their equations; blocks against
the whole.

B batch, D embedding. The loops visit all triples where the equation does. Gradients are
complex-step derivatives.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxord.losses
from jaxord import binding
from jaxord.losses import cloc, conord, rnc, supcon
from tests.oracle import complex_step, log_sum_exp, norm, units

B, D = 7, 3
MARGINS = np.array([0.3, 0.0, 0.2, 0.15, 0.4, 0.1] * 2, np.float32)
TABLE = np.array([[2.0, 0.7, 0.3, 0.1], [0.2, 0.5, 1.5, 3.0]], np.float32)
TARGETS = {
    "some equal": [3, 0, 3, 4, 0, 1, 3],
    "all different": [6, 2, 0, 1, 3, 5, 4],
    "all equal": [2, 2, 2, 2, 2, 2, 2],
    "real numbers": [0.37, 12.5, 3.9, 88.2, 3.9, 41.25, 7.125],
    "two far apart": [0, 90, 0, 90, 90, 0, 90],
    "negative": [-1.5, 1.5, 0, -3, 3, 0.5, -0.5],
}


# The loops. x complex[B, D]; y the labels; every sum is written out.


def others(i, size):
    return [j for j in range(size) if j != i]


def loop_supcon(x, rank, index, temperature=0.07, positives="rank"):
    z, size, total = units(x), len(x), 0
    label = rank if positives == "rank" else index
    for i in range(size):
        scores = {j: z[i] @ z[j] / temperature for j in others(i, size)}
        own = [j for j in scores if label[j] == label[i]]
        for p in own:
            total = total - (scores[p] - log_sum_exp(list(scores.values()))) / len(own) / size
    return total


def loop_rnc(x, target, temperature=2.0, similarity="l2"):
    size, total = len(x), 0
    if similarity == "cosine":
        z = units(x)
    for i in range(size):
        if similarity == "cosine":
            scores = {j: z[i] @ z[j] / temperature for j in others(i, size)}
        else:
            scores = {j: -norm(x[i] - x[j]) / temperature for j in others(i, size)}
        for j in scores:
            farther = [
                scores[k]
                for k in scores
                if abs(target[i] - target[k]) >= abs(target[i] - target[j])
            ]
            total = total + (log_sum_exp(farther) - scores[j]) / (size * (size - 1))
    return total


def loop_group_contrastive(x, group, temperature=2.0, similarity="l2"):
    return loop_rnc(x, group, temperature, similarity)


@functools.cache
def pair(weights, g, epsilon):
    """Tables 1, 7 and 14 of ConOrd, one line a row."""
    delta = 0 if g == 0 else 5
    return {
        "I": (1 / (g + epsilon), 1),
        "II": (1 / (g + epsilon), g),
        "III": (1 / (g**2 + epsilon), 1),
        "IV": (1 / (g**2 + epsilon), g**2),
        "V": (1 / (g + epsilon), 1),
        "VI": (1 / (g + epsilon), g),
        "VII": (1 / (g**2 + epsilon), 1),
        "VIII": (1 / (g**2 + epsilon), g**2),
        "IX": (1 / (delta**2 + epsilon), delta**2),
        "XI": (1 / (g + epsilon) ** 0.5, g**0.5),
        "XII": (1 / (np.log(1 + g) + epsilon), np.log(1 + g)),
        "XIII": (1 / (g + epsilon), g) if g < 10 else (1 / 10, 10),
    }[weights]


def gap(a, b):
    return sum(map(gap, a, b)) if isinstance(a, list) else abs(a - b)


def loop_conord(
    x, target, temperature=0.07, epsilon=1e-7, weights="VIII", anchor_norm=False, table=TABLE
):
    z, size, total = units(x), len(x), 0
    for i in range(size):
        attraction, repulsion = [], []
        for j in others(i, size):
            kappa = (
                z[i] @ z[j] if weights in ("I", "II", "III", "IV") else -np.sum((z[i] - z[j]) ** 2)
            )
            g = gap(target[i], target[j])
            a, b = (
                table[:, min(round(g), table.shape[1] - 1)]
                if weights == "X"
                else pair(weights, g, epsilon)
            )
            attraction.append(kappa / temperature + np.log(a))
            repulsion += [kappa / temperature + np.log(b)] if b.real > 0 else []
        if repulsion:
            divisor = size * (size - 1) if anchor_norm else size
            total = total - (log_sum_exp(attraction) - log_sum_exp(repulsion)) / divisor
    return total


def loop_expected_error(x, target, temperature=0.07, anchor_norm=False):
    z, size, total = units(x), len(x), 0
    for i in range(size):
        scores = {j: -np.sum((z[i] - z[j]) ** 2) / temperature for j in others(i, size)}
        errors = [
            s + np.log(gap(target[i], target[j]))
            for j, s in scores.items()
            if target[j] != target[i]
        ]
        if errors:
            divisor = size * (size - 1) if anchor_norm else size
            total = total + (log_sum_exp(errors) - log_sum_exp(list(scores.values()))) / divisor
    return total


def loop_cloc(x, rank, margins=MARGINS, reduction="program"):
    z, size, total = units(x), len(x), 0
    for i in range(size):
        p_of = [p for p in others(i, size) if rank[p] == rank[i]]
        q_of = [q for q in range(size) if rank[q] != rank[i]]
        for p in p_of:
            for q in q_of:
                margin = sum(margins[min(rank[i], rank[q]) : max(rank[i], rank[q])])
                term = margin - z[i] @ z[p] + z[i] @ z[q]
                extra = len(q_of) if reduction == "program" else 1
                total = (
                    total + (term if term.real > 0 else 0) / (len(p_of) * len(q_of) * extra) / size
                )
    return total


LOOPS = {
    "supcon": (loop_supcon, ("rank", "index")),
    "rnc": (loop_rnc, ("target",)),
    "group_contrastive": (loop_group_contrastive, ("group",)),
    "conord": (loop_conord, ("target",)),
    "expected_error": (loop_expected_error, ("target",)),
    "cloc": (loop_cloc, ("rank",)),
}
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


# The losses, compiled once for each setting and shape; several inputs go through at once.

FAST = {"xla_backend_optimization_level": 0}  # tests wait for the compiler, not for the code


@functools.cache
def compiled(entry, mapped):
    loss = binding.configured(jaxord.losses, dict(entry))

    def of(x, arrays):
        return binding.bind(loss, {**arrays, "margins": jnp.asarray(MARGINS), "image_embeds": x})

    differentiated = jax.value_and_grad(of)
    return jax.jit(jax.vmap(differentiated) if mapped else differentiated, compiler_options=FAST)


def labels_of(target):
    """All label arrays that a loss may name."""
    target = np.asarray(target, np.float32)
    rank = np.unique(target, return_inverse=True)[1].astype(np.int32)
    return {
        "target": target,
        "rank": rank,
        "group": rank // 2,
        "index": (np.arange(len(target)) // 2).astype(np.int32),
    }


def features(size=B, seed=0, scale=1.0, twins=()):
    x = (scale * np.random.default_rng(seed).normal(size=(size, D))).astype(np.float32)
    for copy, original in twins:
        x[copy] = x[original]
    return x


INPUTS = [(features(seed=i), labels_of(target)) for i, target in enumerate(TARGETS.values())]
INPUTS += [
    (features(seed=9, twins=[(2, 0), (5, 3)]), labels_of(TARGETS[kind]))
    for kind in ("some equal", "all different")
]
INPUTS += [(np.ones((B, D), np.float32), labels_of(TARGETS["some equal"]))]


def stacked(inputs):
    arrays = {name: jnp.stack([labels[name] for _, labels in inputs]) for name in inputs[0][1]}
    return jnp.stack([x for x, _ in inputs]), arrays


def compute(case, inputs):
    values, gradients = compiled(tuple(case.items()), True)(*stacked(inputs))
    assert values.dtype == gradients.dtype == jnp.float32
    assert np.isfinite(values).all() and np.isfinite(gradients).all()
    return np.asarray(values), np.asarray(gradients)


def oracle(case, x, labels):
    loop, names = LOOPS[case["name"]]
    settings = {k: v for k, v in case.items() if k not in ("name", "block")}
    lists = [labels[name].tolist() for name in names]  # float32 labels, in float64
    return complex_step(lambda moved: loop(moved, *lists, **settings), x)


def quick(loss, *arrays, **settings):
    """The loss, compiled; by hand each of its operations would be compiled for itself."""
    return float(jax.jit(functools.partial(loss, **settings), compiler_options=FAST)(*arrays))


def slope(function, *arrays):
    return np.asarray(jax.jit(jax.grad(function), compiler_options=FAST)(*arrays))


def agree(value, gradient, expected, expected_gradient):
    # Measured: 1e-6 of the value; gradients 1.5e-6 of their largest entry, and where that is 0
    # because terms cancel, 1.2e-6, which is the rounding of cosines over a temperature of 0.07.
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(
        gradient, expected_gradient, rtol=0, atol=1e-5 * max(abs(expected_gradient).max(), 0.2)
    )


# Against the loops.


@each_case
def test_value_and_gradient_agree_with_the_loop_in_float64(case):
    for (x, labels), value, gradient in zip(INPUTS, *compute(case, INPUTS), strict=True):
        agree(value, gradient, *oracle(case, x, labels))


def test_all_rows_of_the_tables_of_conord_agree_with_the_loop():
    rows = [
        "I",
        "II",
        "III",
        "IV",
        "V",
        "VI",
        "VII",
        "IX",
        "X",
        "XI",
        "XII",
        "XIII",
    ]  # VIII is the default, above

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


@pytest.mark.parametrize("name", ["conord", "expected_error"])
def test_two_angles_are_compared_by_the_sum_of_their_differences(name):
    x, target = (
        features(),
        np.round(np.random.default_rng(1).normal(size=(B, 2)), 1).astype(np.float32),
    )
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


# Properties.


def test_on_the_sphere_squared_distance_is_cosine_at_half_the_temperature():
    x, target = jnp.asarray(features()), jnp.asarray(TARGETS["some equal"])
    for by_distance, by_cosine in [("V", "I"), ("VIII", "IV")]:
        expected = quick(conord, x, target, weights=by_cosine, temperature=0.25)
        assert quick(conord, x, target, weights=by_distance, temperature=0.5) == pytest.approx(
            expected, rel=1e-6
        )


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
