"""Checkpoints of Hugging Face: against torch's CLIPModel built from random configs, there and back,
and refusals."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxord import trees
from jaxord.models import clip
from jaxord.models.variants import MEAN, STD, VARIANTS
from jaxord.weights import hf_clip

SMALL = clip.ClipSettings(
    vision=clip.Tower(width=24, layers=2, heads=3, mlp=40),
    text=clip.Tower(width=16, layers=1, heads=2, mlp=24),
    image_size=16,
    patch_size=8,
    vocab_size=30,
    max_positions=12,
    projection_dim=8,
    eos_token_id=29,
)
OTHER = clip.ClipSettings(
    vision=clip.Tower(width=20, layers=1, heads=5, mlp=36, hidden_act="gelu", layer_norm_eps=1e-4),
    text=clip.Tower(width=18, layers=2, heads=1, mlp=50, hidden_act="gelu", layer_norm_eps=1e-6),
    image_size=12,
    patch_size=4,
    vocab_size=41,
    max_positions=9,
    projection_dim=14,
    eos_token_id=40,
)
CASES = {"quick_gelu": SMALL, "gelu": OTHER}


def sentences(settings):
    """Two rows of full length with their ends, filled up by id 0."""
    tokens = np.zeros((2, settings.max_positions), np.int32)
    for row, length in enumerate((4, 6)):
        tokens[row, :length] = [
            settings.eos_token_id - 1,
            *range(3, 1 + length),
            settings.eos_token_id,
        ]
    return tokens, np.asarray([3, 5])


def images(settings, n=2):
    return (
        np.random.default_rng(1)
        .normal(size=(n, settings.image_size, settings.image_size, 3))
        .astype(np.float32)
    )


def features(settings, flat, image, tokens, end):
    """Projected image and text features, [N, D] and [K, D]."""
    params = trees.unflatten(flat)

    def text(model, tokens, end):
        return model(model.embed(tokens), end)

    image = clip.VisionModel(settings).apply({"params": params["vision_model"]}, image)
    text = clip.TextModel(settings).apply(
        {"params": params["text_model"]}, tokens, end, method=text
    )
    return image @ params["visual_projection"]["kernel"], text @ params["text_projection"]["kernel"]


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """settings, torch's model, the folder it was saved to, and our loaded parameters."""
    torch = pytest.importorskip("torch")
    from transformers import CLIPConfig, CLIPModel

    s = CASES[request.param]
    sides = [
        dict(
            hidden_size=t.width,
            num_hidden_layers=t.layers,
            num_attention_heads=t.heads,
            intermediate_size=t.mlp,
            hidden_act=t.hidden_act,
            layer_norm_eps=t.layer_norm_eps,
        )
        for t in (s.vision, s.text)
    ]
    sides[0] |= dict(image_size=s.image_size, patch_size=s.patch_size)
    sides[1] |= dict(
        vocab_size=s.vocab_size,
        max_position_embeddings=s.max_positions,
        bos_token_id=s.eos_token_id - 1,
        eos_token_id=2 if s is OTHER else s.eos_token_id,
    )  # 2: OpenAI's files, pooled at the highest id
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(vision_config=sides[0], text_config=sides[1], projection_dim=s.projection_dim)
    ).eval()
    with torch.no_grad():
        for (
            name,
            p,
        ) in (
            model.named_parameters()
        ):  # as if trained: biases and scales matter, activations are of order 1
            if p.ndim < 2:
                p.add_(torch.randn(p.shape) * 0.3)
            elif "embedding" in name:
                p.copy_(torch.randn(p.shape) * 0.5)
            else:
                p.copy_(torch.randn(p.shape) * p[0].numel() ** -0.5)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return s, model, folder, hf_clip.load(folder, hf_clip.parameters(s))


def torch_features(model, image, tokens):
    import torch

    pixels = torch.tensor(image).permute(0, 3, 1, 2)
    return (
        model.get_image_features(pixel_values=pixels).pooler_output,
        model.get_text_features(input_ids=torch.tensor(tokens, dtype=torch.long)).pooler_output,
    )


def test_settings_are_read_from_config_json(case):
    settings, _, folder, _ = case
    assert hf_clip.read_settings(folder) == settings


