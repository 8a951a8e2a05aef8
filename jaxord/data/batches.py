"""Batches of uint8 images and of other inputs: one iterator for every tier of storage.

B batch, N records of a split, C side of the stored canvas.

The order is a function of (seed, epoch), so batch n is known without the batches before it, and the
tier changes no byte of a batch. The host gathers `records.inputs` in every tier. Each process
reads, decodes and places the rows of its own devices.
"""

import functools
import sys

import jax
import numpy as np

from jaxord.data import sampling, storage
from jaxord.runtime import devices


def train_batches(split, *, batch, seed, start_step=0):
    """Yields endless batches from `start_step` on, whether or not the ones before were drawn.

    With data.copies = k a batch holds each row k times, r0, r0, r1, r1, ..., so that its copies lie
    on one device. Copy c in epoch e has the epoch e * k + c, so each is augmented differently. With
    data.bucket a batch holds rows of about one length (sampling.bucketed_rows).

    Yields:
      dict of stored u8[B, C, C, 3] and size i32[B, 2] where the split has images, the rows of each
      of records.inputs, index i32[B], epoch i32[B]; all placed, with B * copies rows.

    Raises:
      ValueError: copies below 1; a bucket for records without padded inputs.
    """
    copies = split.data.copies
    rows_at = functools.lru_cache(maxsize=64)(train_rows(split, batch=batch, seed=seed))
    steps = range(start_step, sys.maxsize // batch)
    images = _image_batches(split, lambda step: rows_at(step)[0][::copies], batch, steps, copies)
    for step, arrays in enumerate(images, start_step):
        yield {**arrays, **_input_batch(split, *rows_at(step))}


def train_calls(split, *, batch, seed, calls, most):
    """Yields the batches of `train_batches` for a step that runs several of them in one call.

    Args:
      split: in the tier "resident", or without images and padding.
      batch, seed: as of `train_batches`.
      calls: iterable of (first step, number of steps).
      most: S, the largest number of steps.

    Yields:
      dict of `steps` i32[], their number, and [S, B * copies, ...] arrays of all that
      `train_batches` gives but the images: step after step, zeros behind the last, the second axis
      placed like the first of a batch.
    """
    rows_at = train_rows(split, batch=batch, seed=seed)
    sharding = split.place(np.zeros(batch * split.data.copies, np.int32)).sharding
    for first, count in calls:
        batches = []
        for rows, epochs in map(rows_at, range(first, first + count)):
            inputs = sampling.gather(split.records.inputs, rows)
            batches.append({**inputs, "index": rows, "epoch": epochs})
        arrays = {"steps": storage.replicate(np.int32(count), sharding)}
        for name, part in batches[0].items():
            stacked = np.zeros((most, *part.shape), part.dtype)
            stacked[:count] = [step_arrays[name] for step_arrays in batches]
            arrays[name] = _place_steps(stacked, sharding)
        yield arrays


def train_rows(split, *, batch, seed):
    """The function step -> (index, epoch) of `train_batches`, i32[B * copies] each, on the host."""
    data, records = split.data, split.records
    if data.copies < 1:
        problem = f"config.data.copies is {data.copies}"
        raise ValueError(f"{problem}; each row stands in its batch at least once")
    lengths = sampling.lengths(records.inputs) if data.bucket else None
    if data.bucket and (data.bucket < 0 or lengths is None):
        raise ValueError(
            f"config.data.bucket is {data.bucket}, and {records.name} has the inputs "
            f"{sorted(records.inputs)}; it is a number of batches for inputs of various lengths, "
            f"which have a mask (sentences, sentence{sampling.MASK}), else 0"
        )

    def rows_at(step):
        # A function of the step alone, so that a run resumes anywhere.
        if data.bucket:
            rows, epochs = sampling.bucketed_rows(seed, lengths, batch, data.bucket, step)
        else:
            rows, epochs = sampling.train_rows(seed, len(records), batch, step)
        copy = np.tile(np.arange(data.copies, dtype=np.int32), batch)
        return np.repeat(rows, data.copies), np.repeat(epochs, data.copies) * data.copies + copy

    return rows_at


def eval_batches(split, *, batch):
    """Yields every record once, in the order of `sampling.evaluation_rows`.

    Batches are those of `train_batches` with epoch 0, and valid: bool[B] on the host, False where
    the first record fills up the last batch.
    """
    n = len(split.records)
    rows = sampling.evaluation_rows(split.records.inputs, n)
    rows = np.concatenate([rows, np.repeat(rows[:1], -n % batch)]).reshape(-1, batch)
    valid = (np.arange(rows.size) < n).reshape(rows.shape)
    images = _image_batches(split, rows.__getitem__, batch, range(len(rows)))
    for step, arrays in enumerate(images):
        inputs = _input_batch(split, rows[step], np.zeros(batch, np.int32))
        yield {**arrays, **inputs, "valid": valid[step]}


def outputs(split, forward, *, batch):
    """{name: numpy array [N, ...]} of forward(arrays) over a split, in the order of its records."""
    parts = []
    for arrays in eval_batches(split, batch=batch):
        valid = arrays.pop("valid")
        results = jax.device_get(forward(arrays))
        parts.append({name: value[valid] for name, value in results.items()})
    back = np.argsort(sampling.evaluation_rows(split.records.inputs, len(split.records)))
    return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}


