import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxord.inference
from jaxord import binding, vectors

VALUES = np.array([6.0, 15.5, 26.5, 49.5, 82.5], np.float32)


def test_expectation_by_hand():
    logits = jnp.log(jnp.array([[1.0, 2.0, 1.0], [1.0, 1.0, 6.0]]))
    found = jaxord.inference.expectation(logits, jnp.array([0.0, 10.0, 40.0]))
    np.testing.assert_allclose(found, [15.0, 31.25], rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 100.0, 10_000.0])
def test_expectation_against_float64(scale):
    logits = (scale * np.random.default_rng(0).normal(size=(7, 5))).astype(np.float32)
    power = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    oracle = [sum(p * v for p, v in zip(row, VALUES, strict=True)) / sum(row) for row in power]
    found = jaxord.inference.expectation(jnp.asarray(logits), jnp.asarray(VALUES))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, oracle, rtol=1e-6)


def test_expectation_of_ties_is_the_mean_value():
    found = jaxord.inference.expectation(jnp.full((2, 5), 3e5), jnp.asarray(VALUES))
    np.testing.assert_allclose(found, [36.0, 36.0], rtol=1e-6)


def test_expectation_takes_bfloat16_logits_in_float32():
    logits = jnp.array([[0.0, 1.0]], jnp.bfloat16)
    found = jaxord.inference.expectation(logits, jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-1.0))], rtol=1e-6)


def test_expectation_has_a_finite_gradient_at_extreme_logits():
    logits = jnp.array([[3e5, -3e5, 0.0, 3e5, 1.0]])
    gradient = jax.grad(lambda x: jaxord.inference.expectation(x, jnp.asarray(VALUES)).sum())(
        logits
    )
    np.testing.assert_allclose(
        gradient, [[0.25 * (6 - 49.5), 0, 0, 0.25 * (49.5 - 6), 0]], rtol=1e-6
    )


def test_argmax_gives_the_value_of_the_first_largest():
    logits = jnp.array(
        [[0.0, 2.0, 1.0, 0.0, -1.0], [3.0, 3.0, 3.0, 3.0, 3.0], [-9.0, -8.0, -7.0, -6.0, -5.0]]
    )
    found = jaxord.inference.argmax(logits, jnp.asarray(VALUES))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [15.5, 6.0, 82.5])


def test_value_is_passed_on_in_float32():
    found = jaxord.inference.value(jnp.array([1.5, -2.0], jnp.bfloat16))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [1.5, -2.0])


def test_rules_are_found_and_called_by_the_names_of_their_arrays():
    arrays = {
        "logits": jnp.eye(5),
        "rank_values": jnp.asarray(VALUES),
        "value": jnp.arange(5.0),
        "image_embeds": None,
    }
    expected = {"argmax": VALUES, "value": np.arange(5.0)}
    for name, answer in expected.items():
        rule = binding.lookup(jaxord.inference, name)
        np.testing.assert_array_equal(binding.bind(rule, arrays), answer)
    assert binding.needs(jaxord.inference.expectation) == (["logits", "rank_values"], [])


# Groups and thresholds.


def test_experts_take_the_most_probable_group_and_true_expert_the_given_one():
    values, logits = (
        jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], jnp.bfloat16),
        jnp.array([[0.0, 9.0, 9.0], [2.0, 0.0, 1.0]]),
    )
    np.testing.assert_array_equal(jaxord.inference.experts(values, logits), [2.0, 4.0])
    found = jaxord.inference.true_expert(values, np.array([2, 1]))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [3.0, 5.0])


def test_thresholds_count_the_answers_or_their_product():
    logits = jnp.array(
        [
            [2.0, 1.0, -1.0, 3.0],
            [-1.0, -2.0, -3.0, -4.0],
            [5e4, 5e4, 5e4, 5e4],
            [0.8, 0.8, 0.8, 0.8],
        ]
    )
    found = jaxord.inference.thresholds(logits, jnp.asarray(VALUES))
    np.testing.assert_array_equal(found, [49.5, 6.0, 82.5, 82.5])
    # sigmoid(2) sigmoid(1) = .64, times sigmoid(-1) = .17; sigmoid(.8)^2 = .476, where one answer
    # is .69.
    found = jaxord.inference.thresholds(logits, jnp.asarray(VALUES), conditional=True)
    np.testing.assert_array_equal(found, [26.5, 6.0, 82.5, 15.5])


