"""Files that are complete or absent: atomic writes, JSON, arrays and locks."""

import contextlib
import json
import math
import os
import pathlib

import filelock
import numpy as np


@contextlib.contextmanager
def replacing(path, mode="w", **settings):
    """Opens a temporary file that replaces `path` when the block ends without an error.

    A kill leaves the old file or the new one, on disk.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, mode, **settings) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path):
    """Forces a file or folder onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_value(value):
    """Nested dicts and lists with None for numbers that are not finite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path, value):
    """Writes JSON atomically; numbers that are not finite become null."""
    with replacing(path) as file:
        file.write(json.dumps(json_value(value), indent=1, allow_nan=False) + "\n")


def read_json(path, object_hook=None):
    """Reads a JSON file of a run; raises ValueError if it is missing or damaged."""
    with reading(path):
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"), object_hook=object_hook)


def read_numbers(path):
    """Reads nested dicts of numbers, such as results.json, with nan where the file has null."""
    return read_json(path, lambda part: {k: math.nan if v is None else v for k, v in part.items()})


def read_arrays(path):
    """Reads {name: array} from an .npz file without unpickling; ValueError if damaged."""
    with reading(path), np.load(path, allow_pickle=False) as stored:
        return dict(stored)


@contextlib.contextmanager
def reading(path, remedy="it has to be restored"):
    """Turns any error while a file of a run is parsed into a ValueError that names the file."""
    try:
        yield
    except Exception as error:  # numpy's and zlib's parsers raise many types
        missing = isinstance(error, FileNotFoundError)
        fault = "missing" if missing else f"damaged ({type(error).__name__}: {error})"
        raise ValueError(f"{path} is {fault}; {remedy}") from None


def lock(path, busy=""):
    """Acquires the lock file `path` for a `with` block; a killed process releases it too.

    `busy` is the message of the ValueError raised if another process holds it; "" waits instead.
    """
    try:
        return filelock.FileLock(path).acquire(timeout=0 if busy else -1)
    except filelock.Timeout:
        raise ValueError(busy) from None
