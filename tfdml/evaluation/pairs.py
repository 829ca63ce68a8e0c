"""Which pairs of items are compared in verification. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_positive
from tfdml.evaluation._labels import class_numbers
from tfdml.index.base import Integers


@dataclass(frozen=True, eq=False)
class VerificationPairs:
    """Pairs of items, by their numbers, and whether each is of one class.

    Args:
        left: `[P]`, numbers of the first items.
        right: `[P]`, numbers of the second items, each another than its first.
        same: `[P]`, True for a positive pair.
        folds: `[P]`, the fold of each pair, for figures whose threshold comes from the other folds; or None.

    Raises:
        ValueError: lengths that differ, numbers below 0, or an item paired with itself.

    Example:
        >>> pairs = VerificationPairs(left=[0, 0, 1], right=[1, 2, 3], same=[True, False, False])
        >>> pairs
        VerificationPairs(1 positive, 2 negative)
    """

    left: Integers
    right: Integers
    same: npt.NDArray[np.bool_]
    folds: Integers | None = None

    def __post_init__(self) -> None:
        for name in ("left", "right", "folds"):
            if name != "folds" or self.folds is not None:
                object.__setattr__(self, name, _item_numbers(name, getattr(self, name), len(self.left)))
        same = np.asarray(self.same)
        if same.shape != self.left.shape or not (same.dtype == bool or np.isin(same, (0, 1)).all()):
            raise ValueError(
                f"same: expected {len(self.left)} booleans, one for each pair, received shape {same.shape} "
                f"and dtype {same.dtype}."
            )
        object.__setattr__(self, "same", same.astype(bool))
        itself = np.flatnonzero(self.left == self.right)
        if itself.size:
            raise ValueError(f"right: pair {itself[0]} compares item {self.left[itself[0]]} with itself. Leave such pairs out.")

    def __len__(self) -> int:
        return len(self.left)

    def __repr__(self) -> str:
        folds = "" if self.folds is None else f", {len(np.unique(self.folds))} folds"
        return f"VerificationPairs({int(self.same.sum()):,} positive, {int((~self.same).sum()):,} negative{folds})"


def verification_pairs(
    labels: npt.ArrayLike,
    positives: int | None = 3000,
    negatives: int | None = 3000,
    folds: int | None = 10,
    seed: int = 0,
) -> VerificationPairs:
    """Draws pairs in the manner of LFW: 10 folds without a common class, each with 300 positive and 300 negative pairs.

    The classes are shuffled and dealt into the folds; both items of a pair are of one fold, so a threshold that comes from
    nine folds is tried on classes that it has not seen. All pairs of a fold are equally likely, and none is drawn twice.

    Args:
        labels: `[N]`, integers or strings.
        positives: positive pairs in all, divided among the folds; None takes every one there is.
        negatives: negative pairs in all; None takes every one there is: as many as N^2 / 2, without folds.
        folds: number of folds; None draws from all items at once, and gives no folds.
        seed: the same seed gives the same pairs on every platform.

    Raises:
        ValueError: if there are not so many pairs, or too few classes for the folds.

    Example:
        >>> pairs = verification_pairs([0, 0, 1, 1, 2, 2, 3, 3], positives=4, negatives=4, folds=2)
        >>> pairs
        VerificationPairs(4 positive, 4 negative, 2 folds)
    """
    classes = class_numbers(labels, np.size(labels), "labels")
    for argument, count in (("positives", positives), ("negatives", negatives)):
        if count is not None:
            check_positive(argument, count)
    bits = np.random.PCG64(seed)
    groups = [np.arange(len(classes))] if folds is None else class_folds(classes, folds, bits)
    parts: list[tuple[Integers, Integers, bool, int]] = []
    for number, items in enumerate(groups):
        within = ItemPairs(items, classes)
        for same, argument, wanted in ((True, "positives", positives), (False, "negatives", negatives)):
            total = within.count(same)
            count = total if wanted is None else wanted // len(groups) + (number < wanted % len(groups))
            if not 1 <= count <= total:
                here = "there are" if folds is None else f"fold {number} has {count} of them to draw, and"
                raise ValueError(
                    f"{argument}={wanted!r}: {here} {total:,} pairs{'' if folds is None else ' in all'}. "
                    "Ask for fewer pairs or fewer folds, but at least one of each."
                )
            places = np.arange(total) if count == total else distinct_places(total, count, bits)
            parts.append((*within.at(places, same), same, number))
    return VerificationPairs(
        left=np.concatenate([left for left, _, _, _ in parts]),
        right=np.concatenate([right for _, right, _, _ in parts]),
        same=np.concatenate([np.full(len(left), same) for left, _, same, _ in parts]),
        folds=None if folds is None else np.concatenate([np.full(len(left), fold) for left, _, _, fold in parts]),
    )


def class_folds(classes: Integers, folds: int, bits: Any) -> list[Integers]:
    """The items of each fold: classes are shuffled and dealt, those with a positive pair first."""
    if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 2:
        raise ValueError(f"folds={folds!r}: expected a whole number >= 2, such as 10, or None.")
    sizes = np.bincount(classes)
    order = np.argsort(bits.random_raw(len(sizes)), kind="stable")
    order = order[np.argsort(sizes[order] < 2, kind="stable")]
    if len(sizes) < 2 * folds or (sizes >= 2).sum() < folds:
        raise ValueError(
            f"folds={folds}: folds share no class, so each needs two classes, one of them with two items; "
            f"there are {len(sizes)} classes, {int((sizes >= 2).sum())} with two items. Ask for fewer folds, or more classes."
        )
    fold_of_class = np.empty(len(sizes), np.int64)
    fold_of_class[order] = np.arange(len(sizes)) % folds
    return [np.flatnonzero(fold_of_class[classes] == fold) for fold in range(folds)]


class ItemPairs:
    """All pairs among some items, numbered, so that any of them can be had without listing them.

    Attributes:
        items: the items ordered by class; pairs are of an item and one before it.
        start: for each of them, where its class begins.
        end: for each of them, where its class ends.
    """

    def __init__(self, items: Integers, classes: Integers) -> None:
        self.items = items[np.argsort(classes[items], kind="stable")]
        ordered = classes[self.items]
        self.start: Integers = np.searchsorted(ordered, ordered, side="left")
        self.end: Integers = np.searchsorted(ordered, ordered, side="right")
        # How many positive (or negative) pairs there are of an item and one before it, and of all items up to it.
        self._before = {True: np.arange(len(ordered)) - self.start, False: self.start}
        self._up_to = {same: np.cumsum(before) for same, before in self._before.items()}

    def count(self, same: bool) -> int:
        """How many positive (`same`) or negative pairs there are."""
        return int(self._up_to[same][-1]) if len(self.items) else 0

    def at(self, places: Integers, same: bool) -> tuple[Integers, Integers]:
        """The item numbers of the pairs at places 0 to `count(same) - 1`."""
        later = np.searchsorted(self._up_to[same], places, side="right")
        offset = places - self._up_to[same][later] + self._before[same][later]
        earlier = offset + self.start[later] if same else offset
        return self.items[earlier], self.items[later]


def distinct_places(total: int, count: int, bits: Any) -> Integers:
    """`count` different numbers below `total`."""
    # NumPy promises the stream of a bit generator across releases, but not what `Generator` makes of it.
    if 2 * count > total:
        return np.argsort(bits.random_raw(total), kind="stable")[:count]
    drawn = np.empty(0, np.int64)
    while len(drawn) < count:
        drawn = np.concatenate([drawn, (bits.random_raw(2 * count) % np.uint64(total)).astype(np.int64)])
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
    return drawn[:count]


def _item_numbers(argument: str, values: Any, count: int) -> Integers:
    array = np.asarray(values)
    if array.shape != (count,) or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise ValueError(
            f"{argument}: expected {count} integers, one for each pair, received shape {array.shape} and dtype {array.dtype}."
        )
    if array.size and array.min() < 0:
        raise ValueError(f"{argument}: received {array.min()}, expected numbers >= 0.")
    return array.astype(np.int64)
