import inspect
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from jaxord import metrics

RNG = np.random.default_rng(3)
TARGET = RNG.integers(16, 78, 60).astype(np.float32)
PREDICTION = (TARGET + 6 * RNG.normal(size=60)).astype(np.float32)
RANK = RNG.integers(0, 5, 80)
PREDICTED_RANK = np.clip(RANK + RNG.integers(-2, 3, 80), 0, 4)
OF_VALUES = [
    metrics.mae,
    metrics.mse,
    metrics.rmse,
    metrics.geometric_mean_error,
    metrics.balanced_mae,
    metrics.cumulative_score,
    metrics.srcc,
    metrics.pcc,
    metrics.krcc,
]
OF_RANKS = [metrics.accuracy, metrics.accuracy_within, metrics.qwk, metrics.amae, metrics.mmae]


def test_by_hand():
    # errors 0, 1, 2, 4
    prediction, target = [1, 3, 5, 0], [1, 2, 3, 4]
    assert metrics.mae(prediction, target) == 7 / 4
    assert metrics.mse(prediction, target) == 21 / 4
    assert metrics.rmse(prediction, target) == np.sqrt(21 / 4)
    assert metrics.geometric_mean_error(prediction, target) == pytest.approx(
        (1e-10 * 1 * 2 * 4) ** 0.25, rel=1e-12
    )
    assert metrics.cumulative_score(prediction, target, threshold=2) == 3 / 4
    assert metrics.cumulative_score(prediction, target) == 1
    assert metrics.accuracy(prediction, target) == 1 / 4
    assert metrics.accuracy_within(prediction, target) == 2 / 4
    assert metrics.accuracy_within(prediction, target, tolerance=2) == 3 / 4


def test_means_over_labels_by_hand():
    # rank 0: errors 0, 2, 1; rank 3: error 3; ranks 1 and 2 do not occur
    predicted_rank, rank = [0, 2, 0, 1], [0, 0, 3, 0]
    assert metrics.mae(predicted_rank, rank) == 6 / 4
    for mean in (metrics.amae, metrics.balanced_mae):
        assert mean(predicted_rank, rank) == (1 + 3) / 2
    assert metrics.mmae(predicted_rank, rank) == 3


def test_errors_against_scikit_learn():
    assert metrics.mae(PREDICTION, TARGET) == pytest.approx(
        sklearn_metrics.mean_absolute_error(TARGET.astype(np.float64), PREDICTION), rel=1e-12
    )
    assert metrics.mse(PREDICTION, TARGET) == pytest.approx(
        sklearn_metrics.mean_squared_error(TARGET.astype(np.float64), PREDICTION), rel=1e-12
    )
    assert metrics.rmse(PREDICTION, TARGET) == pytest.approx(
        sklearn_metrics.root_mean_squared_error(TARGET.astype(np.float64), PREDICTION), rel=1e-12
    )
    error = np.abs(PREDICTION.astype(np.float64) - TARGET)
    assert error.min() > 0
    assert metrics.geometric_mean_error(PREDICTION, TARGET) == pytest.approx(
        stats.gmean(error), rel=1e-12
    )
    assert metrics.accuracy(PREDICTED_RANK, RANK) == sklearn_metrics.accuracy_score(
        RANK, PREDICTED_RANK
    )


