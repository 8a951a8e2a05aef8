"""Records -> batches of uint8 images and of other inputs: three ways to hold the images, and one iterator over each.

B batch, N records of a split, C side of the stored canvas.

The order is a function of (seed, epoch), so batch n is known without the batches before it. Where the images live
changes no byte of a batch: "resident" in device memory, "cached" on the host, "stream" decoded as they are needed.
Records without images have the tier "inputs". Rows of `records.inputs` are gathered on the host in every tier, and where
they are padded a batch is cut to its longest row (jaxord.data.order.gather).
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
import sys
import tempfile
import time

import jax
import numpy as np
from absl import logging

from jaxord.data import corrupt, order
from jaxord.data import decode as decoding
from jaxord.data.sources import Records

CACHE_FORMAT = 1  # raised when decoding changes, so that no old cache is read
CUTTING_CROPS = ("random_crop", "center_crop", "diagonal_crops", "spread_crops")  # they do not enlarge


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, decoded or ready to be.

    Attributes:
        records: those that can be decoded; `index` of a batch is a row of it.
        tier: "resident", "cached", "stream"; "inputs" where the records have no images.
        images: u8[M, C, C, 3] on the device, in memory or in a file; None in the tiers "stream" and "inputs".
        sizes: i32[M, 2], true height and width; None where `images` is.
        slots: i32[N], place of a record in `images`; broken images that were left out are never pointed to.
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


def decode_split(records, data, place):
    """Brings a split into the tier that `data.tier` names; once a run, all iterators over it share the result.

    Args:
        records: of the split.
        data: config.data.
        place: host array -> device array with the sharding of a batch.

    Raises:
        ValueError: an image cannot be decoded and data.broken is "raise" (all are counted; in the stream tier the first
            one stops the run when it is reached); no image is left; the tier does not fit; a setting is unknown.
    """
    _check(records, data)
    if records.read is None:
        if data.corruption.name:
            raise ValueError(f"{records.name} has no images that data.corruption could damage")
        return Split(records, "inputs", None, None, np.arange(len(records), dtype=np.int32), (), data, place)
    side = decoding.canvas(data.resize, data.stored_size)
    shape = (len(records), side, side, 3)
    tier = _tier(records.name, math.prod(shape), data)
    images = sizes = None
    broken = {}
    if tier != "stream":
        images, sizes, broken = _decode_all(records, shape, data)
    elif data.broken == "skip":
        broken = _each_row(lambda row: decode_row(records, row, data), len(records), data.workers)
    skipped = tuple((row, records.paths[row], reason) for row, reason in sorted(broken.items()))
    slots = np.array([row for row in range(len(records)) if row not in broken], np.int32)
    if skipped:
        if data.broken == "raise" or not len(slots):
            raise ValueError(_broken_message(records, skipped))
        logging.warning("%s", _broken_message(records, skipped))
        records = records.take(slots)
    if tier == "resident":
        sharding = place(np.zeros(data.batch, np.int32)).sharding
        images, sizes = _replicate(images, sharding), _replicate(sizes, sharding)
    return Split(records, tier, images, sizes, slots, skipped, data, place)


def train_batches(split, *, batch, seed, start_step=0):
    """Endless batches from `start_step` on, the same whether or not the ones before were drawn.

    With data.copies each row stands in its batch that many times, r0, r0, r1, r1, ..., so that its copies lie on one device;
    copy c in epoch e has the epoch e * copies + c, so that they are augmented apart. With data.bucket a batch holds rows of
    like length (order.bucketed_rows).

    Args:
        split: from `decode_split`.
        batch: B, rows of a batch without their copies.
        seed: of the run.
        start_step: 0 for the first batch.

    Yields:
        dict of stored u8[B, C, C, 3] and size i32[B, 2] where there are images, the rows of each of records.inputs,
        index i32[B], epoch i32[B]; all placed, with B * copies rows.

    Raises:
        ValueError: copies below 1; a bucket for records without padded inputs.
    """
    copies = split.data.copies
    rows_at = functools.lru_cache(maxsize=64)(_rows_of_step(split.records, split.data, batch, seed))
    images = _images(split, lambda step: rows_at(step)[0], batch, start_step, sys.maxsize // batch, copies)
    for step, arrays in enumerate(images, start_step):
        rows, epochs = (np.repeat(part, copies) for part in rows_at(step))
        epochs = epochs * copies + np.tile(np.arange(copies, dtype=np.int32), batch)
        yield {**arrays, **_placed(split, rows, epochs)}


def eval_batches(split, *, batch):
    """Every record once, in order; the last batch is filled up with row 0.

    Yields:
        dict as of `train_batches` with epoch 0, and valid: bool[B] on the host, False where the batch was filled up.
    """
    n = len(split.records)

    def rows_at(step):
        positions = np.arange(step * batch, (step + 1) * batch, dtype=np.int32)
        return np.where(positions < n, positions, 0)

    for step, arrays in enumerate(_images(split, rows_at, batch, 0, -(-n // batch))):
        valid = np.arange(step * batch, (step + 1) * batch) < n
        yield {**arrays, **_placed(split, rows_at(step), np.zeros(batch, np.int32)), "valid": valid}


def decode_row(records, row, data):
    """(u8[C, C, 3], i32[2]) of one record; ValueError or OSError with the reason where it cannot be had."""
    stored, size = decoding.decode(records.read(row), resize=data.resize, stored_size=data.stored_size)
    if data.corruption.name:
        inside = tuple(slice(side) for side in size)
        stored = stored.copy()
        stored[inside] = corrupt.corrupt(stored[inside], data.corruption.name, data.corruption.severity, row)
    return stored, np.array(size, np.int32)


def _rows_of_step(records, data, batch, seed):
    """The function step -> (rows i32[B], epochs i32[B])."""
    if data.copies < 1:
        raise ValueError(f"config.data.copies is {data.copies}; each row stands in its batch at least once")
    if not data.bucket:
        return functools.partial(order.train_rows, seed, len(records), batch)
    lengths = order.lengths(records.inputs)
    if data.bucket < 0 or lengths is None:
        raise ValueError(
            f"config.data.bucket is {data.bucket}, and {records.name} has the inputs {sorted(records.inputs)}; it is a number "
            f"of batches for inputs of various lengths, which have a mask (sentences, sentence{order.MASK}), else 0"
        )
    return functools.partial(order.bucketed_rows, seed, lengths, batch, data.bucket)


def _placed(split, rows, epochs):
    inputs = order.gather(split.records.inputs, rows)
    return {name: split.place(array) for name, array in {**inputs, "index": rows, "epoch": epochs}.items()}


def _images(split, rows_at, batch, first, last, copies=1):
    """Yields {"stored", "size"}, placed, of the steps from `first` up to `last`; {} where there are no images."""
    if split.tier == "stream":
        yield from _stream(split, rows_at, batch, first, last, copies)
        return
    for step in range(first, last):
        slots = np.repeat(split.slots[rows_at(step)], copies)
        if split.tier == "inputs":
            yield {}
        elif split.tier == "resident":
            slots = split.place(slots)
            stored, size = _gather(slots.sharding)(split.images, split.sizes, slots)
            yield {"stored": stored, "size": size}
        else:
            yield {"stored": split.place(split.images[slots]), "size": split.place(split.sizes[slots])}


def _stream(split, rows_at, batch, first, last, copies):
    """Decodes each row of a batch once, by threads, in order, up to two batches ahead."""
    import grain

    def example(position):
        row = int(rows_at(position // batch)[position % batch])
        try:
            return decode_row(split.records, row, split.data)
        except (ValueError, OSError) as error:
            raise ValueError(_broken_message(split.records, [(row, split.records.paths[row], str(error))])) from None

    options = grain.ReadOptions(num_threads=split.data.workers, prefetch_buffer_size=max(2 * batch, split.data.workers))
    examples = grain.MapDataset.range(first * batch, last * batch).map(example).to_iter_dataset(options)
    for batch_of in examples.batch(batch, drop_remainder=True):
        stored, size = (split.place(np.repeat(part, copies, axis=0)) for part in batch_of)
        yield {"stored": stored, "size": size}


@functools.lru_cache(maxsize=8)
def _gather(sharding):
    def gather(images, sizes, slots):
        return images.at[slots].get(mode="clip"), sizes.at[slots].get(mode="clip")

    return jax.jit(gather, out_shardings=sharding)


def _replicate(array, sharding):
    """The whole array on each device that `sharding` names."""
    if isinstance(sharding, jax.sharding.NamedSharding):
        sharding = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _decode_all(records, shape, data):
    """(u8[N, C, C, 3], i32[N, 2], {row: reason}), from the cache's folder where it holds them already."""
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
    broken = {int(row): reason for row, reason in json.loads((folder / "broken.json").read_text()).items()}
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "sizes.npy"), broken


