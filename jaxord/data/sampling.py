"""Which rows a batch holds and how far it is padded, as functions of the seed and the step.

B batch, N records of a split, W batches of a window, T tokens.
"""

import functools

import numpy as np

MASK = "_mask"  # inputs `xs` have `x_mask`: which steps of the last axis of both are valid
MULTIPLE = 8  # padded batches are cut to multiples of it, so that few shapes are compiled


@functools.lru_cache(maxsize=8)
def permutation(seed, epoch, n):
    """i64[n]: the order of an epoch."""
    # Raw bits of Philox are the same in every version of numpy.
    bits = np.random.Philox(key=np.array([seed % 2**64, epoch % 2**64], np.uint64)).random_raw(n)
    return np.argsort(bits, kind="stable")


def train_rows(seed, n, batch, step):
    """Rows of one training batch, (rows i32[B], epochs i32[B]).

    The permutations of all epochs are laid end to end and cut into batches. So nothing is dropped,
    a batch may straddle two epochs, and it may be larger than the split of n records.
    """
    epochs, places = np.divmod(np.arange(step * batch, (step + 1) * batch), n)
    rows = np.empty(batch, np.int32)
    for epoch in np.unique(epochs):
        now = epochs == epoch
        rows[now] = permutation(seed, int(epoch), n)[places[now]]
    return rows, epochs.astype(np.int32)


def bucketed_rows(seed, lengths, batch, window, step):
    """Rows of one training batch, all of about the same length: (rows i32[B], epochs i32[B]).

    Sorts the rows of W batches of `train_rows` by length, cuts them into W batches and draws the
    order of these. A window holds the rows it holds unsorted, so nothing is dropped or doubled.
    `lengths` are i32[N], the valid steps of each record.
    """
    number, place = divmod(step, window)
    rows, epochs = train_rows(seed, len(lengths), batch * window, number)  # [W * B]
    # Keys of windows count down from -1, so that they never meet those of epochs.
    part = permutation(seed, -1 - number, window)[place]
    chosen = np.argsort(lengths[rows], kind="stable")[part * batch : (part + 1) * batch]
    return rows[chosen], epochs[chosen]


def padded_inputs(inputs):
    """{mask: the input that it masks}, such as {"sentence_mask": "sentences"}."""
    return {name: name.removesuffix(MASK) + "s" for name in inputs if name.endswith(MASK)}


def lengths(inputs):
    """i32[N]: valid steps of each record's longest padded input; None without padded inputs."""
    masks = [np.asarray(inputs[name]) for name in padded_inputs(inputs)]
    longest = [mask.sum(-1).reshape(len(mask), -1).max(1) for mask in masks]
    return np.max(longest, axis=0).astype(np.int32) if masks else None


def evaluation_rows(inputs, n):
    """i32[N]: the order of evaluation, by length so that batches are padded little."""
    steps = lengths(inputs)
    order = np.arange(n) if steps is None else np.argsort(steps, kind="stable")
    return order.astype(np.int32)


def gather(inputs, rows):
    """{name: array[B, ...]} of these rows; padded inputs are cut to a multiple of MULTIPLE.

    The cut keeps the longest row of the batch: valid steps come first, padding last.
    """
    batch = {name: np.asarray(array[rows]) for name, array in inputs.items()}
    for mask, name in padded_inputs(inputs).items():
        longest = int(batch[mask].sum(-1).max())
        end = max(-(-longest // MULTIPLE), 1) * MULTIPLE
        batch[mask] = batch[mask][..., :end]
        batch[name] = batch[name][..., :end]
    return batch
