"""Exact search over the items that are not in the immutable index: those that were added or changed since it was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml.bundle.catalogue import Value
from tfdml_serving.engine.nearest import BLOCK, Doubles, Floats, Integers, candidates, product_error, squared_distances

_PER_PAGE = 4 * BLOCK

Selection = Callable[[int], npt.NDArray[np.bool_]]


class Row(NamedTuple):
    """An item as it was put or changed; a later state of it is another row.

    Args:
        item: its id and fields.
        number: its number in the bundle, if it is there too; -1 if it is not.
        has_thumbnail: whether the living catalogue has a picture of it.
        of_bundle: whether it is the bundle's item with other fields: it keeps its vector and its picture.
    """

    item: Mapping[str, Value]
    number: int
    has_thumbnail: bool
    of_bundle: bool


class Delta:
    """Rows that are only ever appended and struck out; one thread changes them while any number search.

    Vectors lie in pages that are allocated once and never moved. A row is complete before the count that makes it visible is
    raised, and striking it out is one byte: searches need no lock. What is struck out stays in its place until the whole is
    made anew (`compacted`).

    Args:
        dimension: of the vectors.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.rows: list[Row] = []
        self.alive = 0
        self._pages: list[_Page] = []
        self._count = 0
        self._longest = 0.0

    def __len__(self) -> int:
        """Rows, also those that are struck out."""
        return self._count

    def append(self, row: Row, vector: Floats | None) -> int:
        """Adds a row; without a vector it is listed and never found. Returns its place."""
        page, place = divmod(self._count, _PER_PAGE)
        if page == len(self._pages):
            self._pages.append(_Page(self.dimension))
        self._pages[page].set(place, vector)
        if vector is not None:
            self._longest = max(self._longest, float(np.linalg.norm(vector.astype(np.float64))))
        self.rows.append(row)
        self.alive += 1
        self._count += 1
        return self._count - 1

    def strike(self, place: int) -> None:
        """Takes a row out of every later search."""
        page, within = divmod(place, _PER_PAGE)
        self._pages[page].strike(within)
        self.alive -= 1

    def is_alive(self, place: int) -> bool:
        return bool(self._pages[place // _PER_PAGE].alive[place % _PER_PAGE])

    def vector(self, place: int) -> Floats | None:
        page, within = divmod(place, _PER_PAGE)
        return self._pages[page].vectors[within].copy() if self._pages[page].searchable[within] else None

    def living(self, count: int | None = None) -> Integers:
        """Places of the rows that are not struck out, among the first `count`."""
        return np.flatnonzero(self._flags("alive", len(self) if count is None else count))

    def search(
        self, query: Floats, k: int, selected: Selection | None = None, bound: float = np.inf
    ) -> tuple[Integers, Doubles]:
        """The k nearest rows, or as many as there are: their places and squared distances, in no order, k or a few more.

        An item whose state changes meanwhile may be there with both; whoever merges takes the later row.

        Args:
            query: `[D]`.
            k: how many.
            selected: says of the first so many rows which may be found; None for all.
            bound: rows whose squared distance is larger need not be found.
        """
        scores = np.zeros(0, np.float32)
        # A row that was struck out while it was compared has a successor, which was appended before: look again.
        while len(scores) < (count := self._count):
            more = self._scores(query, len(scores), count)
            if selected is not None:
                more[~selected(count)[len(scores) :]] = np.inf
            scores = np.concatenate([scores, more])
        error = product_error(self._longest, query)
        # |v - q|^2 / 2 is the score and |q|^2 / 2.
        most = (bound - float(np.dot(query.astype(np.float64), query.astype(np.float64)))) / 2
        found = np.flatnonzero(scores <= most + error + 2.0**-22 * abs(most)) if bound < np.inf else np.arange(len(scores))
        if len(found):
            found = found[candidates(scores[found], k, error)]
        return found, squared_distances(self._vectors(found), query)

    def _scores(self, query: Floats, start: int, end: int) -> Floats:
        scores = np.empty(end - start, np.float32)
        while start < end:
            page, within = divmod(start, _PER_PAGE)
            step = min(BLOCK - within % BLOCK, end - start)
            self._pages[page].scores(query, within, within + step, scores[len(scores) - (end - start) :][:step])
            start += step
        return scores

    def compacted(self, keep: Integers) -> Delta:
        """A new one with some of the rows, in the given order."""
        result = Delta(self.dimension)
        for place in keep.tolist():
            result.append(self.rows[place], self.vector(place))
        return result

    def _vectors(self, places: Integers) -> Floats:
        result = np.empty((len(places), self.dimension), np.float32)
        pages = places // _PER_PAGE
        for page in np.unique(pages).tolist():
            here = pages == page
            result[here] = self._pages[page].vectors[places[here] % _PER_PAGE]
        return result

    def _flags(self, name: str, count: int) -> npt.NDArray[np.bool_]:
        parts: list[Any] = [getattr(page, name) for page in self._pages[: -(-count // _PER_PAGE)]]
        return np.concatenate(parts)[:count] if parts else np.zeros(0, bool)


class _Page:
    """So many rows, allocated at once."""

    def __init__(self, dimension: int) -> None:
        self.vectors: Floats = np.zeros((_PER_PAGE, dimension), np.float32)
        # Infinite where there is nothing to find: then so is the score, and no mask is needed.
        self._halves: Floats = np.full(_PER_PAGE, np.inf, np.float32)
        self.alive = np.zeros(_PER_PAGE, bool)
        self.searchable = np.zeros(_PER_PAGE, bool)

    def set(self, place: int, vector: Floats | None) -> None:
        if vector is not None:
            self.vectors[place] = vector
            self.searchable[place] = True
            with np.errstate(over="ignore"):
                self._halves[place] = np.einsum("d,d->", vector, vector, dtype=np.float64) / 2
        self.alive[place] = True

    def strike(self, place: int) -> None:
        self._halves[place] = np.inf
        self.alive[place] = False

    def scores(self, query: Floats, start: int, end: int, out: Floats) -> None:
        np.subtract(self._halves[start:end], self.vectors[start:end] @ query, out=out)