def test_shares_and_means_over_labels_against_loops():
    error = [abs(float(p) - float(t)) for p, t in zip(PREDICTION, TARGET, strict=True)]
    for threshold in (1, 5, 7.5):
        oracle = sum(e <= threshold for e in error) / len(error)
        assert 0 < oracle < 1
        assert metrics.cumulative_score(PREDICTION, TARGET, threshold=threshold) == pytest.approx(
            oracle, rel=1e-12
        )
    by_label = {}
    for e, t in zip(error, TARGET.tolist(), strict=True):
        by_label.setdefault(t, []).append(e)
    means = [sum(e) / len(e) for e in by_label.values()]
    assert len(means) < len(error)
    assert metrics.balanced_mae(PREDICTION, TARGET) == pytest.approx(
        sum(means) / len(means), rel=1e-12
    )

    by_rank = [
        np.mean([abs(int(p) - r) for p, q in zip(PREDICTED_RANK, RANK, strict=True) if q == r])
        for r in range(5)
    ]
    assert metrics.amae(PREDICTED_RANK, RANK) == pytest.approx(np.mean(by_rank), rel=1e-12)
    assert metrics.mmae(PREDICTED_RANK, RANK) == pytest.approx(max(by_rank), rel=1e-12)
    near = sum(abs(int(p) - int(r)) <= 1 for p, r in zip(PREDICTED_RANK, RANK, strict=True)) / 80
    assert metrics.accuracy_within(PREDICTED_RANK, RANK) == pytest.approx(near, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_qwk_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    rank = rng.choice(
        [0, 1, 4, 6], 40
    )  # ranks 2, 3, 5 never occur: scikit-learn must be told of them
    predicted = np.clip(rank + rng.integers(-1, 3, 40), 0, 6)
    oracle = sklearn_metrics.cohen_kappa_score(
        rank, predicted, weights="quadratic", labels=range(7)
    )
    assert metrics.qwk(predicted, rank) == pytest.approx(oracle, rel=1e-12)
    assert metrics.qwk(rank, predicted) == pytest.approx(oracle, rel=1e-12)


def test_qwk_by_hand():
    assert metrics.qwk([0, 1, 2], [0, 1, 2]) == 1
    assert metrics.qwk([0, 2], [2, 0]) == -1
    assert metrics.qwk([1, 1, 1], [0, 1, 2]) == 0  # a constant prediction agrees by chance alone
    assert np.isnan(metrics.qwk([2, 2], [2, 2]))


def test_correlations_against_loops_and_scipy():
    prediction = np.round(PREDICTION / 4)  # ties on both sides
    n = len(prediction)
    concordance = ties_p = ties_t = 0
    for i in range(n):
        for j in range(i):
            p, t = np.sign(prediction[i] - prediction[j]), np.sign(TARGET[i] - TARGET[j])
            concordance, ties_p, ties_t = concordance + p * t, ties_p + (p == 0), ties_t + (t == 0)
    pairs = n * (n - 1) / 2
    assert ties_p > 0 and ties_t > 0
    tau_b = concordance / np.sqrt((pairs - ties_p) * (pairs - ties_t))
    assert metrics.krcc(prediction, TARGET) == pytest.approx(tau_b, rel=1e-12)

    def pearson(a, b):
        a, b = a - a.mean(), b - b.mean()
        return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())

    def average_rank(x):
        return np.array([(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x])

    target = TARGET.astype(np.float64)
    assert metrics.pcc(PREDICTION, TARGET) == pytest.approx(
        pearson(PREDICTION.astype(np.float64), target), rel=1e-12
    )
    oracle = pearson(average_rank(prediction), average_rank(target))
    assert metrics.srcc(prediction, TARGET) == pytest.approx(oracle, rel=1e-12)
    assert metrics.srcc(prediction, TARGET) == pytest.approx(
        stats.spearmanr(prediction, TARGET)[0], rel=1e-12
    )


def test_correlations_of_monotone_predictions():
    x = np.arange(6.0)
    assert metrics.srcc(np.exp(x), x) == pytest.approx(1, abs=1e-12)
    assert metrics.krcc(-np.exp(x), x) == pytest.approx(-1, abs=1e-12)
    assert metrics.pcc(2 * x + 1, x) == pytest.approx(1, abs=1e-12)
    assert metrics.pcc(np.exp(x), x) < 0.9


@pytest.mark.parametrize("metric", [metrics.srcc, metrics.pcc, metrics.krcc])
def test_correlation_of_a_constant_is_nan_without_a_warning(metric):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metric([1, 2, 3], [4, 4, 4]))
        assert np.isnan(metric([4, 4, 4], [1, 2, 3]))
        assert np.isnan(metric([1], [2]))


@pytest.mark.parametrize("metric", OF_VALUES + OF_RANKS, ids=lambda m: m.__name__)
def test_a_nan_prediction_gives_nan(metric):
    assert np.isnan(metric([1.0, np.nan, 3.0, 0.0], [1.0, 2.0, 2.0, 0.0]))


@pytest.mark.parametrize("metric", OF_VALUES + OF_RANKS, ids=lambda m: m.__name__)
def test_arrays_that_do_not_pair_up_are_refused(metric):
    for prediction, target in ([np.ones((3, 1)), np.ones(3)], [np.ones(3), np.ones(4)], [[], []]):
        with pytest.raises(ValueError, match=r"prediction has shape .* expected both \[N\]"):
            metric(prediction, target)


@pytest.mark.parametrize("metric", OF_VALUES + OF_RANKS, ids=lambda m: m.__name__)
def test_the_order_of_the_samples_and_float32_do_not_matter(metric):
    prediction, target = (PREDICTION, TARGET) if metric in OF_VALUES else (PREDICTED_RANK, RANK)
    order = np.random.default_rng(0).permutation(len(target))
    found = metric(prediction, target)
    assert type(found) is float
    assert metric(prediction[order], target[order]) == pytest.approx(found, rel=1e-12)
    assert metric(prediction.astype(np.float64), target.astype(np.float64)) == found


