"""What the indexes have in common whose library only says which items are near: the vectors themselves decide the order."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.index._measured import MeasuredIndex, Spec
from tfdml.index._nearest import squared_distances
from tfdml.index.base import Floats, IndexFormatError, Integers

_QUERIES_AT_ONCE = 256
_TESTED = 16
_LOOKED_AT_IN_A_TEST = 256


class ComparedIndex(MeasuredIndex[Spec]):
    """Base class of `FaissIndex` and `MilvusIndex`. A subclass looks at items, with `_looked_at`."""

    @abc.abstractmethod
    def _looked_at(self, batch: Floats, wanted: int, width: int) -> Sequence[Integers]:
        """For each query the numbers of the `wanted` nearest as the library sees them, or fewer, after looking at `width`."""

    def gather(self, numbers: npt.NDArray[np.integer[Any]]) -> Floats:
        """As `vectors` of some items."""
        return self._vectors.take(numbers, axis=0).astype(np.float32, copy=False)

    def candidates(self, query: list[float], count: int, search_k: int) -> Integers:
        """Numbers of up to `count` items near one query, nearest first by exact differences.

        For whoever passes over some of them, such as a search with a filter; `search` is what finds k neighbours. Nothing is
        checked here: the query has `dimension` finite numbers, and length 1 under cosine.
        """
        vector = np.asarray([query], np.float32)
        found = np.sort(self._looked_at(vector, min(count, len(self)), search_k)[0])
        distances = squared_distances(self._vectors, found, vector[0])
        return found[np.argsort(distances, kind="stable")[:count]]

    def _found(self, batch: Floats, k: int, width: int) -> Iterable[Integers]:
        wanted = min(len(self), compared(k))
        for start in range(0, len(batch), _QUERIES_AT_ONCE):
            part = batch[start : start + _QUERIES_AT_ONCE]
            for query, first in zip(part, self._looked_at(part, wanted, width), strict=True):
                found, wider = first, width
                while len(found) < k:  # lists that hold too few, or a part of the graph that nothing leads to
                    wider = min(4 * max(wider, wanted), len(self))
                    found = self._looked_at(query[None], wanted, wider)[0]
                yield np.sort(found)

    def _self_test(self) -> None:
        """Searches for some items: n of n neighbours must come back, and most of them find themselves, or a copy."""
        numbers = np.unique(np.linspace(0, len(self) - 1, _TESTED).astype(int))
        width = max(self._spec.search_k, _LOOKED_AT_IN_A_TEST)
        own = 0
        for number, found in zip(numbers, self._found(self.gather(numbers), min(10, len(self)), width), strict=True):
            if len(np.unique(found)) != len(found) or found[0] < 0 or found[-1] >= len(self):
                raise IndexFormatError(f"{self._path}: a search for item {number} returned items twice, or none that exists.")
            own += int(squared_distances(self._vectors, found, self._vectors[number]).min() == 0)
        if own < len(numbers) / 2:
            raise IndexFormatError(f"{self._path}: items do not find themselves. The index is not that of its vectors.")


def compared(k: int) -> int:
    """How many are compared exactly for the k nearest: a library's own float32 order is wrong among near-duplicates."""
    return 2 * k + 16
