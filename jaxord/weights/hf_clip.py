"""Hugging Face's CLIP checkpoints: a folder or hub id -> our parameters, and back.

A checkpoint is `config.json` with `model.safetensors` (or its shards and their index). Names differ
by one rule, used in both directions: `text_model.encoder.layers.0.mlp.fc1.weight` is our
`text_model/encoder/layers/0/mlp/fc1/kernel`. Loading is strict: whatever is missing, left over or
of another shape is reported at once. Pickles are never opened.

A folder with OpenCLIP's files instead, open_clip_config.json and open_clip_model.safetensors, is
read as well: its tensors get Hugging Face's names first (`jaxord.weights.open_clip`).
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import linen as nn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxord import trees
from jaxord.models.clip import ClipSettings, TextModel, Tower, VisionModel, resize_positions
from jaxord.models.variants import MEAN, STD
from jaxord.weights import open_clip

# First parts of the paths of a CLIP's parameters. A model may hold more than a CLIP; these are what
# `load` can give it.
PARTS = ("vision_model", "visual_projection", "text_model", "text_projection", "logit_scale")
# Which class of transformers takes a checkpoint with exactly these parts.
ARCHITECTURES = {
    PARTS: "CLIPModel",
    PARTS[:2]: "CLIPVisionModelWithProjection",
    PARTS[:1]: "CLIPVisionModel",
}

# Our field of a tower -> theirs, and what theirs is where config.json leaves it out.
TOWER = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp": "intermediate_size",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
}
COMMON_DEFAULTS = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
VISION_DEFAULTS = COMMON_DEFAULTS | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
TEXT_DEFAULTS = COMMON_DEFAULTS | {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
HUB_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
)
POSITION_IDS = re.compile(
    r"(vision|text)_model\.embeddings\.position_ids"
)  # 0, 1, 2, ...: buffers of old checkpoints
CONVERT = (
    "Pickled weights (.bin, .pt) can run code and are never loaded: convert them once, where torch is, by "
    "python tools/convert_weights.py --source=<file> --output=<folder>, and pass that folder"
)
IMAGE_POSITIONS = "vision_model/embeddings/position_embedding/embedding"


def source_name(path):
    """The name in a checkpoint of the parameter that we call `path`."""
    *parts, leaf = path.split("/")
    return ".".join([*parts, "weight" if leaf in ("kernel", "scale", "embedding") else leaf])


def to_source(path, array):
    """Our array as the checkpoint stores it: linear kernels [in, out] -> [out, in], convolutions
    HWIO -> OIHW."""
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}
    return array.transpose(axes[array.ndim]) if path.endswith("/kernel") else array


def from_source(path, array):
    """The inverse of `to_source`; an array of the wrong rank stays as it is and is reported by its
    shape."""
    axes = {2: (1, 0), 4: (2, 3, 1, 0)}
    return (
        array.transpose(axes[array.ndim])
        if path.endswith("/kernel") and array.ndim in axes
        else array
    )


def parameters(settings):
    """All parameters of a CLIP: flat dict path -> ShapeDtypeStruct, nothing is computed."""

    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    image = jnp.zeros((1, settings.image_size, settings.image_size, 3))
    tokens, end = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1,), jnp.int32)
    text = nn.init(lambda model: model(model.embed(tokens), end), TextModel(settings))
    shapes = {
        "vision_model": jax.eval_shape(VisionModel(settings).init, jax.random.key(0), image)[
            "params"
        ],
        "text_model": jax.eval_shape(text, jax.random.key(0))["params"],
        "visual_projection": {"kernel": shape(settings.vision.width, settings.projection_dim)},
        "text_projection": {"kernel": shape(settings.text.width, settings.projection_dim)},
        "logit_scale": shape(),
    }
    return trees.flatten(shapes)


def resolve(source):
    """The local folder of a checkpoint.

    Args:
      source: a folder, or a hub id such as "openai/clip-vit-base-patch16", which is downloaded once
        and then cached; "<hub id>@<commit>" is that commit for ever, where the id alone is what its
        branch holds on that day.

    Returns:
      pathlib.Path of a folder. Each file of the hub's has the hash that the hub gave for that
      commit.

    Raises:
      ValueError: no such folder, and the hub does not give it either; a file of the hub's that has
        another content.
    """
    folder = pathlib.Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file; weights are a folder with config.json and model.safetensors. {CONVERT}"
        )
    return _of_hub(str(source))


@functools.cache  # a process takes one commit, and hashes it once
def _of_hub(source):
    from huggingface_hub import snapshot_download  # 0.3 s, and not needed for a folder

    try:
        name, _, revision = source.partition("@")
        folder = pathlib.Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(HUB_FILES))
        )
    except (OSError, ValueError) as error:  # offline, unknown, private, or not the form of an id
        raise ValueError(
            f"no weights at {source!r}: it is not a folder, and the Hugging Face hub did not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). Download the files {', '.join(HUB_FILES)} where "
            "there is a network and pass their folder: --config.model.weights=<folder>"
        ) from error
    for file in sorted(folder.iterdir()):
        _check_hash(file)
    return folder


def _check_hash(file):
    """Raises ValueError where a file of the hub's cache has another content than the hub has said.

    The cache keeps a content under its hash in the commit, SHA-256 of large files, git's SHA-1 of
    small ones, and links to it; on a file system without links there is no hash to compare.
    """
    if not file.is_symlink():
        return
    content = file.resolve()
    with open(content, "rb") as stream:
        if len(content.name) == 64:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        else:
            found = hashlib.sha1(
                b"blob %d\0" % content.stat().st_size + stream.read(), usedforsecurity=False
            ).hexdigest()
    if found != content.name:
        raise ValueError(
            f"{file} has the hash {found}, the hub says {content.name}: it is damaged, or was changed; remove "
            f"{content} to have it downloaded again"
        )


def _read_json(file):
    if not file.is_file():
        raise ValueError(
            f"{file.parent} has no {file.name}; found {sorted(f.name for f in file.parent.iterdir())}"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}): download it again") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{file} holds {str(found)[:40]!r}, expected a JSON object: download it again"
        )
    return found


def settings(source):
    """The architecture that a checkpoint's config.json states.

    Old files give each tower twice, as `vision_config` and `vision_config_dict`; where the second
    is there it counts, as in transformers. An `eos_token_id` of 2, a well-known mistake of theirs,
    stands for the highest id.

    Raises:
      ValueError: no config.json, another kind of model, or settings that cannot be built.
    """
    folder = resolve(source)
    file = folder / "config.json"
    if not file.is_file() and (folder / open_clip.CONFIG).is_file():
        file = folder / open_clip.CONFIG
    try:
        return (
            open_clip.settings(_read_json(file)["model_cfg"])
            if file.name == open_clip.CONFIG
            else _settings(file)
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} does not describe CLIP's towers ({type(error).__name__}: {error}): get another"
        ) from None


def _settings(file):
    """Of a config.json."""
    config = _read_json(file)
    if config.get("model_type") != "clip":
        raise ValueError(f"{file} is of model_type {config.get('model_type')!r}, expected 'clip'")

    def section(side, defaults):
        given = config.get(f"{side}_config_dict")
        return defaults | ((config.get(f"{side}_config") or {}) if given is None else given)

    vision, text = section("vision", VISION_DEFAULTS), section("text", TEXT_DEFAULTS)
    return ClipSettings(
        *(
            Tower(**{ours: side[theirs] for ours, theirs in TOWER.items()})
            for side in (vision, text)
        ),
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        vocab_size=text["vocab_size"],
        max_positions=text["max_position_embeddings"],
        projection_dim=config.get("projection_dim", 512),
        eos_token_id=text["vocab_size"] - 1 if text["eos_token_id"] == 2 else text["eos_token_id"],
    )


def preprocessing(source):
    """How a checkpoint wants its images: dict(mean, std, size), of RGB in [0, 1] and pixels of the
    square crop.

    From preprocessor_config.json; a checkpoint without one gets CLIP's own values and its
    config.json's image size.
    """
    folder = resolve(source)
    file, other = folder / "preprocessor_config.json", folder / open_clip.CONFIG
    if not file.is_file() and other.is_file():
        found = _read_json(other).get("preprocess_cfg", {})
        mean, std = found.get("mean", MEAN), found.get("std", STD)
        return dict(mean=tuple(mean), std=tuple(std), size=settings(source).image_size)
    if not file.is_file():
        return dict(mean=MEAN, std=STD, size=settings(source).image_size)
    found = _read_json(file)
    size = (
        found["crop_size"]
        if found.get("do_center_crop", True) and "crop_size" in found
        else found["size"]
    )
    if isinstance(
        size, dict
    ):  # {"height", "width"} or {"shortest_edge"}; a bare number in old files
        size = size.get("height", size.get("shortest_edge"))
    return dict(mean=tuple(found["image_mean"]), std=tuple(found["image_std"]), size=size)


def compare(found, expected):
    """Refuses weights of another architecture; another `image_size` is none, `load` resizes the
    positions.

    Args:
      found: ClipSettings of the checkpoint.
      expected: ClipSettings of the model.

    Raises:
      ValueError: lists every field that differs.
    """
    found, expected = (trees.flatten(dataclasses.asdict(s)) for s in (found, expected))
    lines = [
        f"{name.replace('/', '.')}: {found[name]!r} in the weights, {expected[name]!r} in the model"
        for name in expected
        if found[name] != expected[name] and name != "image_size"
    ]
    if lines:
        raise ValueError(
            "weights of another architecture: choose the variant that fits them\n  "
            + "\n  ".join(lines)
        )


def _files(folder):
    """Tensor name -> the safetensors file that holds it, from the files' headers."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not single.is_file() and not index.is_file() and (folder / open_clip.WEIGHTS).is_file():
        single = folder / open_clip.WEIGHTS
    if single.is_file():
        weight_map, files = None, [single]
    elif index.is_file():
        weight_map = _read_json(index)["weight_map"]
        files = [folder / name for name in sorted(set(weight_map.values()))]
    else:
        raise ValueError(
            f"{folder} has no model.safetensors; found {sorted(f.name for f in folder.iterdir())}. {CONVERT}"
        )
    holder = {}
    for file in files:
        try:
            with safe_open(file, framework="np") as opened:
                holder |= {name: file for name in opened.keys()}
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{file} cannot be read as safetensors ({error}): download it again"
            ) from error
    astray = (
        []
        if weight_map is None
        else sorted(
            name
            for name in {**weight_map, **holder}
            if name not in holder or holder[name].name != weight_map.get(name)
        )
    )
    if astray:
        raise ValueError(
            f"{index} and its shards disagree about {astray}: download the checkpoint again"
        )
    return holder