# Neighbours.


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def draw(rows, seed):
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def test_nearest_reference_is_that_of_the_loop():
    images, points, values = 7 * draw(20, 0), draw(9, 1), np.arange(9.0)
    expected = [values[np.argmin([np.linalg.norm(z - p) for p in points])] for z in unit(images)]
    np.testing.assert_array_equal(
        jaxord.inference.nearest_reference(images, points, values), expected
    )
    # The points are not made unit vectors; of equally near ones the first wins.
    points = jnp.array([[9.0, 0.0], [0.0, 0.3], [0.0, 0.6], [0.0, 1.5], [0.0, 0.6]])
    np.testing.assert_array_equal(
        jaxord.inference.nearest_reference(jnp.array([[0.1, 5.0]]), points, jnp.arange(5.0)), [2]
    )


def loop_knn(queries, gallery, targets, k):
    found = []
    for query in unit(queries):
        distances = [np.linalg.norm(query - row) for row in unit(gallery)]
        nearest = sorted(range(len(gallery)), key=lambda j: (round(distances[j], 6), j))[:k]
        found.append(np.mean([targets[j] for j in nearest], axis=0))
    return found


# 50 rows: one at once, with a rest, without, all.
@pytest.mark.parametrize(
    "k, block", [(5, 1), (5, 7), (5, 25), (5, 8192), (1, 8192), (50, 8192), (50, 7)]
)
def test_knn_is_that_of_the_loop(k, block):
    queries, gallery, targets = (
        draw(6, 0),
        draw(50, 1),
        np.random.default_rng(2).normal(size=50).astype(np.float32),
    )
    gallery[30:40] = 2 * gallery[0:10]  # equally near: the earlier row comes first
    found = jaxord.inference.knn(queries, gallery, targets, k=k, block=block)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, loop_knn(queries, gallery, targets, k), rtol=1e-5)


@pytest.mark.parametrize("block", [64, 8192])
def test_neighbours_in_one_direction_are_told_apart(block):
    """Inner products of these are 1 - 1e-6: float32 has some ten values for them."""
    common, gallery, targets = draw(1, 3), draw(500, 1), np.arange(500.0)
    queries, gallery = (np.asarray(vectors.unit(common + 1e-3 * x)) for x in (draw(20, 0), gallery))
    found = jaxord.inference.neighbours(queries, gallery, targets, k=5, block=block)
    distances = np.linalg.norm(queries.astype(np.float64)[:, None] - gallery, axis=-1)
    nearest = np.sort(distances, axis=1)[:, :5]
    np.testing.assert_allclose(
        np.take_along_axis(distances, np.asarray(found, int), axis=1), nearest, rtol=2e-4
    )


def test_equally_near_neighbours_come_in_the_order_of_the_gallery():
    gallery, targets = np.ones((40, 4), np.float32), np.arange(40.0)
    for block in (3, 16, 100):
        np.testing.assert_array_equal(
            jaxord.inference.knn(draw(3, 0), gallery, targets, k=4, block=block), [1.5] * 3
        )


def test_knn_averages_each_of_several_angles():
    queries, gallery, targets = draw(6, 0), draw(20, 1), draw(20, 2)[:, :2]
    found = jaxord.inference.knn(queries, gallery, targets, k=3)
    assert found.shape == (6, 2)
    np.testing.assert_allclose(found, loop_knn(queries, gallery, targets, 3), rtol=1e-5)


def test_knn_does_not_depend_on_how_many_are_asked_at_once():
    queries, gallery, targets = draw(300, 0), draw(50, 1), np.arange(50.0)
    together = jaxord.inference.knn(queries, gallery, targets, k=5)  # 300 queries are two groups
    np.testing.assert_array_equal(
        together[:3], jaxord.inference.knn(queries[:3], gallery, targets, k=5)
    )


def test_knn_holds_blocks_only():
    shapes = [jax.ShapeDtypeStruct((rows, 512), jnp.float32) for rows in (10_000, 100_000)]
    memory = jaxord.inference._nearest.lower(*shapes, 60, 8192).compile().memory_analysis()
    # The two sets of unit embeddings and the gallery's filled-up blocks are 425 MiB; all pairs
    # would be 3,800.
    assert memory.temp_size_in_bytes < 600 * 2**20


@pytest.mark.parametrize("k", [0, 51])
def test_knn_wants_as_many_neighbours_as_there_are(k):
    with pytest.raises(
        ValueError, match=f"k is {k}, but the gallery has 50 samples; expected 1 to 50"
    ):
        jaxord.inference.knn(draw(6, 0), draw(50, 1), np.zeros(50), k=k)


def test_knn_names_its_gallery():
    assert binding.needs(jaxord.inference.knn) == (
        ["image_embeds", "gallery_embeds", "gallery_targets"],
        [],
    )
