"""Which rows a batch holds, and how far it is padded: functions of the seed and the step, without
any state.

B batch, N records of a split, W batches of a window, T tokens.
"""

import functools

import numpy as np

# Inputs `xs` and `x_mask` (sentences, sentence_mask): which steps of the last axis of both are
# valid
MASK = "_mask"
MULTIPLE = 8  # padded batches are cut to multiples of it, so that few shapes are compiled


@functools.lru_cache(maxsize=8)
def permutation(seed, epoch, n):
    """i64[n]: the order of an epoch. From Philox's raw bits, which numpy keeps the same in every
    version."""
    bits = np.random.Philox(key=np.array([seed % 2**64, epoch % 2**64], np.uint64)).random_raw(n)
    return np.argsort(bits, kind="stable")


def train_rows(seed, n, batch, step):
    """Rows of one training batch.

    The epochs' permutations are laid end to end and cut into batches: nothing is dropped, a batch
    may hold the end of one epoch and the start of the next, and may be larger than the split.

    Args:
        seed: of the run.
        n: records of the split.
        batch: B.
        step: 0 for the first batch.

    Returns:
        (rows i32[B], epochs i32[B]).
    """
    epochs, places = np.divmod(np.arange(step * batch, (step + 1) * batch), n)
    rows = np.empty(batch, np.int32)
    for epoch in np.unique(epochs):
        now = epochs == epoch
        rows[now] = permutation(seed, int(epoch), n)[places[now]]
    return rows, epochs.astype(np.int32)


def bucketed_rows(seed, lengths, batch, window, step):
    """Rows of one training batch, all of about the same length.

    The rows of `train_rows` are taken in windows of W batches; those of a window are sorted by
    length, equal ones as they came, and cut into W batches, which come in an order drawn for the
    window. Each window holds the rows it would hold unsorted, so nothing is dropped or doubled.

    Args:
        seed: of the run.
        lengths: i32[N], valid steps of each record.
        batch: B.
        window: W.
        step: 0 for the first batch.

    Returns:
        (rows i32[B], epochs i32[B]).
    """
    number, place = divmod(step, window)
    rows, epochs = train_rows(seed, len(lengths), batch * window, number)  # [W * B]
    # Keys of windows count down from -1, so that they never meet those of epochs.
    part = permutation(seed, -1 - number, window)[place]
    chosen = np.argsort(lengths[rows], kind="stable")[part * batch : (part + 1) * batch]
    return rows[chosen], epochs[chosen]


def lengths(inputs):
    """i32[N]: valid steps of each record's longest padded input; None where no input has a mask."""
    masks = [np.asarray(array) for name, array in inputs.items() if name.endswith(MASK)]
    longest = [mask.sum(-1).reshape(len(mask), -1).max(1) for mask in masks]
    return np.max(longest, axis=0).astype(np.int32) if masks else None


def evaluation_rows(inputs, n):
    """i32[N]: the order in which records are evaluated: padded inputs by length, so that no batch
    is longer than it need be."""
    found = lengths(inputs)
    return (
        np.arange(n, dtype=np.int32)
        if found is None
        else np.argsort(found, kind="stable").astype(np.int32)
    )


def gather(inputs, rows):
    """{name: array[B, ...]} of these rows; `xs` and `x_mask` end with the batch's longest, rounded
    up to a multiple of 8.

    Valid steps come first, padding last.
    """
    batch = {name: np.asarray(array[rows]) for name, array in inputs.items()}
    for name in [name for name in batch if name.endswith(MASK)]:
        longest = int(batch[name].sum(-1).max())
        end = max(-(-longest // MULTIPLE), 1) * MULTIPLE
        for padded in (name, name.removesuffix(MASK) + "s"):
            batch[padded] = batch[padded][..., :end]
    return batch
