"""The tensors of a TorchScript archive, such as OpenAI's CLIPs, as numpy arrays; nothing of the
archive is executed.

Such a file is a zip: `data.pkl` says which tensor of which module is where, `data/<key>` are their
  bytes, `code/` the program.
torch.jit.load would compile the program and could run parts of it. Here `code/` is never opened,
and the pickle is read by an unpickler that knows the few names which it takes: the modules become
plain dicts of attributes, the tensors views of the bytes within their bounds. Every other name ends
the reading.
"""

import math
import pickle
import zipfile

import numpy as np

BFLOAT16 = "bfloat16"  # numpy has none: the upper halves of float32
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class Module:
    """Stands for whatever class a part of the program has."""

    def __setstate__(self, attributes):
        self.attributes = attributes


class Storage:
    """A name of STORAGES in the pickle."""

    def __init__(self, dtype):
        self.dtype = dtype


class Reader(pickle.Unpickler):
    """The unpickler of one archive's data.pkl."""

    def __init__(self, archive, prefix):
        super().__init__(archive.open(f"{prefix}/data.pkl"))
        self.archive, self.prefix = archive, prefix

    def find_class(self, module, name):
        if module == "__torch__" or module.startswith("__torch__."):
            return Module
        if module == "torch" and name in STORAGES:
            return Storage(STORAGES[name])
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): rebuilt,
            ("collections", "OrderedDict"): dict,
        }
        known |= {
            ("torch.jit._pickle", f"build_{kind}list"): list
            for kind in ("int", "double", "bool", "tensor")
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is no part of a model's tensors"
            )
        return known[module, name]

    def persistent_load(self, identity):
        """The elements of a storage: its type, key, device and how many they are."""
        _, storage, key, _, count = identity
        content = self.archive.read(f"{self.prefix}/data/{key}")
        if storage.dtype == BFLOAT16:
            return (np.frombuffer(content, "<u2", count).astype("<u4") << 16).view("<f4")
        return np.frombuffer(content, storage.dtype, count)


def rebuilt(storage, offset, shape, stride, *ignored):
    """The tensor that lies so in its storage."""
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if min((offset, *shape, *stride)) < 0 or (math.prod(shape) and last >= len(storage)):
        raise pickle.UnpicklingError(f"a tensor of shape {shape} lies outside of its storage")
    width = storage.itemsize
    return np.lib.stride_tricks.as_strided(
        storage[offset:], shape, [step * width for step in stride], writeable=False
    )


def is_archive(file):
    """Whether a file is a TorchScript archive: torch.save's have no code."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.partition("/")[2].startswith("code/") for name in archive.namelist())
    except Exception:  # no zip, or a damaged one: its parser raises many types
        return False


def read(file):
    """{name: array} of all tensors of an archive's modules.

    Raises:
      ValueError: data.pkl names something else, or is damaged; of the other byte order.
    """
    with zipfile.ZipFile(file) as archive:
        prefix = archive.namelist()[0].partition("/")[0]
        try:
            order = f"{prefix}/byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise pickle.UnpicklingError("its bytes are in big-endian order")
            return dict(_tensors(Reader(archive, prefix).load(), ""))
        except Exception as error:  # a damaged pickle raises many types
            raise ValueError(f"{file} cannot be read ({type(error).__name__}: {error})") from error


def _tensors(module, start):
    """(name, array) of a module and those below it."""
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Module):
            yield from _tensors(value, f"{start}{name}.")
        elif isinstance(value, np.ndarray):
            yield start + name, value
