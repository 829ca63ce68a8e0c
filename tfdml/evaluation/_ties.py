"""Figures of one query whose answers are tied: by the worst order of equal distances, or on average over all orders.

Everything is said in groups of equal distance, nearest first: how many items there are, and how many of them are right. So
nothing depends on the order in which equal distances happen to stand.

McSherry and Najork, Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores, ECIR 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml.index.base import Integers

Doubles = npt.NDArray[np.float64]
TIES = ("number", "expected", "pessimistic")


class Groups(NamedTuple):
    """Runs of equal distance, nearest first; runs without a right item may be missing.

    Attributes:
        before: how many items are nearer.
        size: how many items are in it.
        right: how many of them are right.
    """

    before: Integers
    size: Integers
    right: Integers


def groups(values: Doubles, relevant: npt.NDArray[np.bool_]) -> Groups:
    """The groups of a list in order, of which all items at its last distance are in it."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    return Groups(starts, np.diff(np.append(starts, len(values))), np.add.reduceat(relevant.astype(np.int64), starts))


def hit_at(some: Groups, k: int, ties: str) -> float:
    """Whether one of the k nearest is right: the probability of it."""
    missed = 1.0
    for before, size, right in zip(*some, strict=True):
        slots = min(k - before, size)
        if slots <= 0 or not right:
            continue
        wrong = size - right
        if slots > wrong:
            return 1.0
        if ties == "expected":
            # None of the slots holds one of the right ones: (wrong choose slots) / (size choose slots).
            missed *= float(np.prod((wrong - np.arange(slots)) / (size - np.arange(slots))))
    return 1.0 - missed


def right_at(some: Groups, k: int, ties: str) -> float:
    """How many of the k nearest are right."""
    slots = np.clip(k - some.before, 0, some.size)
    if ties == "expected":
        return float((slots * some.right / some.size).sum())
    return float(np.maximum(slots - (some.size - some.right), 0).sum())


def precision_sum(some: Groups, depth: int, ties: str) -> float:
    """The sum of P(i) rel(i) over the places i up to `depth`."""
    if (some.size == 1).all():
        within = some.right * (some.before < depth)
        return float((within * np.cumsum(within) / (some.before + 1)).sum())
    total, nearer = 0.0, 0
    for before, size, right in zip(*some, strict=True):
        if before >= depth:
            break
        if right:
            place = np.arange(1, size + 1)
            if ties == "expected":
                # The chance of a right one here, times the right ones expected before it if it is one, and itself.
                share = (right - 1) / (size - 1) if size > 1 else 0.0
                sums = right / size * (nearer + (place - 1) * share + 1)
            else:
                sums = np.where(place > size - right, nearer + place - (size - right), 0.0)
            at = before + place
            total += float((sums / at)[at <= depth].sum())
        nearer += int(right)
    return total


def reciprocal_rank(some: Groups, ties: str) -> float:
    """1 / the place of the first right one; 0 if there is none."""
    for before, size, right in zip(*some, strict=True):
        if not right:
            continue
        wrong = size - right
        if ties == "pessimistic":
            return 1.0 / float(before + wrong + 1)
        # That the first i - 1 of the group are wrong and the i-th is right.
        place = np.arange(wrong + 1)
        all_wrong = np.cumprod(np.append(1.0, (wrong - place[:-1]) / (size - place[:-1])))
        chance = all_wrong * right / (size - place)
        return float((chance / (before + place + 1)).sum())
    return 0.0


def gains_in_order(values: Doubles, gains: Doubles, ties: str) -> Doubles:
    """Graded relevance by place: the mean of its group, or the smallest of a group first."""
    if ties == "pessimistic":
        return np.asarray(gains[np.lexsort((gains, values))])
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    sizes = np.diff(np.append(starts, len(values)))
    return np.repeat(np.add.reduceat(gains, starts) / sizes, sizes)


def figures_of(some: Groups, answers: int, ks: Sequence[int], ties: str) -> dict[str, float]:
    """All figures of class equality that the top of a list gives."""
    values = {f"recall_at_{k}": hit_at(some, k, ties) for k in ks}
    values |= {f"precision_at_{k}": right_at(some, k, ties) / k for k in ks}
    values["r_precision"] = right_at(some, answers, ties) / answers
    values["map_at_r"] = precision_sum(some, answers, ties) / answers
    return values
