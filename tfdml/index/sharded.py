"""Several indexes over parts of a gallery, searched as one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from tfdml.index._ids import PackedIds
from tfdml.index._nearest import k_smallest, squared_distances
from tfdml.index.base import Floats, Integers, SearchResult, check_k, check_queries
from tfdml.index.exact import distances_from_squares
from tfdml.index.stored import StoredIndex


class ShardedIndex:
    """Searches every shard and merges what they find: one `VectorIndex` over all of their items.

    Each shard is asked for its own k nearest, so the merge loses nothing that the shards find: over exact shards the answers
    are those of one exact index, ties included. Items are numbered through the shards in order.

    Args:
        shards: indexes of one dimension and metric, of any backend; no id is in two of them.

    Raises:
        ValueError: for no shard, shards that do not go together, and an id that is in two of them.

    Example:
        >>> from tfdml.index import ExactIndex, ShardedIndex
        >>> index = ShardedIndex([ExactIndex([[0.0], [4.0]], ["a", "b"], "euclidean"), ExactIndex([[1.0]], ["c"], "euclidean")])
        >>> index.search([0.9], k=2).ids[0].tolist()
        ['c', 'a']
    """

    def __init__(self, shards: Sequence[StoredIndex]) -> None:
        if not shards:
            raise ValueError("shards: received none. Expected at least one index.")
        for number, shard in enumerate(shards):
            if (shard.dimension, shard.metric) != (shards[0].dimension, shards[0].metric):
                raise ValueError(
                    f"shards: shard {number} has dimension={shard.dimension} and metric={shard.metric!r}, the first one "
                    f"{shards[0].dimension} and {shards[0].metric!r}. Expected the same of all."
                )
        self._shards = tuple(shards)
        self._ids = PackedIds(chain.from_iterable(shard.ids for shard in shards))
        self._ends = np.cumsum([len(shard) for shard in shards])

    @property
    def dimension(self) -> int:
        return self._shards[0].dimension

    @property
    def metric(self) -> str:
        return self._shards[0].metric

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    @property
    def shards(self) -> tuple[StoredIndex, ...]:
        return self._shards

    def __len__(self) -> int:
        return int(self._ends[-1])

    def vectors(self, numbers: npt.ArrayLike) -> Floats:
        """The stored vectors of some items (of length 1 under cosine)."""
        wanted = np.asarray(numbers, np.int64)
        flat = wanted.ravel()
        which = np.searchsorted(self._ends, flat, "right")
        found = np.empty((len(flat), self.dimension), np.float32)
        for number in np.unique(which):
            here = which == number
            found[here] = self._shards[number].vectors(flat[here] - self._start(number))
        return found.reshape(*wanted.shape, self.dimension)

    def search(self, queries: npt.ArrayLike, k: int = 10) -> SearchResult:
        """The k nearest items of each query, as far as the shards find them.

        Args:
            queries: `[B, D]`, or one query `[D]`.
            k: 1 to the number of items.

        Raises:
            ValueError: as the shards' own `search`.
        """
        batch = check_queries(queries, self.dimension, self.metric)
        k = check_k(k, len(self))
        found = [shard.search(batch, min(k, len(shard))) for shard in self._shards]
        numbers = np.concatenate([part.numbers + self._start(i) for i, part in enumerate(found)], axis=1)
        distances = np.concatenate([part.distances for part in found], axis=1)
        order = np.lexsort((numbers, distances), axis=1)
        numbers, distances = (np.take_along_axis(values, order, axis=1) for values in (numbers, distances))
        # Rounding to float32 keeps the order but for ties that it makes; these rows are ordered by what they were before.
        tied = np.flatnonzero((np.diff(distances[:, : k + 1], axis=1) == 0).any(axis=1))
        for row in tied:
            numbers[row, :k], distances[row, :k] = self._settled(batch[row], np.sort(numbers[row]), k)
        numbers, distances = numbers[:, :k], distances[:, :k]
        return SearchResult(np.ascontiguousarray(numbers), self._ids.take(numbers), np.ascontiguousarray(distances))

    def _settled(self, query: Floats, numbers: Integers, k: int) -> tuple[Integers, Floats]:
        squares = squared_distances(self.vectors(numbers), np.arange(len(numbers)), query)
        order, nearest = k_smallest(squares, k)
        return numbers[order], distances_from_squares(nearest, self.metric)

    def _start(self, shard: int) -> int:
        return int(self._ends[shard]) - len(self._shards[shard])

    def __repr__(self) -> str:
        kinds = ", ".join(sorted({shard.kind for shard in self._shards}))
        return f"ShardedIndex({len(self)} items in {len(self._shards)} shards of {kinds}, dimension={self.dimension})"
