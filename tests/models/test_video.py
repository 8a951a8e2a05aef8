"""The Fast pathway against torch's convolutions under pytorchvideo's names, and the fusion against
numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import erf

from jaxord import trees
from jaxord.data import video
from jaxord.models.video import FastPathway, MotionFusion
from jaxord.weights import slowfast

SMALL = FastPathway(width=2, depths=(1, 2, 1, 1))
DRAW = np.random.default_rng(0)


def shapes(model, size=32, frames=4):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, frames, size, size, 3)))


def test_shapes_and_size_of_the_pathway():
    model = FastPathway()
    found = shapes(model)
    assert jax.eval_shape(model.apply, found, jnp.zeros((2, 32, 224, 224, 3))).shape == (
        2,
        32,
        7,
        7,
        256,
    )
    count = (
        3 * 8 * 5 * 7 * 7 + 2 * 8
    )  # the stem; a convolution without bias and a norm's scale and bias
    width = 8
    for inner, depth in ((8, 3), (16, 4), (32, 6), (64, 3)):
        count += width * 4 * inner + 8 * inner
        for block in range(depth):
            count += (
                inner * (3 * (4 * inner if block else width) + 9 * inner + 4 * inner)
                + 2 * 6 * inner
            )
        width = 4 * inner
    assert sum(leaf.size for leaf in jax.tree.leaves(found["params"])) == count


def checkpoint(model):
    """Arrays under pytorchvideo's names, in torch's layout, as a whole SlowFast has them."""
    arrays = {
        "blocks.0.multipathway_blocks.0.conv.weight": np.zeros((64, 3, 1, 7, 7), np.float32)
    }  # of the Slow pathway
    for tree in shapes(model).values():
        for path, leaf in trees.flatten(tree).items():
            array = (
                DRAW.uniform(0.5, 1.5, leaf.shape)
                if path.endswith(("scale", "var"))
                else DRAW.normal(0, 0.3, leaf.shape)
            )
            array = array.transpose(4, 3, 0, 1, 2) if array.ndim == 5 else array
            arrays[slowfast.source_name(path)] = np.ascontiguousarray(array, np.float32)
    arrays["blocks.0.multipathway_blocks.1.norm.num_batches_tracked"] = np.array(7)
    return arrays


def test_names_are_those_of_pytorchvideo():
    names = checkpoint(SMALL)
    for name in (
        "blocks.0.multipathway_blocks.1.conv.weight",
        "blocks.0.multipathway_blocks.1.norm.running_mean",
        "blocks.1.multipathway_blocks.1.res_blocks.0.branch1_conv.weight",
        "blocks.1.multipathway_blocks.1.res_blocks.0.branch1_norm.running_var",
        "blocks.2.multipathway_blocks.1.res_blocks.1.branch2.conv_a.weight",
        "blocks.4.multipathway_blocks.1.res_blocks.0.branch2.norm_c.bias",
    ):
        assert name in names


def test_the_pathway_equals_torch(tmp_path):
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    arrays = checkpoint(SMALL)
    save_file(arrays, tmp_path / "weights.safetensors")
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    clip = DRAW.normal(size=(2, 4, 34, 46, 3)).astype(np.float32)  # odd and even sizes on the way

    def norm(x, name):
        return f.batch_norm(
            x,
            *(
                tensors[f"{name}.{part}"]
                for part in ("running_mean", "running_var", "weight", "bias")
            ),
        )

    def convolve(x, name, stride=1):
        kernel = tensors[f"{name}.weight"]
        return f.conv3d(
            x, kernel, stride=(1, stride, stride), padding=[size // 2 for size in kernel.shape[2:]]
        )

    x = torch.tensor(clip).permute(0, 4, 1, 2, 3)
    stem = "blocks.0.multipathway_blocks.1"
    x = f.relu(norm(convolve(x, f"{stem}.conv", 2), f"{stem}.norm"))
    x = f.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, depth in enumerate(SMALL.depths, 1):
        for block in range(depth):
            name = f"blocks.{stage}.multipathway_blocks.1.res_blocks.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = x
            for part in "abc":
                y = convolve(y, f"{name}.branch2.conv_{part}", stride if part == "b" else 1)
                y = norm(y, f"{name}.branch2.norm_{part}")
                y = y if part == "c" else f.relu(y)
            if block == 0:
                x = norm(convolve(x, f"{name}.branch1_conv", stride), f"{name}.branch1_norm")
            x = f.relu(x + y)
    expected = x.permute(0, 2, 3, 4, 1).numpy()
    variables = slowfast.load(tmp_path / "weights.safetensors", shapes(SMALL))
    found = jax.jit(SMALL.apply)(variables, clip)
    assert expected.std() > 0.1
    np.testing.assert_allclose(
        found, expected, atol=3e-6 * np.abs(expected).max()
    )  # measured: 8e-7


def test_weights_that_do_not_fit_are_all_listed(tmp_path):
    arrays = checkpoint(SMALL)
    del arrays["blocks.0.multipathway_blocks.1.conv.weight"]
    arrays["blocks.0.multipathway_blocks.1.norm.bias"] = np.zeros(3, np.float32)
    arrays["blocks.9.multipathway_blocks.1.conv.weight"] = np.zeros(3, np.float32)
    save_file(arrays, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError) as error:
        slowfast.load(tmp_path / "weights.safetensors", shapes(SMALL))
    lines = str(error.value).split("\n")
    assert lines[1:] == [
        "  missing: blocks.0.multipathway_blocks.1.conv.weight, our blocks_0/conv/kernel",
        "  unexpected: blocks.9.multipathway_blocks.1.conv.weight",
        "  blocks.0.multipathway_blocks.1.norm.bias: shape (3,) in the weights, (2,) in the model "
        "(as blocks_0/norm/bias)",
    ]
    (tmp_path / "weights.pyth").write_bytes(b"a pickle")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        slowfast.load(tmp_path / "weights.pyth", shapes(SMALL))


def test_motion_of_a_video_is_pooled_in_time(monkeypatch):
    shallow = FastPathway(depths=(1, 1, 1, 1))  # compiles in a fifth of the time
    monkeypatch.setattr("jaxord.models.video.FastPathway", lambda: shallow)
    clips = DRAW.integers(0, 256, (2, 8, 32, 32, 3)).astype(np.uint8)
    clips[1] = clips[1, :1]  # nothing moves
    network = video.fast_motion("random")
    found = network(clips)
    assert (
        found.shape == (2, 4, 1, 1, 256)
        and found.dtype == jnp.float16
        and bool(jnp.isfinite(found).all())
    )
    pixels = (clips.astype(np.float32) / 255 - 0.45) / 0.225
    maps = jax.jit(shallow.apply)(network.args[0], pixels)  # [2, 8, 1, 1, 256]
    expected = np.asarray(maps).reshape(2, 4, 2, 1, 1, 256).mean(2)
    np.testing.assert_allclose(
        np.asarray(found, np.float32), expected, rtol=2e-3, atol=1e-3 * expected.max()
    )  # of float16
    assert 0.01 < expected.std() < 100


B, M, F, H, W, C, D = 2, 3, 4, 2, 3, 8, 5
FUSION = MotionFusion(heads=2, width=C)


@pytest.fixture(scope="module")
def fusion():
    """(variables, arrays, the compiled head)."""
    motion = DRAW.normal(size=(B, M, F, H, W, C)).astype(np.float16)
    arrays = {"motion": motion, "image_embeds": DRAW.normal(size=(B, D)).astype(np.float32)}
    variables = jax.tree.map(
        lambda x: x + 0.1 * DRAW.normal(size=x.shape),
        jax.jit(FUSION.init)(jax.random.key(1), arrays),
    )
    return (
        variables,
        arrays,
        jax.jit(lambda arrays: FUSION.apply(variables, arrays)["image_embeds"]),
    )


def test_fusion_equals_numpy(fusion):
    variables, arrays, head = fusion
    p = {
        path: np.asarray(leaf, np.float64)
        for path, leaf in trees.flatten(variables["params"]).items()
    }

    def dense(x, name):
        return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * p[f"{name}/scale"] + p[f"{name}/bias"]

    def block(x, name):  # x [T, C]
        y = norm(x, f"{name}/layer_norm1")
        q, k, v = (
            dense(y, f"{name}/self_attn/{part}_proj").reshape(len(x), 2, -1) for part in "qkv"
        )
        score = np.einsum("qhc,khc->hqk", q, k) / np.sqrt(C / 2)
        weight = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
        x = x + dense(
            np.einsum("hqk,khc->qhc", weight, v).reshape(len(x), C), f"{name}/self_attn/out_proj"
        )
        y = dense(norm(x, f"{name}/layer_norm2"), f"{name}/mlp/fc1")
        return x + dense(y * 0.5 * (1 + erf(y / np.sqrt(2))), f"{name}/mlp/fc2")

    expected = []
    for motion, embeds in zip(
        arrays["motion"].astype(np.float64), arrays["image_embeds"], strict=True
    ):
        steps = []
        for clip in motion.reshape(M, F, H * W, C):
            inside = np.stack([block(frame, "intra_0") for frame in clip])
            steps.append(np.stack([block(inside[:, place], "inter_1") for place in range(H * W)]))
        temporal = dense(np.mean(steps, (0, 1, 2)), "temporal")
        expected.append(dense(np.concatenate([embeds, temporal]), "fusion"))
    np.testing.assert_allclose(head(arrays), expected, atol=1e-6)  # measured: 9e-8


def test_fusion_sees_neither_the_order_of_clips_nor_copies_of_them(fusion):
    _, arrays, head = fusion
    plain = head(arrays)
    motion = arrays["motion"]
    np.testing.assert_allclose(head({**arrays, "motion": motion[:, [2, 0, 1]]}), plain, atol=2e-6)
    still = np.broadcast_to(
        motion[:, :1, :1, :1, :1], motion.shape
    )  # the same everywhere: as one clip of one place
    single = head({**arrays, "motion": still[:, :1, :1, :1, :1]})
    np.testing.assert_allclose(head({**arrays, "motion": still}), single, atol=2e-6)
    assert float(jnp.abs(single - plain).max()) > 1e-2
    moved = motion[:, :, :, ::-1]
    mixed = np.concatenate(
        [motion[:, :, :2], moved[:, :, 2:]], 2
    )  # each frame keeps its places, but they no longer meet
    assert float(jnp.abs(head({**arrays, "motion": mixed}) - plain).max()) > 1e-4


def test_fusion_refuses_other_features(fusion):
    _, arrays, _ = fusion
    with pytest.raises(ValueError, match="the width 256, but the motion features have 8 channels"):
        MotionFusion().init(jax.random.key(0), arrays)
