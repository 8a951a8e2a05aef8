import collections

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxord import metrics
from jaxord.targets import shots


def settings(**fields):
    return ConfigDict({"kind": "count", "many": 100, "few": 20, "width": 1.0, "low": 0.0, **fields})


def test_counts_at_the_bounds():
    """More than `many` is many, fewer than `few` is few, both bounds belong to the middle, and what
    is absent is few."""
    counts = {3: 101, 4: 100, 5: 20, 6: 19, 7: 1}
    train = np.repeat(list(counts), list(counts.values())).astype(np.float32)
    found = shots.partition(settings(), train, np.array([3, 4, 5, 6, 7, 8, -2], np.float32))
    assert found.tolist() == ["many", "median", "median", "few", "few", "few", "few"]
    assert shots.partition(settings(few=0), train, [7.0, 8.0]).tolist() == ["median", "few"]


def test_counts_against_a_loop():
    rng = np.random.default_rng(0)
    train, targets = (
        rng.integers(0, 40, 300).astype(np.float32),
        rng.integers(0, 45, 90).astype(np.float32),
    )
    for width, low in ((1.0, 0.0), (5.0, 0.0), (5.0, 2.0)):
        seen = collections.Counter((y - low) // width for y in train.tolist())
        many, few = (9, 6) if width == 1 else (40, 30)
        oracle = []
        for y in targets.tolist():
            count = seen[(y - low) // width]
            oracle.append("many" if count > many else "few" if count < few else "median")
        assert set(oracle) == set(shots.SHOTS)
        assert (
            shots.partition(
                settings(many=many, few=few, width=width, low=low), train, targets
            ).tolist()
            == oracle
        )


def test_decimals_begin_their_bin():
    """0.7 in float32 is below 0.7: the division by 0.1 would put it into bin 6."""
    decimals = np.arange(0, 100) / np.float32(10)
    assert (np.floor(decimals.astype(np.float64) / 0.1) != np.arange(100)).any()
    train = np.repeat(decimals.astype(np.float32), 30)
    alike = settings(many=29, width=0.1)
    assert set(shots.partition(alike, train, decimals)) == {
        "many"
    }  # each bin has exactly its own 30
    assert set(shots.partition(settings(many=30, width=0.1), train, decimals)) == {"median"}


def test_stsb_lists():
    assert len(shots.STSB_MANY) == 22 and len(shots.STSB_MEDIAN) == 7
    assert not set(shots.STSB_MANY) & set(shots.STSB_MEDIAN)
    middles = np.arange(50) / 10 + 0.05
    assert shots.stsb_bins(middles).tolist() == list(range(50))
    found = collections.Counter(shots.partition(settings(kind="stsb"), [], middles).tolist())
    assert found == {"many": 22, "median": 7, "few": 21}
    few = np.flatnonzero(shots.partition(settings(kind="stsb"), [], middles) == "few")
    assert few.tolist() == [
        1,
        3,
        5,
        7,
        9,
        11,
        13,
        15,
        17,
        19,
        21,
        23,
        25,
        29,
        31,
        33,
        39,
        41,
        43,
        45,
        47,
    ]
    assert shots.partition(settings(kind="stsb"), [], [5.0, 4.9, 0.0]).tolist() == ["many"] * 3


def test_stsb_edges_are_float32():
    """Scores of one decimal lie on the edges; in float64 those whose float32 is rounded down fall
    into the bin before."""
    scores = (np.arange(50) / 10).astype(np.float32)
    assert shots.stsb_bins(scores).tolist() == list(range(50))
    edges = np.linspace(0, 5, 51)
    in_float64 = np.searchsorted(edges, scores, side="right") - 1
    moved = np.flatnonzero(in_float64 != np.arange(50))
    assert 10 < len(moved) < 40
    assert (in_float64[moved] == moved - 1).all()
    lost = [k for k in moved if k in shots.STSB_MANY and k - 1 not in shots.STSB_MANY]
    assert len(lost) > 3
    assert set(shots.partition(settings(kind="stsb"), [], scores[lost])) == {"many"}


def test_histogram_by_hand():
    true, predicted, distance = shots.histogram([0, 0, 0, 2, 3], [0, 1, 3, 2, 1], 5)
    assert true.tolist() == [3, 0, 1, 1, 0] and predicted.tolist() == [1, 2, 1, 1, 0]
    np.testing.assert_array_equal(distance, [4 / 3, np.nan, 0, 2, np.nan])
    rng = np.random.default_rng(1)
    group, logits = rng.integers(0, 6, 50), rng.normal(size=(50, 6))
    true, predicted, distance = shots.histogram(group, logits.argmax(1), 6)
    assert true.sum() == predicted.sum() == 50
    assert (distance * true).sum() / 50 == pytest.approx(
        metrics.group_distance(logits, group), rel=1e-12
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: shots.partition(settings(kind="counts"), [1.0], [1.0]),
            "shots.kind is 'counts'; it takes 'count' or 'stsb'",
        ),
        (lambda: shots.partition(settings(width=0.0), [1.0], [1.0]), "shots.width is 0.0"),
        (
            lambda: shots.partition(settings(), [[1.0, 2.0]], [[1.0, 2.0]]),
            r"shapes \(1, 2\) and \(1, 2\)",
        ),
        (
            lambda: shots.partition(settings(kind="stsb"), [], [0.0, 5.2]),
            "scores reach from 0 to 5.2",
        ),
        (
            lambda: shots.histogram([0, 1], [0, 2], 2),
            "predicted_group reaches from 0 to 2; 2 groups are 0 to 1",
        ),
        (
            lambda: shots.histogram([0, 1], [0], 2),
            r"group has shape \(2,\) and predicted_group \(1,\)",
        ),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()
