"""Random splits, few-shot and distribution shift."""

import collections

import numpy as np
import pytest

from jaxord.data.records import Records
from jaxord.data.splits import select_shift, select_shots, shuffled, split_records


def records(targets, name="made"):
    paths = tuple(f"{row}.jpg" for row in range(len(targets)))
    return Records(paths, np.asarray(targets, np.float32), lambda row: str(row).encode(), {}, name)


def test_split_records_is_stratified_even_for_rare_and_real_labels():
    common = records([0] * 50 + [1] * 30 + [2] * 20)
    parts = split_records(common, {"train": 0.7, "val": 0.1, "test": 0.2}, 0, "fold")
    assert collections.Counter(parts["test"].targets.tolist()) == {0.0: 10, 1.0: 6, 2.0: 4}
    assert collections.Counter(parts["val"].targets.tolist()) == {0.0: 5, 1.0: 3, 2.0: 2}
    real = split_records(records(np.arange(100) / 7), {"train": 0.8, "val": 0.1, "test": 0.1}, 0)
    assert {split: len(part) for split, part in real.items()} == {
        "train": 80,
        "val": 10,
        "test": 10,
    }
    assert real["test"].targets.std() > 1  # drawn from the whole range
    with pytest.raises(ValueError, match="must not be negative and sum to 1"):
        split_records(common, {"train": 0.7, "test": 0.2}, 0)


def test_the_drawn_order_is_pinned():
    """A changed draw would give every user other splits; these numbers were drawn when the function
    was written."""
    assert shuffled(8, 0, "3").tolist() == [2, 4, 5, 6, 0, 1, 7, 3]


def test_shots():
    many = records([3, 1, 1, 3, 3, 2, 1, 3])
    few = select_shots(many, 2, seed=5)
    assert few.targets.tolist() == [
        3,
        3,
        1,
        1,
        2,
    ]  # labels as they first appear; label 2 has one image only
    assert few.paths == select_shots(many, 2, seed=5).paths
    assert {select_shots(many, 2, seed=seed).paths for seed in range(9)} != {few.paths}


def test_shift():
    many = records([0] * 10 + [1] * 30 + [2] * 20 + [3] * 3)
    top = select_shift(many, 2, 0.2, "top", seed=0)
    assert collections.Counter(top.targets.tolist()) == {0.0: 10, 1.0: 6, 2.0: 4, 3.0: 3}
    drawn = {
        tuple(
            sorted(
                collections.Counter(
                    select_shift(many, 2, 0.1, "random", seed).targets.tolist()
                ).items()
            )
        )
        for seed in range(20)
    }
    assert len(drawn) > 2
    assert all(
        sum(n < m for (_, n), m in zip(found, (10, 30, 20, 3), strict=True)) == 2 for found in drawn
    )
    assert min(n for found in drawn for _, n in found) == 1  # max(int(3 * 0.1), 1)
    with pytest.raises(ValueError, match="choice is 'bottom'"):
        select_shift(many, 2, 0.2, "bottom", seed=0)
    with pytest.raises(ValueError, match="keep is 0"):
        select_shift(many, 2, 0, "top", seed=0)