def _tensors(holder, names):
    """(name, array) of the tensors with these names, file by file."""
    for file in sorted(set(holder.values())):
        with safe_open(file, framework="np") as opened:
            for name in sorted(set(opened.keys()) & set(names)):
                yield name, opened.get_tensor(name)


def load(source, wanted):
    """Reads a checkpoint's parameters.

    Args:
      source: folder or hub id.
      wanted: flat dict path -> ShapeDtypeStruct (or array), a model's parameters under `PARTS`;
        without the text tower's paths the text tower is not read. `parameters(settings(source))` is
        everything.

    Returns:
      Flat dict path -> float32 numpy array with exactly the paths of `wanted`. Half precision
      becomes float32. Position embeddings of the image tower are resized where `wanted` has another
      grid.

    Raises:
      ValueError: lists every parameter that is missing, unexpected, of another shape or not of
        floating point.
    """
    folder = resolve(source)
    holder = _files(folder)
    names = {source_name(path): path for path in wanted}
    tensors = _tensors(holder, names)
    if open_clip.is_named(holder):
        holder = open_clip.to_hf(dict(_tensors(holder, holder)))
        tensors = [(name, array) for name, array in sorted(holder.items()) if name in names]
    parts = {path.split("/")[0] for path in wanted}
    known = {source_name(path) for path in parameters(settings(folder))}
    problems = [
        f"missing: {name}, our {path}" for name, path in names.items() if name not in holder
    ]
    for name in holder:
        # A tower that is not wanted may be there, but only as the checkpoint's own config.json has
        # it.
        spare = name in known and name.split(".")[0] not in parts
        if name not in names and not spare and not POSITION_IDS.fullmatch(name):
            problems.append(f"unexpected: {name}")
    params = {}
    for name, array in tensors:
        path = names[name]
        if not jnp.issubdtype(array.dtype, jnp.floating):
            problems.append(f"{name}: {array.dtype} in the weights, expected floating point")
            continue
        array, shape = from_source(path, array), tuple(wanted[path].shape)
        if path == IMAGE_POSITIONS and array.ndim == 2 and array.shape[0] != shape[0]:
            logging.info("position embeddings resized from %d to %d", array.shape[0], shape[0])
            array = np.asarray(
                resize_positions(array.astype(np.float32), round((shape[0] - 1) ** 0.5))
            )
        if array.shape != shape:
            problems.append(
                f"{name}: shape {array.shape} in the weights, {shape} in the model (as {path})"
            )
        params[path] = np.array(array, np.float32, order="C")
    if problems:
        raise ValueError(
            f"the weights in {folder} do not fit the model\n  " + "\n  ".join(problems)
        )
    return dict(sorted(params.items()))


