"""Thresholds for an asked rate, and distances as probabilities: against plain loops, scikit-learn, and on other classes."""

from __future__ import annotations

import evaluation_oracles as oracles
import numpy as np
import pytest

from tfdml.bundle import MatchProbability, Threshold
from tfdml.evaluation import calibrate, fit_match_probability, retrieval
from tfdml.evaluation._bootstrap import draws
from tfdml.evaluation._calibration_events import negative_pairs


def embedded(seed=0, classes=40, size=8, spread=0.5, dimension=6):
    random = np.random.default_rng(seed)
    labels = np.arange(classes * size) // size
    # Some classes are wide and some are narrow, as real ones are.
    widths = spread * random.uniform(0.4, 1.6, classes)[labels, None]
    rows = random.normal(size=(classes, dimension))[labels] + widths * random.normal(size=(classes * size, dimension))
    return rows.astype(np.float32), labels


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("kind", "asked"), [("far", 0.03), ("far", 0.2), ("fir", 0.3), ("precision", 0.9)])
def test_the_threshold_is_the_largest_that_keeps_the_rate(kind, asked, metric) -> None:
    embeddings, labels = embedded(classes=12, size=5)
    expected, rate = oracles.calibrated(embeddings, labels, kind, asked, metric)
    found = calibrate(embeddings, labels, **{kind: asked}, metric=metric, resamples=200)
    assert found.distance == pytest.approx(expected, rel=1e-5)
    assert found.rate == pytest.approx(rate)
    assert found.low <= found.distance <= found.high
    assert found.rate_low <= found.rate_high
    assert (found.kind, found.asked, found.metric) == (kind, asked, metric)


def test_equal_distances_are_taken_in_together_or_not_at_all() -> None:
    # Nine pairs at distance 1 beside 36 others: a threshold takes all nine or none.
    embeddings = np.concatenate([[[float(i), 0.0]] for i in range(10)])
    found = calibrate(embeddings, np.arange(10), far=0.3, metric="euclidean", resamples=200)
    assert found.rate == pytest.approx(9 / 45)
    assert 1 < found.distance < 2


def test_resampled_rates_are_those_of_repeated_classes() -> None:
    embeddings, labels = embedded(classes=9, size=4)
    events = negative_pairs(embeddings, labels, "euclidean", 10**6, 0)
    weights = next(draws(9, 5, 3))
    t = float(np.quantile(events.distances, 0.1))
    for row, rate in zip(weights, events.rates(weights, np.full(5, t)), strict=True):
        pairs = [
            (row[labels[i]] * row[labels[j]], oracles.distance(embeddings[i], embeddings[j], "euclidean") <= t)
            for j in range(36)
            for i in range(j)
            if labels[i] != labels[j]
        ]
        assert rate == pytest.approx(sum(w for w, near in pairs if near) / sum(w for w, _ in pairs))
    # What lies beyond the part that is listed still counts.
    near = negative_pairs(embeddings, labels, "euclidean", 10**6, 0, share=0.3)
    assert len(near.distances) < len(events.distances)
    np.testing.assert_allclose(near.rates(weights, np.full(5, t)), events.rates(weights, np.full(5, t)))
    np.testing.assert_allclose(near.thresholds(weights, 0.05), events.thresholds(weights, 0.05))
    some = negative_pairs(embeddings, labels, "euclidean", 200, 0)
    assert some.total == 200
    np.testing.assert_allclose(some.rates(np.ones((1, 9)), np.array([t])), 0.1, atol=0.06)


@pytest.mark.parametrize(("kind", "asked"), [("far", 0.01), ("fir", 0.2), ("precision", 0.9)])
def test_the_rate_holds_on_classes_used_for_nothing_else(kind, asked) -> None:
    within = []
    for seed in range(10):
        embeddings, labels = embedded(seed, classes=120)
        fitted = labels < 60
        found = calibrate(embeddings[fitted], labels[fitted], **{kind: asked}, resamples=300, seed=seed)
        check = found.check(embeddings[~fitted], labels[~fitted])
        within.append(check.within)
        assert check.rate.low <= check.rate.value <= check.rate.high
    # 95% intervals: fewer than 8 of 10 would happen once in a hundred times.
    assert sum(within) >= 8


