"""One device and eight give the same losses, gradients and parameters: arrays are global, the mesh
only lays them out."""

import functools

import jax
import numpy as np
import pytest

from configs import folder
from jaxord import losses, train
from jaxord.binding import bind
from jaxord.data.batches import train_batches
from jaxord.evaluate import make_evaluate
from jaxord.runtime import devices
from jaxord.task import make_task
from jaxord.workdir import checkpoints

B, K, D = 16, 5, 8
DRAW = np.random.default_rng(0)
RANK = DRAW.integers(0, K, B).astype(np.int32)
NORMAL = {  # by shape
    "logits": (B, K),
    "value": (B,),
    "image_embeds": (B, D),
    "image_features": (B, D),
    "expert_values": (B, K),
    "group_logits": (B, K),
    "threshold_logits": (B, K - 1),
}
BATCH = {
    **{name: DRAW.normal(0, 3, shape).astype(np.float32) for name, shape in NORMAL.items()},
    "rank": RANK,
    "group": RANK,
    "reference": RANK,
    "target": (7.0 * RANK).astype(np.float32),
}
CONSTANTS = {
    **{
        name: DRAW.normal(0, 1, (K, D)).astype(np.float32)
        for name in ("text_embeds", "reference_points")
    },
    "rank_values": np.arange(K, dtype=np.float32),
    "margins": np.ones(K - 1, np.float32),
    "group_prior": np.full(K, 1 / K, np.float32),
    "noise_scale": np.float32(1.5),
    **{
        f"mixture_{name}": np.full(2, 0.5, np.float32) for name in ("weights", "means", "variances")
    },
}
MESHES = {n: devices.data_mesh(jax.devices()[:n]) for n in (1, 8)}


@pytest.mark.parametrize("name", losses.__all__)
def test_each_loss_is_the_same_on_eight_devices(name):
    function = getattr(losses, name)
    found = {}
    for n, mesh in MESHES.items():
        arrays = devices.put(BATCH, devices.split(mesh)) | devices.put(
            CONSTANTS, devices.replicated(mesh)
        )
        real = {k: v for k, v in arrays.items() if v.dtype == np.float32}
        rest = {k: v for k, v in arrays.items() if v.dtype != np.float32}
        both = jax.jit(jax.value_and_grad(lambda real, rest: bind(function, {**real, **rest})))
        found[n] = jax.device_get(both(real, rest))
    np.testing.assert_allclose(found[8][0], found[1][0], rtol=2e-6)
    for name, expected in found[1][1].items():
        scale = np.abs(expected).max()  # sums over the batch are added up in another order
        np.testing.assert_allclose(
            found[8][1][name], expected, rtol=1e-5, atol=1e-6 * scale, err_msg=name
        )


@functools.cache
def three_steps(method, root, count, fsdp=0):
    config, mesh = folder.get_config(f"method={method},backbone=tiny"), MESHES[count]
    config.data.root, config.data.batch, config.data.eval_batch, config.model.fsdp = (
        root,
        16,
        16,
        fsdp,
    )
    # Momentum keeps the size of gradients: Adam's first step would be their sign, and blow up
    # rounding around zero.
    config.optim.name = "sgd"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "data_mesh", lambda: mesh)
        task = make_task(config, "")
    state, update = train.begin(task, lambda step: 1.0)
    batches = train_batches(task.splits["train"], batch=config.data.batch, seed=0)
    metrics = []
    for _ in range(3):
        state, values = update(state, next(batches), task.labels["train"], task.constants)
        metrics.append(jax.device_get(values))
    scores = make_evaluate(task)(state.variables, "test").scores[config.rules[0]["name"]]
    return metrics, jax.device_get(state.trained), scores["mae"], state


def assert_same(a, b):
    for one, other in zip(a[0], b[0], strict=True):
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-5, err_msg=name)
    assert max(np.abs(b[1][path] - a[1][path]).max() for path in a[1]) < 1e-6
    assert b[2] == pytest.approx(a[2], rel=1e-5)


@pytest.mark.usefixtures("lightly_compiled")
def test_steps_and_scores_are_the_same_on_eight_devices(photos, shallow):
    assert_same(*(three_steps("numclip", str(photos), count) for count in (1, 8)))


@pytest.mark.usefixtures("lightly_compiled")
def test_split_parameters_train_as_whole_ones(photos, shallow, tmp_path):
    whole, split = (
        three_steps("numclip", str(photos), 8),
        three_steps("numclip", str(photos), 8, fsdp=2048),
    )
    assert_same(whole, split)
    large = [x for x in jax.tree.leaves(split[3]) if x.size >= 2048]
    assert large and all(8 * x.addressable_shards[0].data.size == x.size for x in large)
    assert held(split[3]) < held(whole[3]) / 4

    with checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(3, split[3], {})
        restored = saved.restore(3, whole[3])
    assert jax.tree.all(
        jax.tree.map(lambda a, b: (np.asarray(a) == np.asarray(b)).all(), restored, split[3])
    )


def held(tree):
    """Bytes on the first device."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def test_arrays_are_split_along_their_largest_axis_that_divides():
    shapes = {
        "kernel": (64, 256),
        "bias": (256,),
        "odd": (63, 130),
        "scalar": (),
        "patch": (7, 7, 3, 64),
    }
    tree = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    found = {
        name: tuple(layout.spec) for name, layout in devices.by_size(tree, MESHES[8], 256).items()
    }
    assert found == {
        "kernel": (None, "data"),
        "bias": ("data",),
        "odd": (),
        "scalar": (),
        "patch": (None, None, None, "data"),
    }
    assert not any(layout.spec for layout in devices.by_size(tree, MESHES[8], 0).values())


def test_a_mesh_of_fewer_devices_splits_the_batch():
    placed = devices.put(np.arange(16), devices.split(MESHES[8]))
    assert [shard.data.tolist() for shard in placed.addressable_shards] == [
        [2 * i, 2 * i + 1] for i in range(8)
    ]
