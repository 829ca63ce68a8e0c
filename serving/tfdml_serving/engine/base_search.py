"""Search in the immutable index, in all of it or in what a filter selects, without what was removed since it was made.

Two ways, chosen for each search by what they would cost. **Exact**: every selected vector is compared, straight from the mapped
file. **By the index** (Annoy's trees, FAISS's graph or lists): it gives the nearest of all items, and those that are not wanted
are passed over; the fewer are wanted, the more candidates it takes. The index's own setting was measured for the `recall_at`
nearest of all items; if the k-th wanted item comes at rank r of the candidates, they were enough only if so many were looked at
as that setting asks for r neighbours; otherwise more are looked at, until they are enough or an exact search is cheaper.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from tfdml.index import StoredIndex
from tfdml_serving.engine.nearest import BLOCK, Doubles, Floats, Integers, candidates, product_error, squared_distances
from tfdml_serving.engine.selection import Selected
from tfdml_serving.errors import IndexUnavailable

# Up to so many values (200,000 x 128) a filter's items are compared one by one whatever the trees would cost: some 15 ms, and
# no neighbour is missed. Where few are selected the neighbours lie outside of the query's own cluster, which is where trees
# find least: a tenth of 1,000,000 x 128 with 144,000 candidates gave a recall of 0.85 in three times the time.
_ALWAYS_EXACT = 200_000 * 128
# What an index costs, by its kind, in comparisons of a vector: to be asked at all, and each of its candidates. Measured by
# benchmarks/index_backends.py at 100,000 x 128 on two cores, where a comparison took some 0.045 us. An exact index has no
# cheaper way than comparing. Nor has Milvus Lite: it walks through all items at each query, in Python, at 1.2 us each.
_CALL_COST = {"annoy": 800.0, "hnsw": 3000.0, "ivf": 3000.0, "ivf_sq": 1500.0, "ivf_pq": 5000.0}
_CANDIDATE_COST = {"annoy": 2.7, "hnsw": 60.0, "ivf": 2.6, "ivf_sq": 1.2, "ivf_pq": 4.2}
_CANDIDATE_COST |= dict.fromkeys(("milvus_flat", "milvus_hnsw", "milvus_ivf", "milvus_ivf_sq"), np.inf)
_ROWS_PER_TASK = 16 * BLOCK
_SCORES_IN_FLIGHT = 8 << 20


class BaseSearch:
    """Searches the index of a bundle.

    Attributes:
        gone: for each item whether it was removed, or replaced by an item of the living catalogue, since. One thread may
            change it while others search.
    """

    def __init__(self, index: StoredIndex) -> None:
        self._index = index
        self._vectors = index.vectors()
        self.gone = np.zeros(len(index), bool)
        self.gone_count = 0
        # Half the squared length of each vector, computed when it is first compared; NaN before.
        self._halves: Floats = np.full(len(index), np.nan, np.float32)
        self._longest = 1.0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 8), thread_name_prefix="search")

    def remove(self, number: int) -> None:
        """No search that starts after this finds the item."""
        if not self.gone[number]:
            self.gone_count += 1
            self.gone[number] = True

    def search(self, queries: Floats, k: int, selected: Selected | None) -> list[tuple[Integers, Doubles]]:
        """For each query the k nearest, or as many as there are: numbers and squared distances, in no order, k or more."""
        count = len(self._index) if selected is None else selected.count
        there = count * (1 - self.gone_count / len(self._index))
        found: list[tuple[Integers, Doubles] | None] = [self._by_index(query, k, selected, there) for query in queries]
        left = [row for row, one in enumerate(found) if one is None]
        step = max(1, _SCORES_IN_FLIGHT // max(count, 1))
        for start in range(0, len(left), step):
            part = left[start : start + step]
            for row, one in zip(part, self._exactly(queries[part], k, selected), strict=True):
                found[row] = one
        return [one for one in found if one is not None]

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _by_index(self, query: Floats, k: int, selected: Selected | None, there: float) -> tuple[Integers, Doubles] | None:
        """By the index; None where an exact search is cheaper."""
        items, spec = len(self._index), self._index.spec
        most = self._affordable(selected)
        rank = k * items / max(there, 1.0)
        vector: list[float] | None = None
        while True:
            width = int(spec.search_k * max(rank, spec.recall_at) / spec.recall_at)
            if width > most:
                return None
            wanted = min(items, int(1.5 * rank) + 16)
            vector = query.tolist() if vector is None else vector
            try:
                numbers = self._index.candidates(vector, wanted, max(width, wanted))
            except ConnectionError as error:
                raise IndexUnavailable("The cluster that holds the index of this version does not answer.") from error
            usable = self._wanted(numbers, selected)
            places = np.flatnonzero(usable)
            if len(places) >= k:
                reached = int(places[k - 1]) + 1
                if reached <= 1.05 * max(rank, spec.recall_at) or len(numbers) >= items:
                    chosen = numbers[usable][: 2 * k + 16]
                    return chosen, squared_distances(self._vectors[chosen], query)
                rank = reached
            else:
                rank = max(2 * rank, wanted)

    def _affordable(self, selected: Selected | None) -> float:
        """How many candidates the index may look at before an exact search is the better way."""
        kind = self._index.kind
        if getattr(self._index.spec, "cluster", 0):
            kind = kind.removeprefix("milvus_")  # as FAISS's of the kind: what a cluster costs is not known here
        count = len(self._index) if selected is None else selected.count
        if selected is not None and count * self._index.dimension <= _ALWAYS_EXACT:
            return 0.0
        return max(0.0, count - _CALL_COST.get(kind, 0.0)) / _CANDIDATE_COST.get(kind, np.inf)

    def _wanted(self, numbers: Integers, selected: Selected | None) -> npt.NDArray[np.bool_]:
        wanted = ~self.gone[numbers]
        return wanted if selected is None else wanted & selected.has(numbers)

    def _exactly(self, queries: Floats, k: int, selected: Selected | None) -> list[tuple[Integers, Doubles]]:
        count = len(self._index) if selected is None else selected.count
        if not count:
            return [(np.zeros(0, np.int64), np.zeros(0)) for _ in queries]
        columns = np.ascontiguousarray(queries.T)
        scores = np.empty((count, len(queries)), np.float32)

        def part(start: int) -> None:
            for first in range(start, min(start + _ROWS_PER_TASK, count), BLOCK):
                rows = slice(first, min(first + BLOCK, count))
                numbers = rows if selected is None else selected.numbers[rows]
                block = self._vectors[rows] if selected is None else self._index.gather(selected.numbers[rows])
                half, gone = self._halves[numbers], self.gone[numbers]
                if np.isnan(half).any():
                    half = self._half_squares(block)
                    self._halves[numbers] = half
                np.subtract(half[:, None], block @ columns, out=scores[rows])
                if gone.any():
                    scores[rows][gone] = np.inf

        starts = range(0, count, _ROWS_PER_TASK)
        list(self._pool.map(part, starts) if len(starts) > 1 else map(part, starts))
        result = []
        for row, query in enumerate(queries):
            places = candidates(scores[:, row], k, product_error(self._longest, query))
            found = places if selected is None else selected.numbers[places].astype(np.int64)
            result.append((found, squared_distances(self._vectors[found], query)))
        return result

    def _half_squares(self, block: Floats) -> Floats:
        halves: Floats = np.einsum("nd,nd->n", block, block) / 2
        with self._lock:
            self._longest = max(self._longest, float(np.sqrt(2 * halves.max())))
        return halves
