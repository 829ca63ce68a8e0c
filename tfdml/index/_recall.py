"""How many candidates must a search look at? Measured, not guessed.

An item of the gallery is an easy query: the trees were split around it, the centres of lists lie near it. Queries that an index
has never seen find less (a point or two of recall on random vectors). So `search_k` is chosen on a twin: an index of the same
kind that was built without some of the items, which then are the queries. Half of them choose, the other half confirm, so that
the recall that is reported is not the one that was picked for being high enough. The index itself is measured too, on its own
items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tfdml.index._nearest import NearestRows
from tfdml.index.base import Floats, Integers, SearchResult

_SAMPLE = 512
_TOO_FEW_FOR_A_TWIN = 64


class ChosenWidth(NamedTuple):
    search_k: int
    recall: float
    queries: int


class Tunable(Protocol):
    """What is measured."""

    @property
    def metric(self) -> str: ...
    def __len__(self) -> int: ...
    def search(self, queries: npt.ArrayLike, k: int, search_k: int | None = None) -> SearchResult: ...


def choose_search_k(
    index: Tunable,
    rows: Floats,
    queries: Floats | None,
    twin_of: Callable[[Floats], Tunable],
    *,
    asked: float,
    fixed: int | None,
    trees: int,
    at: int,
    seed: int,
    way_out: str,
) -> ChosenWidth:
    """The smallest `search_k`, to about a tenth, whose recall is at least `asked`.

    Args:
        index: the index over `rows`.
        rows: what `index` holds.
        queries: the caller's own, else items that a twin of the index has not seen.
        twin_of: builds an index of the same kind over other rows.
        asked: the recall to reach, in (0, 1].
        fixed: a given `search_k`, which is measured only.
        trees: number of trees; with `len(rows) * trees` candidates Annoy opens every leaf. 1 for an index without trees, which
            looks at everything with `len(rows)` candidates.
        at: number of neighbours that are counted.
        seed: of the sample.
        way_out: what the error advises.

    Raises:
        ValueError: if the recall is not reached.
    """
    everything = len(rows) * trees
    random = np.random.default_rng(seed)
    items = np.sort(random.permutation(len(rows))[:_SAMPLE])
    own = Sample(index, rows, rows[items], at, items)
    if queries is not None:
        queries = queries[random.permutation(len(queries))[:_SAMPLE]]
        halves = [Sample(index, rows, part, at) for part in _halves(queries)]
    elif len(rows) < _TOO_FEW_FOR_A_TWIN:
        halves = [own, own]
    else:
        unseen = random.permutation(len(rows))[: min(_SAMPLE, len(rows) // 4)]
        kept = np.delete(rows, unseen, axis=0)
        twin = twin_of(kept)
        halves = [Sample(twin, kept, part, at) for part in _halves(rows[unseen])]
    tuning, check = halves

    if fixed is None:
        low, high = 0, min(everything, at * trees)
        while tuning.recall(high) < asked and high < everything:
            low, high = high, min(2 * high, everything)
        while high - low > max(1, high // 10):
            middle = (low + high) // 2
            low, high = (low, middle) if tuning.recall(middle) >= asked else (middle, high)
    else:
        high = fixed
    while (reached := min(check.recall(high), own.recall(high))) < asked:
        if fixed is not None or high >= everything:
            raise ValueError(
                f"recall={asked}: search_k={high}{f' with {trees} trees' if trees > 1 else ''} reaches a recall@{at} of "
                f"{reached:.3f} against exact search. {way_out}"
            )
        high = min(high + max(1, high // 8), everything)
    return ChosenWidth(high if fixed else max(high, at), reached, len(check.queries))


class Sample:
    """Queries with their exact neighbours. `items`: the numbers of queries that are items, and no answers to themselves."""

    def __init__(self, index: Tunable, rows: Floats, queries: Floats, at: int, items: Integers | None = None) -> None:
        self.queries = queries
        self._index, self._items = index, items
        self._k = min(at, len(rows) - (items is not None)) or 1  # a single item is its own answer
        self._items = None if len(rows) == 1 else items
        found = list(NearestRows(rows).search(queries, self._k, self._items))
        farthest = np.concatenate([block.squared_distances[:, -1] for block in found])
        self._farthest = np.sqrt(farthest) if index.metric == "euclidean" else farthest / 2

    def recall(self, search_k: int) -> float:
        """Share of the k returned items that are no farther than the k-th true neighbour: a tie is not a miss."""
        found = self._index.search(self.queries, self._k + (self._items is not None), search_k=search_k)
        near = found.distances <= self._farthest[:, None] * (1 + 1e-6) + 1e-12
        if self._items is not None:
            near &= found.numbers != self._items[:, None]
        hits = np.minimum(near.sum(axis=1), self._k)
        return float(hits.mean()) / self._k


def _halves(queries: Floats) -> tuple[Floats, Floats]:
    """Of a single query, twice the same."""
    middle = len(queries) // 2
    return (queries[:middle], queries[middle:]) if middle else (queries, queries)


def recall_at(count: int) -> int:
    """At how many neighbours the recall of an index of so many items is measured."""
    return max(1, min(10, count - 1))


def check_recall(recall: object) -> None:
    if isinstance(recall, bool) or not isinstance(recall, (int, float)) or not 0 < recall <= 1:
        raise ValueError(f"recall={recall!r}: expected a share above 0 and up to 1, such as 0.95.")


def check_seed(seed: object, limit: int = 2**32) -> None:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < limit:
        raise ValueError(f"seed={seed!r}: expected a whole number from 0 to {limit - 1}.")


def check_width(search_k: object) -> None:
    if search_k is None:
        return
    if isinstance(search_k, bool) or not isinstance(search_k, (int, np.integer)) or search_k < 1:
        raise ValueError(f"search_k={search_k!r}: expected a whole number >= 1, or None to choose it.")
