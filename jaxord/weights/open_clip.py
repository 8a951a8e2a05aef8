"""OpenCLIP's names, which are OpenAI's, and its config <-> those of Hugging Face. Arrays only.

Names of neither side pass unchanged, so that a strict reader reports them. Layouts differ in two
places: q, k and v are one array `attn.in_proj_*`, one below the other, and projections are [C, D].
"""

import re

import numpy as np

from jaxord.models.clip import ClipSettings, Tower
from jaxord.models.variants import MEAN, STD

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
# Of old files; they follow from the sizes.
BUFFERS = ("attn_mask", "input_resolution", "context_length", "vocab_size")
# What open_clip_config.json may leave out.
VISION = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0}
VISION |= {"patch_size": 16, "image_size": 224}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
TEXT |= {"mlp_ratio": 4.0}
# Beginnings of names (whole names without a dot at the end): OpenCLIP's, Hugging Face's.
NAMES = (
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("visual.proj", "visual_projection.weight"),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("ln_final.", "text_model.final_layer_norm."),
    ("text_projection", "text_projection.weight"),
)
# Parts of the names of a block.
INSIDE = (
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
JOINED = re.compile(r"(.*\.)attn\.in_proj_(weight|bias)")
SPLIT = re.compile(r"(.*\.)self_attn\.([qkv])_proj\.(weight|bias)")


def has_open_clip_names(names):
    """Whether tensors have OpenCLIP's names."""
    return "visual.conv1.weight" in names


def _translate(name, source, target):
    """A name in the other convention; source and target are columns of the tables."""
    for pair in NAMES:
        start = pair[source]
        if name == start or (start.endswith(".") and name.startswith(start)):
            name = pair[target] + name.removeprefix(start)
            break
    for pair in INSIDE:
        name = name.replace(pair[source], pair[target])
    return name


def to_hf(tensors):
    """OpenCLIP's {name: array} by Hugging Face's names and layouts, without BUFFERS."""
    renamed = {}
    for name, array in tensors.items():
        joined = JOINED.fullmatch(name)
        if joined and array.shape[0] % 3 == 0:
            start, leaf = _translate(joined[1], 0, 1), joined[2]
            for x, part in zip("qkv", np.split(array, 3), strict=True):
                renamed[f"{start}self_attn.{x}_proj.{leaf}"] = part
        elif name not in BUFFERS:
            projection = name in ("visual.proj", "text_projection")
            renamed[_translate(name, 0, 1)] = array.T if projection else array
    return renamed


def from_hf(tensors):
    """The inverse of `to_hf`; KeyError if an attention lacks one of q, k and v."""
    renamed = {}
    for name, array in tensors.items():
        split = SPLIT.fullmatch(name)
        if split and split[2] == "q":
            parts = [tensors[f"{split[1]}self_attn.{x}_proj.{split[3]}"] for x in "qkv"]
            start = _translate(split[1], 1, 0)
            renamed[f"{start}attn.in_proj_{split[3]}"] = np.concatenate(parts)
        elif not split:
            projection = name in ("visual_projection.weight", "text_projection.weight")
            renamed[_translate(name, 1, 0)] = array.T if projection else array
    return renamed


def settings_from_config(model):
    """ClipSettings from open_clip_config.json's `model_cfg`.

    Only plain vision transformers and CLIP's own text tower; others are a ValueError.
    """
    vision, text = VISION | model["vision_cfg"], TEXT | model["text_cfg"]
    keys = ("timm_model_name", "attentional_pool", "ls_init_value")
    strange = [f"vision_cfg.{key}" for key in keys if vision.get(key)]
    keys = ("hf_model_name", "embed_cls", "ls_init_value")
    strange += [f"text_cfg.{key}" for key in keys if text.get(key)]
    # A ResNet has a list of numbers of layers.
    strange += [] if isinstance(vision["layers"], int) else ["vision_cfg.layers, of a ResNet"]
    if strange:
        plain = "no plain CLIP with a vision transformer"
        raise ValueError(f"{CONFIG} describes {plain}: it has {', '.join(strange)}")
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"

    def tower(side, heads):
        mlp = round(side["width"] * side["mlp_ratio"])
        return Tower(side["width"], side["layers"], heads, mlp, hidden_act=activation)

    return ClipSettings(
        tower(vision, vision["width"] // vision["head_width"]),
        tower(text, text["heads"]),
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        vocab_size=text["vocab_size"],
        max_positions=text["context_length"],
        projection_dim=model["embed_dim"],
        eos_token_id=text["vocab_size"] - 1,
    )


def settings_from_shapes(tensors, hidden_act):
    """ClipSettings from the shapes of tensors with OpenCLIP's names, heads 64 channels wide.

    Shapes do not tell the activation: it is `hidden_act`.
    """

    def tower(start, width):
        numbers = {
            name.removeprefix(start).split(".")[0] for name in tensors if name.startswith(start)
        }
        mlp = tensors[f"{start}0.mlp.c_fc.weight"].shape[0]
        return Tower(width, len(numbers), width // 64, mlp, hidden_act)

    # The positions are a class token and a square grid of patches.
    width, _, patch, _ = tensors["visual.conv1.weight"].shape
    grid = round((tensors["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    vocabulary, text = tensors["token_embedding.weight"].shape
    return ClipSettings(
        tower("visual.transformer.resblocks.", width),
        tower("transformer.resblocks.", text),
        image_size=grid * patch,
        patch_size=patch,
        vocab_size=vocabulary,
        max_positions=tensors["positional_embedding"].shape[0],
        projection_dim=tensors["text_projection"].shape[1],
        eos_token_id=vocabulary - 1,
    )


def config(settings, mean=MEAN, std=STD):
    """open_clip_config.json of a CLIP; ValueError for settings that OpenCLIP cannot express."""
    vision, text = settings.vision, settings.text
    forms = {(tower.hidden_act, tower.layer_norm_eps) for tower in (vision, text)}
    # Its config has no field for these.
    last_id = settings.vocab_size - 1
    if len(forms) > 1 or vision.layer_norm_eps != 1e-5 or settings.eos_token_id != last_id:
        raise ValueError(
            "OpenCLIP has one activation for both towers, an epsilon of 1e-5 and ends a sentence "
            f"by its highest id; found {vision.hidden_act} and {text.hidden_act}, "
            f"{vision.layer_norm_eps} and {text.layer_norm_eps}, "
            f"{settings.eos_token_id} of {settings.vocab_size}"
        )
    model = {
        "embed_dim": settings.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": settings.image_size,
            "patch_size": settings.patch_size,
            "width": vision.width,
            "layers": vision.layers,
            "head_width": vision.width // vision.heads,
            "mlp_ratio": vision.mlp / vision.width,
        },
        "text_cfg": {
            "context_length": settings.max_positions,
            "vocab_size": settings.vocab_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
            "mlp_ratio": text.mlp / text.width,
        },
    }
    return {"model_cfg": model, "preprocess_cfg": {"mean": list(mean), "std": list(std)}}
