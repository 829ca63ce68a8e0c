"""Similarity precision and score-at-top-K: against plain loops, worked examples, and bad input."""

from __future__ import annotations

import evaluation_oracles as oracles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.evaluation import similarity

pytestmark = pytest.mark.one_stack


def by_loops(embeddings, triplets, k, metric):
    right = wrong = correct = 0
    for q, p, n in triplets:
        is_right = oracles.distance(embeddings[q], embeddings[p], metric) < oracles.distance(
            embeddings[q], embeddings[n], metric
        )
        correct += is_right
        others = [i for i in range(len(embeddings)) if i != q]
        nearest = sorted(others, key=lambda i: (oracles.distance(embeddings[q], embeddings[i], metric), i))[:k]
        if p in nearest or n in nearest:
            right, wrong = right + is_right, wrong + (not is_right)
    return correct / len(triplets), right - wrong, right + wrong


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(4, 30),
    triplets=st.integers(1, 60),
    metric=st.sampled_from(["cosine", "euclidean"]),
    whole=st.booleans(),
    k=st.integers(1, 29),
)
def test_figures_are_those_of_loops(seed, count, triplets, metric, whole, k):
    random = np.random.default_rng(seed)
    if whole and metric == "euclidean":
        embeddings = random.integers(-2, 3, (count, 3)).astype(np.float32)  # many exact ties
    else:
        embeddings = random.normal(size=(count, 3)).astype(np.float32)
    rows = np.array([random.choice(count, 3, replace=False) for _ in range(triplets)])
    k = min(k, count - 1)
    precision, score, counted = by_loops(embeddings, rows, k, metric)
    found = similarity(embeddings, rows, k, metric=metric)
    assert found.precision == pytest.approx(precision)
    assert (found.score, found.triplets_at_top_k, found.triplets) == (score, counted, triplets)
    assert found.figures("val_") == {"val_similarity_precision": found.precision, f"val_score_at_top_{k}": score}


def test_a_perfect_a_reversed_and_a_collapsed_embedding():
    line = np.arange(40.0)[:, None]
    rows = [[0, 1 + i, 2 + i] for i in range(30)]
    perfect = similarity(line, rows, 5, metric="euclidean")
    assert (perfect.precision, perfect.score, perfect.triplets_at_top_k) == (1.0, 5, 5)
    reversed_rows = [[q, n, p] for q, p, n in rows]
    assert similarity(line, reversed_rows, 5, metric="euclidean").score == -5
    collapsed = similarity(np.ones((40, 3)), rows, 5)
    assert (collapsed.precision, collapsed.score) == (0.0, -5)


def test_near_duplicates_are_told_apart():
    direction = np.random.default_rng(0).normal(size=512)
    embeddings = np.stack([direction, direction, direction]).astype(np.float32) * 10
    embeddings[1, 0] += 1e-4
    embeddings[2, 0] += 2e-4
    assert similarity(embeddings, [[0, 1, 2]], 1, metric="euclidean").precision == 1.0


def test_many_queries_in_blocks(monkeypatch):
    from tfdml.index import _nearest

    random = np.random.default_rng(3)
    embeddings = random.normal(size=(200, 4)).astype(np.float32)
    rows = np.array([random.choice(200, 3, replace=False) for _ in range(500)])
    whole = similarity(embeddings, rows, 7)
    monkeypatch.setattr(_nearest.NearestRows.search, "__kwdefaults__", {"exact_distances": True, "block_bytes": 1})
    assert similarity(embeddings, rows, 7) == whole
    assert whole.score == by_loops(embeddings, rows, 7, "cosine")[1]


@pytest.mark.parametrize(
    ("triplets", "k", "message"),
    [
        ([[0, 1]], 1, r"expected numbers of query, positive and negative, \[T, 3\], received shape \(1, 2\)"),
        (np.zeros((0, 3), int), 1, r"received shape \(0, 3\)"),
        ([[0.0, 1.0, 2.0]], 1, "expected whole numbers, received dtype float64"),
        ([[0, 1, 4]], 1, "expected numbers 0 to 3 of 4 embeddings, received 0 to 4"),
        ([[0, -1, 2]], 1, "received -1 to 2"),
        ([[0, 1, 2], [0, 1, 1]], 1, r"number 1, \[0, 1, 1\], holds one image twice \(1 of 2\)"),
        ([[2, 1, 2]], 1, "holds one image twice"),
        ([[0, 1, 2]], 4, "k=4: only 3 items"),
        ([[0, 1, 2]], 0, "k=0"),
    ],
)
def test_bad_triplets(triplets, k, message):
    with pytest.raises(ValueError, match=message):
        similarity([[1.0], [2.0], [3.0], [4.0]], triplets, k)


def test_bad_embeddings():
    with pytest.raises(ValueError, match="NaN"):
        similarity([[1.0], [np.nan], [3.0]], [[0, 1, 2]], 1)
    with pytest.raises(ValueError, match="zero vector"):
        similarity([[1.0], [0.0], [3.0]], [[0, 1, 2]], 1)
    with pytest.raises(ValueError, match="metric='manhattan'"):
        similarity([[1.0], [2.0], [3.0]], [[0, 1, 2]], 1, metric="manhattan")
