"""Frozen parameters are held in the dtype of the activations where nothing reads more of them, and
no bit changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxord import train
from jaxord.data.batches import train_batches
from jaxord.runtime import devices, rounding
from jaxord.task import make_task
from jaxord.weights import initial
from jaxord.workdir import checkpoints
from tests.kinds import MESHES, compiled_fast, config

HALF = jnp.bfloat16


def test_uses_are_followed_into_calls_and_loops():
    @jax.custom_vjp
    def norm(x, scale):
        return x * scale

    norm.defvjp(lambda x, scale: (norm(x, scale), None), lambda saved, g: (g, g))

    def function(given, x):
        inner = jax.jit(
            lambda kernel, both: x.astype(HALF) @ kernel.astype(HALF) + both.sum().astype(HALF)
        )
        y = jax.checkpoint(lambda kernel: inner(kernel, given["both"]))(given["kernel"])
        y, _ = jax.lax.scan(lambda y, row: (y * row.astype(HALF), None), y, given["rows"])
        return norm(y.astype(jnp.float32), given["scale"]) + given["both"].astype(HALF), given[
            "returned"
        ]

    square = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    names = ("kernel", "both", "rows", "scale", "returned", "unused")
    found, of_x = rounding.only_rounded(function, HALF, dict.fromkeys(names, square), square)
    assert (
        found == dict(kernel=True, both=False, rows=True, scale=False, returned=False, unused=True)
        and of_x
    )


@pytest.fixture(scope="module")
def task(photos):
    """The image tower is frozen, its projection and a classifier are trained; activations of 16
    bits."""
    fields = {"model.dtype": "bfloat16", "train.steps_per_call": 1}
    c = config("folder", "method=ce,backbone=tiny", photos, **fields).unlock()
    c.optim.groups = (
        {"parameters": "vision_model/.*", "group": "frozen"},
        {"parameters": ".*", "group": "heads"},
    )
    c.optim.rates = {"heads": {"lr": 0.01, "weight_decay": 0.0}}
    with pytest.MonkeyPatch.context() as patch, compiled_fast():
        patch.setattr(
            initial, "check_scratch", lambda config, groups: None
        )  # a frozen tower of random weights
        patch.setattr(devices, "data_mesh", lambda: MESHES[1])
        yield make_task(c.lock(), "")


def test_a_frozen_tower_has_no_float32_copy_and_trains_to_the_same_bits(task, tmp_path):
    layer = "vision_model/encoder/layers/0/"
    assert {layer + "mlp/fc1/kernel", layer + "self_attn/q_proj/bias"} <= task.rounded
    assert layer + "layer_norm1/scale" not in task.rounded  # its arithmetic is float32
    assert len(task.rounded) > len(task.frozen) / 2 and not task.rounded & set(task.trained)
    held = {
        path: x.dtype == HALF for path, x in train.begin(task, lambda step: 1.0)[0].frozen.items()
    }
    assert {path for path, half in held.items() if half} == task.rounded

    def two_steps(task):
        state, step = train.begin(task, lambda step: 1.0)
        batches = train_batches(task.splits["train"], batch=16, seed=0)
        for _ in range(2):
            state, values = step(state, next(batches), task.labels["train"], task.constants)
        return state, jax.device_get((state.trained, values))

    state, ours = two_steps(task)
    _, plain = two_steps(dataclasses.replace(task, rounded=frozenset()))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True)
    )

    # A checkpoint keeps what the weights were, and gives the devices what they had.
    with checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(2, state.replace(frozen=task.frozen), {})
        stored = saved.read(2, ("frozen",))["frozen"]
        again, frozen = train.resumed(task, saved, 2, state)
    for path, x in task.frozen.items():
        assert (
            stored[path].tobytes() == frozen[path].tobytes() == x.tobytes()
            and x.dtype == np.float32
        )
        assert again.frozen[path].dtype == state.frozen[path].dtype
        assert np.asarray(again.frozen[path]).tobytes() == np.asarray(state.frozen[path]).tobytes()


def test_float32_activations_round_nothing(photos):
    with pytest.MonkeyPatch.context() as patch, compiled_fast():
        patch.setattr(devices, "data_mesh", lambda: MESHES[1])
        assert not make_task(config("folder", "method=ce,backbone=tiny", photos), "").rounded
