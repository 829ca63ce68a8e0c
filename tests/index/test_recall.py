"""What is counted as found, and on which queries."""

from __future__ import annotations

import numpy as np
import pytest

from tfdml.index import ExactIndex, SearchResult
from tfdml.index._recall import Sample, choose_search_k
from tfdml.index.base import check_vectors


class Forest:
    """Finds the true neighbours, once it looks at `needed` candidates; before that only the query itself and far items."""

    metric = "euclidean"

    def __init__(self, rows, needed):
        self._index, self.needed = ExactIndex(rows, [str(number) for number in range(len(rows))], self.metric), needed

    def __len__(self):
        return len(self._index)

    def search(self, queries, k, search_k=None):
        if search_k >= self.needed:
            return self._index.search(queries, k)
        ranked = self._index.search(queries, len(self))
        far = [0, *range(len(self) - k + 1, len(self))]
        return SearchResult(ranked.numbers[:, far], ranked.ids[:, far], ranked.distances[:, far])


@pytest.fixture
def rows():
    return check_vectors(np.random.default_rng(0).normal(size=(200, 6)), "euclidean")


def choose(rows, index, twin_needs, queries=None, fixed=None, asked=0.9):
    seen = []

    def twin_of(kept):
        seen.append(kept)
        return Forest(kept, twin_needs)

    given = {"asked": asked, "fixed": fixed, "trees": 10, "at": 10, "seed": 0, "way_out": "Build more trees."}
    chosen = choose_search_k(index, rows, queries, twin_of, **given)
    return chosen, seen


def test_a_query_is_no_answer_to_itself(rows) -> None:
    items = np.arange(0, 200, 10)
    sample = Sample(Forest(rows, 5), rows, rows[items], 10, items)
    assert sample.recall(4) == 0.0
    assert sample.recall(5) == 1.0


def test_the_width_is_chosen_on_a_twin_that_has_not_seen_the_queries(rows) -> None:
    chosen, (kept,) = choose(rows, Forest(rows, needed=20), twin_needs=700)
    assert kept.shape == (150, 6)
    assert 700 <= chosen.search_k <= 800
    assert (chosen.recall, chosen.queries) == (1.0, 25)


def test_the_index_itself_must_reach_the_recall_too(rows) -> None:
    chosen, _ = choose(rows, Forest(rows, needed=900), twin_needs=20)
    assert 900 <= chosen.search_k <= 1050
    with pytest.raises(ValueError, match=r"reaches a recall@10 of 0.000 .*Build more trees"):
        choose(rows, Forest(rows, needed=10**6), twin_needs=20)


def test_no_twin_for_the_callers_queries_or_a_handful_of_items(rows) -> None:
    queries = check_vectors(np.random.default_rng(1).normal(size=(30, 6)), "euclidean")
    chosen, seen = choose(rows, Forest(rows, needed=300), twin_needs=1, queries=queries)
    assert 300 <= chosen.search_k <= 330
    assert (chosen.queries, seen) == (15, [])
    chosen, seen = choose(rows[:40], Forest(rows[:40], needed=77), twin_needs=1)
    assert 77 <= chosen.search_k <= 85
    assert (chosen.queries, seen) == (40, [])


def test_a_fixed_width_is_measured_not_changed(rows) -> None:
    chosen, _ = choose(rows, Forest(rows, needed=50), twin_needs=50, fixed=60)
    assert (chosen.search_k, chosen.recall) == (60, 1.0)
    with pytest.raises(ValueError, match=r"search_k=40 with 10 trees reaches a recall@10 of 0.000"):
        choose(rows, Forest(rows, needed=50), twin_needs=50, fixed=40)
