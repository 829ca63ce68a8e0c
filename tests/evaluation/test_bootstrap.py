"""Intervals by drawing classes, and two models side by side: against scipy, plain loops, and what they must cover."""

from __future__ import annotations

import numpy as np
import pytest

from tfdml.evaluation import compare, cross_validate, retrieval
from tfdml.evaluation._bootstrap import bounds, ratio_intervals

stats = pytest.importorskip("scipy.stats")


def embedded(seed=0, spread=0.8, classes=40, size=5, dimension=8):
    random = np.random.default_rng(seed)
    labels = np.arange(classes * size) // size
    centres, noise = random.normal(size=(classes, dimension)), random.normal(size=(classes * size, dimension))
    return centres[labels] + spread * noise, labels


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_are_scipys(method) -> None:
    random = np.random.default_rng(0)
    groups = np.sort(random.integers(0, 60, 500))
    values = random.gamma(0.3, size=60)[groups] + random.random(500)  # skewed, so that the two methods differ
    values[::17] = np.nan
    found = ratio_intervals({"figure": values}, groups, confidence=0.9, resamples=20_000, method=method, seed=0)["figure"]
    counted = ~np.isnan(values)
    sums, sizes = np.bincount(groups[counted], values[counted]), np.bincount(groups[counted]).astype(float)
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    expected = stats.bootstrap(
        (sums, sizes),
        lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        confidence_level=0.9,
        n_resamples=20_000,
        method="BCa" if method == "bca" else "percentile",
        random_state=1,
    ).confidence_interval
    width = expected.high - expected.low
    assert found.value == pytest.approx(np.nanmean(values))
    assert found.low == pytest.approx(expected.low, abs=0.04 * width)
    assert found.high == pytest.approx(expected.high, abs=0.04 * width)


def test_intervals_cover_the_truth_as_often_as_they_say_and_drawing_queries_does_not() -> None:
    # Whole classes are easy or hard: drawing single queries takes 20 queries of a class for 20 independent trials.
    random = np.random.default_rng(0)
    covered = {"classes": 0, "queries": 0}
    for trial in range(200):
        groups = np.arange(600) // 20
        values = (random.random(600) < random.beta(0.7, 0.7, 30)[groups]).astype(float)
        for name, drawn in (("classes", groups), ("queries", np.arange(600))):
            one = ratio_intervals({"hit": values}, drawn, confidence=0.9, resamples=200, method="percentile", seed=trial)["hit"]
            covered[name] += one.low <= 0.5 <= one.high
    assert 165 <= covered["classes"] <= 195
    assert covered["queries"] < 100


def test_a_figure_that_no_draw_changes_has_an_interval_of_no_width() -> None:
    ones = np.ones((200, 1))
    for method in ("percentile", "bca"):
        low, high = bounds(ones, np.ones(1), np.ones((9, 1)), 0.95, method)
        assert (low[0], high[0]) == (1, 1)


