"""Pickled weights of torch -> safetensors, once, where torch is; jaxord itself never unpickles
anything.

    python tools/convert_weights.py --source=ViT-B-16.pt --output=weights/vit-b-16                    # OpenAI's CLIP
    python tools/convert_weights.py --source=open_clip_pytorch_model.bin --output=weights/laion       # OpenCLIP's
    python tools/convert_weights.py --source=clip/pytorch_model.bin --output=weights/clip             # Hugging Face's
    python tools/convert_weights.py --source=resnet50-11ad3fa6.pth --output=weights/resnet50          # torchvision's

Reads by torch.load(weights_only=True), which refuses whatever is not a tensor. OpenAI's files are
TorchScript archives: of these only the tensors are read (tools/torchscript.py), for which torch is
not needed. Nothing in a file is ever executed. The folder is then what --config.model.weights
takes; of torchvision's files its model.safetensors is what --config.model.image_weights takes.

CLIPs by OpenAI's and OpenCLIP's names get Hugging Face's, with a config.json whose sizes come from
open_clip_config.json where one lies beside the source, else from the shapes, as in OpenAI's models;
--hidden_act=gelu for those that were not trained with quick_gelu. Methods with prompts also want
CLIP's tokenizer.json (or vocab.json and merges.txt): files of the tokenizer beside the source are
copied, else copy them from any CLIP checkpoint.
"""

import argparse
import json
import pathlib
import shutil
import sys

import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # for a checkout that is not installed

from jaxord.models.variants import MEAN, STD
from jaxord.weights import hf_clip, open_clip
from tools import torchscript

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
    """{name: numpy array} of a file of torch; floating point is float32.

    Raises:
      ValueError: the file holds more than tensors, or no dict of them.
    """
    found = torchscript.read(file) if torchscript.is_archive(file) else read_saved(file)
    arrays = {name.removeprefix("module."): array for name, array in found.items()}
    return {
        name: np.array(x, np.float32 if x.dtype.kind == "f" else x.dtype, order="C")
        for name, x in arrays.items()
    }


def read_saved(file):
    """`read` of what torch.save has written."""
    import torch

    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several types, and messages of many lines
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"{file} holds more than tensors, or cannot be read ({first})") from error
    for name in ("state_dict", "model"):
        found = found.get(name, found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(
        isinstance(value, torch.Tensor) for value in found.values()
    ):
        raise ValueError(f"{file} holds no dict of tensors")
    return {
        name: (x.float() if x.is_floating_point() else x).contiguous().numpy()
        for name, x in found.items()
    }


def convert(source, output, hidden_act="quick_gelu"):
    """Writes the folder; see above.

    Raises:
      ValueError: `read`'s, a folder that is in use, or a CLIP that does not fit its config.
    """
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
    beside = source.parent / open_clip.CONFIG
    if beside.is_file():
        config = json.loads(beside.read_text(encoding="utf-8"))
        settings = open_clip.settings_from_config(config["model_cfg"])
        form = config.get("preprocess_cfg", {})
    else:
        settings, form = open_clip.settings_from_shapes(tensors, hidden_act), {}
    params = by_path(open_clip.to_hf(tensors), settings)
    hf_clip.save(output, params, settings, mean=form.get("mean", MEAN), std=form.get("std", STD))


def by_path(tensors, settings):
    """Our paths of tensors with Hugging Face's names; what is missing or left over is reported by
    `hf_clip.save`."""
    names = {hf_clip.source_name(path): path for path in hf_clip.parameters(settings)}
    return {
        names.get(name, name): hf_clip.from_source(names.get(name, name), array)
        for name, array in tensors.items()
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="file of torch: .pt, .pth or .bin")
    parser.add_argument("--output", required=True, help="folder that is made")
    parser.add_argument(
        "--hidden_act",
        default="quick_gelu",
        choices=("quick_gelu", "gelu"),
        help="of a CLIP without config",
    )
    given = parser.parse_args(arguments)
    try:
        convert(given.source, given.output, given.hidden_act)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(
        f"{given.output}: {', '.join(sorted(file.name for file in pathlib.Path(given.output).iterdir()))}"
    )


if __name__ == "__main__":
    main()
