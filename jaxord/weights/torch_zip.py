"""The tensors of a file that torch.save has written, as numpy arrays; nothing in it is executed.

Such a file is a zip of uncompressed entries: `data.pkl` says which tensor lies where, `data/<key>`
hold the bytes. A pickle is a program for a stack machine, and unpickling can call any function of
Python. Here the machine knows a few instructions and a few names, and builds dicts and descriptions
of tensors. Every other instruction, name or form is a ValueError.
"""

import dataclasses
import math
import pathlib
import pickletools
import struct
import zipfile
import zlib

import jax.numpy as jnp
import numpy as np

REFUSED = "{} cannot be read safely: {}. Nothing of it was executed; get it as safetensors instead"
# Of data.pkl; that of a CLIP has 100 KB.
LARGEST_PROGRAM = 2**22
LARGEST_NUMBER = 2**48
TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# These have storages of bytes; the tensor names the type.
LATER_TYPES = {"uint16": "<u2", "uint32": "<u4", "uint64": "<u8"}
FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
LATER_TYPES |= {name: getattr(jnp, name) for name in FLOAT8}


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name of ALLOWED in the pickle; only these functions are called."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Type:
    """The type of a storage's or tensor's elements."""

    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Storage:
    """One entry data/<key>."""

    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A strided view of a storage; offset and strides count elements."""

    storage: _Storage
    dtype: np.dtype
    offset: int
    shape: tuple
    strides: tuple


ALLOWED = {"torch.storage UntypedStorage": _Type(np.dtype("u1"))}
ALLOWED |= {f"torch {name}": _Type(np.dtype(dtype)) for name, dtype in TYPES.items()}
ALLOWED |= {f"torch {name}": _Type(np.dtype(dtype)) for name, dtype in LATER_TYPES.items()}
FUNCTIONS = ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
ALLOWED |= {f"torch._utils {name}": _Global(name) for name in FUNCTIONS}
ALLOWED["collections OrderedDict"] = _Global("OrderedDict")


class TorchZip:
    """The state dict in a file of torch.save; `get_tensor` reads one tensor of `keys()`."""

    def __init__(self, file):
        self._file, self._checked = pathlib.Path(file), set()
        try:
            self._entries = self._read_entries()
            program = self._bytes("data.pkl", "data.pkl is missing")
            _expect(len(program) <= LARGEST_PROGRAM, "data.pkl is too large for a state dict")
            order = bytes(self._entries.get("byteorder", (b"little", 0))[0])
            _expect(order == b"little", f"its byte order is {order[:9]!r}, expected b'little'")
            self._tensors = _Machine(self._entries).run(bytes(program))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(REFUSED.format(file, _one_line(error))) from None

    def keys(self):
        """Names of the tensors."""
        return self._tensors.keys()

    def get_tensor(self, name):
        """A read-only view of a tensor in the mapped file."""
        tensor = self._tensors[name]
        entry = f"data/{tensor.storage.key}"
        try:
            content = self._bytes(entry, f"{entry} is missing")
        except ValueError as error:
            raise ValueError(REFUSED.format(self._file, error)) from None
        if not math.prod(tensor.shape):
            return np.zeros(tensor.shape, tensor.dtype)
        elements = content.view(tensor.dtype)[tensor.offset :]
        steps = [step * tensor.dtype.itemsize for step in tensor.strides]
        return np.lib.stride_tricks.as_strided(elements, tensor.shape, steps, writeable=False)

    def _bytes(self, name, fault):
        """An entry's bytes, whose checksum is compared once."""
        _expect(name in self._entries, fault)
        content, checksum = self._entries[name]
        if name not in self._checked:
            _expect(zlib.crc32(content) == checksum, f"the checksum of {name} differs")
            self._checked.add(name)
        return content

    def _read_entries(self):
        """{name without the archive's prefix: (bytes of the mapped file, checksum)}."""
        try:
            with zipfile.ZipFile(self._file) as archive:
                entries, end = archive.infolist(), archive.start_dir
        # zipfile refuses a newer version of the format by NotImplementedError.
        except (OSError, zipfile.BadZipFile, NotImplementedError, struct.error) as error:
            fault = "it is no zip, so damaged, or in torch's format before 1.6"
            raise ValueError(f"{fault} ({_one_line(error)})") from None
        names = [entry.filename for entry in entries]
        _expect(len(set(names)) == len(names), "an entry stands twice")
        programs = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        _expect(len(programs) == 1, f"expected one <name>/data.pkl, found {len(programs)}")
        prefix = programs[0].removesuffix("data.pkl")
        _expect(all(name.startswith(prefix) for name in names), "an entry lies elsewhere")
        _expect(f"{prefix}constants.pkl" not in names, "it is a program (TorchScript)")
        content = np.memmap(self._file, np.uint8, "r")
        found, used = {}, 0
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            stored = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
            stored &= entry.compress_size == entry.file_size
            _expect(stored, f"{entry.filename[:80]!r} is compressed or encrypted")
            header = bytes(content[entry.header_offset : entry.header_offset + 30])
            _expect(header[:4] == b"PK\x03\x04" and len(header) == 30, "a header is damaged")
            start = entry.header_offset + 30 + sum(struct.unpack("<2H", header[26:]))
            last = start + entry.file_size
            _expect(used <= entry.header_offset and last <= end, "its entries overlap")
            used = last
            found[entry.filename.removeprefix(prefix)] = (content[start:last], entry.CRC)
        return found


