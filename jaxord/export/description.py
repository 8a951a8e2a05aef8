"""What follows the towers of a run: its heads, its rules, its ranks, and how an example becomes the
model's input."""

import numpy as np

from jaxord import inference
from jaxord.binding import lookup, needs
from jaxord.data import augment
from jaxord.export import torch_program
from jaxord.models import ordinal
from jaxord.predict import trained_model
from jaxord.weights import hf_clip
from jaxord.workdir import run_config

HEADS = {  # of evaluation: the arrays they take, and those they give
    "CosineLogits": ({"image_embeds", "text_embeds", "logit_scale"}, {"logits"}),
    "Classifier": ({"image_embeds", "rank_values"}, {"logits"}),
    "Regressor": ({"image_embeds", "rank_values"}, {"value"}),
    "BinRegressor": ({"logits", "rank_values"}, {"value"}),
    "Thresholds": ({"image_embeds", "rank_values"}, {"threshold_logits"}),
    "Adapter": ({"image_embeds"}, {"image_embeds"}),
    "Projection": ({"image_embeds"}, {"image_embeds"}),
    "Experts": ({"image_embeds", "rank_values"}, {"expert_values", "group_logits"}),
    "ReferencePoints": (set(), {"reference_points"}),
    "MotionFusion": ({"image_embeds", "motion"}, {"image_embeds"}),
}
TRAINING = {"FDS", "Margins", "NoiseScale", "PairWeights"}  # heads without a part in evaluation


def described(run):
    """What follows the towers: (content of ordinal.json, {name: array} of ordinal.safetensors).

    Only heads that a rule's arrays come from are in it, and only rules that need no label.

    Raises:
      ValueError: a head, rule or crop that the program in torch does not have, or a gallery that is
        not there.
    """
    config, params, constants = run.config, run.variables["params"], run.constants
    rules, wanted = [], set()
    for entry in run_config.plain(config.rules):
        taken, renames = set(needs(lookup(inference, entry["name"]))[0]), entry.get("arrays") or {}
        if not taken & trained_model.LABELS:
            own = {
                key: value for key, value in entry.items() if key not in ("name", "arrays", "block")
            }
            rules.append({"name": entry["name"], "arrays": renames, "settings": own})
            wanted |= {renames.get(name, name) for name in taken}
    heads, tensors = [], {}
    for entry in reversed(run_config.plain(config.heads)):
        name = entry["name"]
        if name not in HEADS and name not in TRAINING:
            raise ValueError(
                f"the head {name} has no counterpart in torch: {config.method} on {config.name} is exported by "
                "--format=stablehlo or onnx"
            )
        takes, gives = HEADS.get(name, (set(), set()))
        if gives & wanted:
            wanted = wanted - gives | takes
            part = ordinal.snake(name)
            heads.insert(
                0, {"name": name, "parameters": part, "settings": ordinal.settings_of(entry)}
            )
            tensors |= {path: array for path, array in params.items() if path.split("/")[0] == part}
    if config.model.image_tower and "visual_projection/kernel" in params:
        tensors["visual_projection/kernel"] = params["visual_projection/kernel"]
    given = {
        **constants,
        **({"logit_scale": params["logit_scale"]} if "logit_scale" in params else {}),
    }
    missing = wanted - set(given) - {"image_features", "image_embeds", "motion"}
    if missing:
        raise ValueError(
            f"the rules {[rule['name'] for rule in rules]} need {sorted(missing)}, which the run does not hold"
        )
    tensors = {
        hf_clip.source_name(path): hf_clip.to_source(path, np.asarray(array))
        for path, array in tensors.items()
    }
    tensors |= {name: given[name] for name in wanted if name in given}
    facts = common(run) | {"heads": heads, "rules": rules, "target_scale": config.data.target_scale}
    if "motion" in wanted:
        facts["input"] = "videos"
    # safetensors writes the memory as it lies, so transposed views are copied.
    return facts, {name: np.array(array, order="C") for name, array in tensors.items()}


def common(run):
    """What every export says of a run: data, method, tower, kind and transform of its input,
    ranks."""
    config, ranks = run.config, run.ranks
    sentences = config.model.image_tower == "BiLSTM"
    return {
        "data": config.name,
        "method": config.method,
        "tower": config.model.image_tower,
        "input": "sentences" if sentences else "images",
        "transform": {} if sentences else transform(config.data),
        "ranks": {
            "values": ranks.values.tolist(),
            "names": list(ranks.names),
            "edges": ranks.edges.tolist(),
        }
        if ranks
        else {},
    }


def transform(data):
    """How an image becomes the tower's input in evaluation."""
    mean, std = augment.NORMALISATIONS[data.normalize]
    crop = run_config.plain(data.eval_crop)
    known = sorted(torch_program.tables()["CROPS"])
    if crop["name"] not in known:
        raise ValueError(
            f"data.eval_crop is {crop['name']}, which is random; expected one of {known}"
        )
    own = {
        "resize": data.resize,
        "stored_size": data.stored_size,
        "crop": crop,
        "image_size": data.image_size,
    }
    return {**own, "mean": list(mean), "std": list(std)}
