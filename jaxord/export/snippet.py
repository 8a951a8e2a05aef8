"""The prediction for one photograph in a few lines of torch, for the README of a CLIP export.

The lines show what the exported arrays mean; predict.py takes every input and gives every rule.
"""

import dataclasses
import re

from jaxord import inference
from jaxord.export.description import processor_is_exact
from jaxord.models import heads

HEADS = [getattr(heads, name) for name in heads.__all__]
COMPUTED = {"image_features", "image_embeds"}.union(*(getattr(h, "writes", ()) for h in HEADS))
LINEAR = """
def linear(name, x):
    return x @ a[f"{name}.weight"].T + a.get(f"{name}.bias", 0)
"""


def short_program(content):
    """The text of a program that prints the first rule's prediction for photo.jpg.

    `content` is that of ordinal.json. Returns "" unless the tower is CLIP and the input images.
    """
    if content["tower"] or content["input"] != "images":
        return ""
    exact_processor = processor_is_exact(content["transform"])
    computation = "\n".join(prediction_lines(content))
    if "image_features" in computation:
        tower = "image_features = clip.vision_model(pixels).pooler_output"
    else:
        tower = "image_embeds = clip(pixels).image_embeds"
    tower += ".mean(0, keepdim=True)  # over the views"
    if "image_features" in computation and "image_embeds" in computation:
        tower += "\nimage_embeds = clip.visual_projection(image_features)"
    body = [f"    {line}" for line in f"{tower}\n{computation}".split("\n")]
    linear = LINEAR.split("\n") * ("linear(" in computation)
    imports = import_lines(exact_processor, "unit(" in computation)
    clip = 'CLIPVisionModelWithProjection.from_pretrained(".")'
    # predict.py crops as evaluation does; transformers is used where it can do the same.
    pixels = 'images(json.load(open("ordinal.json")), ["photo.jpg"])["image"][0]'
    if exact_processor:
        processor = 'CLIPImageProcessor.from_pretrained(".")'
        pixels = f'{processor}(Image.open("photo.jpg"), return_tensors="pt").pixel_values'
    loading = [f'a, clip = load_file("ordinal.safetensors"), {clip}', f"pixels = {pixels}"]
    return "\n".join([*imports, "", *loading, *linear, "with torch.no_grad():", *body])


def import_lines(exact_processor, unit):
    """The program's imports; `unit` stands for torch's normalize."""
    if exact_processor:
        lines = ["import torch", "from PIL import Image"]
        classes = "CLIPImageProcessor, CLIPVisionModelWithProjection"
    else:
        lines = ["import json", "import torch", "from predict import images"]
        classes = "CLIPVisionModelWithProjection"
    lines += ["from safetensors.torch import load_file"]
    lines += ["from torch.nn.functional import normalize as unit"] * unit
    return [*lines, f"from transformers import {classes}"]


def prediction_lines(content):
    """The lines from the tower's arrays to the printed prediction, heads in their order."""
    rule, scale = content["rules"][0], content["target_scale"]
    conditional = " conditional" * bool(rule["settings"].get("conditional"))
    template = inference.TORCH_LINES[rule["name"] + conditional]
    names = {rule["arrays"].get(name, name) for name in re.findall(r"{(\w+)}", template)}
    (prediction,) = fill(template, rule["arrays"], rule["settings"])
    scaled = f"{scale} * {prediction}" if scale != 1 else prediction
    lines = [f"print(({scaled}).tolist())"]
    for entry in reversed(content["heads"]):
        head = getattr(heads, entry["name"])
        if names & set(head.writes):
            names = names - set(head.writes) | set(head.reads)
            defaults = {field.name: field.default for field in dataclasses.fields(head)}
            settings = {**defaults, **entry["settings"], "own": entry["parameters"]}
            lines = fill(head.torch_line, {}, settings) + lines
    return lines


def fill(template, renames, settings):
    """The template's lines; {name} becomes a setting, a computed array or an entry of `a`."""

    def fill_in(match):
        name = renames.get(match[1], match[1])
        if name in settings:
            return str(settings[name])
        return name if name in COMPUTED else f'a["{name}"]'

    return re.sub(r"\{(\w+)\}", fill_in, template).split("\n")
