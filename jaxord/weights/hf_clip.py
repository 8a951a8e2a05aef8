"""Hugging Face's CLIP checkpoints: a folder or hub id -> our parameters, and back.

A checkpoint is `config.json` with one of the weight files that `hub.WEIGHTS` lists.
`text_model.encoder.layers.0.mlp.fc1.weight` is our `text_model/encoder/layers/0/mlp/fc1/kernel`.
Nothing is unpickled. OpenCLIP's files (open_clip_config.json, open_clip_model.safetensors) are
read too: their tensors get Hugging Face's names first.
"""

import dataclasses
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import linen as nn

from jaxord import trees
from jaxord.models.clip import ClipSettings, TextModel, Tower, VisionModel
from jaxord.models.variants import MEAN, STD, VARIANTS
from jaxord.weights import hub, open_clip, reading

# First parts of the paths of a CLIP's parameters; a model may hold others, which `load` lacks.
PARTS = ("vision_model", "visual_projection", "text_model", "text_projection", "logit_scale")
# The class of transformers that takes a checkpoint with exactly these parts.
ARCHITECTURES = {
    PARTS: "CLIPModel",
    PARTS[:2]: "CLIPVisionModelWithProjection",
    PARTS[:1]: "CLIPVisionModel",
}
# Our field of a tower -> theirs.
TOWER = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp": "intermediate_size",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
}
# Buffers 0, 1, 2, ... of old checkpoints.
POSITION_IDS = re.compile(r"(vision|text)_model\.embeddings\.position_ids")
IMAGE_POSITIONS = "vision_model/embeddings/position_embedding/embedding"


def source_name(path):
    """The name in a checkpoint of the parameter that we call `path`."""
    *parts, leaf = path.split("/")
    return ".".join([*parts, "weight" if leaf in ("kernel", "scale", "embedding") else leaf])


def to_source(path, array):
    """Our array in the checkpoint's layout: kernels [in, out] -> [out, in], HWIO -> OIHW."""
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}
    return array.transpose(axes[array.ndim]) if path.endswith("/kernel") else array


def from_source(path, array):
    """The inverse of `to_source`; an array of the wrong rank stays as it is."""
    axes = {2: (1, 0), 4: (2, 3, 1, 0)}
    kernel = path.endswith("/kernel") and array.ndim in axes
    return array.transpose(axes[array.ndim]) if kernel else array


def resize_positions(embedding, grid):
    """Interpolates an image tower's position embeddings, f32[1 + n², C] -> f32[1 + grid², C].

    The class token's, the first, stays; n x n patches follow row by row. Bicubic with the
    Catmull-Rom kernel (a = -1/2) and antialiasing, like Pillow and torch's
    `interpolate(antialias=True)`; torch without antialias has a = -3/4.
    """
    count = embedding.shape[0]
    side = round((count - 1) ** 0.5)
    if side * side != count - 1:
        raise ValueError(
            f"cannot resize {count} position embeddings: expected 1 + n² with a square grid"
        )
    if side == grid:
        return embedding
    first, rest = embedding[:1], embedding[1:].reshape(side, side, -1)
    rest = jax.image.resize(rest, (grid, grid, rest.shape[-1]), "cubic")
    return jnp.concatenate([first, rest.reshape(grid * grid, -1)])


def parameters(settings):
    """All parameters of a CLIP: flat dict path -> ShapeDtypeStruct; nothing is computed."""

    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    image = jnp.zeros((1, settings.image_size, settings.image_size, 3))
    tokens, end = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1,), jnp.int32)
    # The tower's own `init` would not reach `embed`, which holds the table of tokens.
    text = nn.init(lambda model: model(model.embed(tokens), end), TextModel(settings))
    key, dim = jax.random.key(0), settings.projection_dim
    vision = jax.eval_shape(VisionModel(settings).init, key, image)["params"]
    shapes = {
        "vision_model": vision,
        "text_model": jax.eval_shape(text, key)["params"],
        "visual_projection": {"kernel": shape(settings.vision.width, dim)},
        "text_projection": {"kernel": shape(settings.text.width, dim)},
        "logit_scale": shape(),
    }
    return trees.flatten(shapes)


