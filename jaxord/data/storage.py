"""Where the decoded images of a split live: "resident" in device memory, "cached" on the host,
"stream" nowhere.

N records of a split, C side of the stored canvas. Of several processes each holds what is cached in
memory whole, and of what is resident the part of its devices. Records without images have the tier
"inputs".
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import shutil
import tempfile
import time

import jax
import numpy as np
from absl import logging

from jaxord.data import corrupt
from jaxord.data import decode as decoding
from jaxord.data.records import Records
from jaxord.runtime import hosts, memory
from jaxord.runtime.memory import device_memory

CACHE_FORMAT = 2  # raised when decoding changes, so that no old cache is read
SHOWN, NAMED = 5, 50  # broken images that a message names; where they are too many to be left out
CUTTING_CROPS = (
    "random_crop",
    "center_crop",
    "diagonal_crops",
    "spread_crops",
)  # they do not enlarge


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, decoded or ready to be.

    Attributes:
        records: those that can be decoded; `index` of a batch is a row of it.
        tier: "resident", "cached", "stream"; "inputs" where the records have no images.
        images: u8[M, C, C, 3] on the devices, each with its part of the rows, in memory or in a
          file; None in the tiers
            "stream" and "inputs".
        sizes: i32[M, 2], true height and width; None where `images` is.
        slots: i32[N], place of a record in `images`; broken images that were left out are never
          pointed to.
        skipped: (row of the records given, path, reason) of each image left out.
        data: config.data.
        place: host array -> device array with the sharding of a batch.
    """

    records: Records
    tier: str
    images: object
    sizes: object
    slots: np.ndarray
    skipped: tuple
    data: object
    place: object

    def stored(self):
        """What a step needs to gather images by itself: {"stored", "size", "slot"}; {} where they
        are not on the device."""
        if self.tier != "resident":
            return {}
        return {
            "stored": self.images,
            "size": self.sizes,
            "slot": replicate(self.slots, self.images.sharding),
        }


def decode_split(records, data, place):
    """Brings a split into the tier that `data.tier` names; once a run, all iterators over it share
    the result.

    Args:
        records: of the split.
        data: config.data.
        place: host array -> device array with the sharding of a batch.

    Raises:
        ValueError: an image cannot be decoded and data.broken is "raise" (all are counted; in the
          stream tier the first
            one stops the run when it is reached); no image is left; the tier does not fit; a
            setting is unknown.
    """
    _check(records, data)
    if records.read is None:
        if data.corruption.name:
            raise ValueError(f"{records.name} has no images that data.corruption could damage")
        return Split(
            records, "inputs", None, None, np.arange(len(records), dtype=np.int32), (), data, place
        )
    side = decoding.canvas(data.resize, data.stored_size)
    shape = (len(records), side, side, 3)
    tier = hosts.first(_tier)(records.name, math.prod(shape), data)
    images = sizes = None
    broken = {}
    if tier != "stream":
        if data.cache and jax.process_count() > 1:
            hosts.first(
                lambda: _decode_all(records, shape, data) and None
            )()  # the others find it in the cache
        images, sizes, broken = _decode_all(records, shape, data)
    elif data.broken == "skip":
        one = functools.partial(decode_row, records, data=data)
        broken = dict(hosts.first(lambda: [*each_row(one, len(records), data.workers).items()])())
    skipped = tuple((row, records.paths[row], reason) for row, reason in sorted(broken.items()))
    slots = np.array([row for row in range(len(records)) if row not in broken], np.int32)
    check_broken(records, skipped, data)
    if skipped:
        records = records.take(slots)
    if tier == "resident":
        with memory.explained(
            "placing images",
            f"data.stored_size={data.stored_size}",
            lambda: f"{images.nbytes:,} bytes",
        ):
            images, sizes = jax.block_until_ready(
                (_resident(images, place), _resident(sizes, place))
            )
    return Split(records, tier, images, sizes, slots, skipped, data, place)


def decode_row(records, row, data):
    """(u8[C, C, 3], i32[2]) of one record; ValueError or OSError with the reason where it cannot be
    had."""
    stored, size = decoding.decode(
        records.read(row), resize=data.resize, stored_size=data.stored_size
    )
    if data.corruption.name:
        inside = tuple(slice(side) for side in size)
        stored = stored.copy()
        stored[inside] = corrupt.corrupt(
            stored[inside], data.corruption.name, data.corruption.severity, row
        )
    return stored, np.array(size, np.int32)


def _resident(array, place):
    """The array on the devices, each holding its part of the rows, which are filled up until they
    divide."""
    devices = place(np.zeros(0, np.uint8)).sharding.num_devices
    short = -len(array) % devices
    return place(
        np.concatenate([array, np.zeros((short, *array.shape[1:]), array.dtype)])
        if short
        else array
    )


def replicate(array, sharding):
    """The whole array on each device that `sharding` names."""
    if isinstance(sharding, jax.sharding.NamedSharding):
        sharding = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _decode_all(records, shape, data):
    """(u8[N, C, C, 3], i32[N, 2], {row: reason}), from the cache's folder where it holds them
    already."""
    if not data.cache:
        images, sizes = np.zeros(shape, np.uint8), np.zeros((shape[0], 2), np.int32)
        return images, sizes, _fill(images, sizes, records, data)
    folder = pathlib.Path(data.cache) / _cache_key(records, data)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = pathlib.Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
        try:  # readers see the folder only when it is complete, by one rename
            images = np.lib.format.open_memmap(part / "images.npy", "w+", np.uint8, shape)
            sizes = np.zeros((shape[0], 2), np.int32)
            broken = _fill(images, sizes, records, data)
            images.flush()
            if broken and data.broken == "raise":
                return images, sizes, broken
            np.save(part / "sizes.npy", sizes)
            (part / "broken.json").write_text(json.dumps(broken))
            try:
                part.rename(folder)
            except OSError:  # another process was faster, with the same content
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    broken = {
        int(row): reason for row, reason in json.loads((folder / "broken.json").read_text()).items()
    }
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "sizes.npy"), broken


