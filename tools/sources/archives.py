"""Unpacks archives of data sets, which nobody trusts."""

import pathlib
import shutil
import stat
import tarfile
import zipfile

# A bomb announces more files, or more bytes per byte of its own.
MAX_FILES = 5_000_000
MAX_RATIO = 200
BY_HAND = "unpack it by hand, and give the folder"


def unpack(archive, folder):
    """Writes the files of a zip or (compressed) tar into an empty folder, and nothing outside.

    Returns the folder, or the only folder in it, as most archives have one. Raises ValueError for
    a damaged archive; an entry that leads out of the folder, is a link, a device or encrypted; more
    files or bytes than MAX_FILES, MAX_RATIO or the disk allow.
    """
    archive, folder = pathlib.Path(archive), pathlib.Path(folder)
    try:
        (_unzip if zipfile.is_zipfile(archive) else _untar)(archive, folder)
    except Exception as error:  # the parsers raise many types on damaged files
        is_plain = isinstance(error, (ValueError, OSError))
        reason = str(error) if is_plain else f"{type(error).__name__}: {error}"
        raise ValueError(f"{archive} is not unpacked: {reason}") from None
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _unzip(archive, folder):
    with zipfile.ZipFile(archive) as source:
        entries = source.infolist()
        _check(archive, folder, [(entry.filename, entry.file_size) for entry in entries])
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{entry.filename!r} is a link or a device")
            if entry.flag_bits & 1:
                raise ValueError(f"{entry.filename!r} is encrypted; {BY_HAND}")
            source.extract(entry, folder)  # reads no more than the size that was checked


def _untar(archive, folder):
    with tarfile.open(archive) as source:
        entries = source.getmembers()
        _check(archive, folder, [(entry.name, entry.size) for entry in entries])
        for entry in entries:
            if not (entry.isreg() or entry.isdir()):
                raise ValueError(f"{entry.name!r} is a link or a device")
        # The filter ignores the archive's owners, modes and times.
        source.extractall(folder, entries, filter="data")


def _check(archive, folder, entries):
    """Raises ValueError for (name, size) of entries that are too large or lead out."""
    size = sum(size for _, size in entries)
    room = shutil.disk_usage(folder).free
    packed = archive.stat().st_size
    if len(entries) > MAX_FILES or size > MAX_RATIO * packed:
        content = f"{packed:,} bytes hold {len(entries):,} files of {size:,} bytes"
        limit = f"expected at most {MAX_FILES:,} files and {MAX_RATIO} times the bytes"
        raise ValueError(f"{content}; {limit}; if that is right, {BY_HAND}")
    if size > room:
        raise ValueError(f"its files take {size:,} bytes, and the disk of {folder} has {room:,}")
    for name, _ in entries:
        path = pathlib.PurePosixPath(name.replace("\\", "/"))
        has_drive = bool(path.parts) and path.parts[0].endswith(":")
        if path.is_absolute() or has_drive or ".." in path.parts or "\0" in name:
            raise ValueError(f"{name!r} leads out of the folder")
