"""Checkpoints of torchvision's ResNets and VGGs in one safetensors file -> our parameters and
statistics, and back.

Names differ by one rule, used in both directions: `layer1.0.conv1.weight` is our
`layer1/0/conv1/kernel`, `bn1.weight` our `bn1/scale`, `bn1.running_mean` our `bn1/mean` of the
collection "stats". Both collections are one flat dict here, since no path is in both, and without
the name that a model gives its tower (`resnet/`, `vgg/`).

Loading is strict: whatever is missing, left over or of another shape is reported at once. Ignored
  are the classifier of
ImageNet (`fc` of a ResNet, `classifier.6` of a VGG) and `num_batches_tracked`, which torch counts
for a momentum of None; neither is written. Pickles are never opened.
"""

import pathlib
import re

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxord.models.vgg import GRID
from jaxord.weights import hf_clip

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
IGNORED = re.compile(r"(fc|classifier\.6)\.(weight|bias)|(.+\.)?num_batches_tracked")
# Of a VGG: its rows are a flattened map, channels last here and first in torch
FLATTENED = "classifier/0/kernel"
CONVERT = (
    "Pickled weights (.pth) can run code and are never loaded: convert them once, where torch is, by python "
    "tools/convert_weights.py --source=<file> --output=<folder>, or by safetensors.torch.save_file(model.state_dict(), <file>)"
)


def source_name(path):
    """The name in a checkpoint of the parameter or statistic that we call `path`."""
    *parts, leaf = path.split("/")
    return ".".join([*parts, LEAVES.get(leaf, leaf)])


def to_source(path, array):
    """Our array as the checkpoint stores it: linear kernels [in, out] -> [out, in], convolutions
    HWIO -> OIHW."""
    if path != FLATTENED:
        return hf_clip.to_source(path, array)
    out = array.shape[1]  # it is a convolution over the whole map
    return hf_clip.to_source(path, array.reshape(GRID, GRID, -1, out)).reshape(out, -1)


def from_source(path, array):
    """The inverse of `to_source`; an array that cannot be one is reported by its shape."""
    if path != FLATTENED or array.ndim != 2 or array.shape[1] % GRID**2:
        return hf_clip.from_source(path, array)
    out = array.shape[0]
    return hf_clip.from_source(path, array.reshape(out, -1, GRID, GRID)).reshape(-1, out)


def load(file, wanted):
    """Reads the parameters and statistics of a tower.

    Args:
      file: a safetensors file with torchvision's names.
      wanted: flat dict path -> ShapeDtypeStruct (or array): parameters and statistics of a `ResNet`
        or `VGG`.

    Returns:
      Flat dict path -> float32 numpy array with exactly the paths of `wanted`. Half precision
      becomes float32.

    Raises:
      ValueError: no such file; or lists everything that is missing, unexpected, of another shape,
        not of floating point or not finite (torchvision's VGG16_Weights.IMAGENET1K_FEATURES has no
        classifier: it is filled with NaN).
    """
    return read(
        file, wanted, source_name, from_source, lambda name: not IGNORED.fullmatch(name), CONVERT
    )


def read(file, wanted, source_name, from_source, expected, hint):
    """One strict reading of a safetensors file with torch's names, for any naming rule.

    Args:
      file: path.
      wanted: flat dict path -> ShapeDtypeStruct or array.
      source_name: path -> name in the file.
      from_source: (path, array of the file) -> our array.
      expected: name -> whether it may not be in the file unless it is wanted.
      hint: how to make such a file, for the messages.

    Returns, Raises: as `load`.
    """
    file = pathlib.Path(file).expanduser()
    if not file.is_file():
        raise ValueError(f"no weights at {str(file)!r}: expected a safetensors file. {hint}")
    names = {source_name(path): path for path in wanted}
    found, problems = {}, []
    try:
        with safe_open(file, framework="np") as opened:
            stored = set(opened.keys())
            problems += [
                f"missing: {name}, our {path}" for name, path in names.items() if name not in stored
            ]
            problems += [
                f"unexpected: {name}" for name in sorted(stored - set(names)) if expected(name)
            ]
            for name in sorted(stored & set(names)):
                path, array = names[name], opened.get_tensor(name)
                if not jnp.issubdtype(array.dtype, jnp.floating):
                    problems.append(
                        f"{name}: {array.dtype} in the weights, expected floating point"
                    )
                    continue
                array, shape = from_source(path, array), tuple(wanted[path].shape)
                if array.shape != shape:
                    problems.append(
                        f"{name}: shape {array.shape} in the weights, {shape} in the model (as {path})"
                    )
                found[path] = np.array(array, np.float32, order="C")
                if not np.isfinite(found[path]).all():
                    problems.append(f"{name}: not finite in the weights")
    except SafetensorError as error:
        raise ValueError(f"{file} cannot be read as safetensors ({error}). {hint}") from error
    if problems:
        raise ValueError(f"the weights in {file} do not fit the model\n  " + "\n  ".join(problems))
    return dict(sorted(found.items()))


def save(file, flat):
    """Writes a file that `load` takes, and torch's `load_state_dict` of a torchvision model whose
    classifier was removed.

    Args:
      file: written over if it exists; its folder is made if need be.
      flat: flat dict path -> float32 array, parameters and statistics.
    """
    file = pathlib.Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    # safetensors writes the memory as it lies, so transposed views are copied.
    tensors = {
        source_name(path): np.array(to_source(path, np.asarray(a)), order="C")
        for path, a in flat.items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
