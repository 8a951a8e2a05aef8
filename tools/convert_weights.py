"""Converts pickled weights of torch to safetensors, once; jaxord itself never unpickles anything.

    python tools/convert_weights.py --source=ViT-B-16.pt --output=weights/vit-b-16
    python tools/convert_weights.py --source=open_clip_pytorch_model.bin --output=weights/laion
    python tools/convert_weights.py --source=clip/pytorch_model.bin --output=weights/clip
    python tools/convert_weights.py --source=resnet50-11ad3fa6.pth --output=weights/resnet50

The files are OpenAI's CLIP, OpenCLIP's, Hugging Face's and torchvision's. --config.model.weights
takes the folder; of torchvision's files, --config.model.image_weights takes its model.safetensors.
Nothing in a file is executed: torch.load(weights_only=True) refuses all but tensors, and
tools/sources/torchscript.py reads only the tensors of OpenAI's archives, without torch.

CLIPs with OpenAI's and OpenCLIP's names get Hugging Face's and a config.json. Its sizes come from
an open_clip_config.json beside the source, else from the shapes, as in OpenAI's models;
--hidden_act=gelu is for models that were not trained with quick_gelu. Methods with prompts also
need CLIP's tokenizer.json (or vocab.json and merges.txt): tokenizer files beside the source are
copied; else copy them from any CLIP checkpoint.
"""

import argparse
import json
import pathlib
import shutil
import sys

import numpy as np
from safetensors.numpy import save_file

from jaxord import shipped

shipped.make_importable()

from jaxord.models.variants import MEAN, STD
from jaxord.weights import hf_clip, open_clip
from tools.sources import torchscript

COPIED = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)


def read(file):
    """{name: array} of a file of torch, floats as float32; ValueError if it holds other things."""
    is_program = torchscript.is_archive(file)
    tensors = torchscript.read(file) if is_program else _read_saved(file)

    def converted(x):
        return np.array(x, np.float32 if x.dtype.kind == "f" else x.dtype, order="C")

    return {name.removeprefix("module."): converted(x) for name, x in tensors.items()}


def _read_saved(file):
    """{name: array} of a file that torch.save wrote."""
    import torch

    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several types, and messages of many lines
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"{file} holds more than tensors, or cannot be read ({first})") from error
    for name in ("state_dict", "model"):
        saved = saved.get(name, saved) if isinstance(saved, dict) else saved
    is_dict = isinstance(saved, dict)
    if not is_dict or not all(isinstance(value, torch.Tensor) for value in saved.values()):
        raise ValueError(f"{file} holds no dict of tensors")
    floats = {name: x.float() if x.is_floating_point() else x for name, x in saved.items()}
    return {name: x.contiguous().numpy() for name, x in floats.items()}


def convert(source, output, hidden_act="quick_gelu"):
    """Writes the folder; ValueError for `read`'s, a folder in use, or a CLIP unlike its config."""
    source, output = pathlib.Path(source), pathlib.Path(output)
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty; remove it, or give another --output")
    tensors = read(source)
    output.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (source.parent / name).is_file():
            shutil.copyfile(source.parent / name, output / name)
    if not open_clip.has_open_clip_names(tensors):
        save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
        return
    config_file = source.parent / open_clip.CONFIG
    if config_file.is_file():
        config = json.loads(config_file.read_text(encoding="utf-8"))
        settings = open_clip.settings_from_config(config["model_cfg"])
        pixels = config.get("preprocess_cfg", {})
    else:
        settings = open_clip.settings_from_shapes(tensors, hidden_act)
        pixels = {}
    # hf_clip.save refuses names that the settings do not give.
    paths = {hf_clip.source_name(path): path for path in hf_clip.parameters(settings)}
    named = {paths.get(name, name): array for name, array in open_clip.to_hf(tensors).items()}
    params = {path: hf_clip.from_source(path, array) for path, array in named.items()}
    mean, std = pixels.get("mean", MEAN), pixels.get("std", STD)
    hf_clip.save(output, params, settings, mean=mean, std=std)


def main(arguments=None):
    layout_kept = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout_kept)
    parser.add_argument("--source", required=True, help="file of torch: .pt, .pth or .bin")
    parser.add_argument("--output", required=True, help="folder to make")
    activations = {"choices": ("quick_gelu", "gelu"), "default": "quick_gelu"}
    parser.add_argument("--hidden_act", **activations, help="of a CLIP without config")
    args = parser.parse_args(arguments)
    try:
        convert(args.source, args.output, args.hidden_act)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(
        f"{args.output}: {', '.join(sorted(f.name for f in pathlib.Path(args.output).iterdir()))}"
    )


if __name__ == "__main__":
    main()
