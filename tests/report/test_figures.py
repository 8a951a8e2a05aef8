"""Figures show the numbers that they are given, checked against numbers worked out by hand; awkward
inputs are drawn too."""

import base64
import re

import numpy as np
import pytest

from jaxord.report import page
from jaxord.report.figures import comparison, embeddings, groups, predictions, style, training

RANK = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 1, 0])


def heights(ax):
    return [patch.get_height() for patch in ax.patches]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_confusion_has_the_shares_of_each_true_rank():
    ax = predictions.confusion(RANK, PREDICTED, ("low", "mid", "high")).axes[0]
    shares = ax.images[0].get_array().filled(0)
    assert shares == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [0, 1, 0], [1, 0, 0]]))
    assert [text.get_text() for text in ax.texts] == ["2", "1", "2", "1"] and ticks(ax.xaxis) == [
        "low",
        "mid",
        "high",
    ]
    ax = predictions.confusion(RANK, PREDICTED, ("low", "mid", "high"), most=2).axes[
        0
    ]  # low and mid are one
    assert ax.images[0].get_array().filled(0).tolist() == [[1, 0], [1, 0]] and ticks(ax.yaxis) == [
        "low – mid",
        "high",
    ]


def test_errors_by_rank_are_means_with_the_colour_of_their_part():
    error, part = np.array([1.0, 2, 3, 0, 1, 5]), np.array(["many"] * 3 + ["median"] * 2 + ["few"])
    figure = predictions.error_by_rank(RANK, error, np.array([9, 4, 0]), ("a", "b", "c"), part)
    above, below = figure.axes
    assert heights(above)[:3] == pytest.approx([2.0, 0.5, 5.0]) and heights(below) == [
        9,
        4,
        0,
        3,
        2,
        1,
    ]
    colours = [patch.get_facecolor() for patch in above.patches[:3]]
    assert len(set(colours)) == 3
    half = above.collections[0].get_segments()[0]  # of rank 0: 2 -+ 1 / sqrt(3)
    assert half[:, 1] == pytest.approx([2 - 3**-0.5, 2 + 3**-0.5])
    assert [text.get_text() for text in figure.legends[0].get_texts()][:3] == [
        "many-shot",
        "median-shot",
        "few-shot",
    ]


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.35, 0.65]])
    figure = predictions.calibration(probabilities, np.array([0, 1, 1, 1]))
    # |1/2 - 0.9| for two of four, |1 - 0.55| and |1 - 0.65| for one each
    assert (
        figure.axes[0].get_title()
        == f"Expected calibration error {0.5 * 0.4 + 0.25 * 0.45 + 0.25 * 0.35:.3f}"
    )
    assert heights(figure.axes[1]) == [0, 0, 0, 0, 0, 1, 1, 0, 0, 2]


def test_cumulative_score_is_the_share_within_a_tolerance():
    (line,) = predictions.cumulative_score({"value": np.array([3.0, 0.0, 1.0, 1.0])}).axes[0].lines
    at = dict(zip(*line.get_data(), strict=True))  # of equal errors the last
    assert (at[0.0], at[1.0], at[3.0]) == (0.25, 0.75, 1.0)


def test_points_of_few_values_are_spread_but_stay_nearer_to_their_own():
    target = np.repeat([1.0, 2.0, 4.0], 20)
    ax = predictions.predicted_against_true({"argmax": (target, target)}).axes[0]
    places = np.asarray(ax.collections[0].get_offsets())
    assert (
        places.min() > ax.get_xlim()[0]
        and places.max() < ax.get_xlim()[1]
        and ax.get_xlim() == ax.get_ylim()
    )
    assert np.abs(places - target[:, None]).max() <= 1 / 3 and len(np.unique(places)) == places.size
    many = np.linspace(0, 1, 3000)
    assert (
        predictions.predicted_against_true({"value": (many, many)})
        .axes[0]
        .collections[0]
        .get_array()
        .sum()
        == 3000
    )


def test_errors_by_column_keep_the_frequent_values():
    values = np.array([f"camera {k}" for k in range(20) for _ in range(20 - k)])
    ax = predictions.error_by_column(np.ones(len(values)), values, most=5).axes[0]
    assert (
        len(ticks(ax.yaxis)) == 5
        and "camera 0 (20)" in ticks(ax.yaxis)
        and "16 others (136)" in ticks(ax.yaxis)
    )


