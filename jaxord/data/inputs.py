"""Examples that people give to a finished run -> arrays that are stacked to batches.

The module of the config's reader decides what an example is by its `input_kind(data, vocabulary)`:
a pair of texts in sentences.py, a video file in videos.py, else an image. C: side of the canvas.
"""

import dataclasses
import functools
import glob
import importlib
import io
import os
import pathlib
import stat
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageOps

from jaxord.data import decode as decoding
from jaxord.data.records import IMAGES, located
from jaxord.data.tables import BY_SUFFIX, FORMATS, user_table

MAX_BYTES = 2**30  # of one image's file; decoding bounds its pixels
TABLES = (*BY_SUFFIX, *FORMATS)
LISTS = (".txt", ".lst", ".list")
EXPECTED = "a folder, a pattern, a table with a column path, a .txt, or a file"


@dataclasses.dataclass(frozen=True)
class InputKind:
    """How a run takes examples.

    `listed` finds them without decoding: (source on the command line, root) -> (names for the
    output, examples). `read` makes {name: array} of an example, or raises ValueError or OSError;
    `placeholder` is {name: array} in its stead. `noun` is for messages: "images".
    """

    noun: str
    listed: Callable
    read: Callable
    placeholder: dict


def input_kind(data, vocabulary=()):
    """The InputKind of a run, by its config.data and vocabulary; ValueError if it lacks files."""
    module = importlib.import_module(f"jaxord.data.readers.{data.reader['name'].partition('.')[0]}")
    return getattr(module, "input_kind", images)(data, vocabulary)


def images(data, vocabulary):
    """Image paths, PIL images or u8 arrays -> stored u8[C, C, 3] and size i32[2]."""
    form = {"resize": data.resize, "stored_size": data.stored_size}
    side = decoding.canvas(**form)

    def read(image):
        stored, size = decoding.decode_image(encoded(image), **form)
        return {"stored": stored, "size": np.array(size, np.int32)}

    listed = functools.partial(files, endings=IMAGES, noun="images", reader=data.reader)
    black = {"stored": np.zeros((side, side, 3), np.uint8), "size": np.full(2, side, np.int32)}
    return InputKind("images", listed, read, black)


def encoded(image):
    """Bytes for `jaxord.data.decode` of an image file's path, a PIL image or u8[H, W(, 3)].

    ValueError or OSError for no regular file, more than MAX_BYTES, or another array.
    """
    if isinstance(image, (str, os.PathLike)):
        size = size_of_file(image)
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes are too many")
        return pathlib.Path(image).read_bytes()
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        channels = array.shape[2:] in ((), (3,)) and array.ndim in (2, 3)
        if array.dtype != np.uint8 or not channels or not array.size:
            problem = f"an array {array.dtype}{list(array.shape)}"
            raise ValueError(f"{problem} is no image; expected uint8 [H, W, 3] or [H, W]")
        image = Image.fromarray(np.ascontiguousarray(array))
    buffer = io.BytesIO()
    # PPM stores the pixels as they are, a hundred times faster than PNG.
    _plain_mode(ImageOps.exif_transpose(image)).save(buffer, "PPM")
    return buffer.getvalue()


def _plain_mode(image):
    """The image in a mode that PPM stores; pixels stay those that decoding its file gives."""
    if image.mode == "P":
        # RGBA resolves the palette's transparency; alpha is dropped, as of a file.
        return image.convert("RGBA")
    if image.mode in ("1", "L", "I", "F", "RGB", "RGBA"):
        return image
    return image.convert("I" if image.mode.startswith("I;16") else "RGB")


def size_of_file(path):
    """Bytes of a regular file; ValueError for others, such as a pipe, which would block."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a file")
    return status.st_size


def as_sequence(examples) -> Sequence:
    """Examples as a sequence with a length; one path or image becomes a sequence of one."""
    if isinstance(examples, (str, os.PathLike, Image.Image)):
        return [examples]
    if isinstance(examples, np.ndarray):
        one = examples.ndim == 2 or (examples.ndim == 3 and examples.shape[-1] == 3)
        return examples[None] if one else examples
    return examples if isinstance(examples, (list, tuple)) else list(examples)


def files(source, root, endings, noun, reader=None):
    """Finds the files that a command line means: (names for the output, file paths).

    `source` is a folder (searched with its subfolders for files with these endings; hidden ones do
    not count), a pattern with * ? [], both sorted; or a table, read as for training by the settings
    of the run's `reader`, whose column of paths may be called `path` too; or a text file (.txt,
    .lst, .list) with a path a line; or one file. Tables and lists keep their order, their paths are
    relative to `root`, "" for their own folder.
    """
    settings = reader or {}
    path_column = str(settings.get("path_column", "path"))
    lists = () if path_column.isdecimal() else LISTS
    where = pathlib.Path(source)
    if where.is_dir():
        walked = os.walk(source)
        paths = (os.path.join(folder, name) for folder, _, names in walked for name in names)
        names = sorted(path for path in paths if _counts(os.path.relpath(path, source), endings))
    elif where.suffix.lower() in (*TABLES, *LISTS):
        # A list keeps its own names in the output and its order, so that rows can be joined.
        is_list = where.suffix.lower() in lists
        names = _lines(where, noun) if is_list else _path_column(where, path_column)
        form = {} if is_list else {key: settings.get(key, "") for key in ("images", "suffix")}
        root = root or where.parent
        return names, [os.path.join(root, located(name, **form)) if name else "" for name in names]
    elif where.exists():
        names = [str(source)]
    elif any(sign in str(source) for sign in "*?["):
        names = sorted(filter(os.path.isfile, glob.glob(str(source), recursive=True)))
    else:
        raise ValueError(f"{source} is not there; {noun} are {EXPECTED}")
    if not names:
        raise ValueError(f"{source} holds no {noun}; they end in {', '.join(endings)}")
    return names, names


def _counts(path, endings):
    parts = pathlib.PurePath(path).parts
    return not any(part.startswith(".") for part in parts) and parts[-1].lower().endswith(endings)


def _lines(file, noun):
    """The paths in a list, unchanged."""
    try:
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None
    paths = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    if not paths:
        raise ValueError(f"{file} names no {noun}")
    return paths


def _path_column(file, column):
    """The column of paths of a table."""
    table = user_table(file, column)
    choices = [name for name in (column, "path") if name in table.names]
    if not choices:
        expected = " or ".join(dict.fromkeys((column, "path")))
        raise ValueError(
            f"{file} has the columns {list(table.names)}; expected one called {expected}"
        )
    return table.texts(choices[0])
