"""Which items a query must not find, and how many right answers are left to it. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.evaluation._labels import shared_class_numbers
from tfdml.index.base import Integers, check_ids


class Exclusion:
    """A query itself, and the items of its class from its own camera.

    Args:
        own: `[Q]`, the number of the item that is the query itself, or -1.
        groups: `[Q]`, which group of items is left out as a whole, or None.
        gallery_groups: `[G]`, the group of each item.
    """

    def __init__(self, own: Integers, groups: Integers | None = None, gallery_groups: Integers | None = None) -> None:
        self._own, self._groups, self._gallery_groups = own, groups, gallery_groups
        if groups is not None and gallery_groups is not None:
            self._members: Integers = np.argsort(gallery_groups, kind="stable")
            ordered = gallery_groups[self._members]
            self._starts = np.searchsorted(ordered, groups, side="left")
            self._ends = np.searchsorted(ordered, groups, side="right")
            self._own_outside = (own >= 0) & (gallery_groups[own] != groups)

    def among(self, queries: Integers) -> Callable[[slice], tuple[Integers, Integers]]:
        """As `NearestRows.search` takes it, for a search with these queries."""
        return lambda part: self.rows(queries[part])

    def with_items(self, kept: npt.NDArray[np.bool_]) -> Exclusion:
        """The same, when only some of the items are left."""
        numbers = np.where(kept, np.cumsum(kept) - 1, -1)
        own = np.where(self._own >= 0, numbers[self._own], -1)
        return Exclusion(own, self._groups, None if self._gallery_groups is None else self._gallery_groups[kept])

    def counts(self) -> Integers:
        """How many items each query does not find."""
        if self._groups is None:
            return (self._own >= 0).astype(np.int64)
        return self._ends - self._starts + self._own_outside

    def same_class(self, classes: Integers, gallery_classes: Integers) -> Integers:
        """How many of them are of the query's class."""
        if self._groups is None:
            return ((self._own >= 0) & (gallery_classes[self._own] == classes)).astype(np.int64)
        return self._ends - self._starts + (self._own_outside & (gallery_classes[self._own] == classes))

    def rows(self, queries: Integers) -> tuple[Integers, Integers]:
        """The pairs to leave out: places among these queries, and item numbers."""
        own = self._own[queries]
        if self._groups is None:
            places = np.flatnonzero(own >= 0)
            return places, own[places]
        places = np.flatnonzero(self._own_outside[queries])
        starts, lengths = self._starts[queries], (self._ends - self._starts)[queries]
        flat = np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
        of_group = np.repeat(np.arange(len(queries)), lengths)
        return np.concatenate([of_group, places]), np.concatenate([self._members[flat], own[places]])


def exclusion(
    classes: Integers,
    gallery_classes: Integers,
    own: Integers,
    cameras: npt.ArrayLike | None,
    gallery_cameras: npt.ArrayLike | None,
) -> Exclusion:
    """By ids alone, or also by class and camera together."""
    if cameras is None:
        return Exclusion(own)
    if gallery_cameras is None:
        raise ValueError("gallery_cameras=None: expected one camera for each item of the gallery, since cameras are given.")
    names = ("cameras", "gallery_cameras")
    first, second = shared_class_numbers(cameras, len(classes), gallery_cameras, len(gallery_classes), names)
    count = 1 + int(max(first.max(), second.max()))
    return Exclusion(own, classes * count + first, gallery_classes * count + second)


def same_ids(ids: tuple[str, ...] | None, count: int, gallery_ids: Iterable[Any] | None, gallery_count: int) -> Integers:
    """For each query the number of the item with its id, or -1."""
    if gallery_ids is None:
        return np.full(count, -1)
    try:
        numbers = {name: number for number, name in enumerate(check_ids(gallery_ids, gallery_count))}
    except ValueError as error:
        raise ValueError(f"gallery_{error}") from None
    return np.full(count, -1) if ids is None else np.array([numbers.get(name, -1) for name in ids])