def _input_batch(split, rows, epochs):
    """The rows of records.inputs, with `index` and `epoch`, placed."""
    inputs = split.records.inputs
    padded = [name for pair in sampling.padded_inputs(inputs).items() for name in pair]
    # Every process reads all padded rows: the longest of the whole batch decides where it is cut.
    arrays = sampling.gather({name: inputs[name] for name in padded}, rows)
    arrays |= {"index": rows, "epoch": epochs}
    placed = {name: split.place(array) for name, array in arrays.items()}
    own_rows = devices.own_rows(split.place, len(rows))
    for name in inputs.keys() - padded:
        placed[name] = _place_own_rows(
            split, own_rows, np.asarray(inputs[name][rows[own_rows]]), len(rows)
        )
    return placed


def _place_own_rows(split, own_rows, part, n):
    """Places a batch of n rows of which this process has `part`, the rows `own_rows`."""
    if len(own_rows) < n:
        # Rows of other processes stay untouched memory.
        batch = np.zeros((n, *part.shape[1:]), part.dtype)
        batch[own_rows] = part
        part = batch
    return split.place(part)


def _place_steps(array, batch_sharding):
    """Places [S, B, ...] with its second axis split as `batch_sharding` splits the first."""
    if not isinstance(batch_sharding, jax.sharding.NamedSharding):
        return jax.device_put(array, batch_sharding)
    spec = jax.sharding.PartitionSpec(None, *batch_sharding.spec)
    sharding = jax.sharding.NamedSharding(batch_sharding.mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _image_batches(split, rows_at, batch, steps, copies=1):
    """Yields {"stored", "size"}, placed, of each of the steps; {} of a split without images."""
    if split.tier == "stream":
        yield from _decoded_batches(split, rows_at, batch, steps, copies)
        return
    own_rows = devices.own_rows(split.place, batch * copies)
    for step in steps:
        slots = np.repeat(split.slots[rows_at(step)], copies)
        if split.tier == "inputs":
            yield {}
        elif split.tier == "resident":
            # The images stay on the devices; only the slots travel.
            slots = split.place(slots)
            stored, size = _gather_slots(slots.sharding)(split.images, split.sizes, slots)
            yield {"stored": stored, "size": size}
        else:
            arrays = {"stored": split.images, "size": split.sizes}
            yield {
                name: _place_own_rows(split, own_rows, array[slots[own_rows]], len(slots))
                for name, array in arrays.items()
            }


def _decoded_batches(split, rows_at, batch, steps, copies):
    """Decodes each row of a batch once, by threads, in order, up to two batches ahead."""
    import grain

    own_rows = devices.own_rows(split.place, batch * copies)
    # [M] places that this process decodes, and for each of its rows the place that it shows.
    places, place_of_row = np.unique(own_rows // copies, return_inverse=True)
    count = len(places)

    def example(position):
        row = int(rows_at(position // count)[places[position % count]])
        try:
            return storage.decode_row(split.records, row, split.data)
        except (ValueError, OSError) as error:
            broken = [(row, split.records.paths[row], str(error))]
            raise ValueError(storage.broken_message(split.records, broken)) from None

    workers = split.data.workers
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=max(2 * count, workers))
    positions = grain.MapDataset.range(steps.start * count, steps.stop * count)
    examples = positions.map(example).to_iter_dataset(options)
    for parts in examples.batch(count, drop_remainder=True):
        stored, size = (
            _place_own_rows(split, own_rows, part[place_of_row], batch * copies) for part in parts
        )
        yield {"stored": stored, "size": size}


@functools.lru_cache(maxsize=8)
def _gather_slots(sharding):
    def gather(images, sizes, slots):
        return images.at[slots].get(mode="clip"), sizes.at[slots].get(mode="clip")

    return jax.jit(gather, out_shardings=sharding)