def test_features_and_gradients_are_torchs(case):
    """Relative to the largest value: features within 1e-5 (measured 3e-7), gradients within 1e-4
    (measured 2.4e-6)."""
    import torch

    settings, model, _, flat = case
    image, (tokens, end) = images(settings), sentences(settings)
    weights = (
        np.random.default_rng(2).normal(size=(2, 2, settings.projection_dim)).astype(np.float32)
    )

    def loss(flat):
        found = features(settings, flat, image, tokens, end)
        total = sum(jnp.sum(jnp.tanh(f * w)) for f, w in zip(found, weights, strict=True))
        return total * jnp.exp(0.1 * flat["logit_scale"]), found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(flat)
    model.zero_grad()
    theirs = torch_features(model, image, tokens)
    for a, b in zip(found, theirs, strict=True):
        b = b.detach().numpy()
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
    total = sum(torch.tanh(f * torch.tensor(w)).sum() for f, w in zip(theirs, weights, strict=True))
    (total * torch.exp(0.1 * model.logit_scale)).backward()
    # k_proj's bias drops out of the softmax: its gradient is rounding, so its error is relative to
    # the whole model.
    parameters, largest = (
        dict(model.named_parameters()),
        max(float(np.abs(g).max()) for g in gradients.values()),
    )
    assert len(parameters) == len(gradients)
    for path, gradient in gradients.items():
        expected = parameters[hf_clip.source_name(path)].grad.numpy()
        gradient = hf_clip.to_source(path, np.asarray(gradient))
        scale = largest if path.endswith("k_proj/bias") else np.abs(expected).max()
        assert scale > 0, path
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * scale, err_msg=path)


@pytest.mark.parametrize("variant", ["ViT-B/16", "ViT-L/14-336"])
def test_the_variants_have_the_names_and_shapes_of_torchs_models(variant):
    torch = pytest.importorskip("torch")
    from transformers import CLIPConfig, CLIPModel

    s = VARIANTS[variant]
    sides = [
        dict(
            hidden_size=t.width,
            num_hidden_layers=t.layers,
            num_attention_heads=t.heads,
            intermediate_size=t.mlp,
        )
        for t in (s.vision, s.text)
    ]
    sides[0] |= dict(image_size=s.image_size, patch_size=s.patch_size)
    with torch.device("meta"):
        model = CLIPModel(
            CLIPConfig(
                vision_config=sides[0], text_config=sides[1], projection_dim=s.projection_dim
            )
        )
    ours = {
        hf_clip.source_name(path): hf_clip.to_source(
            path, np.broadcast_to(np.float32(0), shape.shape)
        ).shape
        for path, shape in hf_clip.parameters(s).items()
    }
    assert ours == {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_export_of_import_is_the_same_bytes(case, tmp_path):
    settings, _, folder, flat = case
    hf_clip.save(tmp_path, flat, settings)
    ours, theirs = (
        load_file(tmp_path / "model.safetensors"),
        load_file(folder / "model.safetensors"),
    )
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name].dtype == theirs[name].dtype and ours[name].shape == theirs[name].shape, (
            name
        )
        assert ours[name].tobytes() == theirs[name].tobytes(), name
    assert ours["logit_scale"].shape == ()
    assert hf_clip.read_settings(tmp_path) == settings
    again = hf_clip.load(tmp_path, hf_clip.parameters(settings))
    assert list(again) == list(flat) == sorted(flat)
    for path in flat:
        np.testing.assert_array_equal(again[path], flat[path])


