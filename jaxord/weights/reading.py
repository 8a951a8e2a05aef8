"""The one strict reader of tensors' files: every misfit of a checkpoint is in one error."""

import collections.abc
import contextlib
import json
import pathlib

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxord.weights import torch_zip

FLOATS = ("float16", "bfloat16", "float32", "float64")
PICKLED = (
    "Pickled weights ({}) can run code and are never loaded: convert them once, where torch is, by "
    "python tools/convert_weights.py --source=<file> --output=<folder>"
)
DAMAGED = "download it again"


class Checkpoint(collections.abc.Mapping):
    """The tensors of files by name; each is read when it is asked for.

    Files are safetensors, or zips of torch.save if their names end in .bin. A file that cannot be
    read is a ValueError; for safetensors it ends with `remedy`.
    """

    def __init__(self, files, remedy=DAMAGED):
        self._remedy, self._opened = remedy, {}
        for file in files:
            with self._reading(file):
                pickled = pathlib.Path(file).suffix == ".bin"
                opened = torch_zip.TorchZip(file) if pickled else safe_open(file, framework="np")
                self._opened |= dict.fromkeys(opened.keys(), (file, opened))

    @contextlib.contextmanager
    def _reading(self, file):
        try:
            yield
        except (OSError, SafetensorError) as error:
            message = f"{file} cannot be read as safetensors ({error}): {self._remedy}"
            raise ValueError(message) from error

    def file_of(self, name):
        """The file that holds a tensor; None if none does."""
        return self._opened.get(name, (None, None))[0]

    def __getitem__(self, name):
        file, opened = self._opened[name]
        try:
            with self._reading(file):
                return opened.get_tensor(name)
        except (AttributeError, KeyError, TypeError):  # safetensors lacks a numpy type for it
            kind = opened.get_slice(name).get_dtype()
            fault = f"the tensor {name} of {file} is of type {kind}"
            raise ValueError(f"{fault}, expected one of {', '.join(FLOATS)}") from None

    def __iter__(self):
        return iter(self._opened)

    def __len__(self):
        return len(self._opened)


def read(file, wanted, source_name, from_source, expected, hint):
    """Reads one safetensors file by any naming rule; see `fit` for the arguments.

    A missing or unreadable file is a ValueError that ends with `hint`, the way to make one.
    """
    file = pathlib.Path(file).expanduser()
    if not file.is_file():
        raise ValueError(f"no weights at {str(file)!r}: expected a safetensors file. {hint}")
    return fit(Checkpoint([file], hint), wanted, source_name, from_source, expected, file)


def fit(tensors, wanted, source_name, from_source, expected, source):
    """Turns a checkpoint's {name: tensor} into float32 arrays {path: array}, sorted by path.

    Args:
      tensors: mapping of name -> array.
      wanted: flat dict path -> ShapeDtypeStruct or array.
      source_name: path -> name in the checkpoint.
      from_source: (path, tensor) -> our array, of any shape if the tensor has the wrong one.
      expected: name -> whether a tensor that is not wanted is a fault.
      source: of the checkpoint, for messages.

    Raises:
      ValueError: lists every tensor that is missing, unexpected, of another shape, not of floating
        point or not finite.
    """
    paths = {source_name(path): path for path in wanted}
    spare = sorted(set(tensors) - set(paths))
    problems = [f"missing: {name}, our {paths[name]}" for name in paths if name not in tensors]
    problems += [f"unexpected: {name}" for name in spare if expected(name)]
    arrays = {}
    for name in sorted(set(tensors) & set(paths)):
        path, tensor = paths[name], tensors[name]
        if tensor.dtype.name not in FLOATS:
            wide = " of 16, 32 or 64 bits" if "float" in tensor.dtype.name else ""
            problems.append(f"{name}: {tensor.dtype} in the weights, expected floating point{wide}")
            continue
        # After a wrong shape the values are still looked at, so that all faults show at once.
        array, shape = from_source(path, tensor), tuple(wanted[path].shape)
        if array.shape != shape:
            sizes = f"shape {array.shape} in the weights, {shape} in the model"
            problems.append(f"{name}: {sizes} (as {path})")
        arrays[path] = np.array(array, np.float32, order="C")
        if not np.isfinite(arrays[path]).all():
            problems.append(f"{name}: not finite in the weights")
    if problems:
        lines = "\n  ".join(problems)
        raise ValueError(f"the weights in {source} do not fit the model\n  {lines}")
    return dict(sorted(arrays.items()))


def save(file, flat, source_name, to_source):
    """Writes a flat dict path -> array under the names and in the layout of the source."""
    # safetensors writes the memory as it lies, so transposed views are copied; np.ascontiguousarray
    # would give a scalar the shape (1,), which transformers' from_pretrained refuses.
    tensors = {
        source_name(path): np.array(to_source(path, np.asarray(array)), order="C")
        for path, array in flat.items()
    }
    save_file(tensors, file, metadata={"format": "pt"})


def read_json(file):
    """Reads a JSON object; a missing or damaged file is a ValueError."""
    if not file.is_file():
        names = sorted(other.name for other in file.parent.iterdir())
        raise ValueError(f"{file.parent} has no {file.name}; found {names}")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}): {DAMAGED}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file} holds {str(value)[:40]!r}, expected a JSON object: {DAMAGED}")
    return value


def read_shards(index):
    """{tensor: name of the file beside the index} of an index of shards; ValueError if damaged."""
    shards = read_json(index).get("weight_map")
    plain = isinstance(shards, dict) and all(isinstance(name, str) for name in shards.values())
    if not plain or any(pathlib.PurePath(name).name != name for name in shards.values()):
        raise ValueError(f"{index} has no weight_map of files beside it: {DAMAGED}")
    return shards
