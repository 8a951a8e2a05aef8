"""The Fast pathway of pytorchvideo's slowfast_r50 in a safetensors file -> our parameters."""

import hashlib
import re

from jaxord import trees
from jaxord.weights import reading, torchvision

RANDOM = "random"  # in place of a file
FAST = ".multipathway_blocks.1."
CONVERT = """\
the motion of videos needs the weights of SlowFast R50 8x8 (Kinetics-400), and \
config.data.reader.extract.motion_weights is ''
get them once, where there is a network, from pytorchvideo's model zoo, and convert them by torch:
  wget https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/SLOWFAST_8x8_R50.pyth
  python -c "import torch, safetensors.torch as s; \
m = torch.load('SLOWFAST_8x8_R50.pyth', map_location='cpu', weights_only=True)['model_state']; \
s.save_file({k: v.contiguous() for k, v in m.items()}, 'slowfast.safetensors')"
  --config.data.reader.extract.motion_weights=slowfast.safetensors
'random' takes random weights, for trying things out; clips=0 does without motion"""


def source_name(path):
    """pytorchvideo's name of our parameter or statistic.

    blocks_1/res_blocks_0/branch2/conv_a/kernel is
    blocks.1.multipathway_blocks.1.res_blocks.0.branch2.conv_a.weight.
    """
    *parts, leaf = path.split("/")
    stage, *names = (re.sub(r"_(\d+)$", r".\1", part) for part in parts)
    return stage + FAST + ".".join([*names, torchvision.LEAVES.get(leaf, leaf)])


def load(file, shapes):
    """The Fast pathway's variables, {"params": tree, "stats": tree}.

    Args:
      file: safetensors file with pytorchvideo's names; the Slow pathway, the fusions and the head
        may be in it.
      shapes: {"params": tree, "stats": tree} of the model.

    Raises:
      ValueError: not such a file; lists every array that is missing, left over or of another shape.
    """
    flat = {kind: trees.flatten(tree) for kind, tree in shapes.items()}
    leaves = {path: leaf for tree in flat.values() for path, leaf in tree.items()}

    def from_source(path, array):
        return array.transpose(2, 3, 4, 1, 0) if array.ndim == 5 else array  # OITHW -> THWIO

    def expected(name):
        return FAST in name and not name.endswith("num_batches_tracked")

    arrays = reading.read(file, leaves, source_name, from_source, expected, CONVERT)
    return {
        kind: trees.unflatten({path: arrays[path] for path in tree}) for kind, tree in flat.items()
    }


def digest(file):
    """Hashes the bytes of the weights, so that their place does not matter; RANDOM stays."""
    if file == RANDOM:
        return file
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}\n{CONVERT}") from None
