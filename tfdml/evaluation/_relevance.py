"""nDCG with graded relevance: from classes, from levels of classes, from a matrix or a function. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.evaluation._exclusion import Exclusion
from tfdml.evaluation._labels import class_numbers, shared_class_numbers
from tfdml.evaluation._ties import gains_in_order
from tfdml.index.base import Integers

Doubles = npt.NDArray[np.float64]
Relevance = Callable[[Integers, Integers], Any]


class Gains:
    """Gains of items for queries, and the best DCG that each query can reach.

    Args:
        relevance: see `retrieval`; None for class equality.
        classes: `[Q]`.
        gallery_classes: `[G]`.
        answers: `[Q]`, right answers of each query.
        numbers: `[G]`, how the caller numbers the items; None if queries and items are the same.
        leave_one_out: whether queries and items are the same.
    """

    def __init__(
        self,
        relevance: Any,
        classes: Integers,
        gallery_classes: Integers,
        answers: Integers,
        numbers: Integers,
        total: int,
        leave_one_out: bool,
    ) -> None:
        self._answers, self._numbers = answers, numbers
        self.graded = relevance is not None
        if relevance is None:
            self._function: Relevance = lambda queries, items: classes[queries] == gallery_classes[items]
            self._numbers = np.arange(len(gallery_classes))
        elif callable(relevance):
            self._function = relevance
        elif isinstance(relevance, (list, tuple)):
            self._function = _levels(relevance, classes, gallery_classes, numbers, total, leave_one_out)
        else:
            matrix = np.asarray(relevance)
            if matrix.shape != (len(classes), total):
                raise ValueError(
                    f"relevance: expected a matrix of {len(classes)} queries and {total} items, received shape {matrix.shape}."
                )
            self._function = lambda queries, items: matrix[queries, items]

    def of(self, queries: Integers, items: Integers) -> Doubles:
        """`[n, m]` for queries `[n]` and items `[n, m]`, or items `[1, m]` for all of them."""
        shape = (len(queries), items.shape[1])
        gains = np.asarray(self._function(queries[:, None], self._numbers[items]))
        if gains.shape != shape or gains.dtype.kind not in "biuf":
            raise ValueError(
                f"relevance: it returned shape {gains.shape}, {gains.dtype}, for queries [{shape[0]}, 1] and items "
                f"{items.shape}; expected numbers of shape {shape}."
            )
        gains = gains.astype(np.float64)
        if not np.isfinite(gains).all() or gains.min(initial=0.0) < 0:
            raise ValueError("relevance: received NaN, infinity or a negative gain. Expected finite numbers >= 0.")
        return gains

    def ideal(self, queries: Integers, ks: Sequence[int], count: int, excluded: Exclusion, block_bytes: int) -> Doubles:
        """The best DCG@k, `[n, len(ks)]`."""
        deepest = max(ks)
        result = np.empty((len(queries), len(ks)))
        if not self.graded:
            best = np.append(0.0, np.cumsum(discounts(deepest)))
            for column, k in enumerate(ks):
                result[:, column] = best[np.minimum(self._answers[queries], k)]
            return result
        height = max(1, block_bytes // (32 * count))
        everything = np.arange(count)[None, :]
        for start in range(0, len(queries), height):
            some = queries[start : start + height]
            gains = self.of(some, everything)
            gains[excluded.rows(some)] = 0
            top = -np.sort(np.partition(-gains, deepest - 1, axis=1)[:, :deepest], axis=1)
            for column, k in enumerate(ks):
                result[start : start + height, column] = top[:, :k] @ discounts(k)
        return result

    def dcg(
        self,
        queries: Integers,
        numbers: Integers,
        squares: Doubles,
        beyond: tuple[Integers, Integers],
        ks: Sequence[int],
        ties: str,
    ) -> Doubles:
        """DCG@k of lists that are in order, `[n, len(ks)]`."""
        gains = np.where(np.isfinite(squares), self.of(queries, numbers), 0.0)
        if ties != "number":
            equal = (squares[:, 1:] == squares[:, :-1]).any(axis=1)
            equal[beyond[0]] = True
            for place in np.flatnonzero(equal):
                more = beyond[1][slice(*np.searchsorted(beyond[0], [place, place + 1]))]
                values = np.concatenate([squares[place], np.full(len(more), squares[place, -1])])
                also = self.of(queries[place : place + 1], more[None, :])[0] if len(more) else np.empty(0)
                own = np.concatenate([gains[place], also])
                gains[place] = gains_in_order(values, own, ties)[: gains.shape[1]]
        return np.stack([gains[:, :k] @ discounts(k) for k in ks], axis=1)


def discounts(count: int) -> Doubles:
    """1 / log2(1 + place) for the places 1, 2, ..."""
    return 1 / np.log2(np.arange(2, count + 2))


def check_ideal(ideal: Doubles, queries: Integers) -> None:
    """An error for a query that nothing is relevant to."""
    empty = np.flatnonzero(ideal[:, -1] <= 0)
    if empty.size:
        raise ValueError(
            f"relevance: for query {queries[empty[0]]} no item has a gain above 0, so nDCG means nothing. Items of its class "
            "must have one."
        )


def _levels(
    levels: Sequence[Any], classes: Integers, gallery_classes: Integers, numbers: Integers, total: int, leave_one_out: bool
) -> Relevance:
    """One for each level that two items share, the class itself being the last."""
    pairs: list[tuple[Integers, Integers]] = []
    for place, level in enumerate(levels):
        name = f"relevance[{place}]"
        if leave_one_out:
            own = class_numbers(level, len(classes), name)
            pairs.append((own, own))
        else:
            if not isinstance(level, (list, tuple)) or len(level) != 2:
                raise ValueError(
                    f"{name}: expected a pair (values of the queries, values of the items), as there is a gallery."
                )
            pairs.append(shared_class_numbers(level[0], len(classes), level[1], total, (f"{name}[0]", f"{name}[1]")))
    by_number = np.full(total, -1)
    by_number[numbers] = gallery_classes

    def gains(queries: Integers, items: Integers) -> Doubles:
        result = (classes[queries] == by_number[items]).astype(np.float64)
        for first, second in pairs:
            result += first[queries] == second[items]
        return result

    return gains
