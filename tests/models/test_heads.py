"""Heads against numpy. B = 5, K = 4, D = 8."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxord.models import heads
from jaxord.runtime import devices
from jaxord.targets import labels

B, K, D = 5, 4, 8
KEYS = jax.random.split(jax.random.key(0), 4)
ARRAYS = {
    "image_embeds": 3.0 * jax.random.normal(KEYS[0], (B, D)),
    "text_embeds": jax.random.normal(KEYS[1], (K, D)),
    "logit_scale": jnp.log(100.0),
    "logits": jax.random.normal(KEYS[2], (B, K)),
    "rank_values": jnp.array([0.0, 13.0, 19.0, 35.0]),
    "group_prior": jnp.array([0.5, 0.2, 0.3]),
}


def run(head):
    out, variables = head.init_with_output(KEYS[3], ARRAYS)
    return out, variables.get("params", {})


def test_cosine_logits_normalise_both_sides():
    out, params = run(heads.CosineLogits())
    image, text = (np.asarray(ARRAYS[n], np.float64) for n in ("image_embeds", "text_embeds"))
    cosine = image @ text.T / np.linalg.norm(image, axis=1)[:, None] / np.linalg.norm(text, axis=1)
    np.testing.assert_allclose(out["logits"], 100 * cosine, rtol=1e-5, atol=1e-4)
    assert not params


def test_bin_regressor_is_numclips_equation():
    out, params = run(heads.BinRegressor())
    assert {k: v["kernel"].shape for k, v in params.items()} == {
        "hidden": (K, 2 * K),
        "delta": (2 * K, K),
    }
    logits = np.asarray(ARRAYS["logits"], np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    hidden = np.maximum(logits @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    delta = np.tanh(hidden @ params["delta"]["kernel"] + params["delta"]["bias"])
    expected = [
        sum(p[i, k] * float(ARRAYS["rank_values"][k]) / (1 + delta[i, k]) for k in range(K))
        for i in range(B)
    ]
    np.testing.assert_allclose(out["value"], expected, rtol=1e-5)


def test_adapter_mixes_and_has_no_bias():
    out, params = run(heads.Adapter(ratio=0.8))
    x = np.asarray(ARRAYS["image_embeds"], np.float64)
    assert params["down"]["kernel"].shape == (D, D // 4) and set(params["down"]) == {"kernel"}
    adapted = np.maximum(np.maximum(x @ params["down"]["kernel"], 0) @ params["up"]["kernel"], 0)
    np.testing.assert_allclose(out["image_embeds"], 0.8 * adapted + 0.2 * x, rtol=1e-5, atol=1e-6)


def test_regressor_starts_on_the_labels_scale():
    out, params = run(heads.Regressor())
    values = np.asarray(ARRAYS["rank_values"])
    raw = np.asarray(ARRAYS["image_embeds"]) @ params["Dense_0"]["kernel"][:, 0]
    np.testing.assert_allclose(out["value"], values.mean() + values.std() * raw, rtol=1e-4)
    assert run(heads.Classifier())[0]["logits"].shape == (B, K)


def dense(params, x):
    return np.asarray(x, np.float64) @ np.asarray(params["kernel"]) + np.asarray(
        params.get("bias", 0.0)
    )


def test_thresholds_share_their_weights_or_do_not():
    out, params = run(heads.Thresholds())
    assert params["Dense_0"]["kernel"].shape == (D, 1) and params["bias"].shape == (K - 1,)
    params = {**params, "bias": jnp.array([1.0, 0.0, -2.0])}
    logits = heads.Thresholds().apply({"params": params}, ARRAYS)["threshold_logits"]
    np.testing.assert_allclose(
        logits, dense(params["Dense_0"], ARRAYS["image_embeds"]) + [1, 0, -2], rtol=1e-5, atol=1e-5
    )
    out, params = run(heads.Thresholds(shared=False))
    np.testing.assert_allclose(
        out["threshold_logits"],
        dense(params["Dense_0"], ARRAYS["image_embeds"]),
        rtol=1e-5,
        atol=1e-5,
    )
    assert params["Dense_0"]["kernel"].shape == (D, K - 1)


def test_projection_is_a_perceptron():
    out, params = run(heads.Projection(hidden=7, features=3, layers=3))
    x = np.asarray(ARRAYS["image_embeds"])
    for name in "01":
        x = np.maximum(dense(params[name], x), 0)
    np.testing.assert_allclose(out["image_embeds"], dense(params["2"], x), rtol=1e-5, atol=1e-5)
    assert list(out) == ["image_embeds"] and params["1"]["kernel"].shape == (7, 7)
    assert run(heads.Projection())[1]["0"]["kernel"].shape == (D, D)


def test_experts_start_on_the_labels_scale():
    out, params = run(heads.Experts())
    values, x = np.asarray(ARRAYS["rank_values"]), ARRAYS["image_embeds"]
    np.testing.assert_allclose(
        out["expert_values"],
        values.mean() + values.std() * dense(params["values"], x),
        rtol=1e-5,
        atol=1e-4,
    )
    np.testing.assert_allclose(
        out["group_logits"], dense(params["groups"], x), rtol=1e-5, atol=1e-5
    )
    assert out["group_logits"].shape == out["expert_values"].shape == (B, 3)
    with pytest.raises(ValueError, match="needs group_prior, which groups.count brings"):
        heads.Experts().init(KEYS[3], {n: a for n, a in ARRAYS.items() if n != "group_prior"})


def test_reference_points_start_as_long_as_unit_features():
    arrays = {"image_embeds": jnp.zeros((1, 400)), "reference_values": jnp.zeros(50)}

    def points(**settings):
        found, variables = heads.ReferencePoints(**settings).init_with_output(KEYS[3], arrays)
        assert variables["params"]["points"].shape == (50, 400)
        return np.asarray(found["reference_points"]) * 20  # deviation of a coordinate: 1/20

    assert points().std() == pytest.approx(1, rel=0.02) and abs(points()).max() > 3
    assert points(initial="kaiming", scale=0.5).std() == pytest.approx(0.5**0.5, rel=0.02)
    assert not points(initial="zeros").any() and not points(initial="mean").any()
    assert 1.9 < abs(points(initial="truncated_normal")).max() <= 2.001
    with pytest.raises(ValueError, match="it takes one of"):
        points(initial="ones")


def test_free_parameters_give_positive_tables():
    out, params = run(heads.PairWeights(size=5))
    np.testing.assert_allclose(
        out["pair_weights"], [1 / np.arange(1, 6), np.arange(1, 6)], rtol=1e-5
    )
    weights = heads.PairWeights(size=3).apply(
        {"params": {"weights": jnp.full((2, 3), -9.0)}}, ARRAYS
    )["pair_weights"]
    np.testing.assert_allclose(weights, np.log1p(np.exp(-9)), rtol=1e-5)
    out, params = run(heads.Margins())
    assert (
        out["margins"].shape == (K - 1,)
        and (out["margins"] > 0.5).all()
        and (out["margins"] < 1).all()
    )
    np.testing.assert_allclose(out["margins"], np.log1p(np.exp(params["margins"])), rtol=1e-6)
    assert run(heads.NoiseScale(initial=3.0))[0]["noise_scale"] == 3


# Feature distribution smoothing, against a program that has each epoch's features at once.


def bucket_of(target, low, width, buckets):
    return min(max(int((target - low) // width), 0), buckets - 1)


def fds_program(epochs, window, low, width, buckets, momentum=0.9, start=1, clip=(0.1, 10.0)):
    """epochs: list of (features [n, D], targets [n]); gives the calibrated features of each
    epoch."""
    window, half = window / window.sum(), len(window) // 2
    mean, variance, found = [None] * buckets, [None] * buckets, []

    def smoothed(table, b):
        total = reach = 0
        for w, at in zip(window, range(b - half, b + half + 1), strict=True):
            at = -at if at < 0 else 2 * (buckets - 1) - at if at >= buckets else at  # reflected
            if table[at] is not None:
                total, reach = total + w * table[at], reach + w
        return total / reach

    for number, (x, targets) in enumerate(epochs):
        places = [bucket_of(t, low, width, buckets) for t in targets]
        calibrated = x.astype(np.float64)
        if number >= start:
            for i, b in enumerate(places):
                if variance[b] is not None:
                    safe = np.where(variance[b] > 0, variance[b], 1)
                    ratio = np.sqrt(np.clip(smoothed(variance, b) / safe, *clip))
                    moved = (x[i] - mean[b]) * ratio + smoothed(mean, b)
                    calibrated[i] = np.where(variance[b] > 0, moved, x[i])
        found.append(calibrated)
        for b in set(places):
            own = x[[i for i, p in enumerate(places) if p == b]].astype(np.float64)
            new = own.mean(0), own.var(0, ddof=1) if len(own) > 1 else np.zeros(x.shape[1])
            share = 1 if mean[b] is None else 1 - momentum
            mean[b] = share * new[0] + (0 if mean[b] is None else momentum * mean[b])
            variance[b] = share * new[1] + (0 if variance[b] is None else momentum * variance[b])
    return found


def training(head):
    """The head's first statistics, and its step in training: (statistics, arrays) -> (features,
    statistics)."""
    first = jax.eval_shape(head.init, KEYS[3], ARRAYS)
    assert list(first) == ["stats"]  # it has no parameters

    def step(stats, arrays):
        out, variables = head.apply({"stats": stats}, arrays, mutable=["stats"])
        return out["image_embeds"], variables["stats"]

    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), first["stats"]), step


def quickly(function):
    return jax.jit(
        function, compiler_options={"xla_backend_optimization_level": 0}
    )  # tests wait for the compiler


# Features around 1000, of which float32 knows 6e-5, have the same statistics as those around 0; and
# so on eight devices.
@pytest.mark.parametrize("offset, count", [(0.0, 1), (1000.0, 8)])
def test_fds_is_the_program_of_epochs(offset, count):
    draw, rows = (np.random.default_rng(0), devices.split(devices.data_mesh(jax.devices()[:count])))
    head = heads.FDS(low=3.0, high=10.0, copies=2, clip=(0.5, 2.0))
    epochs = []
    for number in range(4):
        targets = draw.choice(
            [0.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0, 40.0], 24
        )  # nobody is 7; the ends take what is beyond
        targets[targets == 6] = (
            5.0 if number == 0 else 6.0
        )  # bucket 6 is seen from the second epoch on
        scale = 1 + targets[:, None] / 5
        epochs.append(
            (
                (offset + scale * draw.normal(size=(24, D)) + targets[:, None]).astype(np.float32),
                targets,
            )
        )
    expected = fds_program(epochs, labels.window("gaussian", 5, 2.0), 3.0, 1.0, 7, clip=(0.5, 2.0))
    stats, step = training(head)
    step = quickly(step)
    for number, (x, targets) in enumerate(epochs):
        for part in range(0, 24, 8):
            here, copy = slice(part, part + 8), np.full(8, part // 8 % 2, np.int32)
            arrays = {
                "image_embeds": x[here],
                "target": np.float32(targets[here]),
                "epoch": 2 * number + copy,
            }
            found, stats = step(stats, devices.put(arrays, rows))
            np.testing.assert_allclose(
                found - offset, expected[number][here] - offset, atol=5e-4 if offset else 1e-5
            )
    assert abs(expected[3] - epochs[3][0]).max() > 0.5  # it does something
    assert head.apply({"stats": stats}, ARRAYS) == {}  # but not in evaluation
    _, again = step(
        stats, devices.put(arrays | {"epoch": 0 * copy}, rows)
    )  # a later stage, which counts from 0
    assert again["epoch"] == 0 and again["count"].sum() == 8 and again["epochs"].max() == 4


def test_fds_stops_gradients_at_its_statistics():
    stats, step = training(heads.FDS(low=0.0, high=3.0, size=3))
    variance = jnp.full((3, D), 1.0).at[0].set(4.0)
    stats |= {"epochs": jnp.ones(3), "running_mean": jnp.ones((3, D)), "running_variance": variance}
    arrays = {"target": jnp.array([0.0]), "epoch": jnp.array([1])}
    gradient = quickly(jax.grad(lambda x: step(stats, {**arrays, "image_embeds": x})[0].sum()))(
        jnp.ones((1, D))
    )
    window = labels.window("gaussian", 3, 2.0)
    smooth = (4 * window[1] + 2 * window[0]) / window.sum()
    np.testing.assert_allclose(gradient, np.full((1, D), np.sqrt(smooth / 4)), rtol=1e-6)
    for settings, words in (
        (dict(high=3.0, size=7), "window of 7 buckets is too wide for 3"),
        (dict(high=0.0), "no buckets"),
    ):
        with pytest.raises(ValueError, match=words):
            training(heads.FDS(low=0.0, **settings))


def test_buckets_of_decimal_targets_start_at_their_edges():
    stats, step = training(
        heads.FDS(low=0.0, high=1.0, width=0.02)
    )  # STS-B: scores 0, 0.1, ..., 5 divided by 5
    targets = (np.arange(51).astype(np.float32) / np.float32(10)) / np.float32(5)
    arrays = {
        "image_embeds": jnp.zeros((51, D)),
        "target": jnp.asarray(targets),
        "epoch": jnp.zeros(51, jnp.int32),
    }
    np.testing.assert_array_equal(quickly(step)(stats, arrays)[1]["count"], [1] * 49 + [2])
