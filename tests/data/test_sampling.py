"""Order of the rows, windows of like length, and the cut of padded batches."""

import numpy as np
import pytest

from jaxord.data import sampling


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (10, 10), (3, 8), (1, 5), (7, 3)])
def test_every_epoch_holds_every_row_once(n, batch):
    rows, epochs = (
        np.concatenate(part)
        for part in zip(*(sampling.train_rows(5, n, batch, s) for s in range(3 * n)), strict=True)
    )
    assert rows.dtype == epochs.dtype == np.int32
    np.testing.assert_array_equal(
        epochs, np.arange(len(rows)) // n
    )  # batches straddle epochs, nothing is dropped
    for epoch in range(3 * batch):
        assert sorted(rows[epochs == epoch]) == list(range(n))


def test_order_changes_with_seed_and_epoch():
    orders = {
        tuple(sampling.permutation(seed, epoch, 20)) for seed in (0, 1, -1) for epoch in range(3)
    }
    assert len(orders) == 9


def test_the_order_is_pinned():
    """A changed order would break exact resumption across versions; drawn when the function was
    written."""
    assert sampling.permutation(3, 1, 8).tolist() == [7, 3, 5, 6, 4, 0, 2, 1]


def window_of(seed, lengths, batch, window, number):
    steps = range(number * window, (number + 1) * window)
    return [sampling.bucketed_rows(seed, lengths, batch, window, step) for step in steps]


@pytest.mark.parametrize(("n", "batch", "window"), [(10, 4, 3), (40, 4, 5), (7, 3, 1)])
def test_a_window_holds_the_rows_it_would_hold_unsorted(n, batch, window):
    lengths = np.random.default_rng(0).integers(1, 9, n).astype(np.int32)
    for number in range(3):
        bucketed = window_of(5, lengths, batch, window, number)
        plain = [
            sampling.train_rows(5, n, batch, step)
            for step in range(number * window, (number + 1) * window)
        ]
        pairs = [
            sorted(zip(*map(np.concatenate, zip(*part, strict=True)), strict=True))
            for part in (bucketed, plain)
        ]
        assert pairs[0] == pairs[1]  # rows with their epochs: nothing is dropped or doubled
        spans = sorted((lengths[rows].min(), lengths[rows].max()) for rows, _ in bucketed)
        assert all(len(rows) == batch for rows, _ in bucketed)
        assert all(
            before[1] <= after[0] for before, after in zip(spans, spans[1:], strict=False)
        )  # sorted, then cut


def test_batches_of_a_window_come_in_a_drawn_order():
    lengths = np.arange(60, dtype=np.int32) % 12
    means = [
        [lengths[rows].mean() for rows, _ in window_of(0, lengths, 4, 5, number)]
        for number in range(6)
    ]
    assert len({tuple(np.argsort(window)) for window in means}) > 3
    assert (
        window_of(0, lengths, 4, 5, 1)[2][0].tolist()
        != window_of(1, lengths, 4, 5, 1)[2][0].tolist()
    )


def test_rows_of_one_length_stay_as_they_came():
    rows = [part for part, _ in window_of(2, np.ones(30, np.int32), 5, 2, 0)]
    plain = [sampling.train_rows(2, 30, 5, step)[0].tolist() for step in range(2)]
    assert sorted(part.tolist() for part in rows) == sorted(plain)


def test_padded_inputs_are_cut_to_the_longest_of_the_batch():
    lengths = np.array([[3, 8], [1, 9], [17, 2], [0, 0]])
    mask = np.arange(20) < lengths[..., None]  # [4, 2, 20]
    inputs = {
        "xs": np.arange(160).reshape(4, 2, 20),
        "x_mask": mask,
        "other": np.zeros((4, 20), np.float16),
    }
    assert sampling.lengths(inputs).tolist() == [8, 9, 17, 0]
    assert sampling.lengths({"other": inputs["other"]}) is None
    for rows, end in (([0], 8), ([0, 1], 16), ([2], 20), ([3], 8)):  # 24 is more than there is
        batch = sampling.gather(inputs, np.array(rows))
        np.testing.assert_array_equal(batch["xs"], inputs["xs"][rows, :, :end])
        np.testing.assert_array_equal(batch["x_mask"], mask[rows, :, :end])
        assert batch["other"].shape == (len(rows), 20) and batch["other"].dtype == np.float16
