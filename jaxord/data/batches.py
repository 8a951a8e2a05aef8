"""Batches of uint8 images and of other inputs: one iterator over each tier in which images live.

B batch, N records of a split, C side of the stored canvas.

The order is a function of (seed, epoch), so batch n is known without the batches before it. Where
the images live (jaxord.data.storage) changes no byte of a batch. Rows of `records.inputs` are
gathered on the host in every tier, and where they are padded a batch is cut to its longest row
(jaxord.data.sampling.gather). Of several processes each reads, decodes and places the rows of its own
devices.
"""

import functools
import sys

import jax
import numpy as np

from jaxord.data import sampling, storage
from jaxord.runtime import devices


def train_batches(split, *, batch, seed, start_step=0):
    """Endless batches from `start_step` on, the same whether or not the ones before were drawn.

    With data.copies each row stands in its batch that many times, r0, r0, r1, r1, ..., so that its
    copies lie on one device; copy c in epoch e has the epoch e * copies + c, so that they are
    augmented apart. With data.bucket a batch holds rows of like length (order.bucketed_rows).

    Args:
        split: from `decode_split`.
        batch: B, rows of a batch without their copies.
        seed: of the run.
        start_step: 0 for the first batch.

    Yields:
        dict of stored u8[B, C, C, 3] and size i32[B, 2] where there are images, the rows of each of
        records.inputs, index i32[B], epoch i32[B]; all placed, with B * copies rows.

    Raises:
        ValueError: copies below 1; a bucket for records without padded inputs.
    """
    copies = split.data.copies
    rows_at = functools.lru_cache(maxsize=64)(train_rows(split, batch=batch, seed=seed))
    images = _images(
        split,
        lambda step: rows_at(step)[0][::copies],
        batch,
        start_step,
        sys.maxsize // batch,
        copies,
    )
    for step, arrays in enumerate(images, start_step):
        yield {**arrays, **_placed(split, *rows_at(step))}


def train_calls(split, *, batch, seed, calls, most):
    """The batches of `train_batches` for a step that runs several at a time and gathers the images
    by itself.

    Args:
        split: from `decode_split`; in the tier "resident", or without images and padding.
        batch, seed: as there.
        calls: iterable of (first step, number of steps).
        most: S, the largest number of steps.

    Yields:
        dict of `steps` i32[], their number, and [S, B * copies, ...] arrays of what `train_batches`
        gives but the images, step after step, zeros behind the last; placed with their second axis
        as a batch's first.
    """
    rows_at = train_rows(split, batch=batch, seed=seed)
    own = split.place(np.zeros(batch * split.data.copies, np.int32)).sharding
    for first, count in calls:
        found = [rows_at(step) for step in range(first, first + count)]
        found = [
            {**sampling.gather(split.records.inputs, rows), "index": rows, "epoch": epochs}
            for rows, epochs in found
        ]
        arrays = {}
        for name, part in found[0].items():
            whole = np.zeros((most, *part.shape), part.dtype)
            whole[:count] = [batch_of[name] for batch_of in found]
            arrays[name] = whole
        steps = {"steps": storage.replicate(np.int32(count), own)}
        yield {**{name: _place_steps(array, own) for name, array in arrays.items()}, **steps}


def train_rows(split, *, batch, seed):
    """The function step -> (index, epoch), i32[B * copies] each, of the batches of `train_batches`;
    on the host."""
    copies, rows_at = split.data.copies, _rows_of_step(split.records, split.data, batch, seed)

    def at(step):
        rows, epochs = (np.repeat(part, copies) for part in rows_at(step))
        return rows, epochs * copies + np.tile(np.arange(copies, dtype=np.int32), batch)

    return at


def _place_steps(array, batch_sharding):
    if not isinstance(batch_sharding, jax.sharding.NamedSharding):
        return jax.device_put(array, batch_sharding)
    behind = jax.sharding.PartitionSpec(None, *batch_sharding.spec)
    placed = jax.sharding.NamedSharding(batch_sharding.mesh, behind)
    return jax.make_array_from_callback(array.shape, placed, lambda index: array[index])


def outputs(split, forward, *, batch):
    """{name: numpy array [N, ...]} of what forward(arrays) gives for every record once, in the
    order of the records."""
    parts = []
    for arrays in eval_batches(split, batch=batch):
        valid = arrays.pop("valid")
        parts.append(
            {name: value[valid] for name, value in jax.device_get(forward(arrays)).items()}
        )
    back = np.argsort(sampling.evaluation_rows(split.records.inputs, len(split.records)))
    return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}


