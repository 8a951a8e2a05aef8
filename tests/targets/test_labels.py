"""Labels by hand, and against the numbers of the papers and their programs."""

import numpy as np
import pytest
from scipy import ndimage, signal

from configs.base import base
from jaxord.targets import labels, ranks

TARGETS = np.array([1, 1, 1, 1, 2, 4, 4, 9], np.float32)


def build(targets=TARGETS, scale=1.0, mixture=0, **parts):
    config = base()
    config.data.target_scale, config.mixture = scale, mixture
    for name, fields in parts.items():
        config[name].update(fields)
    made = ranks.build(config.ranks, targets) if np.ndim(targets) == 1 else None
    return labels.build(config, targets, made)


def test_the_least_is_target_and_rank():
    made = build()
    columns = made.columns([2.0, 3.4, 90.0])
    assert {name: column.dtype.name for name, column in columns.items()} == {
        "target": "float32",
        "rank": "int32",
    }
    assert columns["target"].tolist() == [2.0, np.float32(3.4), 90.0] and columns[
        "rank"
    ].tolist() == [1, 2, 3]
    assert {name: values.tolist() for name, values in made.constants.items()} == {
        "rank_values": [1.0, 2.0, 4.0, 9.0]
    }


def test_all_that_a_model_sees_is_on_the_scale_of_training():
    made = build(
        scale=5.0,
        mixture=1,
        groups=dict(count=2, high=10.0),
        references=dict(index="unique"),
        weights=dict(scheme="inverse", high=10.0),
    )
    columns = made.columns(TARGETS)
    np.testing.assert_allclose(columns["target"], TARGETS / 5)
    assert columns["rank"].tolist() == columns["reference"].tolist() == [0, 0, 0, 0, 1, 2, 2, 3]
    assert columns["group"].tolist() == [0] * 7 + [1]
    np.testing.assert_allclose(made.constants["rank_values"], [0.2, 0.4, 0.8, 1.8])
    np.testing.assert_allclose(made.constants["reference_values"], [0.2, 0.4, 0.8, 1.8])
    np.testing.assert_allclose(made.constants["mixture_means"], [TARGETS.mean() / 5], rtol=1e-6)
    np.testing.assert_allclose(
        made.constants["mixture_variances"], [TARGETS.var() / 25 + 1e-6], rtol=1e-6
    )
    assert all(values.dtype == np.float32 for values in made.constants.values())
    with pytest.raises(ValueError, match="target_scale is 0.0; expected a number above 0"):
        build(scale=0.0)


