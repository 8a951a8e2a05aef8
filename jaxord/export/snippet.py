"""The prediction for one photograph as plain lines of torch, for the README of an export with
CLIP's image tower.

They say what its arrays mean and are short; predict.py takes every input, many at once, and gives
every rule.
"""

import re

from jaxord.export.description import HEADS as KNOWN
from jaxord.models import heads

COMPUTED = {"image_features", "image_embeds"}.union(*(gives for _, gives in KNOWN.values()))
VALUES = "{rank_values}.mean() + {rank_values}.std(correction=0) * "
# {name} stands for an array, {own} for the parameters of the head, other words for its settings.
HEADS = {
    "CosineLogits": "logits = {logit_scale}.exp() * unit({image_embeds}) @ unit({text_embeds}).T",
    "Classifier": 'logits = linear("{own}.Dense_0", {image_embeds})',
    "Regressor": "value = " + VALUES + 'linear("{own}.Dense_0", {image_embeds})[:, 0]',
    "BinRegressor": 'delta = linear("{own}.delta", linear("{own}.hidden", {logits}).relu()).tanh()\n'
    "value = ({logits}.softmax(1) * {rank_values} / (1 + delta)).sum(1)",
    "Thresholds": 'threshold_logits = linear("{own}.Dense_0", {image_embeds}) + a.get("{own}.bias", 0)',
    "Adapter": 'image_embeds = {ratio} * linear("{own}.up", linear("{own}.down", {image_embeds}).relu()).relu() '
    "+ (1 - {ratio}) * {image_embeds}",
    "Projection": "for i in range({layers}):\n"
    '    image_embeds = linear("{own}." + str(i), image_embeds.relu() if i else image_embeds)',
    "Experts": "expert_values = " + VALUES + 'linear("{own}.values", {image_embeds})\n'
    'group_logits = linear("{own}.groups", {image_embeds})',
    "ReferencePoints": 'reference_points = a["{own}.points"]',
}
RULES = {
    "expectation": "({logits}.softmax(1) * {rank_values}).sum(1)",
    "argmax": "{rank_values}[{logits}.argmax(1)]",
    "value": "{value}",
    "experts": "{expert_values}.gather(1, {group_logits}.argmax(1)[:, None])[:, 0]",
    "thresholds": "{rank_values}[({threshold_logits} > 0).sum(1)]",
    "thresholds conditional": "{rank_values}[({threshold_logits}.sigmoid().cumprod(1) > 0.5).sum(1)]",
    "nearest_reference": "{reference_values}[torch.cdist(unit({image_embeds}), {reference_points}).argmin(1)]",
    "knn": "{gallery_targets}[torch.cdist(unit({image_embeds}), unit({gallery_embeds}), "
    'compute_mode="donot_use_mm_for_euclid_dist").topk({k}, largest=False).indices].mean(1)',
}


def lines(facts, processor):
    """The program that prints the first rule's prediction for photo.jpg.

    Args:
      facts: content of ordinal.json.
      processor: whether transformers' image processor gives exactly what the evaluation takes.

    Returns:
      Its text; "" for a model of other inputs or with another tower.
    """
    if facts["tower"] or facts["input"] != "images":
        return ""
    rule, scale = facts["rules"][0], facts["target_scale"]
    name = rule["name"] + " conditional" * bool(rule["settings"].get("conditional"))
    wanted = {rule["arrays"].get(array, array) for array in re.findall(r"{(\w+)}", RULES[name])}
    (prediction,) = spelled(RULES[name], rule["arrays"], rule["settings"])
    body = [f"print(({f'{scale} * ' * (scale != 1)}{prediction}).tolist())"]
    for head in reversed(facts["heads"]):
        takes, gives = KNOWN[head["name"]]
        if gives & wanted:
            wanted = wanted - gives | takes
            own = {"own": head["parameters"], **defaults(head["name"]), **head["settings"]}
            body = spelled(HEADS[head["name"]], {}, own) + body
    text = "\n".join(body)
    if "image_features" in text:
        tower = [
            "image_features = clip.vision_model(pixels).pooler_output.mean(0, keepdim=True)  # over the views"
        ]
        tower += ["image_embeds = clip.visual_projection(image_features)"] * (
            "image_embeds" in text
        )
    else:
        tower = ["image_embeds = clip(pixels).image_embeds.mean(0, keepdim=True)  # over the views"]
    if processor:
        imports, classes = (
            ["import torch", "from PIL import Image"],
            "CLIPImageProcessor, CLIPVisionModelWithProjection",
        )
        pixels = 'CLIPImageProcessor.from_pretrained(".")(Image.open("photo.jpg"), return_tensors="pt").pixel_values'
    else:
        imports, classes = (
            ["import json", "import torch", "from predict import images"],
            "CLIPVisionModelWithProjection",
        )
        pixels = 'images(json.load(open("ordinal.json")), ["photo.jpg"])["image"][0]  # crops as in the evaluation'
    imports += ["from safetensors.torch import load_file", f"from transformers import {classes}"]
    imports += ["from torch.nn.functional import normalize as unit"] * ("unit(" in text)
    linear = [
        "",
        "def linear(name, x):",
        '    return x @ a[f"{name}.weight"].T + a.get(f"{name}.bias", 0)',
        "",
    ]
    loaded = 'a, clip = load_file("ordinal.safetensors"), CLIPVisionModelWithProjection.from_pretrained(".")'
    rest = ["with torch.no_grad():", *(f"    {line}" for line in [*tower, *body])]
    return "\n".join(
        [*imports, "", loaded, f"pixels = {pixels}", *linear * ("linear(" in text), *rest]
    )


def defaults(name):
    """Settings of a head that its entry may leave out."""
    return {
        key: value
        for key, value in vars(getattr(heads, name)).items()
        if isinstance(value, (int, float))
    }


def spelled(template, renames, settings):
    """The lines of a template, with arrays as variables where they are computed, else as entries of
    `a`."""

    def word(match):
        name = renames.get(match[1], match[1])
        if name in settings:
            return str(settings[name])
        return name if name in COMPUTED else f'a["{name}"]'

    return [re.sub(r"\{(\w+)\}", word, line) for line in template.split("\n")]
