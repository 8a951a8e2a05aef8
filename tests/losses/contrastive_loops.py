"""Loops for the losses between embeddings, the inputs of their tests and the comparison.

B batch, D embedding. The loops visit all triples where the equation does.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxord.losses
from jaxord import binding
from tests.oracle import FAST, complex_step, log_sum_exp, norm, units

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


# The losses, compiled once for each setting and shape; several inputs go through at once.


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