def test_intervals_of_a_result() -> None:
    embeddings, labels = embedded()
    found = retrieval(embeddings, labels, also=["mrr"])
    intervals = found.intervals(seed=1)
    assert list(intervals) == list(found.figures())
    for name, value in found.figures().items():
        assert intervals[name].value == pytest.approx(value)
        assert intervals[name].low < value < intervals[name].high or value in (0, 1)
    assert found.intervals(seed=1) == intervals
    halves = found.intervals(labels // 20)
    assert halves["mrr"] != intervals["mrr"]
    wide, narrow = found.intervals(confidence=0.99)["mrr"], found.intervals(confidence=0.5)["mrr"]
    assert wide.low < narrow.low < narrow.high < wide.high
    for options, message in [
        ({"confidence": 1}, "confidence=1"),
        ({"resamples": 10}, "resamples=10: expected at least 200"),
        ({"method": "normal"}, "method='normal' is not known"),
        ({"groups": np.zeros(200, int)}, "2 or more of them, received 1"),
        ({"groups": [1, 2]}, "groups: expected 200 labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            found.intervals(**options)


def test_compare_is_a_paired_bootstrap() -> None:
    embeddings, labels = embedded(spread=0.9)
    other = embeddings + 0.5 * np.random.default_rng(5).normal(size=embeddings.shape)
    better, worse = retrieval(embeddings, labels), retrieval(other, labels)
    found = compare(worse, better, resamples=4000)
    for name, each in found.figures.items():
        assert each.first.value == pytest.approx(worse.figures()[name])
        assert each.second.value == pytest.approx(better.figures()[name])
        assert each.difference.value == pytest.approx(each.second.value - each.first.value)
    each = found.figures["map_at_r"]
    # Paired, the difference is much surer than two separate intervals would have it.
    assert each.difference.high - each.difference.low < 0.7 * (each.second.high - each.first.low)
    assert each.better > 0.95
    back = compare(better, worse, resamples=4000).figures["map_at_r"]
    assert back.difference.value == pytest.approx(-each.difference.value)
    assert back.better == pytest.approx(1 - each.better)
    change = better.per_query.map_at_r - worse.per_query.map_at_r
    per_class = [change[labels == label].mean() for label in range(40)]
    expected = stats.bootstrap((per_class,), np.mean, n_resamples=4000, method="percentile", random_state=0).confidence_interval
    width = expected.high - expected.low
    assert (each.difference.low, each.difference.high) == pytest.approx((expected.low, expected.high), abs=0.1 * width)


def test_the_drift_of_neighbours_and_the_queries_that_changed_most() -> None:
    embeddings, labels = embedded()
    labels[-1] = 1000  # a query without an answer
    first = retrieval(embeddings, labels)
    second = retrieval(embeddings + 0.3 * np.random.default_rng(1).normal(size=embeddings.shape), labels)
    found = compare(first, second)
    for k in (1, 5, 10):
        sets = [
            (set(a.tolist()), set(b.tolist()))
            for a, b in zip(first.per_query.nearest[:, :k], second.per_query.nearest[:, :k], strict=True)
        ]
        assert found.overlap_at[k] == pytest.approx(np.mean([len(a & b) / k for a, b in sets]))
        assert found.jaccard_at[k] == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in sets]))
    change = np.abs(found.change)
    most = found.most_changed(300)
    assert len(most) == found.queries == 199
    assert change[most].tolist() == sorted(change[most], reverse=True)
    same = compare(first, first)
    assert same.overlap_at == {1: 1, 5: 1, 10: 1}
    assert same.figures["map_at_r"].better == 0.5
    assert same.figures["map_at_r"].difference[:3] == (0, 0, 0)
    assert "100.0% of the 10 nearest" in str(same)
    assert "intervals of 95%, drawing classes" in str(same)


def test_only_results_of_the_same_queries_are_compared() -> None:
    embeddings, labels = embedded()
    first = retrieval(embeddings, labels)
    for second, message in [
        (retrieval(embeddings[:150], labels[:150]), "second: 150 as its queries, but first has 200"),
        (retrieval(embeddings, np.roll(labels, 2)), "query 0 is of another class"),
        (retrieval(embeddings, labels, ks=(3,)), "no k in common"),
        (retrieval(embeddings, labels, ties="expected"), "second: expected as its ties, but first has number"),
    ]:
        with pytest.raises(ValueError, match=message):
            compare(first, second)
    with pytest.raises(ValueError, match="method='studentized' is not known"):
        compare(first, first, method="studentized")


class Folds:
    """As much of a Dataset as cross validation needs."""

    def folds(self, k, seed):
        return [((seed, fold), (seed, fold)) for fold in range(k)]


def test_cross_validation_runs_every_fold_with_every_seed() -> None:
    seen = []

    def train(training, seed):
        seen.append((training, seed))
        return training

    found = cross_validate(train, Folds(), folds=3, seeds=(5, 7), measure=lambda model, held_out: {"sum": float(sum(model))})
    assert seen == [((seed, fold), seed) for seed in (5, 7) for fold in range(3)]
    values = [5, 6, 7, 7, 8, 9]
    assert found["sum"].values.tolist() == values
    assert found["sum"].mean == pytest.approx(7)
    # Nadeau and Bengio: a fold holds out half as much as it trains on.
    assert found["sum"].standard_error == pytest.approx(np.std(values, ddof=1) * np.sqrt(1 / 6 + 1 / 2))
    with pytest.raises(ValueError, match="two runs or more"):
        cross_validate(train, Folds(), seeds=())
