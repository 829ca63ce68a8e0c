"""What a threshold is judged by: pairs or queries with a distance, weighted by how often their classes are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfdml.evaluation._comparison import comparison
from tfdml.evaluation._exclusion import Exclusion
from tfdml.evaluation.pairs import ItemPairs, distinct_places
from tfdml.index._nearest import NearestRows
from tfdml.index.base import Floats, Integers
from tfdml.index.exact import distances_from_squares

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Events:
    """Pairs or queries in the order of their distance: the nearest of them, and how many there are in all.

    Attributes:
        distances: float32 `[E]`, in order.
        first: int64 `[E]`, the class that an event belongs to.
        second: int64 `[E]`, another class that it belongs to, or None.
        right: bool `[E]`, whether an answer is right; None: accepting it is the mistake.
        classes: number of classes.
        what: "pairs of two classes", or "queries".
        total: how many there are, those included that are too far off to be listed.
        sizes: float64 `[classes]`, of pairs: how many items a class has, from which the weight of all pairs follows.
    """

    distances: Floats
    first: Integers
    second: Integers | None
    right: npt.NDArray[np.bool_] | None
    classes: int
    what: str
    total: int
    sizes: Doubles | None = None

    @property
    def all_right(self) -> float:
        return 0.0 if self.right is None else float(self.right.mean())

    def thresholds(self, weights: Doubles, asked: float) -> Doubles:
        """For each draw the largest threshold that keeps the rate, half-way to the next event; minus infinity if none does."""
        result = np.empty(len(weights))
        ends = np.append(self.distances[1:] > self.distances[:-1], True)  # a threshold accepts all of one distance
        for row, (each, everything) in enumerate(self._weights(weights)):
            running = np.cumsum(each)
            if self.right is None:
                kept = running <= asked * everything * (1 + 1e-12)
            else:
                right = np.cumsum(each * self.right)
                kept = (right >= asked * running * (1 - 1e-12)) & (running > 0)
            places = np.flatnonzero(kept & ends)
            result[row] = self._half_way(int(places[-1]), each) if len(places) else -np.inf
        return result

    def rates(self, weights: Doubles, thresholds: Doubles) -> Doubles:
        """For each draw the rate at a threshold; NaN where no query is answered."""
        places = np.searchsorted(self.distances, thresholds.astype(np.float32), side="right")
        result = np.empty(len(weights))
        for row, (each, everything) in enumerate(self._weights(weights)):
            accepted = each[: places[row]]
            if self.right is None:
                result[row] = accepted.sum() / everything
            else:
                all_of_them = accepted.sum()
                result[row] = accepted @ self.right[: places[row]] / all_of_them if all_of_them else np.nan
        return result

    def _weights(self, weights: Doubles) -> Iterator[tuple[Doubles, float]]:
        """For each draw the events' weights, and that of all events."""
        for each in weights:
            if self.second is None or self.sizes is None:
                own = each[self.first]
                yield own, float(own.sum())
            else:
                # A class that is drawn twice makes no pairs with itself: these would be of one class.
                share = self.total / _pairs_of_two(self.sizes)
                yield each[self.first] * each[self.second], share * _pairs_of_two(each * self.sizes)

    def _half_way(self, place: int, weights: Doubles) -> float:
        following = np.flatnonzero(weights[place + 1 :] > 0)
        last = self.distances[place]
        if not len(following):
            return float(last)
        after = self.distances[place + 1 + following[0]]
        half_way = np.float32(0.5) * (last + after)
        return float(half_way if half_way < after else last)


def _pairs_of_two(sizes: Doubles) -> float:
    return float(sizes.sum() ** 2 - (sizes**2).sum()) / 2


def negative_pairs(
    vectors: Floats, classes: Integers, metric: str, most: int, seed: int, *, share: float = 1.0, up_to: float = np.inf
) -> Events:
    """Pairs of two classes, all or a sample of them; the nearest `share` of them, or those `up_to` a distance, are listed."""
    pairs = ItemPairs(np.arange(len(classes)), classes)
    total = pairs.count(False)
    places = np.arange(total) if total <= most else distinct_places(total, most, np.random.PCG64(seed))
    left, right = pairs.at(places, False)
    distances = comparison(vectors, metric).paired(left, right)
    if share < 1:
        up_to = np.partition(distances, int(share * (len(distances) - 1)))[int(share * (len(distances) - 1))]
    near = np.flatnonzero(distances <= up_to)
    order = near[np.argsort(distances[near], kind="stable")]
    sizes = np.bincount(classes).astype(np.float64)
    first, second = classes[left[order]], classes[right[order]]
    return Events(distances[order], first, second, None, len(sizes), "pairs of two classes", len(distances), sizes)


def false_answers(vectors: Floats, classes: Integers, metric: str) -> Events:
    """Every item as a query, with its nearest item of another class: as if its own class were unknown."""
    own = Exclusion(np.arange(len(classes)), classes, classes)
    distances = np.empty(len(classes), np.float32)
    everything = np.arange(len(classes))
    for block in NearestRows(vectors).search(vectors, 1, own.among(everything)):
        part = slice(block.start, block.start + len(block.numbers))
        distances[part] = distances_from_squares(block.squared_distances[:, 0], metric)
    order = np.argsort(distances, kind="stable")
    return Events(distances[order], classes[order], None, None, int(classes.max()) + 1, "queries", len(order))


def answered_queries(vectors: Floats, classes: Integers, metric: str) -> Events:
    """Every item that has an answer as a query, with its nearest item."""
    distances = np.empty(len(classes), np.float32)
    right = np.empty(len(classes), bool)
    for block in NearestRows(vectors).search(vectors, 1, np.arange(len(classes))):
        part = slice(block.start, block.start + len(block.numbers))
        distances[part] = distances_from_squares(block.squared_distances[:, 0], metric)
        right[part] = classes[block.numbers[:, 0]] == classes[part]
    asked = np.flatnonzero(np.bincount(classes)[classes] > 1)
    if not len(asked):
        raise ValueError("labels: no class has two items, so no query has an answer that could be right.")
    order = asked[np.argsort(distances[asked], kind="stable")]
    present = np.unique(classes[order], return_inverse=True)[1].reshape(-1)
    return Events(distances[order], present, None, right[order], int(present.max()) + 1, "queries", len(order))