def save(folder, params, settings, *, mean=MEAN, std=STD, resize="shorter", stored_size=0):
    """Writes a checkpoint that transformers' `CLIPModel.from_pretrained` loads, and `load` too.

    Without the text tower it is one for `CLIPVisionModelWithProjection` (or, without projection,
    `CLIPVisionModel`).

    Args:
      folder: made if need be.
      params: flat dict path -> float32 array, under `PARTS` and complete.
      settings: ClipSettings of the parameters.
      mean, std: of the channels, RGB in [0, 1].
      resize: "shorter" (the shorter side becomes stored_size) or "square" (both), before the centre
        crop.
      stored_size: pixels; 0 is settings.image_size, so nothing is cropped off a square image.

    Raises:
      ValueError: lists every parameter that does not fit `settings`; parts that no class of
        transformers takes.
    """
    parts = tuple(part for part in PARTS if any(path.split("/")[0] == part for path in params))
    if parts not in ARCHITECTURES:
        raise ValueError(
            f"cannot save a checkpoint of {parts}; expected one of {list(ARCHITECTURES)}"
        )
    expected = {
        path: shape for path, shape in parameters(settings).items() if path.split("/")[0] in parts
    }
    problems = trees.difference(params, expected, "the parameters", "the settings")
    if problems:
        raise ValueError(
            "these parameters are not a CLIP of these settings\n  " + "\n  ".join(problems)
        )
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vision, text = (
        {theirs: getattr(tower, ours) for ours, theirs in TOWER.items()}
        | {"projection_dim": settings.projection_dim}
        for tower in (settings.vision, settings.text)
    )
    config = {
        "architectures": [ARCHITECTURES[parts]],
        "model_type": "clip",
        "projection_dim": settings.projection_dim,
        "vision_config": vision
        | {
            "model_type": "clip_vision_model",
            "image_size": settings.image_size,
            "patch_size": settings.patch_size,
        },
        "text_config": text
        | {
            "model_type": "clip_text_model",
            "vocab_size": settings.vocab_size,
            "max_position_embeddings": settings.max_positions,
            "eos_token_id": settings.eos_token_id,
            "bos_token_id": settings.eos_token_id - 1,
            "pad_token_id": settings.eos_token_id,
        },
    }
    stored, crop = stored_size or settings.image_size, settings.image_size
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 3,  # bicubic, in Pillow's numbering
        "size": {"shortest_edge": stored}
        if resize == "shorter"
        else {"height": stored, "width": stored},
        "do_center_crop": True,
        "crop_size": {"height": crop, "width": crop},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    for name, content in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    # safetensors writes the memory as it lies, so transposed views are copied; np.ascontiguousarray
    # would turn the scalar logit_scale into shape (1,), which from_pretrained refuses.
    tensors = {
        source_name(path): np.array(to_source(path, np.asarray(a)), order="C")
        for path, a in params.items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
