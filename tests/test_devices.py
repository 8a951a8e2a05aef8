"""One device and eight give the same losses, gradients and parameters: arrays are global, the mesh only lays them out."""

import jax
import numpy as np
import pytest

from configs import folder
from jaxord import losses, optim, sharding, step
from jaxord.assemble import assemble
from jaxord.binding import bind
from jaxord.data import pipeline
from jaxord.evaluate import make_evaluate

B, K, D = 16, 5, 8
DRAW = np.random.default_rng(0)
RANK = DRAW.integers(0, K, B).astype(np.int32)
NORMAL = {  # by shape
    "logits": (B, K), "value": (B,), "image_embeds": (B, D), "image_features": (B, D), "expert_values": (B, K),
    "group_logits": (B, K), "threshold_logits": (B, K - 1),
}
BATCH = {
    **{name: DRAW.normal(0, 3, shape).astype(np.float32) for name, shape in NORMAL.items()},
    "rank": RANK, "group": RANK, "reference": RANK, "target": (7.0 * RANK).astype(np.float32),
}
CONSTANTS = {
    **{name: DRAW.normal(0, 1, (K, D)).astype(np.float32) for name in ("text_embeds", "reference_points")},
    "rank_values": np.arange(K, dtype=np.float32), "margins": np.ones(K - 1, np.float32),
    "group_prior": np.full(K, 1 / K, np.float32), "noise_scale": np.float32(1.5),
    **{f"mixture_{name}": np.full(2, 0.5, np.float32) for name in ("weights", "means", "variances")},
}
MESHES = {n: sharding.data_mesh(jax.devices()[:n]) for n in (1, 8)}


@pytest.mark.parametrize("name", losses.__all__)
def test_each_loss_is_the_same_on_eight_devices(name):
    function = getattr(losses, name)
    found = {}
    for n, mesh in MESHES.items():
        arrays = sharding.put(BATCH, sharding.split(mesh)) | sharding.put(CONSTANTS, sharding.replicated(mesh))
        real = {k: v for k, v in arrays.items() if v.dtype == np.float32}
        rest = {k: v for k, v in arrays.items() if v.dtype != np.float32}
        both = jax.jit(jax.value_and_grad(lambda real, rest: bind(function, {**real, **rest})))
        found[n] = jax.device_get(both(real, rest))
    np.testing.assert_allclose(found[8][0], found[1][0], rtol=2e-6)
    for name, expected in found[1][1].items():
        scale = np.abs(expected).max()  # sums over the batch are added up in another order
        np.testing.assert_allclose(found[8][1][name], expected, rtol=1e-5, atol=1e-6 * scale, err_msg=name)


def three_steps(config, mesh, monkeypatch):
    monkeypatch.setattr(sharding, "data_mesh", lambda: mesh)
    task = assemble(config, "")
    replicated = sharding.replicated(mesh)
    optimizer = optim.make(config.optim, task.groups, lambda step: 1.0)
    trained, frozen, stats = sharding.put((task.trained, task.frozen, task.stats), replicated)
    opt_state = jax.jit(optimizer.init, out_shardings=replicated)(trained)
    state = step.State(sharding.put(np.int32(0), replicated), trained, frozen, stats, opt_state)
    update = step.make_train_step(task.model, step.objective(config), optimizer, task.prepare(True), replicated)
    batches = pipeline.train_batches(task.splits["train"], batch=config.data.batch, seed=0)
    metrics = []
    for _ in range(3):
        state, values = update(state, next(batches), task.labels["train"], task.constants)
        metrics.append(jax.device_get(values))
    scores = make_evaluate(task)(state.variables, "test").scores
    return metrics, jax.device_get(state.trained), scores


@pytest.mark.usefixtures("lightly_compiled")
@pytest.mark.parametrize("method", ["ce_l1", "numclip"])
def test_steps_and_scores_are_the_same_on_eight_devices(photos, monkeypatch, shallow, method):
    config = folder.get_config(f"method={method},backbone=tiny")
    config.data.root, config.data.batch, config.data.eval_batch = str(photos), 16, 16
    # Momentum keeps the size of gradients: Adam's first step would be their sign, and blow up rounding around zero.
    config.optim.name = "sgd"
    one, eight = (three_steps(config, mesh, monkeypatch) for mesh in MESHES.values())
    for a, b in zip(one[0], eight[0], strict=True):
        for name in a:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-5, err_msg=name)
    assert max(np.abs(eight[1][path] - one[1][path]).max() for path in one[1]) < 1e-6
    rule = config.rules[0]["name"]
    assert eight[2][rule]["mae"] == pytest.approx(one[2][rule]["mae"], rel=1e-5)


def test_a_mesh_of_fewer_devices_splits_the_batch():
    placed = sharding.put(np.arange(16), sharding.split(MESHES[8]))
    assert [shard.data.tolist() for shard in placed.addressable_shards] == [[2 * i, 2 * i + 1] for i in range(8)]