def test_groups_of_a_range():
    # AgeDB as Group-DIR has it: 20 groups over 0..101, high exclusive.
    made = build(groups=dict(count=20, high=102.0))
    ages = np.arange(0, 130)
    expected = [min(19, 20 * age // 102) for age in ages]
    assert made.columns(ages)["group"].tolist() == expected
    np.testing.assert_array_equal(made.constants["group_prior"], np.float32([7, 1] + [0] * 18) / 8)
    tenths = build(groups=dict(count=50, high=5.0)).columns(
        np.arange(51, dtype=np.float32) / np.float32(10)
    )
    assert tenths["group"].tolist() == [
        *range(50),
        49,
    ]  # 2.3 opens bin 23, although its float32 lies below it
    assert build(groups=dict(count=4)).columns([0, 1, 2.9, 3, 9, 10])["group"].tolist() == [
        0,
        0,
        0,
        1,
        3,
        3,
    ]  # of 1 to 9
    with pytest.raises(ValueError, match="groups.low is 2; expected less than groups.high, 1"):
        build(groups=dict(count=3, low=2.0, high=1.0))
    with pytest.raises(ValueError, match="'range' or 'divide'"):
        build(groups=dict(count=3, mapping="floor"))


def test_groups_by_the_papers_division():
    made = build(groups=dict(count=4, mapping="divide"))
    assert made.columns([-1, 0, 3, 4, 7.9, 8, 9, 100])["group"].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert made.constants["group_prior"].tolist() == [5 / 8, 2 / 8, 1 / 8]


def test_references_of_distinct_labels_take_the_nearest():
    made = build(references=dict(index="unique"))
    assert made.constants["reference_values"].tolist() == [1, 2, 4, 9]
    found = made.columns([1, 2, 4, 9, -5, 2.9, 3.1, 50])["reference"]
    assert found.tolist() == [0, 1, 2, 3, 0, 1, 2, 3] and found.dtype == np.int32


def test_references_of_rounded_labels():
    scores = np.array([20.0, 20.2, 20.4, 40.0, 60.0])  # percent of the range: 0, 0.5, 1, 50, 100
    made = build(scores, references=dict(index="round"))
    np.testing.assert_allclose(made.constants["reference_values"], [20, 20.4, 40, 60])
    assert made.columns([*scores, 0.0, 55.0])["reference"].tolist() == [
        0,
        0,
        1,
        2,
        3,
        0,
        3,
    ]  # half to even


def test_references_between_pivots():
    made = build(np.array([0.0, 1.0, 50.0]), references=dict(index="interpolate", count=11))
    np.testing.assert_allclose(made.constants["reference_values"], 5.0 * np.arange(11))
    found = made.columns([0, 12.5, 50, -1, 60])["reference"]
    assert found.tolist() == [0, 2.5, 10, 0, 10] and found.dtype == np.float32
    for fields, words in (
        (dict(index="lloyd"), "takes 'unique'"),
        (dict(index="interpolate", count=1), "at least 2 pivots"),
    ):
        with pytest.raises(ValueError, match=words):
            build(references=fields)
    config = base()
    config.ranks.labels, config.references.index = (0.0, 1.0), "round"
    with pytest.raises(ValueError, match="all training labels are 1; need two"):
        labels.build(config, [1.0, 1.0], ranks.build(config.ranks, [1.0, 1.0]))


def test_windows_are_those_of_the_program():
    np.testing.assert_allclose(
        labels.window("gaussian", 5, 2.0) / labels.window("gaussian", 5, 2.0).max(),
        [0.858285, 0.945828, 1, 0.945828, 0.858285],
        atol=5e-7,
    )
    for size, sigma in ((9, 1.0), (5, 2.0), (3, 4.0), (1, 1.0)):
        impulse = np.zeros(size)
        impulse[size // 2] = 1
        expected = ndimage.gaussian_filter1d(impulse, sigma)
        np.testing.assert_allclose(labels.window("gaussian", size, sigma), expected, rtol=1e-12)
        np.testing.assert_allclose(
            labels.window("triang", size, sigma), signal.windows.triang(size), rtol=1e-12
        )
    np.testing.assert_allclose(labels.window("laplace", 3, 2.0), np.exp([-0.5, 0, -0.5]) / 4)
    for bad, words in (
        (("box", 5, 2.0), "takes 'gaussian'"),
        (("triang", 4, 2.0), "odd"),
        (("laplace", 5, 0.0), "above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            labels.window(*bad)


def rescaled(raw):
    return np.array(raw) * len(raw) / np.sum(raw)


def test_weights_are_inverse_to_frequencies():
    inverse = build(weights=dict(scheme="sqrt_inverse")).columns(TARGETS)["weight"]
    np.testing.assert_allclose(
        inverse, rescaled([1 / np.sqrt(n) for n in (4, 4, 4, 4, 1, 2, 2, 1)]), rtol=1e-6
    )
    many = np.repeat([0.0, 1.0, 2.0], [3, 20, 1500])
    weight = build(many, weights=dict(scheme="inverse")).columns(many)["weight"]
    np.testing.assert_allclose(
        weight, rescaled(np.repeat([1 / 5, 1 / 20, 1 / 1000], [3, 20, 1500])), rtol=1e-6
    )
    assert weight.dtype == np.float32
    # Above `high` is the last bin; a bin without training samples weighs 1.
    assert build(weights=dict(scheme="sqrt_inverse", high=5.0)).columns([4, 9, 3])[
        "weight"
    ].tolist()[::2] == [
        pytest.approx(rescaled([1 / np.sqrt(n) for n in (4, 4, 4, 4, 1, 3, 3, 3)])[-1]),
        1,
    ]


def test_label_distribution_smoothing():
    # The program: every bin's value, convolved with zeros beyond the ends, then 1 / value.
    weight = build(weights=dict(scheme="inverse", lds="gaussian", high=12.0)).columns(TARGETS)[
        "weight"
    ]
    counts = np.bincount(TARGETS.astype(int), minlength=12)
    shape = ndimage.gaussian_filter1d([0.0, 0, 1, 0, 0], 2.0)
    smooth = ndimage.convolve1d(np.clip(counts, 5.0, 1000), shape / shape.max(), mode="constant")
    np.testing.assert_allclose(weight, rescaled([1 / smooth[int(y)] for y in TARGETS]), rtol=1e-6)
    reach = build(weights=dict(scheme="sqrt_inverse", lds="triang", kernel=3, high=12.0)).columns(
        [9, 10, 11]
    )["weight"]
    assert reach[1] == pytest.approx(2 * reach[0]) and reach[2] == 1


def test_weights_within_groups():
    # Group 0 has labels 1 1 1 1 2, group 1 has 4 4 9: each is smoothed and rescaled on its own.
    smooth = dict(scheme="sqrt_inverse", within_groups=True, lds="triang", kernel=3)
    parts = dict(groups=dict(count=4, high=16.0), weights=smooth)
    weight = build(**parts).columns(TARGETS)["weight"]
    first = [2 + 0.5] * 4 + [1 + 1]
    np.testing.assert_allclose(weight[:5], rescaled(1 / np.array(first)), rtol=1e-6)
    np.testing.assert_allclose(weight[5:7], 1)
    assert build(**parts).columns([15.0, 9.0])["weight"].tolist() == [1, 1]
    for fields, words in (
        (dict(scheme="inverse", within_groups=True), "no groups"),
        (dict(scheme="sqrt"), "it takes 'inverse'"),
        (dict(scheme="inverse", high=-1.0), "width is 1; expected a bin within 0 to -1"),
    ):
        with pytest.raises(ValueError, match=words):
            build(weights=fields)


def test_two_angles_have_only_a_target():
    gaze = np.array([[0.1, -0.2], [0.3, 0.4]], np.float32)
    made = build(gaze)
    assert made.constants == {} and list(made.columns(gaze)) == ["target"]
    np.testing.assert_array_equal(made.columns(gaze)["target"], gaze)
    with pytest.raises(
        ValueError, match=r"shape \[2, 2\]; unset \['groups', 'mixture'\], which need one number"
    ):
        build(gaze, mixture=2, groups=dict(count=3, high=1.0))


def test_the_mixture_finds_two_heaps():
    draw = np.random.default_rng(0)
    targets = np.concatenate([draw.normal(2, 0.5, 300), draw.normal(9, 1.0, 100)])
    found = build(targets, mixture=2).constants
    order = np.argsort(found["mixture_means"])
    np.testing.assert_allclose(found["mixture_weights"][order], [0.75, 0.25], atol=0.01)
    np.testing.assert_allclose(found["mixture_means"][order], [2, 9], atol=0.2)
    np.testing.assert_allclose(found["mixture_variances"][order], [0.25, 1], atol=0.25)