def test_two_angles():
    prediction, target = [[0.0, 0.0], [3.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
    assert metrics.mae(prediction, target) == 1
    assert metrics.mse(prediction, target) == 10 / 4
    assert metrics.rmse(prediction, target) == np.sqrt(10 / 4)
    with pytest.raises(ValueError, match="expected both"):
        metrics.pcc(prediction, target)


def gaze(angles):
    """Unit vectors [N, 3] of (pitch, yaw)."""
    pitch, yaw = np.asarray(angles, np.float64).T
    return np.stack([-np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)], 1)


def test_angular_error_against_the_vectors():
    rng = np.random.default_rng(5)
    prediction, target = rng.uniform(-1.5, 1.5, (2, 40, 2)).astype(np.float32)
    cosine = np.einsum("ni,ni->n", gaze(prediction), gaze(target))
    assert cosine.min() < 0 < cosine.max()
    assert metrics.angular_error(prediction, target) == pytest.approx(
        np.degrees(np.arccos(cosine)).mean(), rel=1e-12
    )
    # a ten-thousandth of a degree, of which arccos of a cosine in float64 knows three digits
    near = target + np.array([np.radians(1e-4), 0])
    assert metrics.angular_error(near, target.astype(np.float64)) == pytest.approx(1e-4, rel=1e-9)


def test_angular_error_by_hand():
    right = np.pi / 2
    assert metrics.angular_error([[0, 0], [0, 0]], [[right, 0], [0, right]]) == pytest.approx(
        90, rel=1e-12
    )
    assert metrics.angular_error([[0, 0]], [[0, 2 * right]]) == pytest.approx(180, rel=1e-12)
    assert metrics.angular_error([[right, 0.3]], [[right, 1.1]]) == pytest.approx(
        0, abs=1e-12
    )  # straight up has no yaw
    assert metrics.angular_error([[0.2, 0.3]], [[0.2, 0.3]]) == 0
    assert np.isnan(metrics.angular_error([[0, np.nan]], [[0, 0]]))
    for shapes in (((3, 3), (3, 3)), ((3,), (3,)), ((2, 2), (3, 2)), ((0, 2), (0, 2))):
        with pytest.raises(ValueError, match=r"expected both \[N, 2\] with N >= 1"):
            metrics.angular_error(*map(np.ones, shapes))


def test_ranked_probability_score_against_a_loop():
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet(np.ones(5), 80)
    total = 0.0
    for row, rank in zip(probabilities.tolist(), RANK.tolist(), strict=True):
        total += sum((sum(row[: k + 1]) - (rank <= k)) ** 2 for k in range(5))
    assert metrics.ranked_probability_score(probabilities, RANK) == pytest.approx(
        total / 80, rel=1e-12
    )
    # with two ranks it is Brier's score of the second
    binary = probabilities[:, :2] / probabilities[:, :2].sum(1, keepdims=True)
    oracle = sklearn_metrics.brier_score_loss(RANK > 2, binary[:, 1])
    assert metrics.ranked_probability_score(binary, RANK > 2) == pytest.approx(oracle, rel=1e-12)


def test_ranked_probability_score_by_hand():
    sure = np.eye(5)
    assert metrics.ranked_probability_score(sure[RANK], RANK) == 0
    assert metrics.ranked_probability_score(sure[PREDICTED_RANK], RANK) == metrics.mae(
        PREDICTED_RANK, RANK
    )
    assert metrics.ranked_probability_score([[0.5, 0.5, 0.0]], [2]) == 0.25 + 1
    assert np.isnan(metrics.ranked_probability_score([[0.5, 0.5], [np.nan, 0.5]], [0, 1]))
    with pytest.raises(ValueError, match="sums to 7; expected 1: take the softmax"):
        metrics.ranked_probability_score([[0.5, 0.5], [3.0, 4.0]], [0, 1])
    with pytest.raises(
        ValueError, match="rank reaches from 0 to 2; the 2 columns of probabilities allow 0 to 1"
    ):
        metrics.ranked_probability_score([[0.5, 0.5], [0.5, 0.5]], [0, 2])
    with pytest.raises(ValueError, match=r"probabilities has shape \(2, 2\) and rank \(3,\)"):
        metrics.ranked_probability_score(np.full((2, 2), 0.5), [0, 1, 1])


def test_groups():
    logits = np.random.default_rng(8).normal(size=(80, 5)).astype(np.float32)
    predicted = logits.argmax(1)
    assert metrics.group_accuracy(logits, RANK) == sklearn_metrics.accuracy_score(RANK, predicted)
    assert metrics.group_distance(logits, RANK) == sklearn_metrics.mean_absolute_error(
        RANK, predicted
    )
    assert metrics.group_accuracy([[1.0, 1.0]], [0]) == 1  # of equal ones the first
    logits[3, 4] = np.nan
    assert np.isnan(metrics.group_accuracy(logits, RANK)) and np.isnan(
        metrics.group_distance(logits, RANK)
    )
    with pytest.raises(ValueError, match="group reaches from -1 to 0"):
        metrics.group_accuracy([[1.0, 2.0], [1.0, 2.0]], [0, -1])


def test_directions_of_all_metrics():
    """A metric is better low exactly where a perfect prediction scores the least."""
    angles = np.stack([TARGET, TARGET], 1) / 90
    worse = {"angular_error": (angles + 0.1, angles)}
    perfect = {"angular_error": (angles, angles)}
    sure, flat = 9.0 * np.eye(5)[RANK], np.eye(5)[(RANK + 1) % 5]
    for name in ("group_accuracy", "group_distance"):
        perfect[name], worse[name] = (sure, RANK), (flat, RANK)
    perfect["ranked_probability_score"], worse["ranked_probability_score"] = (
        (sure / 9, RANK),
        (flat, RANK),
    )
    arc = np.stack([np.cos(np.linspace(0, 3, 6)), np.sin(np.linspace(0, 3, 6))], 1)
    perfect["ordinality_score"], worse["ordinality_score"] = (arc,), (arc[[2, 0, 5, 1, 3, 4]],)
    names = [
        name
        for name, member in vars(metrics).items()
        if inspect.isfunction(member) and not name.startswith("_")
    ]
    for name in names:
        if name not in perfect:
            of = (
                (PREDICTION, TARGET)
                if getattr(metrics, name) in OF_VALUES
                else (PREDICTED_RANK, RANK)
            )
            perfect[name], worse[name] = (of[1], of[1]), of
        best, other = (getattr(metrics, name)(*arrays[name]) for arrays in (perfect, worse))
        assert (best < other) == (name in metrics.LOWER_IS_BETTER) and best != other, name
    assert set(metrics.LOWER_IS_BETTER) <= set(names)


def ordinality_loop(text_embeds):
    count = len(text_embeds)
    cosine = [
        [np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)) for b in text_embeds]
        for a in text_embeds
    ]
    hits = sum(
        cosine[i][j] > cosine[i][j + 1] for i in range(count - 1) for j in range(i, count - 1)
    )
    return hits / (count * (count - 1) / 2)


