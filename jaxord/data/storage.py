"""Where the decoded images of a split live, its tier.

"resident": in device memory, each process holding the rows of its devices. "cached": in host memory
or in a file, whole in each process. "stream": nowhere; threads decode ahead. "inputs": the records
have no images. N records of a split, M >= N rows of a stored array, C side of the stored canvas.
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

from jaxord.data import augment, corrupt, decode
from jaxord.data.records import Records
from jaxord.runtime import hosts, memory
from jaxord.runtime.memory import device_memory
from jaxord.workdir import files

CACHE_FORMAT = 2  # raised when decoding changes, so that no old cache is read
SHOWN = 5  # broken images that a message lists
SHOWN_IF_TOO_MANY = 50  # if they exceed data.broken_share


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, decoded or ready to be.

    Attributes:
      records: without the broken images; `index` of a batch is a row of it.
      tier: "resident", "cached", "stream" or "inputs".
      data: config.data.
      place: host array -> device array with the sharding of a batch.
      slots: i32[N], place of a record in `images`.
      skipped: (row of the records given, path, reason) of each image left out.
      images: u8[M, C, C, 3] on the devices, in memory or in a file; None in the other tiers.
      sizes: i32[M, 2], true height and width; None where `images` is.
    """

    records: Records
    tier: str
    data: object
    place: object
    slots: np.ndarray
    skipped: tuple = ()
    images: object = None
    sizes: object = None

    def stored(self):
        """{"stored", "size", "slot"}, from which a step gathers resident images; else {}."""
        if self.tier != "resident":
            return {}
        slots = replicate(self.slots, self.images.sharding)
        return {"stored": self.images, "size": self.sizes, "slot": slots}


def decode_split(records, data, place):
    """Brings a split into the tier that `data.tier` names; the arguments are those of `Split`.

    Raises:
      ValueError: broken images (all are counted, but the tier "stream" stops at the first it
        reaches); the tier does not fit; a setting is unknown.
    """
    _check(records, data)
    if records.read is None:
        if data.corruption.name:
            raise ValueError(f"{records.name} has no images that data.corruption could damage")
        return without_images(records, data, place)
    side = decode.canvas(data.resize, data.stored_size)
    shape = (len(records), side, side, 3)
    tier = hosts.first(_choose_tier)(records.name, math.prod(shape), data)
    images = sizes = None
    broken = {}
    if tier != "stream":
        if data.cache and jax.process_count() > 1:
            # The other processes find the images in the cache.
            hosts.first(lambda: _decode_all(records, shape, data) and None)()
        images, sizes, broken = _decode_all(records, shape, data)
    elif data.broken == "skip":
        one = functools.partial(decode_row, records, data=data)
        rows = range(len(records))
        broken = dict(hosts.first(lambda: [*each_row(one, rows, data.workers).items()])())
    skipped = tuple((row, records.paths[row], reason) for row, reason in sorted(broken.items()))
    slots = np.array([row for row in range(len(records)) if row not in broken], np.int32)
    check_broken(records, skipped, data)
    if skipped:
        records = records.take(slots)
    if tier == "resident":
        stored_size = f"data.stored_size={data.stored_size}"
        with memory.explained("placing images", stored_size, lambda: f"{images.nbytes:,} bytes"):
            placed = _place_rows(images, place), _place_rows(sizes, place)
            images, sizes = jax.block_until_ready(placed)
    return Split(records, tier, data, place, slots, skipped, images, sizes)


def without_images(records, data, place, skipped=()):
    """The split of records that have inputs only."""
    slots = np.arange(len(records), dtype=np.int32)
    return Split(records, "inputs", data, place, slots, skipped)


def decode_row(records, row, data):
    """(u8[C, C, 3], i32[2]) of one record; ValueError or OSError if it cannot be decoded."""
    form = {"resize": data.resize, "stored_size": data.stored_size}
    stored, size = decode.decode_image(records.read(row), **form)
    if data.corruption.name:
        inside = tuple(slice(side) for side in size)
        damage = data.corruption.name, data.corruption.severity
        stored = stored.copy()
        stored[inside] = corrupt.apply(stored[inside], *damage, row)
    return stored, np.array(size, np.int32)


def _place_rows(array, place):
    """The array with each device holding its part of the rows; zeros fill them up to divide."""
    count = place(np.zeros(0, np.uint8)).sharding.num_devices
    missing = -len(array) % count
    if missing:
        array = np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
    return place(array)


def replicate(array, sharding):
    """The whole array on each device that `sharding` names."""
    if isinstance(sharding, jax.sharding.NamedSharding):
        sharding = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _decode_all(records, shape, data):
    """(u8[N, C, C, 3], i32[N, 2], {row: reason}), from the cache if it holds them."""
    sizes = np.zeros((shape[0], 2), np.int32)
    if not data.cache:
        images = np.zeros(shape, np.uint8)
        return images, sizes, _fill(images, sizes, records, data)
    folder = pathlib.Path(data.cache) / _cache_key(records, data)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # One rename makes the folder appear, so that readers only see it complete.
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parent) as scratch:
            part = pathlib.Path(scratch, "images")
            part.mkdir()
            images = np.lib.format.open_memmap(part / "images.npy", "w+", np.uint8, shape)
            broken = _fill(images, sizes, records, data)
            images.flush()
            if broken and data.broken == "raise":
                return images, sizes, broken
            np.save(part / "sizes.npy", sizes)
            files.write_json(part / "broken.json", broken)
            try:
                part.rename(folder)
            except OSError:  # another process was faster, with the same content
                if not folder.exists():
                    raise
    broken = {int(row): reason for row, reason in files.read_json(folder / "broken.json").items()}
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "sizes.npy"), broken