def _cache_key(records, data):
    """Names what was decoded and how: other files, other sizes or dates of files, other settings give another key."""
    corruption = (data.corruption.name, data.corruption.severity) if data.corruption.name else ()
    parts = (CACHE_FORMAT, data.resize, data.stored_size, records.stamp, records.paths, *corruption)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _fill(images, sizes, records, data):
    """Decodes all records into the two arrays; returns {row: reason} of those that cannot be."""
    start = time.monotonic()

    def one(row):
        images[row], sizes[row] = decode_row(records, row, data)

    broken = _each_row(one, len(records), data.workers)
    seconds = time.monotonic() - start
    logging.info(
        "%s: %d images decoded in %.1f s (%.0f a second)", records.name, len(records), seconds, len(records) / seconds
    )
    return broken


def _each_row(function, n, workers):
    """Calls function(row) for all rows by threads (Pillow releases the GIL); returns {row: reason} of failures."""

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


def _broken_message(records, broken):
    lines = [f"row {row}, {path}: {reason}" for row, path, reason in broken[:5]]
    more = [f"and {len(broken) - 5} more"] if len(broken) > 5 else []
    title = (
        f"{records.name}: {len(broken)} of {len(records)} images cannot be decoded "
        "(config.data.broken: 'raise' stops, 'skip' leaves them out)"
    )
    return "\n  ".join([title, *lines, *more])


def _check(records, data):
    for field, allowed in (("tier", ("auto", "resident", "cached", "stream")), ("broken", ("raise", "skip"))):
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
    """The tier to use for `size` bytes; what is forced but does not fit is an error with the numbers."""
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
    # On a CPU the device's memory is the host's, and numpy gathers eight times faster there than XLA (measured).
    accelerated = jax.default_backend() != "cpu"
    return "resident" if accelerated and size <= min(device / 4, device_free / 2) else "cached"


def device_memory():
    """(bytes in all, bytes free) of the fullest local device; without bounds where the backend reports none."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    if not all(stats):
        return math.inf, math.inf
    return min(s["bytes_limit"] for s in stats), min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)


def host_memory():
    """Bytes of host memory that can be taken without swapping, inside a container's limit where there is one."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # no Linux: assume half of what is built in
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    group = pathlib.Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / file).read_text()) for file in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(stat["file"]))  # pages of files are given back when memory is wanted
    except (OSError, ValueError):  # no such group, or "max": no limit
        return free


def _existing(folder):
    folder = pathlib.Path(folder).absolute()
    return next(p for p in (folder, *folder.parents) if p.exists())