def test_transformers_loads_the_export_and_gives_the_same_features(case, tmp_path):
    from transformers import CLIPModel

    settings, model, _, flat = case
    hf_clip.save(tmp_path, {path: jnp.asarray(array) for path, array in flat.items()}, settings)
    loaded, report = CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    image, (tokens, _) = images(settings), sentences(settings)
    found, expected = (torch_features(m.eval(), image, tokens) for m in (loaded, model))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize(
    "parts, name",
    [
        (("vision_model", "visual_projection"), "CLIPVisionModelWithProjection"),
        (("vision_model",), "CLIPVisionModel"),
    ],
)
def test_an_image_tower_alone_goes_there_and_back(parts, name, tmp_path):
    pytest.importorskip("torch")
    import torch
    import transformers

    flat = {
        path: array for path, array in random_params(SMALL).items() if path.split("/")[0] in parts
    }
    hf_clip.save(tmp_path, flat, SMALL)
    again = hf_clip.load(
        tmp_path, {path: s for path, s in hf_clip.parameters(SMALL).items() if path in flat}
    )
    assert trees.difference(again, flat) == []
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [name]
    model, report = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    image = images(SMALL)
    found = clip.VisionModel(SMALL).apply({"params": trees.unflatten(flat)["vision_model"]}, image)
    with torch.no_grad():
        theirs = model.eval()(pixel_values=torch.tensor(image).permute(0, 3, 1, 2))
    if "visual_projection" in parts:
        found, theirs = found @ flat["visual_projection/kernel"], theirs.image_embeds
    else:
        theirs = theirs.pooler_output
    np.testing.assert_allclose(found, theirs.numpy(), atol=1e-5)


def test_the_preprocessor_is_transformers(tmp_path):
    pytest.importorskip("torch")
    from PIL import Image
    from transformers import CLIPImageProcessorPil

    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    hf_clip.save(
        tmp_path, random_params(SMALL), SMALL, mean=mean, std=std, resize="square", stored_size=24
    )
    assert hf_clip.preprocessing(tmp_path) == dict(mean=mean, std=std, size=16)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    image = Image.fromarray(pixels)
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path)(image, return_tensors="np")[
        "pixel_values"
    ][0]
    ours = (
        np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC))[4:20, 4:20] / 255 - mean
    ) / std
    np.testing.assert_allclose(theirs.transpose(1, 2, 0), ours, atol=1e-6)  # measured 1.5e-7


def test_positions_are_resized_as_torch_does_with_antialiasing(tmp_path):
    torch = pytest.importorskip("torch")
    hf_clip.save(tmp_path, random_params(OTHER), OTHER)
    table = random_params(OTHER)[hf_clip.IMAGE_POSITIONS]
    for size in (28, 8):
        grid = size // 4
        wanted = hf_clip.parameters(dataclasses.replace(OTHER, image_size=size))
        found = hf_clip.load(tmp_path, wanted)[hf_clip.IMAGE_POSITIONS]
        assert found.shape == (1 + grid**2, 20) and found.dtype == np.float32
        rest = torch.tensor(table[1:]).reshape(1, 3, 3, 20).permute(0, 3, 1, 2)
        rest = torch.nn.functional.interpolate(
            rest, (grid, grid), mode="bicubic", align_corners=False, antialias=True
        )
        np.testing.assert_array_equal(found[0], table[0])
        np.testing.assert_allclose(
            found[1:], rest[0].permute(1, 2, 0).reshape(-1, 20), atol=1e-5
        )  # measured 6e-7


def random_params(settings):
    rng = np.random.default_rng(7)
    shapes = hf_clip.parameters(settings)
    return {
        path: np.asarray(rng.normal(size=s.shape) * 0.3, np.float32) for path, s in shapes.items()
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    hf_clip.save(folder, random_params(SMALL), SMALL)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved, tmp_path / "copy"))


def rewrite(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_becomes_float32(copy, dtype):
    half = {
        name: array.astype(jnp.dtype(dtype))
        for name, array in load_file(copy / "model.safetensors").items()
    }
    rewrite(copy, lambda tensors: tensors.update(half))
    found = hf_clip.load(copy, hf_clip.parameters(SMALL))
    for path, array in random_params(SMALL).items():
        assert found[path].dtype == np.float32 and found[path].flags.c_contiguous
        np.testing.assert_array_equal(
            found[path], array.astype(jnp.dtype(dtype)).astype(np.float32)
        )


def test_shards_and_position_ids(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = np.arange(12)[None]
    tensors["vision_model.embeddings.position_ids"] = np.arange(5)[None]
    (copy / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, copy / file)
        weight_map |= dict.fromkeys(part, file)
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    found, expected = hf_clip.load(copy, hf_clip.parameters(SMALL)), random_params(SMALL)
    assert trees.difference(found, expected) == []
    assert all(np.array_equal(found[path], expected[path]) for path in expected)
    del weight_map["logit_scale"]
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match=r"and its shards disagree about \['logit_scale'\]"):
        hf_clip.load(copy, hf_clip.parameters(SMALL))
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        ValueError, match="model-00002-of-00002.safetensors cannot be read as safetensors"
    ):
        hf_clip.load(copy, hf_clip.parameters(SMALL))