def _cache_key(records, data):
    """Hashes the files (paths, sizes, dates) and the settings by which they are decoded."""
    corruption = (data.corruption.name, data.corruption.severity) if data.corruption.name else ()
    parts = (CACHE_FORMAT, data.resize, data.stored_size, records.stamp, records.paths, *corruption)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _fill(images, sizes, records, data):
    """Decodes all records into the two arrays; returns {row: reason} of the broken ones."""
    start = time.monotonic()

    def one(row):
        images[row], sizes[row] = decode_row(records, row, data)

    broken = each_row(one, range(len(records)), data.workers)
    seconds = time.monotonic() - start
    counts = len(records), seconds, len(records) / seconds
    logging.info("%s: %d images decoded in %.1f s (%.0f a second)", records.name, *counts)
    return broken


def map_threads(function, items, workers):
    """[function(item) for item in items] by threads; an exception or Ctrl-C cancels the rest."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            return [*pool.map(function, items)]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def each_row(function, rows, workers):
    """Calls function(row) for all rows by threads; returns {row: reason} of failures."""

    def attempt(row):
        try:
            function(row)
        except (ValueError, OSError) as error:
            return row, str(error)

    # Threads suffice, because Pillow releases the GIL.
    return dict(filter(None, map_threads(attempt, rows, workers)))


def check_broken(records, broken, data, noun="images"):
    """Raises ValueError for broken examples that data.broken and data.broken_share do not allow.

    Args:
      records: of the split, with the broken ones.
      broken: (row, path, reason) of each.
      data: config.data, or a mapping with the two fields.
      noun: of the examples.
    """
    if not broken:
        return
    message = functools.partial(broken_message, records, broken, noun)
    if data["broken"] == "raise":
        raise ValueError(message())
    share = data.get("broken_share", 1.0)  # the config of an older run has none
    if len(broken) > share * len(records) or len(broken) == len(records):
        raise ValueError(message(SHOWN_IF_TOO_MANY))
    logging.warning("%s", message())


def broken_message(records, broken, noun="images", shown=SHOWN):
    """Lists the first `shown` broken examples, and the settings that decide about them."""
    lines = [f"row {row}, {path}: {reason}" for row, path, reason in broken[:shown]]
    more = [f"and {len(broken) - shown} more"] if len(broken) > shown else []
    title = (
        f"{records.name}: {len(broken)} of {len(records)} {noun} cannot be decoded "
        "(config.data.broken: 'raise' stops, 'skip' leaves them out, up to "
        "config.data.broken_share of all)"
    )
    return "\n  ".join([title, *lines, *more])


def _check(records, data):
    tiers = ("auto", "resident", "cached", "stream")
    for field, allowed in (("tier", tiers), ("broken", ("raise", "skip"))):
        if data[field] not in allowed:
            raise ValueError(f"config.data.{field} is {data[field]!r}; it is one of {allowed}")
    if data.workers < 1:
        raise ValueError(f"config.data.workers is {data.workers}; at least 1 thread decodes")
    if not len(records):
        raise ValueError(f"{records.name} is empty")
    crops = {data.train_crop.name, data.eval_crop.name} & set(augment.CUTTING_CROPS)
    if records.read is not None and data.stored_size < data.image_size and crops:
        raise ValueError(
            f"config.data.stored_size is {data.stored_size}, smaller than image_size "
            f"{data.image_size}, but {sorted(crops)} cut a piece out; raise stored_size or use the "
            "crop 'resize'"
        )


def _choose_tier(name, size, data):
    """The tier for `size` bytes; ValueError if the tier that data.tier forces does not fit."""
    if data.cache:
        cache = pathlib.Path(data.cache).absolute()
        existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
        host, free = f"the disk of {data.cache}", shutil.disk_usage(existing).free
    else:
        host, free = "host memory", host_memory()
    device, device_free = device_memory()

    def too_large(where, room, others):
        problem = f"{name} takes {size:,} bytes decoded, but {where} has {room:,}"
        return ValueError(f"{problem}; use config.data.tier={others} or a smaller stored_size")

    if data.tier in ("resident", "cached") and size > free:
        raise too_large(host, free, "'stream'")
    if data.tier == "resident" and size > device_free:
        raise too_large("the device", device_free, "'cached' or 'stream',")
    if data.tier != "auto":
        return data.tier
    if size > free / 2:
        return "stream"
    # On a CPU the device's memory is the host's, and numpy gathers eight times faster there than
    # XLA (measured).
    accelerated = jax.default_backend() != "cpu"
    return "resident" if accelerated and size <= min(device / 4, device_free / 2) else "cached"


def host_memory():
    """Bytes of host memory that can be taken without swapping, within a container's limit."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        (available,) = (line for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError):  # not Linux: assume that half of the memory is free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    free = int(available.split()[1]) * 1024
    group = pathlib.Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / file).read_text()) for file in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or "max": no limit
        return free
    # The kernel gives pages of files back when memory is wanted.
    return min(free, limit - used + int(stat["file"]))
