"""How many candidates must a search look at? Measured, not guessed.

An item of the gallery is an easy query: the trees were split around it, the centres of lists lie near it. Queries that an index
has never seen find less (a point or two of recall on random vectors). So `search_k` is chosen on a twin: an index of the same
kind that was built without some of the items, which then are the queries. Half of them choose, the other half confirm, so that
the recall that is reported is not the one that was picked for being high enough. The index itself is measured too, on its own
items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tfdml.index._nearest import NearestRows
from tfdml.index.base import Floats, Integers, SearchResult, normalized

_SAMPLE = 512
_BLOCK = 65_536
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
    unseen: Integers | None = None,
) -> ChosenWidth:
    """The smallest `search_k`, to about a tenth, whose recall is at least `asked`.

    Args:
        index: the index over `rows`.
        rows: what `index` holds; read in blocks, so that it may be mapped from a file.
        queries: the caller's own, else items that a twin of the index has not seen.
        twin_of: builds an index of the same kind over other rows.
        asked: the recall to reach, in (0, 1].
        fixed: a given `search_k`, which is measured only.
        trees: number of trees; with `len(rows) * trees` candidates Annoy opens every leaf. 1 for an index without trees, which
            looks at everything with `len(rows)` candidates.
        at: number of neighbours that are counted.
        seed: of the sample.
        way_out: what the error advises.
        unseen: items that are as good as queries that the index has not seen, no answers to themselves; instead of a twin.

    Raises:
        ValueError: if the recall is not reached.
    """
    everything = len(rows) * trees
    random = np.random.default_rng(seed)
    items = np.sort(random.permutation(len(rows))[:_SAMPLE])
    if queries is not None:
        queries = queries[random.permutation(len(queries))[:_SAMPLE]]
        own, *halves = _samples(
            index, rows, at, [(_taken(index, rows, items), items), *((part, None) for part in _halves(queries))]
        )
    elif unseen is not None:
        chosen = np.sort(random.permutation(unseen)[:_SAMPLE])
        own, *halves = _samples(
            index, rows, at, [(_taken(index, rows, part), part) for part in (items, chosen[::2], chosen[1::2])]
        )
    elif len(rows) < _TOO_FEW_FOR_A_TWIN:
        own = Sample(index, rows, _taken(index, rows, items), at, items)
        halves = [own, own]
    else:
        own = Sample(index, rows, _taken(index, rows, items), at, items)
        unseen = random.permutation(len(rows))[: min(_SAMPLE, len(rows) // 4)]
        kept = np.delete(rows, unseen, axis=0)
        twin = twin_of(kept)
        halves = _samples(twin, kept, at, [(part, None) for part in _halves(_taken(index, rows, unseen))])
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

    def __init__(
        self,
        index: Tunable,
        rows: Floats,
        queries: Floats,
        at: int,
        items: Integers | None = None,
        truth: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.queries = queries
        self._index, self._items = index, items
        self._k = _answers(rows, at, items)
        self._items = None if len(rows) == 1 else items
        if truth is None:
            truth = _nearest(rows, queries, self._k, self._items)
        farthest = truth[:, self._k - 1]
        self._farthest = np.sqrt(farthest) if index.metric == "euclidean" else farthest / 2

    def recall(self, search_k: int) -> float:
        """Share of the k returned items that are no farther than the k-th true neighbour: a tie is not a miss."""
        found = self._index.search(self.queries, self._k + (self._items is not None), search_k=search_k)
        near = found.distances <= self._farthest[:, None] * (1 + 1e-6) + 1e-12
        if self._items is not None:
            near &= found.numbers != self._items[:, None]
        hits = np.minimum(near.sum(axis=1), self._k)
        return float(hits.mean()) / self._k


def _answers(rows: Floats, at: int, items: Integers | None) -> int:
    return min(at, len(rows) - (items is not None)) or 1  # a single item is its own answer


def _samples(index: Tunable, rows: Floats, at: int, parts: Sequence[tuple[Floats, Integers | None]]) -> list[Sample]:
    """Several samples, whose true neighbours are found in one reading of the rows."""
    queries = np.concatenate([part for part, _ in parts])
    items = np.concatenate([np.full(len(part), -1) if own is None else own for part, own in parts])
    truth = _nearest(rows, queries, min(at, len(rows)), None if len(rows) == 1 else items)
    ends = np.cumsum([len(part) for part, _ in parts])
    return [
        Sample(index, rows, part, at, own, truth[end - len(part) : end]) for (part, own), end in zip(parts, ends, strict=True)
    ]


def _nearest(rows: Floats, queries: Floats, k: int, items: Integers | None) -> npt.NDArray[np.float64]:
    """Squared distances `[Q, k]` to the k nearest rows but `items`, in order, from one reading of the rows in blocks."""
    best = np.full((len(queries), k), np.inf)
    for start in range(0, len(rows), _BLOCK):
        block = np.asarray(rows[start : start + _BLOCK], np.float32)
        own = np.full(len(queries), -1) if items is None else items - start
        own[(own < 0) | (own >= len(block))] = -1
        found = NearestRows(block).search(queries, min(k, len(block)), own)
        more = np.concatenate([part.squared_distances for part in found])
        best = np.sort(np.concatenate([best, more], axis=1), axis=1)[:, :k]
    return best


def _taken(index: Tunable, rows: Floats, numbers: Integers) -> Floats:
    """Items as queries; of length 1 under cosine also where they were rounded, as a search makes its queries."""
    taken = np.asarray(rows[numbers], np.float32)
    return normalized(taken) if index.metric == "cosine" and rows.dtype != np.float32 else taken


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
