"""Doubtful labels and confused classes by plain loops, the map, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.evaluation import confused_classes, embedding_map, label_doubts, retrieval


def clusters(count=60, classes=4, dimension=6, seed=0, spread=0.25):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    labels[: 2 * classes] = np.arange(2 * classes) % classes
    centres = random.normal(size=(classes, dimension))
    return centres[labels] + spread * random.normal(size=(count, dimension)), labels


def doubts_by_loops(x, labels, k, metric):
    x = np.asarray(x, np.float32).astype(np.float64)
    n = len(x)

    def distance(a, b):
        if metric == "euclidean":
            return np.sqrt(sum((p - q) ** 2 for p, q in zip(a, b, strict=True)))
        return 1 - sum(p * q for p, q in zip(a, b, strict=True)) / np.sqrt(sum(a * a)) / np.sqrt(sum(b * b))

    nearest = [sorted((distance(x[i], x[j]), j) for j in range(n) if j != i)[:k] for i in range(n)]
    scale = np.median([near[-1][0] for near in nearest])
    result = []
    for i, near in enumerate(nearest):
        weights = [np.exp(-(d - near[0][0]) / scale) for d, _ in near]
        total = sum(weights)
        weights = [weight / total for weight in weights]
        by_class = {}
        for weight, (_, j) in zip(weights, near, strict=True):
            by_class[labels[j]] = by_class.get(labels[j], 0) + weight
        own = by_class.pop(labels[i], 0.0)
        rival = max(by_class, key=by_class.get) if by_class else None

        def reach(size, weights=weights):
            return sum(weights[: max(1, min(k, size))])

        other = by_class[rival] / reach(list(labels).count(rival)) if by_class else 0.0
        result.append((other - own / reach(list(labels).count(labels[i]) - 1), own, rival))
    return result


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_doubts_by_plain_loops(metric) -> None:
    x, labels = clusters(spread=0.8)
    labels[0] = 9  # the only one of its class
    doubts = label_doubts(x, labels, k=7, metric=metric)
    expected = doubts_by_loops(x, labels, 7, metric)
    assert doubts.doubt == pytest.approx([np.clip(doubt, -1, 1) for doubt, _, _ in expected], abs=1e-5)
    assert doubts.self_confidence == pytest.approx([own for _, own, _ in expected], abs=1e-5)
    for number, (_, _, rival) in enumerate(expected):
        assert rival is None or labels[doubts.suggested[number]] == rival
    assert not doubts.judged[0]
    assert 0 not in doubts.worst()


def test_flipped_labels_come_first_and_the_true_class_is_suggested() -> None:
    x, labels = clusters(200, spread=0.2)
    truth = labels.copy()
    flipped = np.random.default_rng(1).choice(200, 10, replace=False)
    labels[flipped] = (labels[flipped] + 1) % 4
    doubts = label_doubts(x, labels)
    assert set(doubts.worst(10).tolist()) == set(flipped.tolist())
    assert (labels[doubts.suggested[flipped]] == truth[flipped]).all()
    assert len(doubts.worst()) == 200


def test_a_small_class_is_not_doubted_for_its_size() -> None:
    x, labels = clusters(100, 3, spread=0.1)
    x = np.concatenate([x, [[5.0] * 6, [5.1] * 6]])
    labels = np.append(labels, [7, 7])
    assert (label_doubts(x, labels, metric="euclidean").doubt[-2:] <= 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_doubts_do_not_depend_on_the_order_of_the_rows(seed) -> None:
    x, labels = clusters(30, seed=seed)
    order = np.random.default_rng(seed).permutation(30)
    assert label_doubts(x[order], labels[order]).doubt == pytest.approx(label_doubts(x, labels).doubt[order], abs=1e-6)


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (np.full((4, 2), np.nan), [0, 0, 1, 1], "NaN"),
        (np.ones((4, 2)), [0, 0, 0, 0], "of one class"),
        (np.ones((4, 2)), [0, 1], "expected 4 labels"),
        (np.zeros((4, 2)), [0, 0, 1, 1], "zero vector"),
    ],
)
def test_bad_input(x, labels, message) -> None:
    with pytest.raises(ValueError, match=message):
        label_doubts(x, labels)


def test_equal_embeddings_give_finite_doubts() -> None:
    assert np.isfinite(label_doubts(np.ones((6, 2)), [0, 0, 0, 1, 1, 1]).doubt).all()


def test_confusions_by_plain_loops() -> None:
    x, labels = clusters(80, 5, spread=0.9)
    found = retrieval(x, labels).per_query
    counts = {}
    for query in range(80):
        answer = int(found.nearest[query, 0])
        if labels[answer] != labels[query]:
            pair = tuple(sorted((int(labels[query]), int(labels[answer]))))
            counts.setdefault(pair, []).append((float(found.distances[query, 0]), query, answer))
    sizes = np.bincount(labels)
    pairs = confused_classes(found, labels, 100)
    assert {(labels[pair.first], labels[pair.second]): pair.mistakes for pair in pairs} == {
        pair: len(mistakes) for pair, mistakes in counts.items()
    }
    for pair in pairs:
        key = (int(labels[pair.first]), int(labels[pair.second]))
        assert pair.queries == sizes[key[0]] + sizes[key[1]]
        assert pair.examples.tolist() == [[query, answer] for _, query, answer in sorted(counts[key])]
    shares = [pair.share for pair in pairs]
    assert shares == sorted(shares, reverse=True)
    assert len(confused_classes(found, labels, 2)) == 2


def test_a_perfect_embedding_confuses_nothing() -> None:
    labels = np.arange(12) // 3
    assert confused_classes(retrieval(np.eye(4)[labels], labels).per_query, labels) == []


@pytest.mark.parametrize("method", ["auto", "pca"])
def test_neighbours_stay_neighbours_on_the_map(method) -> None:
    x, labels = clusters(60, 3, spread=0.05)
    places = embedding_map(x, method)
    assert places.shape == (60, 2)
    assert np.abs(places).max() == pytest.approx(1)
    assert retrieval(places, labels, metric="euclidean").recall_at[1] > 0.95
    assert (places == embedding_map(x, method)).all()


def test_maps_that_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="a map of 2 items"):
        embedding_map(np.ones((2, 3)))
    with pytest.raises(ValueError, match="method='som'"):
        embedding_map(np.ones((5, 3)), "som")
    assert np.isfinite(embedding_map(np.ones((9, 3)))).all()
