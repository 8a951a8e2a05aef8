"""OpenCLIP's names, which are OpenAI's: names and layouts of a CLIP's tensors <-> those of Hugging
Face. Arrays only.

    visual.conv1.weight                       vision_model.embeddings.patch_embedding.weight
    visual.class_embedding                    vision_model.embeddings.class_embedding
    visual.positional_embedding               vision_model.embeddings.position_embedding.weight
    visual.ln_pre, visual.ln_post             vision_model.pre_layrnorm, vision_model.post_layernorm
    visual.transformer.resblocks.0.           vision_model.encoder.layers.0.
      ln_1, ln_2                                layer_norm1, layer_norm2
      attn.in_proj_weight, attn.in_proj_bias    self_attn.{q,k,v}_proj.weight and .bias, one below the other
      attn.out_proj                             self_attn.out_proj
      mlp.c_fc, mlp.c_proj                      mlp.fc1, mlp.fc2
    visual.proj [C, D]                        visual_projection.weight [D, C]
    token_embedding.weight                    text_model.embeddings.token_embedding.weight
    positional_embedding                      text_model.embeddings.position_embedding.weight
    transformer.resblocks.0.                  text_model.encoder.layers.0.
    ln_final                                  text_model.final_layer_norm
    text_projection [C, D]                    text_projection.weight [D, C]
    logit_scale                               logit_scale

Names of neither side pass as they are, so that a strict reader reports them.
"""

import re

import numpy as np

from jaxord.models.clip import ClipSettings, Tower
from jaxord.models.variants import MEAN, STD

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
BUFFERS = (
    "attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
)  # of old files; they follow from the sizes
VISION = {
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "patch_size": 16,
    "image_size": 224,
}  # its defaults
TEXT = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
}
NAMES = (  # beginnings of names: OpenCLIP's, Hugging Face's
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
INSIDE = (  # of a block
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
JOINED = re.compile(r"(.*\.)attn\.in_proj_(weight|bias)")
SPLIT = re.compile(r"(.*\.)self_attn\.([qkv])_proj\.(weight|bias)")


def is_named(names):
    """Whether tensors have OpenCLIP's names."""
    return "visual.conv1.weight" in names


def renamed(name, ours, theirs):
    """A name in the other convention; `ours` and `theirs` are 0 or 1, columns of the tables."""
    for pair in NAMES:
        if name == pair[ours] or (pair[ours].endswith(".") and name.startswith(pair[ours])):
            name = pair[theirs] + name.removeprefix(pair[ours])
            break
    for pair in INSIDE:
        name = name.replace(pair[ours], pair[theirs])
    return name


def to_hf(tensors):
    """OpenCLIP's names to Hugging Face's.

    Args:
      tensors: {name: array}.

    Returns:
      {name: array}; q, k and v are parts of the joined arrays, projections transposed, BUFFERS left
      out.
    """
    found = {}
    for name, array in tensors.items():
        joined, new = JOINED.fullmatch(name), renamed(name, 0, 1)
        if joined and array.shape[0] % 3 == 0:
            start = renamed(joined[1], 0, 1)
            found |= {
                f"{start}self_attn.{x}_proj.{joined[2]}": part
                for x, part in zip("qkv", np.split(array, 3), strict=True)
            }
        elif name not in BUFFERS:
            found[new] = array.T if name in ("visual.proj", "text_projection") else array
    return found


def from_hf(tensors):
    """The inverse of `to_hf`.

    Raises:
      KeyError: an attention that lacks one of q, k and v.
    """
    found = {}
    for name, array in tensors.items():
        split = SPLIT.fullmatch(name)
        if split:
            if split[2] == "q":
                parts = [tensors[f"{split[1]}self_attn.{x}_proj.{split[3]}"] for x in "qkv"]
                found[f"{renamed(split[1], 1, 0)}attn.in_proj_{split[3]}"] = np.concatenate(parts)
        else:
            found[renamed(name, 1, 0)] = (
                array.T if name in ("visual_projection.weight", "text_projection.weight") else array
            )
    return found


def settings(model):
    """The architecture that open_clip_config.json's `model_cfg` states.

    Raises:
      ValueError: an image tower that is no plain vision transformer, or a text tower that is not
        CLIP's own.
    """
    vision, text = VISION | model["vision_cfg"], TEXT | model["text_cfg"]
    strange = [
        f"vision_cfg.{key}"
        for key in ("timm_model_name", "attentional_pool", "ls_init_value")
        if vision.get(key)
    ]
    strange += [
        f"text_cfg.{key}"
        for key in ("hf_model_name", "embed_cls", "ls_init_value")
        if text.get(key)
    ]
    strange += [] if isinstance(vision["layers"], int) else ["vision_cfg.layers, of a ResNet"]
    if strange:
        raise ValueError(
            f"{CONFIG} describes no plain CLIP with a vision transformer: it has {', '.join(strange)}"
        )
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


def config(settings, mean=MEAN, std=STD):
    """open_clip_config.json of a CLIP, the inverse of `settings`.

    Raises:
      ValueError: settings that OpenCLIP cannot express.
    """
    vision, text = settings.vision, settings.text
    same = (vision.hidden_act, vision.layer_norm_eps) == (text.hidden_act, text.layer_norm_eps)
    if (
        not same
        or vision.layer_norm_eps != 1e-5
        or settings.eos_token_id != settings.vocab_size - 1
    ):
        raise ValueError(
            "OpenCLIP has one activation for both towers, an epsilon of 1e-5 and ends a sentence by its highest id; found "
            f"{vision.hidden_act} and {text.hidden_act}, {vision.layer_norm_eps} and {text.layer_norm_eps}, "
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


def sizes(tensors, hidden_act):
    """The architecture that tensors with OpenCLIP's names have: all from their shapes but the
    activation.

    Heads are 64 channels wide, as in every CLIP of OpenAI.
    """

    def tower(start, width):
        count = len(
            {name.removeprefix(start).split(".")[0] for name in tensors if name.startswith(start)}
        )
        return Tower(
            width, count, width // 64, tensors[f"{start}0.mlp.c_fc.weight"].shape[0], hidden_act
        )

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
