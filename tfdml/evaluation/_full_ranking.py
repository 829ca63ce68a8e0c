"""Where the right answers stand in the ranking of the whole gallery, without sorting or keeping it. NumPy only.

The nearest R neighbours of a query are found by `NearestRows`; MAP and MRR also ask for right answers that come much later.
For these a float64 product gives all distances of a block of queries, one sort of each row says how many are nearer than each
right answer, and what lies within the product's error of one is compared by differences.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfdml.evaluation._exclusion import Exclusion
from tfdml.evaluation._ties import Groups, precision_sum, reciprocal_rank
from tfdml.index._nearest import in_threads
from tfdml.index.base import Floats, Integers

Doubles = npt.NDArray[np.float64]

_ERROR = 1e-13  # of a float64 product of some hundred terms, as a share of the norms


def full_ranking_figures(
    queries: Floats,
    items: Floats,
    classes: Integers,
    gallery_classes: Integers,
    answers: Integers,
    excluded: Exclusion,
    ties: str,
    block_bytes: int,
) -> dict[str, Doubles]:
    """`map` and `mrr` of each query; NaN for one without an answer."""
    rows = _Rows(items)
    members = np.argsort(gallery_classes, kind="stable")
    ordered = gallery_classes[members]
    asked = np.flatnonzero(answers > 0)
    height = max(1, block_bytes // (24 * len(items)))
    values = {name: np.full(len(queries), np.nan) for name in ("map", "mrr")}

    def block(start: int) -> tuple[Integers, list[tuple[float, float]]]:
        some = asked[start : start + height]
        squares, error = rows.squares(queries[some])
        squares[excluded.rows(some)] = np.inf
        in_order = np.sort(squares, axis=1)
        found = []
        for place, query in enumerate(some):
            first, last = np.searchsorted(ordered, [classes[query], classes[query] + 1])
            right = members[first:last]
            right = right[np.isfinite(squares[place, right])]
            mine = _groups(rows, queries[query], squares[place], in_order[place], right, error[place], ties)
            found.append((precision_sum(mine, len(items), ties) / len(right), reciprocal_rank(mine, ties)))
        return some, found

    for some, found in in_threads(block, range(0, len(asked), height)):
        values["map"][some], values["mrr"][some] = np.array(found).T
    return values


def _groups(
    rows: _Rows, query: Floats, squares: Doubles, in_order: Doubles, right: Integers, error: float, ties: str
) -> Groups:
    """The groups of equal distance that hold right answers."""
    distances = squares[right]
    nearer = np.searchsorted(in_order, distances - error, side="left")
    unsure = np.searchsorted(in_order, distances + error, side="right") - nearer > 1
    if unsure.any():
        # Everything that the product cannot tell from a right answer, by differences.
        sorted_right = np.sort(distances[unsure])
        near = np.searchsorted(sorted_right, squares - error, side="left") < np.searchsorted(
            sorted_right, squares + error, side="right"
        )
        close = np.flatnonzero(near)
        squares[close] = rows.exact(query, close)
        distances, in_order = squares[right], np.sort(squares)
        nearer = np.searchsorted(in_order, distances, side="left")
    size = np.searchsorted(in_order, distances, side="right") - nearer
    if ties != "number":
        before, first, count = np.unique(nearer, return_index=True, return_counts=True)
        return Groups(before, size[first], count)
    for one in np.flatnonzero(size > 1):
        nearer[one] += np.count_nonzero(np.flatnonzero(squares == distances[one]) < right[one])
    nearer.sort()
    return Groups(nearer, np.ones_like(nearer), np.ones_like(nearer))


class _Rows:
    """All squared distances of a block of queries, and how far off they may be."""

    def __init__(self, items: Floats) -> None:
        self._items = items
        self._center: Doubles = items.mean(axis=0, dtype=np.float64)
        self._centred = items - self._center
        self._norms = np.einsum("nd,nd->n", self._centred, self._centred)

    def squares(self, queries: Floats) -> tuple[Doubles, Doubles]:
        centred = queries - self._center
        own = np.einsum("nd,nd->n", centred, centred)
        result = centred @ self._centred.T
        result *= -2
        result += own[:, None]
        result += self._norms
        return result, 4 * _ERROR * (own + self._norms.max())

    def exact(self, query: Floats, numbers: Integers) -> Doubles:
        result = np.empty(len(numbers))
        for start in range(0, len(numbers), 4096):
            difference = np.subtract(self._items[numbers[start : start + 4096]], query, dtype=np.float64)
            np.einsum("nd,nd->n", difference, difference, out=result[start : start + 4096])
        return result
