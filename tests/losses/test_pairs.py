"""What losses over all pairs are made of: blocks of anchors, distances; and what they hold in
memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxord.losses
from jaxord import vectors
from jaxord.binding import bind
from jaxord.losses.pairs import mean_over_blocks
from jaxord.runtime import devices
from tests.losses.contrastive_loops import (
    agree,
    compiled,
    compute,
    features,
    labels_of,
    oracle,
    slope,
)
from tests.oracle import complex_step, norm

# Blocks against the loop.

LONG = [
    (features(13, seed=1, twins=[(2, 0)]), labels_of([3, 0, 3, 4, 0, 1, 3, 5, 6, 0, 2, 2, 9])),
    (features(13, seed=2), labels_of([5.5] * 13)),
    (features(13, seed=3), labels_of(0.75 * np.random.default_rng(0).permutation(13))),
]


@functools.cache
def oracles(name):
    return [oracle({"name": name}, x, labels) for x, labels in LONG]


# Of 13 rows 3 at once, with two to fill up the last block; 7, with one; one.
@pytest.mark.parametrize(
    "name, block", [("rnc", 40), ("conord", 1), ("conord", 40), ("supcon", 100), ("cloc", 40)]
)
def test_blocks_agree_with_the_loop(name, block):
    for value, gradient, expected in zip(
        *compute({"name": name, "block": block}, LONG), oracles(name), strict=True
    ):
        agree(value, gradient, *expected)


@pytest.mark.parametrize("size, block", [(1, 1), (5, 1), (7, 20), (7, 48), (7, 49), (8, 16)])
def test_blocks_have_the_mean_and_its_gradient(size, block):
    held = []

    def weighed(row, number, weights):
        held.append(row.shape[0])
        return (row * row @ weights) * number

    def plain(row, weights, number):
        return weighed(row, number, weights).mean()

    def blocked(row, weights, number):
        return 3.0 * mean_over_blocks(weighed, (row, number), (weights,), block)

    arrays = (
        np.arange(3.0 * size, dtype=np.float32).reshape(size, 3),
        np.array([1.0, -2.0, 5.0], np.float32),
        np.arange(size),
    )
    value, slopes = jax.value_and_grad(plain, (0, 1))(*arrays)
    held.clear()
    found, found_slopes = jax.jit(jax.value_and_grad(blocked, (0, 1)))(*arrays)
    assert max(held) * size <= max(block, size)
    np.testing.assert_allclose(found, 3 * value, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(blocked)(*arrays), 3 * value, rtol=1e-6)
    for one, other in zip(found_slopes, slopes, strict=True):
        np.testing.assert_allclose(one, 3 * other, rtol=1e-5)


def test_a_batch_on_eight_devices_agrees_with_the_loop():
    x, labels = features(16), labels_of(np.random.default_rng(0).integers(0, 9, 16))
    parted = jax.device_put((x, labels), devices.split(devices.data_mesh()))
    case = {"name": "rnc", "block": 128}  # two blocks of 8 rows
    agree(*map(np.asarray, compiled(tuple(case.items()), False)(*parted)), *oracle(case, x, labels))


@pytest.mark.parametrize("name", ["rnc", "conord"])
def test_4_096_samples_fit_into_300_mib(name):
    loss = getattr(jaxord.losses, name)
    shapes = (
        jax.ShapeDtypeStruct((4096, 512), jnp.float32),
        jax.ShapeDtypeStruct((4096,), jnp.float32),
    )
    memory = jax.jit(jax.value_and_grad(loss)).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 300 * 2**20  # 148 and 66 MiB measured; 4,096^2 floats are 64


@pytest.mark.parametrize("name", ["info_nce", "asymmetric_contrastive", "fcrc", "ordinal_pairwise"])
def test_the_pairs_of_65_536_samples_are_never_formed(name):
    shapes = {
        "logits": (65536, 64),
        "image_embeds": (65536, 64),
        "text_embeds": (64, 64),
        "rank_values": (64,),
    }
    arrays = {array: jax.ShapeDtypeStruct(shape, jnp.float32) for array, shape in shapes.items()}
    rank = jax.ShapeDtypeStruct((65536,), jnp.int32)

    def loss(arrays, rank):
        return bind(getattr(jaxord.losses, name), {**arrays, "rank": rank})

    memory = jax.jit(jax.value_and_grad(loss)).lower(arrays, rank).compile().memory_analysis()
    assert (
        memory.temp_size_in_bytes < 200 * 2**20
    )  # 51 to 114 MiB measured; 65,536^2 floats are 16,384


# Distances.


def test_distances_keep_their_digits_where_points_are_close():
    rows = np.array([[1000.0, 1000.0], [1000.0, 1000.125], [1000.0, 1000.0]], np.float32)
    found, gradient = jax.value_and_grad(lambda a: vectors.distances(a, jnp.asarray(rows)).sum())(
        jnp.asarray(rows)
    )
    assert found == 4 * 0.125
    np.testing.assert_array_equal(gradient, [[0, -1], [0, 2], [0, -1]])


def test_distances_have_the_gradient_of_the_loop():
    rows, columns, weights = (
        features(4),
        features(5, seed=1),
        features(4, seed=2) @ features(5, seed=3).T,
    )

    def loop(both):
        return sum(weights[i, j] * norm(both[i] - both[4 + j]) for i in range(4) for j in range(5))

    both = np.concatenate([rows, columns])
    found = slope(lambda both: (weights * vectors.distances(both[:4], both[4:])).sum(), both)
    np.testing.assert_allclose(found, complex_step(loop, both)[1], rtol=1e-5, atol=1e-6)


def test_distances_to_many_columns_are_those_to_few(monkeypatch):
    rows, columns = features(5), features(23, seed=1)
    monkeypatch.setattr(vectors, "PIECE", 1 << 30)
    expected = jax.jit(vectors.distances)(rows, columns)
    jax.clear_caches()
    for piece in (
        1,
        7 * columns.shape[1],
        23 * columns.shape[1],
    ):  # one column at once, seven with a rest, all
        monkeypatch.setattr(vectors, "PIECE", piece)
        np.testing.assert_allclose(
            jax.jit(lambda a, b: vectors.distances(a, b))(rows, columns), expected, rtol=1e-6
        )
        jax.clear_caches()
