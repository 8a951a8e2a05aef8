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

B, K = 16, 5
KEYS = jax.random.split(jax.random.key(0), 4)
ARRAYS = {
    "logits": 20 * jax.random.normal(KEYS[0], (B, K)),
    "rank": jax.random.randint(KEYS[1], (B,), 0, K),
    "value": jax.random.normal(KEYS[2], (B,)),
    "target": 3 * jax.random.normal(KEYS[3], (B,)),
}
MESHES = {n: sharding.data_mesh(jax.devices()[:n]) for n in (1, 8)}


@pytest.mark.parametrize("name", losses.__all__)
def test_each_loss_is_the_same_on_eight_devices(name):
    function = getattr(losses, name)
    found = {}
    for n, mesh in MESHES.items():
        arrays = sharding.put(ARRAYS, sharding.split(mesh))
        real = {k: v for k, v in arrays.items() if v.dtype == np.float32}
        rest = {k: v for k, v in arrays.items() if v.dtype != np.float32}
        found[n] = jax.device_get(jax.jit(jax.value_and_grad(lambda real, rest: bind(function, {**real, **rest})))(real, rest))
    np.testing.assert_allclose(found[8][0], found[1][0], rtol=1e-6)
    for name in found[1][1]:
        np.testing.assert_allclose(found[8][1][name], found[1][1][name], rtol=1e-5, atol=1e-7)


def three_steps(config, mesh, monkeypatch):
    monkeypatch.setattr(sharding, "data_mesh", lambda: mesh)
    task = assemble(config, "")
    replicated = sharding.replicated(mesh)
    optimizer = optim.make(config.optim, task.groups, lambda step: 1.0)
    trained, frozen = sharding.put((task.trained, task.frozen), replicated)
    state = step.State(sharding.put(np.int32(0), replicated), trained, frozen, jax.jit(optimizer.init)(trained))
    update = step.make_train_step(task.model, step.objective(config), optimizer, task.prepare(True), replicated)
    batches = pipeline.train_batches(task.splits["train"], batch=config.data.batch, seed=0)
    metrics = []
    for _ in range(3):
        state, values = update(state, next(batches), task.labels["train"], task.constants)
        metrics.append(jax.device_get(values))
    scores = make_evaluate(task)(state.trained | state.frozen, "test").scores
    return metrics, jax.device_get(state.trained), scores


@pytest.mark.parametrize("method", ["ce_l1", "numclip"])
def test_steps_and_scores_are_the_same_on_eight_devices(photos, monkeypatch, method):
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
