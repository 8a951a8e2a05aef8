"""Reads the tensors of a TorchScript archive, such as OpenAI's CLIPs, and executes nothing of it.

The file is a zip: `data.pkl` says which module has which tensor, `data/<key>` holds bytes, `code/`
the program. torch.jit.load would compile the program and could run parts of it. Here `code/` stays
closed and the unpickler knows few names: modules become plain objects with attributes, tensors
views of the bytes within their bounds. Any other name ends the reading.
"""

import collections
import math
import pickle
import zipfile

import numpy as np

BFLOAT16 = "bfloat16"  # numpy has none: the upper halves of float32
FLOATS = {"Double": "<f8", "Float": "<f4", "Half": "<f2", "BFloat16": BFLOAT16}
INTEGERS = {"Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?"}
STORAGES = {f"{name}Storage": dtype for name, dtype in (FLOATS | INTEGERS).items()}
Storage = collections.namedtuple("Storage", "dtype")  # a name of STORAGES in the pickle
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


class Module:
    """Stands for any class of the program."""

    def __setstate__(self, attributes):
        self.attributes = attributes


class Reader(pickle.Unpickler):
    """The unpickler of one archive's data.pkl."""

    def __init__(self, archive, prefix):
        super().__init__(archive.open(f"{prefix}/data.pkl"))
        self.archive = archive
        self.prefix = prefix

    def find_class(self, module, name):
        if module == "__torch__" or module.startswith("__torch__."):
            return Module
        if module == "torch" and name in STORAGES:
            return Storage(STORAGES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle" and name in LISTS:
            return list
        fault = f"it names {module}.{name}, which is no part of a model's tensors"
        raise pickle.UnpicklingError(fault)

    def persistent_load(self, identity):
        """The elements of a storage, from its type, key, device and size."""
        _, storage, key, _, count = identity
        content = self.archive.read(f"{self.prefix}/data/{key}")
        if storage.dtype == BFLOAT16:
            return (np.frombuffer(content, "<u2", count).astype("<u4") << 16).view("<f4")
        return np.frombuffer(content, storage.dtype, count)


def _rebuild(storage, offset, shape, stride, *ignored):
    """A tensor as a view of its storage."""
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if min((offset, *shape, *stride)) < 0 or (math.prod(shape) and last >= len(storage)):
        raise pickle.UnpicklingError(f"a tensor of shape {shape} lies outside of its storage")
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)


def is_archive(file):
    """Whether a file is a TorchScript archive; a file of torch.save has no code."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.partition("/")[2].startswith("code/") for name in archive.namelist())
    except Exception:  # no zip, or a damaged one: its parser raises many types
        return False


def read(file):
    """{name: array} of all tensors; ValueError for a damaged, big-endian or foreign pickle."""
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