def test_only_the_wanted_parts_are_read(copy):
    wanted = {
        path: s
        for path, s in hf_clip.parameters(SMALL).items()
        if path.startswith(("vision_model", "visual"))
    }
    assert list(hf_clip.load(copy, wanted)) == list(wanted)
    rewrite(
        copy, lambda tensors: tensors.update({"text_model.extra.weight": np.ones(3, np.float32)})
    )
    with pytest.raises(ValueError, match="unexpected: text_model.extra.weight") as error:
        hf_clip.load(copy, wanted)
    assert len(str(error.value).splitlines()) == 2


def test_every_problem_is_in_one_error(copy):
    def change(tensors):
        del tensors["logit_scale"], tensors["text_model.encoder.layers.0.mlp.fc1.bias"]
        tensors["vision_model.encoder.layers.2.mlp.fc1.bias"] = np.zeros(40, np.float32)
        tensors["classifier.weight"] = np.zeros((2, 2), np.float32)
        tensors["visual_projection.weight"] = np.zeros((9, 24), np.float32)
        tensors["text_projection.weight"] = np.zeros((8, 16), np.int8)
        tensors["vision_model.embeddings.patch_embedding.weight"] = np.zeros((24, 192), np.float32)
        tensors["text_model.embeddings.position_embedding.weight"] = np.zeros((10, 16), np.float32)

    rewrite(copy, change)
    with pytest.raises(ValueError) as error:
        hf_clip.load(copy, hf_clip.parameters(SMALL))
    first, *lines = str(error.value).splitlines()
    assert first == f"the weights in {copy} do not fit the model"
    assert sorted(line.strip() for line in lines) == sorted(
        [
            "missing: logit_scale, our logit_scale",
            "missing: text_model.encoder.layers.0.mlp.fc1.bias, "
            "our text_model/encoder/layers/0/mlp/fc1/bias",
            "unexpected: vision_model.encoder.layers.2.mlp.fc1.bias",
            "unexpected: classifier.weight",
            "visual_projection.weight: shape (24, 9) in the weights, (24, 8) in the model "
            "(as visual_projection/kernel)",
            "text_projection.weight: int8 in the weights, expected floating point",
            "vision_model.embeddings.patch_embedding.weight: shape (192, 24) in the weights, "
            "(8, 8, 3, 24) in the model (as vision_model/embeddings/patch_embedding/kernel)",
            "text_model.embeddings.position_embedding.weight: shape (10, 16) in the weights, "
            "(12, 16) in the model (as text_model/embeddings/position_embedding/embedding)",
        ]
    )


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"", "cut"])
def test_a_broken_weights_file_is_refused(copy, content):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5] if content == "cut" else content)
    with pytest.raises(
        ValueError, match="model.safetensors cannot be read as safetensors .*: download it again"
    ):
        hf_clip.load(copy, hf_clip.parameters(SMALL))


