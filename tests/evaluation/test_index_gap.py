"""What an approximate index misses, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfdml.evaluation import index_gap
from tfdml.index import AnnoyIndex, ExactIndex, SearchResult


class Misses:
    """An index that leaves out every third item."""

    def __init__(self, exact):
        self._exact = exact
        self.dimension, self.metric, self.ids = exact.dimension, exact.metric, exact.ids

    def __len__(self):
        return len(self._exact)

    def search(self, queries, k):
        found = self._exact.search(queries, len(self))
        kept = [[place for place, number in enumerate(row) if number % 3][:k] for row in found.numbers]
        return SearchResult(
            *(np.take_along_axis(part, np.array(kept), axis=1) for part in (found.numbers, found.ids, found.distances))
        )


def data(seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(60, 4)), [f"item-{i}" for i in range(60)], random.normal(size=(25, 4))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_agrees_with_counting(metric) -> None:
    items, ids, queries = data()
    exact = ExactIndex(items, ids, metric)
    labels, gallery_labels = np.arange(25) % 3, np.arange(60) % 5
    gap = index_gap(Misses(exact), exact, queries, labels, gallery_labels, ks=(1, 4))
    truth = exact.search(queries, 60)
    for k in (1, 4):
        shares, ratios, lost = [], [], []
        for row, distances, label in zip(truth.numbers, truth.distances, labels, strict=True):
            mine = [number for number in row if number % 3][:k]
            shares.append(len(set(mine) & set(row[:k])) / k)
            ratios.append(distances[list(row).index(mine[-1])] / distances[k - 1])
            lost.append(int(any(gallery_labels[row[:k]] == label)) - int(any(gallery_labels[mine] == label)))
        assert gap.found_at[k].value == pytest.approx(np.mean(shares))
        assert gap.found_at[k].low < np.mean(shares) < gap.found_at[k].high
        assert gap.all_found_at[k] == np.mean(np.array(shares) == 1)
        assert gap.worst_at[k] == min(shares)
        assert gap.farther_at[k] == pytest.approx(np.mean(ratios), rel=1e-5)
        assert gap.recall_lost_at[k].value == pytest.approx(np.mean(lost))
    assert gap.figures("val_")["val_index_recall_at_4"] == gap.found_at[4].value
    assert "25 queries, 60 items" in str(gap)


def test_exact_search_has_no_gap_and_copies_are_no_misses() -> None:
    items, ids, queries = data()
    exact = ExactIndex(items, ids)
    gap = index_gap(exact, exact, queries)
    assert gap.found_at[10][:3] == (1, 1, 1)
    assert gap.farther_at == {1: 1, 10: 1}
    copies = ExactIndex(np.repeat(items[:20], 3, axis=0), ids)
    assert index_gap(Misses(copies), copies, queries, ks=2).found_at[2].value == 1


def test_an_annoy_index() -> None:
    items, ids, queries = data()
    gap = index_gap(AnnoyIndex.build(items, ids, recall=0.95), ExactIndex(items, ids), queries, ks=(5,))
    assert gap.found_at[5].value >= 0.9


def test_bad_input() -> None:
    items, ids, queries = data()
    exact = ExactIndex(items, ids)
    for arguments, message in [
        ((ExactIndex(items[:9], ids[:9]), exact, queries), "it holds 60 items, not the same as the 9 of index"),
        ((ExactIndex(items, ids, "euclidean"), exact, queries), "cosine distance in 4 dimensions, index has euclidean"),
        ((exact, exact, queries[:, :3]), r"expected shape \[B, 4\]"),
        ((exact, exact, queries, np.zeros(25, int)), "gallery_labels=None"),
    ]:
        with pytest.raises(ValueError, match=message):
            index_gap(*arguments)
    with pytest.raises(ValueError, match="only 60 items"):
        index_gap(exact, exact, queries, ks=(61,))