def _cache_key(records, data):
    """Names what was decoded and how: other files, other sizes or dates of files, other settings
    give another key."""
    corruption = (data.corruption.name, data.corruption.severity) if data.corruption.name else ()
    parts = (CACHE_FORMAT, data.resize, data.stored_size, records.stamp, records.paths, *corruption)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _fill(images, sizes, records, data):
    """Decodes all records into the two arrays; returns {row: reason} of those that cannot be."""
    start = time.monotonic()

    def one(row):
        images[row], sizes[row] = decode_row(records, row, data)

    broken = each_row(one, len(records), data.workers)
    seconds = time.monotonic() - start
    logging.info(
        "%s: %d images decoded in %.1f s (%.0f a second)",
        records.name,
        len(records),
        seconds,
        len(records) / seconds,
    )
    return broken


def each_row(function, n, workers):
    """Calls function(row) for all rows by threads (Pillow releases the GIL); returns {row: reason}
    of failures."""

    def attempt(row):
        try:
            function(row)
        except (ValueError, OSError) as error:
            return row, str(error)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            return dict(filter(None, pool.map(attempt, range(n))))
        except BaseException:  # Ctrl-C: do not wait for the rest
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def check_broken(records, broken, data):
    """Raises ValueError where images are broken and data.broken is "raise", or they are more than
    data.broken_share allows.

    Args:
        records: of the split, with the broken ones.
        broken: (row, path, reason) of each.
        data: config.data.
    """
    if broken and data.broken == "raise":
        raise ValueError(broken_message(records, broken))
    share = data.get("broken_share", 1.0)  # the config of an older run has none
    if len(broken) > share * len(records) or len(broken) == len(records):
        raise ValueError(broken_message(records, broken, NAMED))
    if broken:
        logging.warning("%s", broken_message(records, broken))


def broken_message(records, broken, shown=SHOWN):
    lines = [f"row {row}, {path}: {reason}" for row, path, reason in broken[:shown]]
    more = [f"and {len(broken) - shown} more"] if len(broken) > shown else []
    title = (
        f"{records.name}: {len(broken)} of {len(records)} images cannot be decoded "
        "(config.data.broken: 'raise' stops, 'skip' leaves them out, up to config.data.broken_share of all)"
    )
    return "\n  ".join([title, *lines, *more])


def _check(records, data):
    for field, allowed in (
        ("tier", ("auto", "resident", "cached", "stream")),
        ("broken", ("raise", "skip")),
    ):
        if data[field] not in allowed:
            raise ValueError(f"config.data.{field} is {data[field]!r}; it is one of {allowed}")
    if data.workers < 1:
        raise ValueError(f"config.data.workers is {data.workers}; at least 1 thread decodes")
    if not len(records):
        raise ValueError(f"{records.name} is empty")
    if records.read is None:
        return
    crops = {data.train_crop.name, data.eval_crop.name} & set(CUTTING_CROPS)
    if data.stored_size < data.image_size and crops:
        raise ValueError(
            f"config.data.stored_size is {data.stored_size}, smaller than image_size {data.image_size}, but "
            f"{sorted(crops)} cut a piece out; raise stored_size or use the crop 'resize'"
        )


def _tier(name, size, data):
    """The tier to use for `size` bytes; what is forced but does not fit is an error with the
    numbers."""
    free = shutil.disk_usage(_existing(data.cache)).free if data.cache else host_memory()
    where = f"the disk of {data.cache}" if data.cache else "host memory"
    device, device_free = device_memory()
    if data.tier in ("resident", "cached") and size > free:
        raise ValueError(
            f"{name} takes {size:,} bytes decoded, but {where} has {free:,}; use config.data.tier='stream' or a "
            "smaller stored_size"
        )
    if data.tier == "resident" and size > device_free:
        raise ValueError(
            f"{name} takes {size:,} bytes decoded, but the device has {device_free:,}; use config.data.tier='cached' "
            "or 'stream', or a smaller stored_size"
        )
    if data.tier != "auto":
        return data.tier
    if size > free / 2:
        return "stream"
    # On a CPU the device's memory is the host's, and numpy gathers eight times faster there than
    # XLA (measured).
    accelerated = jax.default_backend() != "cpu"
    return "resident" if accelerated and size <= min(device / 4, device_free / 2) else "cached"


def host_memory():
    """Bytes of host memory that can be taken without swapping, inside a container's limit where
    there is one."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        free = next(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")
        )
    except (OSError, StopIteration):  # no Linux: assume half of what is built in
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    group = pathlib.Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / file).read_text()) for file in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(
            free, limit - used + int(stat["file"])
        )  # pages of files are given back when memory is wanted
    except (OSError, ValueError):  # no such group, or "max": no limit
        return free


def _existing(folder):
    folder = pathlib.Path(folder).absolute()
    return next(p for p in (folder, *folder.parents) if p.exists())
