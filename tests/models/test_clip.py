"""CLIP's towers: sizes, causality, precision, initial values, resized positions; the settings of
checkpoints."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxord import trees
from jaxord.models import clip
from jaxord.models.variants import MEAN, STD, VARIANTS
from jaxord.weights import hf_clip

SMALL = clip.ClipSettings(
    vision=clip.Tower(width=24, layers=2, heads=3, mlp=40),
    text=clip.Tower(width=16, layers=2, heads=2, mlp=24),
    image_size=16,
    patch_size=8,
    vocab_size=30,
    max_positions=12,
    projection_dim=8,
    eos_token_id=29,
)
TOKENS = jnp.asarray(
    [[28, 4, 5, 29, 0, 0, 0, 0, 0, 0, 0, 0], [28, 7, 8, 9, 3, 29, 0, 0, 0, 0, 0, 0]]
)
END = jnp.asarray([3, 5])
IMAGE = jax.random.normal(jax.random.key(5), (2, 16, 16, 3))


def encode(model, tokens, end):
    return model(model.embed(tokens), end)


text_features = jax.jit(
    lambda params, tokens, end: clip.TextModel(SMALL).apply(params, tokens, end, method=encode)
)


@pytest.fixture(scope="module")
def text():
    return jax.jit(nn.init(lambda m: encode(m, TOKENS, END), clip.TextModel(SMALL)))(
        jax.random.key(0)
    )


@pytest.fixture(scope="module")
def vision():
    return jax.jit(clip.VisionModel(SMALL).init)(jax.random.key(0), IMAGE)


@pytest.mark.parametrize(
    "variant, count",
    [
        # Of transformers' CLIPModel: its ViT-B/32, B/16 and L/14 as published. The -336 model has
        # 577 - 257 more positions.
        ("ViT-B/32", 151_277_313),
        ("ViT-B/16", 149_620_737),
        ("ViT-L/14", 427_616_513),
        ("ViT-L/14-336", 427_616_513 + (24**2 - 16**2) * 1024),
        # Class, patches, 17 positions, 2 norms; 4 + 2 blocks; tokens, positions, a norm of the
        # text; projections; scale.
        (
            "tiny",
            (64 + 192 * 64 + 17 * 64 + 4 * 64)
            + 6 * (4 * (64 * 64 + 64) + 2 * 64 * 256 + 256 + 64 + 4 * 64)
            + (258 + 128 + 2) * 64
            + 2 * 64 * 64
            + 1,
        ),
    ],
)
def test_parameter_count(variant, count):
    assert sum(math.prod(s.shape) for s in hf_clip.parameters(VARIANTS[variant]).values()) == count


def test_paths_are_those_of_the_flax_port():
    paths = hf_clip.parameters(SMALL)
    for path, shape in {
        "logit_scale": (),
        "vision_model/embeddings/class_embedding": (24,),
        "vision_model/embeddings/patch_embedding/kernel": (8, 8, 3, 24),
        "vision_model/embeddings/position_embedding/embedding": (5, 24),
        "vision_model/pre_layrnorm/scale": (24,),
        "vision_model/encoder/layers/1/self_attn/q_proj/kernel": (24, 24),
        "vision_model/encoder/layers/0/layer_norm1/scale": (24,),
        "vision_model/encoder/layers/0/mlp/fc1/kernel": (24, 40),
        "vision_model/post_layernorm/scale": (24,),
        "visual_projection/kernel": (24, 8),
        "text_model/embeddings/token_embedding/embedding": (30, 16),
        "text_model/embeddings/position_embedding/embedding": (12, 16),
        "text_model/encoder/layers/1/self_attn/out_proj/bias": (16,),
        "text_model/final_layer_norm/bias": (16,),
        "text_projection/kernel": (16, 8),
    }.items():
        assert paths[path].shape == shape


def test_towers_inside_a_parent_have_the_same_paths():
    class Parent(nn.Module):
        def setup(self):
            self.vision_model, self.text_model = clip.VisionModel(SMALL), clip.TextModel(SMALL)
            self.visual_projection, self.text_projection = clip.projection(8), clip.projection(8)
            self.scale = self.param("logit_scale", nn.initializers.ones, ())

        def __call__(self):
            text = encode(self.text_model, TOKENS, END)
            return self.visual_projection(self.vision_model(IMAGE)), self.text_projection(text)

    found = trees.flatten(jax.eval_shape(Parent().init, jax.random.key(0))["params"])
    assert trees.difference(found, hf_clip.parameters(SMALL)) == []


def test_initial_values_have_the_papers_deviations():
    settings = clip.ClipSettings(
        vision=clip.Tower(width=128, layers=2, heads=2, mlp=512),
        text=clip.Tower(width=128, layers=1, heads=2, mlp=512),
        image_size=64,
        patch_size=8,
        vocab_size=200,
        max_positions=64,
        projection_dim=128,
        eos_token_id=199,
    )
    key = jax.random.key(1)
    text = nn.init(lambda m: encode(m, TOKENS, END), clip.TextModel(settings))
    params = trees.flatten(
        {
            "text_model": jax.jit(text)(key)["params"],
            "vision_model": jax.jit(clip.VisionModel(settings).init)(
                key, jnp.zeros((1, 64, 64, 3))
            )["params"],
            "projection": clip.projection(128).init(key, jnp.zeros((1, 128)))["params"],
        }
    )
    block = "vision_model/encoder/layers/0"
    for path, std in {
        "text_model/embeddings/token_embedding/embedding": 0.02,
        "text_model/embeddings/position_embedding/embedding": 0.01,
        "vision_model/embeddings/position_embedding/embedding": 128**-0.5,
        "vision_model/embeddings/patch_embedding/kernel": (3 * 192) ** -0.5,
        f"{block}/self_attn/k_proj/kernel": 128**-0.5,
        f"{block}/self_attn/out_proj/kernel": 128**-0.5 / 2,
        f"{block}/mlp/fc1/kernel": 256**-0.5,
        f"{block}/mlp/fc2/kernel": 128**-0.5 / 2,
        "projection/kernel": 128**-0.5,
    }.items():
        assert np.std(params[path]) == pytest.approx(std, rel=0.05), (
            path
        )  # 8,192 values or more: 1 % of sampling error
    assert not np.any(params[f"{block}/self_attn/k_proj/bias"])


def test_a_cut_prompt_is_the_full_one(text):
    full, cut = text_features(text, TOKENS, END), text_features(text, TOKENS[:, :6], END)
    np.testing.assert_allclose(cut, full, atol=2e-6)  # measured 5e-7
    # What stands behind the end changes nothing, what stands before it does.
    np.testing.assert_array_equal(text_features(text, TOKENS.at[:, 6:].set(11), END), full)
    assert np.abs(text_features(text, TOKENS.at[:, 1].set(11), END) - full).max() > 1e-3


def test_each_sentence_gives_its_own_end(text):
    both = text_features(text, TOKENS, END)
    np.testing.assert_allclose(text_features(text, TOKENS[::-1], END[::-1]), both[::-1], atol=2e-6)
    moved = text_features(text, TOKENS, END.at[0].set(2))
    assert np.abs(moved[0] - both[0]).max() > 1e-3
    np.testing.assert_array_equal(moved[1], both[1])


def test_embed_has_no_positions(text):
    table = text["params"]["embeddings"]["token_embedding"]["embedding"]
    found = clip.TextModel(SMALL).apply(text, TOKENS, method="embed")
    np.testing.assert_array_equal(found, table[TOKENS])


def test_remat_changes_neither_value_nor_gradient(vision):
    def loss(params, remat):
        return jnp.sum(clip.VisionModel(SMALL, remat=remat).apply(params, IMAGE)[:, 0] ** 2)

    plain, again = (
        jax.jit(jax.value_and_grad(loss), static_argnums=1)(vision, remat)
        for remat in (False, True)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, again)
    recomputed = str(jax.make_jaxpr(jax.grad(lambda p: loss(p, True)))(vision))
    assert recomputed.count("remat") >= SMALL.vision.layers


def test_half_precision_keeps_parameters_and_result_in_float32(vision):
    model = clip.VisionModel(SMALL, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    half, full = (jax.jit(m.apply)(vision, IMAGE) for m in (model, clip.VisionModel(SMALL)))
    assert half.dtype == jnp.float32
    error = np.abs(half - full).max()
    assert (
        1e-6 < error < 0.05
    )  # measured 0.013 of values up to 2.7: bfloat16 was used, and is close


def test_positions_of_the_same_grid_are_untouched_and_a_plane_stays_one():
    positions = jax.random.normal(jax.random.key(3), (17, 6))
    assert hf_clip.resize_positions(positions, 4) is positions
    flat = jnp.full((17, 6), 2.5).at[0].set(-1.0)
    resized = hf_clip.resize_positions(flat, 7)
    assert resized.shape == (50, 6)
    np.testing.assert_allclose(resized[0], -1.0)
    np.testing.assert_allclose(resized[1:], 2.5, atol=1e-6)
    # Rows of the grid stay rows: a ramp along the height only.
    ramp = jnp.repeat(jnp.arange(8.0), 8)[:, None]
    grid = hf_clip.resize_positions(jnp.concatenate([jnp.zeros((1, 1)), ramp]), 16)[1:].reshape(
        16, 16
    )
    np.testing.assert_allclose(grid, grid[:, :1] + jnp.zeros((1, 16)), atol=1e-5)
    np.testing.assert_allclose(np.diff(grid[4:12, 0]), 0.5, atol=1e-5)


def test_errors_say_what_to_do(text, vision):
    with pytest.raises(
        ValueError, match=r"built for \[N, 16, 16, 3\] and got \[2, 24, 24, 3\]: set image_size"
    ):
        clip.VisionModel(SMALL).apply(vision, jnp.zeros((2, 24, 24, 3)))
    with pytest.raises(
        ValueError, match="has 13 tokens, the text tower takes 12: shorten the template"
    ):
        clip.TextModel(SMALL).apply(text, jnp.zeros((1, 13, 16)), jnp.zeros((1,), jnp.int32))
    with pytest.raises(ValueError, match=r"resize 12 position embeddings: expected 1 \+ n²"):
        hf_clip.resize_positions(jnp.zeros((12, 4)), 4)
    with pytest.raises(ValueError) as error:
        clip.ClipSettings(
            vision=clip.Tower(width=24, layers=2, heads=5, mlp=40, hidden_act="relu"),
            text=SMALL.text,
            image_size=20,
            patch_size=8,
            vocab_size=30,
            max_positions=12,
            projection_dim=8,
            eos_token_id=29,
        )
    for part in (
        "24 is not a multiple of its 5 heads",
        "'relu' is unknown",
        "20 is not a multiple of patch_size 8",
    ):
        assert part in str(error.value)


def test_short_and_old_forms_of_config_json(tmp_path):
    """What a file leaves out has transformers' defaults, ViT-B/32; `..._config_dict` wins over
    `..._config`."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "clip"}))
    assert hf_clip.read_settings(tmp_path) == VARIANTS["ViT-B/32"]
    large = dict(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
    )
    text = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    file.write_text(
        json.dumps(
            {
                "model_type": "clip",
                "projection_dim": 768,
                "vision_config": {"hidden_size": 5},
                "vision_config_dict": large,
                "text_config": text | {"eos_token_id": 2},
                "text_config_dict": None,
            }
        )
    )
    assert hf_clip.read_settings(tmp_path) == VARIANTS["ViT-L/14"]
    assert hf_clip.preprocessing(tmp_path) == dict(mean=MEAN, std=STD, size=224)
    old = {
        "crop_size": 336,
        "size": 336,
        "do_center_crop": True,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [1, 2, 3],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    assert hf_clip.preprocessing(tmp_path) == dict(mean=(0.1, 0.2, 0.3), std=(1, 2, 3), size=336)
    uncropped = old | {"size": {"shortest_edge": 250}, "do_center_crop": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(uncropped))
    assert hf_clip.preprocessing(tmp_path)["size"] == 250


def test_another_architecture_is_refused_with_every_field():
    other = clip.ClipSettings(
        vision=clip.Tower(
            width=20, layers=1, heads=5, mlp=36, hidden_act="gelu", layer_norm_eps=1e-4
        ),
        text=clip.Tower(
            width=18, layers=1, heads=1, mlp=50, hidden_act="gelu", layer_norm_eps=1e-6
        ),
        image_size=12,
        patch_size=4,
        vocab_size=41,
        max_positions=9,
        projection_dim=14,
        eos_token_id=40,
    )
    with pytest.raises(ValueError) as error:
        hf_clip.check_architecture(other, SMALL)
    lines = str(error.value).splitlines()
    assert "  vision.hidden_act: 'gelu' in the weights, 'quick_gelu' in the model" in lines
    assert "  text.layer_norm_eps: 1e-06 in the weights, 1e-05 in the model" in lines
    assert len(lines) == 1 + 6 + 6 + 5 and not any("image_size" in line for line in lines)
    b16, b32 = VARIANTS["ViT-B/16"], VARIANTS["ViT-B/32"]
    with pytest.raises(ValueError, match="patch_size: 32 in the weights, 16 in the model"):
        hf_clip.check_architecture(b32, b16)
    hf_clip.check_architecture(
        VARIANTS["ViT-L/14-336"], VARIANTS["ViT-L/14"]
    )  # another image size is no other architecture


def test_no_weights_there(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for source in ("nobody/nothing", str(tmp_path / "nowhere"), "a/b/c"):
        with pytest.raises(
            ValueError, match="not a folder, and .* hub .*--config.model.weights=<folder>"
        ) as error:
            hf_clip.read_settings(source)
        assert repr(source) in str(error.value)


@pytest.mark.parametrize(
    "change, words",
    [
        (3, "holds '3', expected a JSON object"),
        ({"vision_config": 3}, "does not describe CLIP's towers .TypeError"),
        ({"text_config": {"vocab_size": "x"}}, "vocab_size is 'x', expected a whole number"),
        ({"vision_config": {"hidden_size": 0}}, "vision width is 0, expected a whole number"),
        ({"projection_dim": None}, "projection_dim is None, expected a whole number"),
    ],
)
def test_a_config_of_the_wrong_kind_is_refused(tmp_path, change, words):
    config = {"model_type": "clip", **change} if isinstance(change, dict) else change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        hf_clip.read_settings(str(tmp_path))