def read_settings(source):
    """ClipSettings from a checkpoint's config.json, else its open_clip_config.json.

    Old files give each tower twice, as `vision_config` and `vision_config_dict`; if the second is
    there it counts, as in transformers. An `eos_token_id` of 2, a well-known mistake of theirs,
    stands for the highest id. A missing file and settings that cannot be built are a ValueError.
    """
    folder = hub.resolve(source)
    file, other = folder / "config.json", folder / open_clip.CONFIG
    theirs = not file.is_file() and other.is_file()
    file = other if theirs else file
    config = reading.read_json(file)
    try:
        if theirs:
            return open_clip.settings_from_config(config["model_cfg"])
        return _settings(config, file)
    except (AttributeError, KeyError, TypeError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise ValueError(f"{file} does not describe CLIP's towers ({fault}): get another") from None


def _settings(config, file):
    kind = config.get("model_type")
    if kind == "clip_vision_model":  # an image tower alone has its fields at the top
        config = {"vision_config": config} | {
            k: config[k] for k in ("projection_dim",) & config.keys()
        }
    elif kind != "clip":
        raise ValueError(f"{file} is of model_type {kind!r}, expected 'clip'")
    # A file leaves out transformers' defaults, which are those of ViT-B/32.
    defaults = _config(VARIANTS["ViT-B/32"])

    def section(name):
        doubled = config.get(f"{name}_dict")
        return defaults[name] | ((config.get(name) or {}) if doubled is None else doubled)

    vision, text = section("vision_config"), section("text_config")
    eos, vocabulary = text["eos_token_id"], text["vocab_size"]
    return ClipSettings(
        *(
            Tower(**{ours: side[theirs] for ours, theirs in TOWER.items()})
            for side in (vision, text)
        ),
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        vocab_size=vocabulary,
        max_positions=text["max_position_embeddings"],
        projection_dim=config.get("projection_dim", defaults["projection_dim"]),
        eos_token_id=vocabulary - 1 if eos == 2 else eos,
    )


def _config(settings):
    """config.json of a CLIP, without the class of transformers."""
    sides = [
        {theirs: getattr(tower, ours) for ours, theirs in TOWER.items()}
        | {"projection_dim": settings.projection_dim}
        for tower in (settings.vision, settings.text)
    ]
    sizes = {"image_size": settings.image_size, "patch_size": settings.patch_size}
    end = settings.eos_token_id
    words = {"vocab_size": settings.vocab_size, "max_position_embeddings": settings.max_positions}
    words |= {"eos_token_id": end, "bos_token_id": end - 1, "pad_token_id": end}
    return {
        "model_type": "clip",
        "projection_dim": settings.projection_dim,
        "vision_config": sides[0] | {"model_type": "clip_vision_model"} | sizes,
        "text_config": sides[1] | {"model_type": "clip_text_model"} | words,
    }


def preprocessing(source):
    """The normalisation and size of a checkpoint's images: dict(mean, std, size).

    mean and std are of RGB in [0, 1], size is of the square crop in pixels. Without a
    preprocessor_config.json or processor_config.json they are CLIP's own and its config.json's.
    """
    folder = hub.resolve(source)
    single, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
    theirs = folder / open_clip.CONFIG
    if single.is_file():
        file, form = single, reading.read_json(single)
    elif whole.is_file():
        file, form = whole, reading.read_json(whole).get("image_processor") or {}
    else:
        file, form = theirs, reading.read_json(theirs) if theirs.is_file() else {}
        form = form.get("preprocess_cfg") or {}
        form = {f"image_{name}": form[name] for name in ("mean", "std") & form.keys()}
    try:
        cropped = form.get("do_center_crop", True) and "crop_size" in form
        size = form.get("crop_size" if cropped else "size") or read_settings(source).image_size
        # {"height", "width"} or {"shortest_edge"}; a bare number in old files.
        if isinstance(size, dict):
            size = size.get("height", size.get("shortest_edge"))
        mean, std = form.get("image_mean", MEAN), form.get("image_std", STD)
        mean, std = (tuple(float(x) for x in channels) for channels in (mean, std))
    except (AttributeError, TypeError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise ValueError(f"{file} describes no images of CLIP ({fault}): get another") from None
    if type(size) is not int or len(mean) != 3 or len(std) != 3:
        found = f"size {size!r}, image_mean {mean}, image_std {std}"
        raise ValueError(f"{file} has {found}, expected a whole number and three channels each")
    return dict(mean=mean, std=std, size=size)


def check_architecture(found, expected):
    """Refuses a checkpoint's ClipSettings that differ from a model's, and lists every field.

    Another image_size is no other architecture: `load` resizes the positions.
    """
    found, expected = (trees.flatten(dataclasses.asdict(s)) for s in (found, expected))
    lines = [
        f"{name.replace('/', '.')}: {found[name]!r} in the weights, {expected[name]!r} in the model"
        for name in expected
        if found[name] != expected[name] and name != "image_size"
    ]
    if lines:
        advice = "weights of another architecture: choose the variant that fits them"
        raise ValueError("\n  ".join([advice, *lines]))


def _open(source):
    """A checkpoint's tensors by Hugging Face's names; shards have to agree with their index."""
    first, *_ = hub.weights(source).files
    if first.suffix != ".json":
        tensors = reading.Checkpoint([first])
    else:
        shards = {name: first.parent / file for name, file in reading.read_shards(first).items()}
        tensors = reading.Checkpoint(sorted(set(shards.values())))
        astray = [n for n in {*shards, *tensors} if tensors.file_of(n) != shards.get(n)]
        if astray:
            fault = f"{first} and its shards disagree about {sorted(astray)}"
            raise ValueError(f"{fault}: download the checkpoint again")
    if open_clip.has_open_clip_names(tensors):
        return open_clip.to_hf(dict(tensors))
    # CLIPVisionModel of transformers 5 saves the tower's names without the tower's.
    if "embeddings.class_embedding" in tensors:
        return {f"vision_model.{name}": tensors[name] for name in tensors}
    return tensors


def load(source, wanted):
    """Reads a checkpoint's parameters strictly, see `reading.fit`.

    Args:
      source: folder or hub id.
      wanted: flat dict path -> ShapeDtypeStruct (or array), a model's parameters under `PARTS`;
        without the text tower's paths the text tower is not read. `parameters` gives all of them.

    Returns:
      Flat dict path -> float32 numpy array with the paths of `wanted`. Position embeddings of the
      image tower are resized if `wanted` has another grid.
    """
    known = {source_name(path) for path in parameters(read_settings(source))}
    tensors = _open(source)
    parts = {path.split("/")[0] for path in wanted}
    lacking = sorted(parts - {name.split(".")[0] for name in tensors})
    if "vision_model" not in lacking and {"text_model", "visual_projection"} & set(lacking):
        raise ValueError(
            f"the weights in {source} are an image tower without {', '.join(lacking)}: the method "
            "needs a whole CLIP (CLIPModel)"
        )

    def expected(name):
        # A tower that is not wanted may be there, but only as the checkpoint's config.json has it.
        spare = name in known and name.split(".")[0] not in parts
        return not spare and not POSITION_IDS.fullmatch(name)

    def convert(path, tensor):
        array, count = from_source(path, tensor), wanted[path].shape[:1]
        if path != IMAGE_POSITIONS or array.ndim != 2 or array.shape[:1] == count:
            return array
        logging.info("position embeddings resized from %d to %d", array.shape[0], *count)
        grid = round((count[0] - 1) ** 0.5)
        return np.asarray(resize_positions(array.astype(np.float32), grid))

    return reading.fit(tensors, wanted, source_name, convert, expected, source)


def save(folder, params, settings, *, mean=MEAN, std=STD, resize="shorter", stored_size=0):
    """Writes a checkpoint for `load` and for transformers' `CLIPModel.from_pretrained`.

    Without the text tower it is one for `CLIPVisionModelWithProjection` (or, without projection,
    `CLIPVisionModel`). Parameters that do not fit `settings`, and parts that no class of
    transformers takes, are a ValueError.

    Args:
      folder: made if need be.
      params: flat dict path -> float32 array, under `PARTS` and complete.
      settings: ClipSettings of the parameters.
      mean, std: of the channels, RGB in [0, 1].
      resize: before the centre crop; "shorter" makes the shorter side stored_size, "square" both.
      stored_size: pixels; 0 is settings.image_size, so nothing is cropped off a square image.
    """
    parts = tuple(part for part in PARTS if any(path.split("/")[0] == part for path in params))
    if parts not in ARCHITECTURES:
        known = list(ARCHITECTURES)
        raise ValueError(f"cannot save a checkpoint of {parts}; expected one of {known}")
    expected = {path: x for path, x in parameters(settings).items() if path.split("/")[0] in parts}
    problems = trees.difference(params, expected, "the parameters", "the settings")
    if problems:
        fault = "these parameters are not a CLIP of these settings"
        raise ValueError("\n  ".join([fault, *problems]))

    stored, crop = stored_size or settings.image_size, settings.image_size
    size = {"shortest_edge": stored} if resize == "shorter" else {"height": stored, "width": stored}
    # The steps in transformers' order; 3 is bicubic in Pillow's numbering.
    steps = {"image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True}
    steps |= {"do_resize": True, "resample": 3, "size": size}
    steps |= {"do_center_crop": True, "crop_size": {"height": crop, "width": crop}}
    steps |= {"do_rescale": True, "rescale_factor": 1 / 255}
    steps |= {"do_normalize": True, "image_mean": list(mean), "image_std": list(std)}
    config = {"architectures": [ARCHITECTURES[parts]], **_config(settings)}
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", config), ("preprocessor_config.json", steps)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    reading.save(folder / "model.safetensors", params, source_name, to_source)
