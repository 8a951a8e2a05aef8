"""torchvision's ResNets and VGGs in one safetensors file <-> our parameters and statistics.

`layer1.0.conv1.weight` is our `layer1/0/conv1/kernel`, `bn1.weight` our `bn1/scale`,
`bn1.running_mean` our `bn1/mean` of the collection "stats". Both collections are one flat dict
here, without the prefix of the tower (`resnet/`, `vgg/`). The classifier of ImageNet and
`num_batches_tracked`, which torch counts for a momentum of None, are ignored and not written.
"""

import pathlib
import re

from jaxord.models.vgg import GRID
from jaxord.weights import hf_clip, reading

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
IGNORED = re.compile(r"(fc|classifier\.6)\.(weight|bias)|(.+\.)?num_batches_tracked")
# Of a VGG: its rows are a flattened map, channels last here and first in torch.
FLATTENED = "classifier/0/kernel"
CONVERT = (
    reading.PICKLED.format(".pth")
    + ", or by safetensors.torch.save_file(model.state_dict(), <file>)"
)


def source_name(path):
    """The name in a checkpoint of the parameter or statistic that we call `path`."""
    *parts, leaf = path.split("/")
    return ".".join([*parts, LEAVES.get(leaf, leaf)])


def to_source(path, array):
    """Our array in the checkpoint's layout, see `hf_clip.to_source`."""
    if path != FLATTENED:
        return hf_clip.to_source(path, array)
    out = array.shape[1]  # a convolution over the whole map
    return hf_clip.to_source(path, array.reshape(GRID, GRID, -1, out)).reshape(out, -1)


def from_source(path, array):
    """The inverse of `to_source`; an array of the wrong shape gets another wrong one."""
    if path != FLATTENED or array.ndim != 2 or array.shape[1] % GRID**2:
        return hf_clip.from_source(path, array)
    out = array.shape[0]
    return hf_clip.from_source(path, array.reshape(out, -1, GRID, GRID)).reshape(-1, out)


def load(file, wanted):
    """Reads a tower's parameters and statistics strictly, see `reading.read`.

    `wanted` is flat, path -> ShapeDtypeStruct (or array), as is the result. Trap: torchvision's
    VGG16_Weights.IMAGENET1K_FEATURES has a classifier of NaN, which is refused.
    """
    expected = lambda name: not IGNORED.fullmatch(name)  # noqa: E731
    return reading.read(file, wanted, source_name, from_source, expected, CONVERT)


def save(file, flat):
    """Writes flat {path: array} for `load`, and for torchvision's model without its classifier."""
    pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
    reading.save(file, flat, source_name, to_source)