def test_more_classes_make_a_surer_threshold() -> None:
    few, many = (calibrate(*embedded(1, classes=count), far=0.02, resamples=300) for count in (15, 150))
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_what_is_told_and_stored() -> None:
    found = calibrate(*embedded(), far=0.01, resamples=300)
    assert found.threshold == Threshold(found.distance, found.low, found.high, 0.95, "false accept rate 0.01")
    assert str(found).startswith(f"false accept rate 0.01: up to {found.distance:.4f} is a match (95% interval")
    assert "49,920 pairs of 40 classes" in str(found)
    assert calibrate(*embedded(), far=0.01, resamples=300) == found
    assert "queries of 40 classes" in str(calibrate(*embedded(), precision=0.8, resamples=300))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "received none of them, expected exactly one"),
        ({"far": 0.1, "precision": 0.9}, "expected exactly one"),
        ({"far": 0}, "far=0: expected a share between 0 and 1"),
        ({"precision": 95}, "precision=95"),
        ({"far": 1e-5}, "far=1e-05: 49,920 pairs of two classes make 0.5 mistakes"),
        ({"far": 0.1, "metric": "dot"}, "metric='dot' is not known"),
        ({"far": 0.1, "resamples": 5}, "resamples=5"),
        ({"far": 0.1, "pairs": 0}, "pairs=0"),
        ({"far": 0.1, "labels": np.zeros(320, int)}, "of one class"),
        ({"far": 0.1, "labels": [0, 1]}, "expected 320 labels"),
        ({"far": 0.1, "embeddings": np.full((320, 6), np.nan)}, "NaN or infinity"),
        ({"precision": 0.9, "labels": np.arange(320)}, "no class has two items"),
        ({"precision": 0.9, "embeddings": np.random.default_rng(0).normal(size=(320, 6))}, "no threshold keeps it"),
    ],
)
def test_bad_input(options, message) -> None:
    embeddings, labels = embedded()
    with pytest.raises(ValueError, match=message):
        calibrate(**{"embeddings": embeddings, "labels": labels, **options})


def test_isotonic_probabilities_are_scikit_learns() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic")
    embeddings, labels = embedded(spread=1.0)
    probability = fit_match_probability(embeddings, labels, k=5)
    per = retrieval(embeddings, labels, ks=(5,)).per_query
    expected = isotonic.IsotonicRegression(increasing=False, out_of_bounds="clip")
    expected.fit(per.distances.ravel().astype(np.float64), per.correct.ravel())
    at = np.linspace(0, 2, 500)
    np.testing.assert_allclose(probability(at), expected.predict(at), atol=1e-9)
    assert (np.diff(probability(at)) <= 0).all()
    assert probability.answers == 5 * len(labels)


def test_logistic_probabilities_are_the_best_that_there_are() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    embeddings, labels = embedded(spread=1.0)
    probability = fit_match_probability(embeddings, labels, kind="logistic", k=5)
    per = retrieval(embeddings, labels, ks=(5,)).per_query
    distances, right = per.distances.ravel().astype(np.float64), per.correct.ravel()
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))

    def loss(w):
        logits = w[0] - w[1] * distances
        return (np.logaddexp(0, logits) - target * logits).sum()

    best = optimize.minimize(loss, [0.0, 1.0], tol=1e-10).x
    assert (probability.intercept, probability.slope) == pytest.approx(tuple(best), rel=1e-3)
    np.testing.assert_allclose(
        probability([0.2, 0.6]), 1 / (1 + np.exp(-(best[0] - best[1] * np.array([0.2, 0.6])))), rtol=1e-3
    )


@pytest.mark.parametrize("kind", ["isotonic", "logistic"])
def test_probabilities_hold_on_other_classes(kind) -> None:
    embeddings, labels = embedded(3, classes=400, spread=0.8, dimension=10)
    fitted = labels < 200
    probability = fit_match_probability(embeddings[fitted], labels[fitted], kind=kind)
    per = retrieval(embeddings[~fitted], labels[~fitted], ks=(10,)).per_query
    told, right = probability(per.distances), per.correct
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)):
        inside = (told >= low) & (told <= high)
        assert inside.sum() > 200
        # Two numbers cannot follow every shape.
        assert right[inside].mean() == pytest.approx(told[inside].mean(), abs=0.1 if kind == "isotonic" else 0.15)


def test_bad_input_to_probabilities() -> None:
    embeddings, labels = embedded()
    with pytest.raises(ValueError, match="kind='beta' is not known"):
        fit_match_probability(embeddings, labels, kind="beta")
    with pytest.raises(ValueError, match="all 320 answers are right"):
        fit_match_probability(np.eye(40)[labels] + 1e-3 * np.arange(320)[:, None], labels, k=1)
    for arguments in [
        ("spline", (), (), 0.0, 1.0, 9),
        ("isotonic", (), (), 0.0, 0.0, 9),
        ("isotonic", (0.1,), (0.5, 0.4), 0.0, 0.0, 9),
        ("isotonic", (0.2, 0.1), (0.5, 0.4), 0.0, 0.0, 9),
        ("isotonic", (0.1, 0.2), (0.4, 0.5), 0.0, 0.0, 9),
        ("isotonic", (0.1, 0.2), (1.4, 0.5), 0.0, 0.0, 9),
        ("logistic", (), (), 0.0, -1.0, 9),
    ]:
        with pytest.raises(ValueError, match="match probability: "):
            MatchProbability(*arguments)