def test_what_is_no_readable_format_is_refused(copy):
    wanted, weights = hf_clip.parameters(SMALL), copy / "model.safetensors"
    weights.rename(copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin cannot be read safely: it is no zip"):
        hf_clip.load(copy, wanted)
    (copy / "pytorch_model.bin").rename(copy / "ViT.pt")
    words = r"found \[.*'ViT.pt'.*\]. Pickled weights .* never loaded"
    with pytest.raises(ValueError, match=words):
        hf_clip.load(copy, wanted)
    (copy / "ViT.pt").rename(copy / "model.fp16.safetensors")
    with pytest.raises(ValueError, match=r"in half precision only \(model.fp16.safetensors\)"):
        hf_clip.load(copy, wanted)


def test_config_json_is_checked(copy):
    file = copy / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(ValueError, match="is of model_type 'siglip', expected 'clip'"):
        hf_clip.read_settings(copy)
    file.write_text(
        json.dumps(config | {"text_config": config["text_config"] | {"hidden_act": "relu"}})
    )
    with pytest.raises(ValueError, match="text hidden_act 'relu' is unknown"):
        hf_clip.read_settings(copy)
    file.write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON .*: download it again"):
        hf_clip.read_settings(copy)
    file.unlink()
    with pytest.raises(
        ValueError,
        match=r"no config.json; found \['model.safetensors', 'preprocessor_config.json'\]",
    ):
        hf_clip.read_settings(copy)


def test_save_refuses_what_does_not_fit(tmp_path):
    params = random_params(SMALL)
    towers = {p: a for p, a in params.items() if p.split("/")[0] in ("vision_model", "text_model")}
    with pytest.raises(
        ValueError, match=r"checkpoint of \('vision_model', 'text_model'\); expected one of"
    ):
        hf_clip.save(tmp_path, towers, SMALL)
    bad = params | {
        "visual_projection/kernel": np.zeros((24, 9), np.float32),
        "text_model/extra": np.zeros(3),
    }
    del bad["vision_model/pre_layrnorm/scale"]
    with pytest.raises(ValueError) as error:
        hf_clip.save(tmp_path, bad, SMALL)
    for line in (
        "only in the settings: vision_model/pre_layrnorm/scale",
        "only in the parameters: text_model/extra",
        "visual_projection/kernel: shape (24, 9) in the parameters, (24, 8) in the settings",
    ):
        assert line in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_image_tower_alone_is_read_where_no_text_is_needed(copy, tmp_path):
    """transformers' CLIPVisionModel has other names and a flat config.json."""
    from transformers import CLIPVisionModel, CLIPVisionModelWithProjection

    whole = hf_clip.load(copy, hf_clip.parameters(SMALL))
    for architecture in (CLIPVisionModel, CLIPVisionModelWithProjection):
        folder = tmp_path / architecture.__name__
        architecture.from_pretrained(copy).save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        assert config["model_type"] == "clip_vision_model"
        (folder / "config.json").write_text(json.dumps(config | {"projection_dim": 8}))
        settings = hf_clip.read_settings(folder)
        assert (settings.vision, settings.image_size) == (SMALL.vision, SMALL.image_size)
        tower = {p: x for p, x in whole.items() if p.startswith("vision_model/")}
        loaded = hf_clip.load(folder, tower)
        assert all(np.array_equal(loaded[path], tower[path]) for path in tower)
        with pytest.raises(ValueError, match="are an image tower without .*text_model.*whole CLIP"):
            hf_clip.load(folder, whole)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_a_tensor_that_is_not_finite_is_named(copy, value, form):
    torch = pytest.importorskip("torch")
    file, name = copy / "model.safetensors", "visual_projection.weight"
    tensors = load_file(file)
    tensors[name][0, 0] = value
    if form == "safetensors":
        save_file(tensors, file)
    else:
        state = {key: torch.from_numpy(array) for key, array in tensors.items()}
        torch.save(state, copy / "pytorch_model.bin")
        file.unlink()
    with pytest.raises(ValueError, match=f"{name}: not finite in the weights"):
        hf_clip.load(copy, hf_clip.parameters(SMALL))


def test_forms_of_the_preprocessor(copy):
    file, size = copy / "preprocessor_config.json", {"height": 16, "width": 16}
    form = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "crop_size": size}
    expected = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": 16}
    file.unlink()
    # transformers 5 saves a processor's parts in one file.
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": form}))
    assert hf_clip.preprocessing(copy) == expected
    file.write_text(json.dumps(form | {"size": {"shortest_edge": 20}, "do_center_crop": False}))
    assert hf_clip.preprocessing(copy) == expected | {"size": 20}
    file.write_text(json.dumps({"crop_size": 18}))
    assert hf_clip.preprocessing(copy) == {"mean": MEAN, "std": STD, "size": 18}
    for change, words in (
        ({"image_mean": None}, "describes no images of CLIP .TypeError"),
        ({"image_std": [0.5]}, "expected a whole number and three channels"),
        ({"crop_size": {"height": "x"}}, "size 'x'"),
    ):
        file.write_text(json.dumps(form | change))
        with pytest.raises(ValueError, match=f"preprocessor_config.json .*{words}"):
            hf_clip.preprocessing(copy)