def eval_batches(split, *, batch):
    """Every record once, ordered by `order.evaluation_rows`; the last batch is filled up with the
    first of them.

    Yields:
        dict as of `train_batches` with epoch 0, and valid: bool[B] on the host, False where the
        batch was filled up.
    """
    n = len(split.records)
    rows = sampling.evaluation_rows(split.records.inputs, n)

    def rows_at(step):
        positions = np.arange(step * batch, (step + 1) * batch, dtype=np.int32)
        return rows[np.where(positions < n, positions, 0)]

    for step, arrays in enumerate(_images(split, rows_at, batch, 0, -(-n // batch))):
        valid = np.arange(step * batch, (step + 1) * batch) < n
        yield {**arrays, **_placed(split, rows_at(step), np.zeros(batch, np.int32)), "valid": valid}


def _rows_of_step(records, data, batch, seed):
    """The function step -> (rows i32[B], epochs i32[B])."""
    if data.copies < 1:
        raise ValueError(
            f"config.data.copies is {data.copies}; each row stands in its batch at least once"
        )
    if not data.bucket:
        return functools.partial(sampling.train_rows, seed, len(records), batch)
    lengths = sampling.lengths(records.inputs)
    if data.bucket < 0 or lengths is None:
        raise ValueError(
            f"config.data.bucket is {data.bucket}, and {records.name} has the inputs {sorted(records.inputs)}; it is a number "
            f"of batches for inputs of various lengths, which have a mask (sentences, sentence{sampling.MASK}), else 0"
        )
    return functools.partial(sampling.bucketed_rows, seed, lengths, batch, data.bucket)


def _placed(split, rows, epochs):
    inputs, own = split.records.inputs, devices.own_rows(split.place, len(rows))
    masks = {name for name in inputs if name.endswith(sampling.MASK)}
    padded = masks | {
        name.removesuffix(sampling.MASK) + "s" for name in masks
    }  # as long as the longest of the whole batch
    arrays = sampling.gather({name: inputs[name] for name in padded}, rows) | {
        "index": rows,
        "epoch": epochs,
    }
    wide = {
        name: np.asarray(array[rows[own]]) for name, array in inputs.items() if name not in padded
    }
    return {name: split.place(array) for name, array in arrays.items()} | {
        name: _place_own(split, own, part, len(rows)) for name, part in wide.items()
    }


def _place_own(split, own, part, n):
    """The batch of n rows of which this process has `part`, the rows `own`."""
    if len(own) < n:
        whole = np.zeros((n, *part.shape[1:]), part.dtype)  # rows of others stay untouched memory
        whole[own] = part
        part = whole
    return split.place(part)


def _images(split, rows_at, batch, first, last, copies=1):
    """Yields {"stored", "size"}, placed, of the steps from `first` up to `last`; {} where there are
    no images."""
    if split.tier == "stream":
        yield from _stream(split, rows_at, batch, first, last, copies)
        return
    own = devices.own_rows(split.place, batch * copies)
    for step in range(first, last):
        slots = np.repeat(split.slots[rows_at(step)], copies)
        if split.tier == "inputs":
            yield {}
        elif split.tier == "resident":
            slots = split.place(slots)
            stored, size = _gather(slots.sharding)(split.images, split.sizes, slots)
            yield {"stored": stored, "size": size}
        else:
            parts = {"stored": split.images[slots[own]], "size": split.sizes[slots[own]]}
            yield {name: _place_own(split, own, part, len(slots)) for name, part in parts.items()}


def _stream(split, rows_at, batch, first, last, copies):
    """Decodes each row of a batch once, by threads, in order, up to two batches ahead."""
    import grain

    own = devices.own_rows(split.place, batch * copies)
    places, copy_of = np.unique(
        own // copies, return_inverse=True
    )  # [M]: what this process decodes, and what shows it

    def example(position):
        row = int(rows_at(position // len(places))[places[position % len(places)]])
        try:
            return storage.decode_row(split.records, row, split.data)
        except (ValueError, OSError) as error:
            raise ValueError(
                storage.broken_message(split.records, [(row, split.records.paths[row], str(error))])
            ) from None

    options = grain.ReadOptions(
        num_threads=split.data.workers,
        prefetch_buffer_size=max(2 * len(places), split.data.workers),
    )
    examples = (
        grain.MapDataset.range(first * len(places), last * len(places))
        .map(example)
        .to_iter_dataset(options)
    )
    for batch_of in examples.batch(len(places), drop_remainder=True):
        stored, size = (_place_own(split, own, part[copy_of], batch * copies) for part in batch_of)
        yield {"stored": stored, "size": size}


@functools.lru_cache(maxsize=8)
def _gather(sharding):
    def gather(images, sizes, slots):
        return images.at[slots].get(mode="clip"), sizes.at[slots].get(mode="clip")

    return jax.jit(gather, out_shardings=sharding)
