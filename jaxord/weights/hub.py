"""Where a CLIP checkpoint lies: a folder, or a repository of the Hugging Face hub."""

import functools
import hashlib
import pathlib

from jaxord.weights import reading

FILES = ["config.json", "preprocessor_config.json", "model*.safetensors"]
FILES += ["model.safetensors.index.json"]
FILES += ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"]
CONVERT = reading.PICKLED.format(".bin, .pt") + ", and pass that folder"


def resolve(source):
    """The local folder of a checkpoint: a folder itself, or a hub id, downloaded once.

    "<hub id>@<commit>" is that commit for ever, the id alone the newest of its branch. Every file
    from the hub has the hash that the hub gave for that commit. A missing folder or repository and
    a changed file are a ValueError.
    """
    folder = pathlib.Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        expected = "weights are a folder with config.json and model.safetensors"
        raise ValueError(f"{folder} is a file; {expected}. {CONVERT}")
    return _download(str(source))


@functools.cache  # a process takes one commit, and hashes it once
def _download(source):
    from huggingface_hub import snapshot_download  # 0.3 s, and not needed for a folder

    name, _, revision = source.partition("@")
    try:
        folder = snapshot_download(name, revision=revision or None, allow_patterns=FILES)
    except (OSError, ValueError) as error:  # offline, unknown, private, or not the form of an id
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ValueError(
            f"no weights at {source!r}: it is not a folder, and the Hugging Face hub did not give "
            f"it ({reason}). Download the files {', '.join(FILES)} where there is a network and "
            "pass their folder: --config.model.weights=<folder>"
        ) from error
    for file in sorted(pathlib.Path(folder).iterdir()):
        _check_hash(file)
    return pathlib.Path(folder)


def _check_hash(file):
    """Compares a file of the hub's cache with the hash in its name; ValueError if they differ.

    The cache names a content by its hash in the commit (SHA-256 of large files, git's SHA-1 of
    small ones) and links to it; a file system without links keeps no hash.
    """
    if not file.is_symlink():
        return
    content = file.resolve()
    with open(content, "rb") as stream:
        if len(content.name) == 64:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        else:
            blob = b"blob %d\0" % content.stat().st_size + stream.read()
            digest = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
    if digest != content.name:
        raise ValueError(
            f"{file} has the hash {digest}, the hub says {content.name}: it is damaged, or was "
            f"changed; remove {content} to have it downloaded again"
        )
