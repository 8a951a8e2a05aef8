"""What people give to a finished run, example by example -> arrays that are stacked to batches.

Examples are images, or what the module of the config's reader says by its function `given(data,
vocabulary)`: sentences.py has one, and videos.py. So a further kind of data brings its own, and
nothing else knows of it.

C side of the stored canvas.
"""

import csv
import dataclasses
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
from jaxord.data.records import IMAGES

MAX_BYTES = 2**30  # of one image's file; decoding has its own bound of pixels
TABLES = {".csv": ",", ".tsv": "\t"}
LISTS = (".txt", ".lst", ".list")


@dataclasses.dataclass(frozen=True)
class Given:
    """How a run takes examples.

    Attributes:
      noun: what many of them are called.
      listed: (what a command line says, root) -> (names, examples), as long: how each is called in
        the output, and what `read` takes; strings only, nothing is decoded.
      read: example -> {name: array [...]}; it says by ValueError or OSError why it cannot.
      nothing: {name: array [...]} that stands for an example that cannot be read.
    """

    noun: str
    listed: Callable
    read: Callable
    nothing: dict


def of(data, vocabulary=()):
    """The Given of config.data.

    Args:
      data: config.data of a run.
      vocabulary: words that the run has kept; () where its inputs have none.

    Raises:
      ValueError: the run lacks what its kind of examples needs.
    """
    module = importlib.import_module(f"jaxord.data.readers.{data.reader['name'].partition('.')[0]}")
    return getattr(module, "given", images)(data, vocabulary)


def images(data, vocabulary):
    """Paths of image files, PIL images, u8 arrays -> stored u8[C, C, 3] and size i32[2]."""
    form = {"resize": data.resize, "stored_size": data.stored_size}
    side = decoding.canvas(**form)

    def read(image):
        stored, size = decoding.decode_image(encoded(image), **form)
        return {"stored": stored, "size": np.array(size, np.int32)}

    def listed(source, root):
        return files(source, root, IMAGES, "images")

    black = {"stored": np.zeros((side, side, 3), np.uint8), "size": np.full(2, side, np.int32)}
    return Given("images", listed, read, black)


def encoded(image):
    """Bytes that `jaxord.data.decode` reads as it reads a file's: of a path's file, or of an image
    in memory.

    Raises:
      ValueError, OSError: no such file, or no file, or a larger one than MAX_BYTES; an array that
        is not u8[H, W, 3] or u8[H, W]; pixels that have no 8 or 16 bits.
    """
    if isinstance(image, (str, os.PathLike)):
        size = size_of_file(image)
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes are too many")
        return pathlib.Path(image).read_bytes()
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if (
            array.dtype != np.uint8
            or array.ndim not in (2, 3)
            or array.shape[2:] not in ((), (3,))
            or not array.size
        ):
            raise ValueError(
                f"an array {array.dtype}{list(array.shape)} is no image; expected uint8 [H, W, 3] or [H, W]"
            )
        image = Image.fromarray(np.ascontiguousarray(array))
    image = ImageOps.exif_transpose(image)
    if image.mode == "P":
        image = image.convert(
            "RGBA"
        )  # resolves the palette's transparency; alpha is dropped as in a file
    elif image.mode.startswith("I;16"):
        image = image.convert("I")
    elif image.mode not in ("1", "L", "I", "F", "RGB", "RGBA"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PPM")  # stores the pixels as they are, a hundred times faster than PNG
    return buffer.getvalue()


def size_of_file(path):
    """Bytes of a regular file; ValueError for anything else, such as a pipe, which would be waited
    for."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a file")
    return status.st_size


def as_sequence(examples) -> Sequence:
    """Examples as something with a length: one path or image as a sequence of one."""
    if isinstance(examples, (str, os.PathLike, Image.Image)):
        return [examples]
    if isinstance(examples, np.ndarray):
        one = examples.ndim == 2 or (examples.ndim == 3 and examples.shape[-1] == 3)
        return examples[None] if one else examples
    return examples if isinstance(examples, (list, tuple)) else list(examples)


def files(source, root, endings, noun):
    """The files that a command line means.

    Args:
      source: a folder (with all below it; files of other kinds and hidden ones do not count), a
        pattern with * ? [], a CSV or TSV file with a column `path`, a text file (.txt, .lst, .list)
        with a path a line, or one file.
      root: what the paths in a table or list are relative to; "" is its own folder.
      endings: of the files in a folder that count.
      noun: what they are called.

    Returns:
      (names, files): how each one is called in the output, and where it lies. Folders and patterns
      are sorted, lists keep their order; only these strings are held in memory.

    Raises:
      ValueError: nothing there, nothing of this kind in it, a table without the column.
    """
    where = pathlib.Path(source)
    if where.is_dir():
        found = (
            os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names
        )
        names = sorted(path for path in found if _counts(os.path.relpath(path, source), endings))
    elif where.suffix.lower() in TABLES or where.suffix.lower() in LISTS:
        names = _names(where, noun)
        root = root or where.parent
        return names, [os.path.join(root, name) if name else "" for name in names]
    elif where.exists():
        names = [str(source)]
    elif any(sign in str(source) for sign in "*?["):
        names = sorted(
            path for path in glob.glob(str(source), recursive=True) if os.path.isfile(path)
        )
    else:
        raise ValueError(
            f"{source} is not there; {noun} are a folder, a pattern, a .csv with a column path, a .txt, or a file"
        )
    if not names:
        raise ValueError(f"{source} holds no {noun}; they end in {', '.join(endings)}")
    return names, names


def _counts(path, endings):
    parts = pathlib.PurePath(path).parts
    return not any(part.startswith(".") for part in parts) and parts[-1].lower().endswith(endings)


def _names(file, noun):
    """Paths in a table or a list, as they stand there."""
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            if file.suffix.lower() in LISTS:
                names = [line.rstrip("\r") for line in lines.read().split("\n") if line.strip()]
            else:
                header = lines.readline()
                mark = ";" if ";" in header and "," not in header else TABLES[file.suffix.lower()]
                columns = next(csv.reader([header], delimiter=mark), [])
                if "path" not in columns:
                    raise ValueError(f"{file} has the columns {columns}; expected one called path")
                place = columns.index("path")
                rows = csv.reader(lines, delimiter=mark)
                names = [row[place] if place < len(row) else "" for row in rows if row]
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None
    except csv.Error as error:
        raise ValueError(f"{file} is no table: {error}") from None
    if not names:
        raise ValueError(f"{file} names no {noun}")
    return names
