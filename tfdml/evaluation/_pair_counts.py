"""Positive and negative pairs counted at every threshold that matters, without keeping the negative ones. NumPy only.

A threshold accepts more positive pairs only where it passes the distance of one. So the distances of the positive pairs, and
for each of them how many negative pairs are as near or nearer, give the whole ROC curve exactly; negative distances, which
are by far the more, are counted block by block and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tfdml.evaluation._comparison import Comparison
from tfdml.evaluation.pairs import ItemPairs, VerificationPairs
from tfdml.index.base import Floats, Integers

Doubles = npt.NDArray[np.float64]
Blocks = Callable[[int], Iterable[Floats]]

_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class PairCounts:
    """Counts of pairs by fold (F of them) and by place: the U different distances of positive pairs, in order.

    Attributes:
        distances: float32 `[U]`, these distances.
        positives: int64 `[F, U]`, positive pairs as near or nearer.
        nearer: int64 `[F, U]`, negative pairs that are nearer.
        negatives: int64 `[F, U]`, negative pairs as near or nearer.
        following: float32 `[F, U]`, the distance of the nearest negative pair that is farther.
        positive_pairs: int64 `[F]`, all of them.
        negative_pairs: int64 `[F]`, all of them.
        blocks: the distances of the negative pairs of a fold once more, block by block.
    """

    distances: Floats
    positives: Integers
    nearer: Integers
    negatives: Integers
    following: Floats
    positive_pairs: Integers
    negative_pairs: Integers
    blocks: Blocks = field(repr=False)

    def together(self, without: int | None = None) -> PairCounts:
        """All folds (but one) as one."""
        chosen = np.arange(len(self.positive_pairs)) != without
        counts = ("positives", "nearer", "negatives", "positive_pairs", "negative_pairs")
        sums = {name: getattr(self, name)[chosen].sum(axis=0, keepdims=True) for name in counts}
        return replace(self, **sums, following=self.following[chosen].min(axis=0, keepdims=True))

    def threshold(self, place: int) -> np.float32:
        """Half-way from a place to the negative pair that follows; minus infinity for -1."""
        if place < 0:
            return np.float32(-np.inf)
        distance, following = self.distances[place], self.following[0, place]
        half_way = np.float32(0.5) * (distance + following)
        return half_way if half_way < following and np.isfinite(half_way) else distance

    def accepted(self, fold: int, thresholds: Floats) -> tuple[Doubles, Doubles]:
        """The shares of the fold's positive and negative pairs that are accepted at each of some thresholds."""
        at = np.searchsorted(self.distances, thresholds, side="right")
        positives = np.append(0, self.positives[fold])[at]
        negatives = np.zeros(len(thresholds), np.int64)
        for block in self.blocks(fold):
            negatives += [np.count_nonzero(block <= threshold) for threshold in thresholds]
        return positives / self.positive_pairs[fold], negatives / self.negative_pairs[fold]

    def vertices(self) -> tuple[Doubles, Doubles]:
        """The ROC curve: shares of accepted negative and of accepted positive pairs, from (0, 0) to (1, 1).

        Between two vertices it is straight: where positive and negative pairs have one distance, it rises in a slope.
        """
        counts = self.together()
        positives, nearer, negatives = counts.positives[0], counts.nearer[0], counts.negatives[0]
        far = np.empty(2 * len(positives) + 2)
        true = np.empty_like(far)
        far[0] = true[0] = 0
        far[1:-1:2], far[2:-1:2], far[-1] = nearer, negatives, counts.negative_pairs[0]
        true[1:-1:2], true[2:-1:2], true[-1] = np.append(0, positives[:-1]), positives, counts.positive_pairs[0]
        return far / far[-1], true / true[-1]


def count_all_pairs(distances: Comparison, groups: list[Integers], classes: Integers, block_bytes: int) -> PairCounts:
    """All pairs within each group of items."""
    within = [ItemPairs(items, classes) for items in groups]
    near: list[Floats] = []
    for pairs in within:
        parts = [distances.paired(*pairs.at(places, True)) for places in _ranges(pairs.count(True))]
        near.append(np.concatenate([np.empty(0, np.float32), *parts]))
    return _count(near, lambda fold: _negatives(distances, within[fold], block_bytes))


def count_listed_pairs(distances: Comparison, pairs: VerificationPairs) -> PairCounts:
    """The pairs of a list, by their folds."""
    values = distances.paired(pairs.left, pairs.right)
    number = np.zeros(len(pairs), np.int64) if pairs.folds is None else np.unique(pairs.folds, return_inverse=True)[1]
    near = [values[(number == fold) & pairs.same] for fold in range(int(number.max()) + 1)]
    return _count(near, lambda fold: [values[(number == fold) & ~pairs.same]])


def _count(positive: list[Floats], blocks: Blocks) -> PairCounts:
    distances = np.unique(np.concatenate(positive))
    shape = (len(positive), len(distances))
    nearer, negatives = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    following = np.full(shape, np.inf, np.float32)
    negative_pairs = np.zeros(len(positive), np.int64)
    for fold in range(len(positive)):
        for block in blocks(fold):
            block.sort()
            after = np.searchsorted(block, distances, side="right")
            nearer[fold] += np.searchsorted(block, distances, side="left")
            negatives[fold] += after
            following[fold] = np.minimum(following[fold], np.append(block, np.float32(np.inf))[after])
            negative_pairs[fold] += len(block)
    return PairCounts(
        distances=distances,
        positives=np.stack([np.searchsorted(np.sort(values), distances, side="right") for values in positive]),
        nearer=nearer,
        negatives=negatives,
        following=following,
        positive_pairs=np.array([len(values) for values in positive]),
        negative_pairs=negative_pairs,
        blocks=blocks,
    )


def _negatives(distances: Comparison, pairs: ItemPairs, block_bytes: int) -> Iterator[Floats]:
    """Distances of all negative pairs, a block of rows at a time: each item with those of later classes."""
    count, start = len(pairs.items), 0
    while start < count and pairs.end[start] < count:
        first = int(pairs.end[start])
        height = max(1, block_bytes // (16 * (count - first)))
        rows = np.arange(start, min(start + height, count))
        columns = np.arange(first, count)
        block = distances.block(pairs.items[rows], pairs.items[columns])
        yield block[columns >= pairs.end[rows][:, None]]
        start += height


def _ranges(count: int) -> Iterator[Integers]:
    for start in range(0, count, _PAIRS_AT_ONCE):
        yield np.arange(start, min(start + _PAIRS_AT_ONCE, count))
