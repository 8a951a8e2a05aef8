"""Content of ordinal.json and ordinal.safetensors: all of a model but its towers.

Heads and rules say themselves what they need (`reads` and `writes` of the classes in
jaxord.models.heads, TORCH_LINES of jaxord.inference), so a new one is known here at once.
"""

import numpy as np

from jaxord import inference
from jaxord.binding import lookup, needs
from jaxord.data import augment
from jaxord.models import heads, ordinal
from jaxord.predict import trained_model
from jaxord.weights import hf_clip
from jaxord.workdir import run_config

# Crops of predict_torch.py: those that draw nothing.
CROPS = ("center_crop", "diagonal_crops", "resize", "spread_crops")
TOWER_OUTPUTS = {"image_features", "image_embeds", "motion"}


def describe(run):
    """(content of ordinal.json, {name: array} of ordinal.safetensors) of a folder in torch.

    Holds only rules that need no label, and only heads whose arrays a rule needs. Raises ValueError
    if predict_torch.py lacks a head, rule or crop, or the run lacks an array.
    """
    config, params = run.config, run.variables["params"]
    rules, names = predicting_rules(config)
    head_entries, names = needed_heads(config, names)
    stored = dict(run.constants)
    if "logit_scale" in params:
        stored["logit_scale"] = params["logit_scale"]
    missing = names - set(stored) - TOWER_OUTPUTS
    if missing:
        rule_names = [rule["name"] for rule in rules]
        raise ValueError(f"the rules {rule_names} need {sorted(missing)}, which the run lacks")
    parts = {head["parameters"] for head in head_entries}
    if config.model.image_tower:
        # Hugging Face's CLIP holds this layer itself.
        parts.add("visual_projection")
    weights = {path: x for path, x in params.items() if path.split("/")[0] in parts}
    tensors = to_hf(weights) | contiguous({name: stored[name] for name in names & set(stored)})
    content = common(run) | {"heads": head_entries, "rules": rules}
    content["target_scale"] = config.data.target_scale
    if "motion" in names:
        content["input"] = "videos"
    return content, tensors


def predicting_rules(config):
    """(entries of ordinal.json, names of the arrays they need) of the rules without labels."""
    entries, names = [], set()
    for entry in run_config.plain(config.rules):
        arrays = needs(lookup(inference, entry["name"]))[0]
        if set(arrays) & trained_model.LABELS:
            continue
        if entry["name"] not in inference.TORCH_LINES:
            raise ValueError(not_in_torch(config, f"rule {entry['name']}"))
        renames = entry.get("arrays") or {}
        apart = ("name", "arrays", "block")
        settings = {key: value for key, value in entry.items() if key not in apart}
        entries.append({"name": entry["name"], "arrays": renames, "settings": settings})
        names |= {renames.get(name, name) for name in arrays}
    return entries, names


def needed_heads(config, names):
    """(entries of ordinal.json, arrays to read from elsewhere) of the heads that write `names`."""
    entries = []
    for entry in reversed(run_config.plain(config.heads)):
        head = getattr(heads, entry["name"], None)
        if getattr(head, "training_only", False):
            continue
        if not hasattr(head, "writes"):
            raise ValueError(not_in_torch(config, f"head {entry['name']}"))
        if names & set(head.writes):
            names = names - set(head.writes) | set(head.reads)
            settings = ordinal.settings_of(entry)
            part = ordinal.snake(entry["name"])
            entries.append({"name": entry["name"], "parameters": part, "settings": settings})
    return entries[::-1], names


def not_in_torch(config, part):
    return (
        f"the {part} has no counterpart in torch: export {config.method} on {config.name} with "
        "--format=stablehlo or onnx"
    )


def to_hf(params):
    """{our path: array} as {Hugging Face's name: array}, ready for safetensors."""
    tensors = {hf_clip.source_name(path): hf_clip.to_source(path, x) for path, x in params.items()}
    return contiguous(tensors)


def contiguous(arrays):
    """Copies in C order: safetensors writes the memory of a transposed view as it lies."""
    return {name: np.array(array, order="C") for name, array in arrays.items()}


def common(run):
    """Data, method, tower, input and ranks of a run, as every export describes them."""
    config, ranks = run.config, run.ranks
    sentences = config.model.image_tower == "BiLSTM"
    content = {"data": config.name, "method": config.method, "tower": config.model.image_tower}
    content["input"] = "sentences" if sentences else "images"
    content["transform"] = {} if sentences else transform(config.data)
    content["ranks"] = {}
    if ranks:
        values, edges = ranks.values.tolist(), ranks.edges.tolist()
        content["ranks"] = {"values": values, "names": list(ranks.names), "edges": edges}
    return content


def transform(data):
    """How evaluation turns an image into the tower's input."""
    mean, std = augment.NORMALISATIONS[data.normalize]
    crop = run_config.plain(data.eval_crop)
    if crop["name"] not in CROPS:
        found = f"data.eval_crop is {crop['name']}, which is random"
        raise ValueError(f"{found}; expected one of {list(CROPS)}")
    sizes = {"resize": data.resize, "stored_size": data.stored_size}
    sizes |= {"crop": crop, "image_size": data.image_size}
    return {**sizes, "mean": list(mean), "std": list(std)}


def processor_is_exact(t):
    """Whether transformers' image processor can do what the transform of ordinal.json does."""
    square = t["resize"] == "square" and t["stored_size"] == t["image_size"]
    return t["crop"]["name"] == "center_crop" or (t["crop"]["name"] == "resize" and square)