def test_numbers_in_a_column_are_in_their_order():
    ax = predictions.error_by_column(np.ones(4), ["10", "9", "1e-05 to 2", ""]).axes[0]
    assert ticks(ax.yaxis) == ["1e-05 to 2 (1)", "9 (1)", "10 (1)", " (1)"]


def test_similarity_is_in_the_order_of_the_labels():
    rows = np.array([[2.0, 0], [0, 1], [1, 1]])
    matrix, labels = embeddings.in_order(rows, np.array([3.0, 1.0, 2.0]))
    near = -((2 - 2**0.5) ** 0.5)
    assert labels.tolist() == [1, 2, 3]
    assert matrix == pytest.approx(
        np.array([[0, near, -(2**0.5)], [near, 0, near], [-(2**0.5), near, 0]]), abs=1e-7
    )
    matrix, labels = embeddings.in_order(
        np.random.default_rng(0).normal(size=(50, 4)), np.arange(50)[::-1], most=10
    )
    assert matrix.shape == (10, 10) and labels[0] == 0 and labels[-1] == 49


def test_curves_show_seeds_as_mean_and_band_and_long_ones_smoothed():
    steps = np.arange(10)
    seeds = np.stack([steps + 1.0, steps + 3.0])
    ax = training.curves({"loss": {"a": (steps, seeds)}}).axes[0]
    assert ax.lines[0].get_ydata() == pytest.approx(steps + 2.0) and len(ax.collections) == 1
    long = np.arange(1000)
    raw, smooth = training.curves({"loss": {"a": (long, long % 2)}}).axes[0].lines
    assert np.ptp(raw.get_ydata()) == 1 and np.ptp(smooth.get_ydata()) < 0.1
    assert training.curves({"norm": {"a": (steps, 10.0**steps)}}).axes[0].get_yscale() == "log"
    assert (
        training.curves({"norm": {"a": (steps, 10.0**steps)}}, linear=["norm"]).axes[0].get_yscale()
        == "linear"
    )
    assert (
        training.curves({"loss": {"a": (steps, -(10.0**steps))}}).axes[0].get_yscale() == "linear"
    )
    figure = training.curves(
        {"mae": {label: (steps, steps) for label in ("val, experts", "val, true", "test, true")}}
    )
    one, two, three = figure.axes[0].lines
    assert (
        one.get_color() == two.get_color() != three.get_color()
        and two.get_linestyle() == three.get_linestyle() != "-"
    )


def test_group_figures():
    ax = groups.histograms({"soft labels": ([5, 2, 1], [6, 2, 0])}).axes[0]
    assert heights(ax) == [5, 2, 1, 6, 2, 0] and ax.get_yscale() == "log"
    figure = groups.distance(
        {"a": np.array([0.5, np.nan, 2]), "b": np.array([1.0, 1, 1])}, [5, 0, 1]
    )
    assert [line.get_label() for line in figure.axes[0].lines] == ["a", "b"] and heights(
        figure.axes[1]
    ) == [5, 0, 1]


def test_dots_and_gains_and_numbers():
    ax = comparison.dots(
        ["l1", "ce"], {"mae": {"l1": [1.0, 3.0]}}, {"mae": {"constant": 4.0, "majority": np.nan}}
    ).axes[0]
    assert np.asarray(ax.collections[0].get_offsets()).tolist() == [[1, 0], [3, 0]] and ticks(
        ax.yaxis
    ) == ["l1", "ce"]
    assert [line.get_label() for line in ax.lines if line.get_label()[0] != "_"] == ["constant"]
    ax = comparison.gains([("a before b", 0.5, 0.1), ("c before d", -0.5, np.nan)]).axes[0]
    assert ticks(ax.yaxis) == ["a before b", "c before d"]
    ax = comparison.against_number(
        {"mae": {"soft": [(5, [0.9, 1.1]), (10, [2.0]), (20, [3.0])]}}, "count"
    ).axes[0]
    assert ticks(ax.xaxis) == ["5", "10", "20"] and ax.get_xlabel() == "count"