def test_ordinality_score_against_a_loop():
    for seed, (ranks, width) in enumerate([(2, 3), (5, 4), (20, 8)]):
        text_embeds = 7 * np.random.default_rng(seed).normal(size=(ranks, width))
        score = metrics.ordinality_score(text_embeds)
        assert score == pytest.approx(ordinality_loop(text_embeds), rel=1e-12)
        lengths = np.linspace(0.1, 9, ranks)[:, None]
        assert metrics.ordinality_score(text_embeds * lengths) == score


def test_ordinality_score_by_hand():
    angle = np.linspace(0, 3, 6)
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert metrics.ordinality_score(arc) == 1
    # order 0, 2, 1 on the arc: s_00 > s_01 yes, s_01 > s_02 no, s_11 > s_12 yes
    assert metrics.ordinality_score(arc[[0, 2, 1]]) == pytest.approx(2 / 3, rel=1e-12)


def test_ordinality_score_of_equal_texts_is_zero():
    for ranks, width in ((2, 8), (5, 512), (101, 515)):
        text = np.random.default_rng(width).normal(size=width).astype(np.float32)
        assert metrics.ordinality_score(np.tile(text, (ranks, 1))) == 0


def test_ordinality_score_where_it_is_not_defined():
    assert np.isnan(metrics.ordinality_score(np.ones((1, 4))))
    assert np.isnan(metrics.ordinality_score(np.array([[1.0, 0.0], [0.0, 0.0]])))
    assert np.isnan(metrics.ordinality_score(np.array([[1.0, 0.0], [np.nan, 0.0]])))
    with pytest.raises(ValueError, match=r"expected \[K, D\]"):
        metrics.ordinality_score(np.ones(4))
