"""Archives of data sets -> folders: nothing is written outside of the folder, or beyond the room
there is."""

import pathlib
import shutil
import stat
import tarfile
import zipfile

MOST_FILES, RATIO = (
    5_000_000,
    200,
)  # a bomb says that it holds more files, or that many times its own bytes


def unpack(archive, folder):
    """Writes the files of an archive.

    Args:
        archive: a zip, or a tar that may be compressed.
        folder: that is there, and empty; what is in it after an error is of no use.

    Returns:
        pathlib.Path: the folder, or the only one in it, as most archives have one.

    Raises:
        ValueError: no such archive, or a damaged one; an entry that leads out of the folder, is a
          link, a device or encrypted;
            more than the disk has room for, MOST_FILES or RATIO allow.
    """
    archive, folder = pathlib.Path(archive), pathlib.Path(folder)
    try:
        (_zip if zipfile.is_zipfile(archive) else _tar)(archive, folder)
    except Exception as error:  # the parsers raise many types on damaged files
        reason = (
            str(error)
            if isinstance(error, (ValueError, OSError))
            else f"{type(error).__name__}: {error}"
        )
        raise ValueError(f"{archive} is not unpacked: {reason}") from None
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _zip(archive, folder):
    with zipfile.ZipFile(archive) as found:
        entries = found.infolist()
        _check(archive, folder, [(entry.filename, entry.file_size) for entry in entries])
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{entry.filename!r} is a link or a device")
            if entry.flag_bits & 1:
                raise ValueError(
                    f"{entry.filename!r} is encrypted; unpack it by hand, and give the folder"
                )
            found.extract(entry, folder)  # reads no more than the size that was checked


def _tar(archive, folder):
    with tarfile.open(archive) as found:
        entries = found.getmembers()
        _check(archive, folder, [(entry.name, entry.size) for entry in entries])
        if wrong := next(
            (entry.name for entry in entries if not (entry.isreg() or entry.isdir())), ""
        ):
            raise ValueError(f"{wrong!r} is a link or a device")
        found.extractall(
            folder, entries, filter="data"
        )  # owners, modes and times of the archive mean nothing here


def _check(archive, folder, entries):
    size, room, own = (
        sum(size for _, size in entries),
        shutil.disk_usage(folder).free,
        archive.stat().st_size,
    )
    if len(entries) > MOST_FILES or size > RATIO * own:
        raise ValueError(
            f"{own:,} bytes hold {len(entries):,} files of {size:,} bytes; expected at most {MOST_FILES:,} files "
            f"and {RATIO} times the bytes; if that is right, unpack it by hand, and give the folder"
        )
    if size > room:
        raise ValueError(f"its files take {size:,} bytes, and the disk of {folder} has {room:,}")
    for name, _ in entries:
        parts = pathlib.PurePosixPath(name.replace("\\", "/"))
        if (
            parts.is_absolute()
            or ".." in parts.parts
            or "\0" in name
            or parts.parts[:1]
            and parts.parts[0].endswith(":")
        ):
            raise ValueError(f"{name!r} leads out of the folder")