@pytest.mark.parametrize("count", [1, 101])
def test_few_and_many_ranks_are_drawn_with_few_ticks(count):
    rank, names = np.arange(count), [f"{k} years" for k in range(count)]
    for figure in (
        predictions.confusion(rank, rank, names),
        predictions.error_by_rank(rank, rank * 0.0, rank + 1, names),
    ):
        if count == 1:
            style.svg(figure)
        assert len(ticks(figure.axes[-1].xaxis)) <= 26 and len(ticks(figure.axes[0].xaxis)) <= 26
    matrices = embeddings.matrices({"texts": (np.eye(count), names)}, "cosine", "rank")
    assert len(ticks(matrices.axes[0].yaxis)) <= 10


def test_a_name_stands_once_in_the_middle_of_its_neighbours():
    ax = predictions.confusion([0], [0], ["a"]).axes[0]
    style.name_ticks(ax.xaxis, ["1", "1", "1", "2", "3", "3"], most=3)
    assert list(ax.get_xticks()) == [1, 3, 4.5] and ticks(ax.xaxis) == ["1", "2", "3"]
    style.name_ticks(ax.xaxis, ["1", "1", "1", "2", "3", "4"], most=3)
    assert list(ax.get_xticks()) == [0, 2, 4] and ticks(ax.xaxis) == ["1", "1", "3"]


@pytest.mark.parametrize(("each", "large"), [(7, 2000), (100, 150)])  # the second by interpolation
def test_the_map_parts_what_is_apart(each, large, monkeypatch):
    monkeypatch.setattr(embeddings, "LARGE", large)
    rows = np.random.default_rng(0).normal(size=(2 * each, 5)) / 10 + np.repeat(
        np.eye(5)[:2], each, axis=0
    )
    places = embeddings.plane(rows)
    nearest = np.argsort(np.linalg.norm(places[:, None] - places, axis=-1), axis=1)[:, 1]
    assert np.array_equal(nearest // each, np.arange(2 * each) // each)


def test_constant_predictions_are_drawn():
    same = np.full(12, 3.0)
    style.svg(predictions.predicted_against_true({"value": (same, same)}))
    style.svg(predictions.cumulative_score({"value": same * 0}))
    style.svg(training.curves({"mae": {"val": ([10], [1.0])}}))


def test_a_page_is_whole_and_escapes_what_it_is_given(tmp_path):
    figure = embeddings.examples(
        [("<b>Worst</b>", [(np.zeros((4, 6, 3), np.uint8), "1 [2]", None)] * 2)]
    )
    style.write_png(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    table = page.table(["name", "mae"], [["<script>", 1.23456], ["b", float("nan")]])
    document = page.Page("a & b")
    document.add("Part <1>", [table, page.picture(figure, 'seen "so"')])
    document.add("Left out", "no <reason>.")
    document.add("Left out too", "no <reason>.")
    document.write(tmp_path / "page.html", "lead")
    text = (tmp_path / "page.html").read_text()
    assert "<li>Left out, Left out too: no &lt;reason&gt;.</li>" in text
    assert (
        "<script>" not in text
        and "&lt;script&gt;" in text
        and "Part &lt;1&gt;" in text
        and "a &amp; b" in text
    )
    assert "1.235" in text and "<td>-</td>" in text and 'alt="seen &quot;so&quot;"' in text
    assert re.findall(r'(?:src|href)="(?!data:|#)', text) == []
    (data,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)
    svg = base64.b64decode(data).decode()
    assert "&lt;" not in svg.split("<defs>")[0] and svg == style.svg(figure)


def test_texts_and_tables_become_parts():
    body = [["x", "knn", "**1.0**"], ["y", "-", "2.0"]]
    parts = ["Text & more.\nA line.", (["a", "rule", "mae"], body), "end"]
    text = "".join(page.blocks(parts))
    assert "<b>1.0</b>" in text and "**" not in text and text.endswith("<p>end</p>")
    assert text.startswith("<p>Text &amp; more.</p><p>A line.</p>")
    assert '<td class="text">knn</td>' in text and text.count("<tr") == 3


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"figures need matplotlib: pip install -e .*\[report\]"):
        predictions.cumulative_score({"value": [1.0]})