class _Machine:
    """Runs a state dict's pickle, of which it knows what torch.save writes (protocol 2)."""

    def __init__(self, entries):
        self._entries, self._stack, self._marks, self._memo = entries, [], [], {}

    def run(self, program):
        """{name: _Tensor}."""
        for opcode, argument, _ in pickletools.genops(program):
            known = OPCODES.get(opcode.name)
            _expect(known, f"its pickle has the instruction {opcode.name}, no part of a state dict")
            known(self, argument)
        tensors = self._stack.pop()
        _expect(not self._stack and type(tensors) is dict, "its pickle is no dict of tensors")
        for name, tensor in tensors.items():
            kind = type(tensor).__name__.strip("_")
            _expect(type(tensor) is _Tensor, f"{name[:80]!r} is a {kind}, expected a tensor")
        return tensors

    def protocol(self, number):
        _expect(number == 2, f"its pickle has the protocol {number}, expected 2")

    def push(self, value):
        self._stack.append(value)

    def number(self, value):
        _expect(abs(value) <= LARGEST_NUMBER, "its pickle has a number that no tensor needs")
        self.push(value)

    def mark(self, _):
        self._marks.append(len(self._stack))

    def since_mark(self):
        start = self._marks.pop()
        _expect(start <= len(self._stack), "its pickle is damaged")
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def tuple_of_mark(self, _):
        self.push(tuple(self.since_mark()))

    def tuple_of(self, count):
        _expect(len(self._stack) >= count, "its pickle is damaged")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self.push(items)

    def put(self, index):
        self._memo[index] = self._stack[-1]

    def get(self, index):
        self.push(self._memo[index])

    def set_items(self, items):
        target = self._stack[-1]
        _expect(type(target) is dict and len(items) % 2 == 0, "its pickle fills what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _expect(type(key) is str, "a name in its pickle is no text")
            target[key] = value

    def set_item(self, _):
        value, key = self._stack.pop(), self._stack.pop()
        self.set_items([key, value])

    def set_marked(self, _):
        self.set_items(self.since_mark())

    def named(self, name):
        _expect(name in ALLOWED, f"its pickle names {name.replace(' ', '.', 1)[:80]!r}")
        self.push(ALLOWED[name])

    def build(self, _):
        """Drops the versions of modules, which a state dict carries beside its items."""
        state, target = self._stack.pop(), self._stack[-1]
        plain = type(target) is dict and type(state) is dict and set(state) <= {"_metadata"}
        _expect(plain, "its pickle sets the state of an object")

    def storage(self, _):
        """A persistent id: ("storage", type, key, device, number of elements)."""
        form = _typed(self._stack.pop(), (str, _Type, str, str, int), "a storage")
        word, kind, key, _, count = form
        _expect(word == "storage" and count >= 0, "a storage has another form")
        entry, width = f"data/{key}", kind.dtype.itemsize
        _expect(entry in self._entries, f"{entry[:80]!r} is missing")
        size = len(self._entries[entry][0])
        _expect(count * width == size, f"{entry!r} has {size} bytes, expected {count} of {width}")
        self.push(_Storage(key, kind.dtype, size))

    def call(self, _):
        arguments, function = self._stack.pop(), self._stack.pop()
        _expect(type(function) is _Global, "its pickle calls what is no function")
        if function.name == "OrderedDict":
            _expect(arguments == (), "an OrderedDict has another form")
            self.push({})
        elif function.name == "_rebuild_parameter":
            self.push(_typed(arguments, (_Tensor, bool, dict), "a parameter")[0])
        else:
            self.push(_tensor(arguments, typed=function.name.endswith("v3")))


def _tensor(arguments, typed):
    """A tensor from the arguments of torch's function; ValueError outside of its storage."""
    form = (_Storage, int, tuple, tuple, bool, dict) + (_Type,) * typed
    storage, offset, shape, strides, _, hooks, *kind = _typed(arguments, form, "a tensor")
    dtype = kind[0].dtype if typed else storage.dtype
    numbers = (offset, *shape, *strides)
    whole = all(type(n) is int and n >= 0 for n in numbers) and not hooks
    _expect(whole and len(shape) == len(strides) <= 32, "a tensor has another form")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    elements, count = math.prod(shape), storage.size // dtype.itemsize
    inside = elements == 0 or (last < count and elements <= count)
    aligned = storage.size % dtype.itemsize == 0
    _expect(inside and aligned, f"a tensor of shape {shape} lies outside of its storage")
    return _Tensor(storage, dtype, offset, shape, strides)


def _typed(values, types, name):
    """A tuple of exactly these types."""
    fits = type(values) is tuple and tuple(map(type, values)) == types
    _expect(fits, f"{name} has another form")
    return values


def _expect(condition, fault):
    if not condition:
        raise ValueError(fault)


def _one_line(error):
    known = type(error) is ValueError
    return str(error).splitlines()[0][:200] if known else f"damaged ({type(error).__name__})"


OPCODES = {
    "PROTO": _Machine.protocol,
    "STOP": lambda machine, _: None,
    "GLOBAL": _Machine.named,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "MARK": _Machine.mark,
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "BINUNICODE": _Machine.push,
    "BININT": _Machine.number,
    "BININT1": _Machine.number,
    "BININT2": _Machine.number,
    "LONG1": _Machine.number,
    "TUPLE": _Machine.tuple_of_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_marked,
    "REDUCE": _Machine.call,
    "BINPERSID": _Machine.storage,
    "BUILD": _Machine.build,
}
