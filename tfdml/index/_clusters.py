"""The lists of an inverted file: their centres, and which list an item belongs to, for many lists in little time.

K-means over K lists compares each of its examples with K centres, some ten times, and so does filing an item away, once. With
65,536 lists that is most of a build. Here, from `_TWO_LEVELS_FROM` lists on, about sqrt(K) broad clusters come first, and each
is split into its share of the lists; an item is compared with the lists of the `_BROAD` broad clusters nearest to it. That is
2 sqrt(K) and `_BROAD` sqrt(K) comparisons instead of K. An item near a border may get the second nearest list; what that costs
is part of the recall that the index measures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfdml.index._nearest import in_threads
from tfdml.index.base import Floats, Integers

_TWO_LEVELS_FROM = 1024
_BROAD = 4
_ROUNDS = 10
_EXAMPLES_PER_BROAD_CLUSTER = 512
_PIECE = 65_536


class Clusters:
    """Centres `[K, D]` of lists, by k-means.

    Args:
        faiss: the module.
        sample: vectors to learn from, at least as many as lists.
        lists: how many, K.
        seed: of the k-means.
    """

    def __init__(self, faiss: Any, sample: Floats, lists: int, seed: int) -> None:
        if lists < _TWO_LEVELS_FROM:
            self.centres = _k_means(faiss, sample, lists, seed)
            self._broad, self._ends = _half_norms(self.centres.mean(axis=0, keepdims=True)), np.array([lists])
        else:
            self.centres, broad, self._ends = _two_levels(faiss, sample, lists, seed)
            self._broad = _half_norms(broad)
        self._scored = _half_norms(self.centres)

    def assign(self, rows: Floats) -> Integers:
        """The number of each row's list."""
        return _in_pieces(self._assign, rows)

    def _assign(self, rows: Floats) -> Integers:
        near = _nearest(rows, self._broad, min(_BROAD, len(self._ends))).ravel()
        order = np.argsort(near, kind="stable")
        bounds = np.searchsorted(near[order], np.arange(len(self._ends) + 1))
        order //= len(near) // len(rows)
        best, found = np.full(len(rows), -np.inf, np.float32), np.zeros(len(rows), np.int64)
        for broad, end in enumerate(self._ends):
            mine = order[bounds[broad] : bounds[broad + 1]]
            if not len(mine):
                continue
            first = self._ends[broad - 1] if broad else 0
            scores = _scores(rows[mine], (self._scored[0][first:end], self._scored[1][first:end]))
            place = scores.argmax(axis=1)
            score = scores[np.arange(len(mine)), place]
            better = score > best[mine]
            best[mine[better]], found[mine[better]] = score[better], first + place[better]
        return found


def _two_levels(faiss: Any, sample: Floats, lists: int, seed: int) -> tuple[Floats, Floats, Integers]:
    """Centres, the broad clusters that they belong to, and where in the centres each of these ends."""
    count = round(np.sqrt(lists))
    step = max(1, len(sample) // (count * _EXAMPLES_PER_BROAD_CLUSTER))
    broad = _k_means(faiss, sample[::step], count, seed)
    scored = _half_norms(broad)
    member = _in_pieces(lambda rows: _nearest(rows, scored, 1).ravel(), sample)
    order, sizes = np.argsort(member, kind="stable"), np.bincount(member, minlength=count)
    ends = np.cumsum(sizes)
    shares = np.diff(ends * lists // len(sample), prepend=0)
    centres = [
        _k_means(faiss, sample[order[end - size : end]], int(share), seed)
        for end, size, share in zip(ends, sizes, shares, strict=True)
        if share
    ]
    return np.concatenate(centres), broad[shares > 0], np.cumsum(shares[shares > 0])


def _in_pieces(function: Callable[[Floats], Integers], rows: Floats) -> Integers:
    """On all cores, by threads of ours: products this small lose most of their time where BLAS starts threads for each."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        starts = range(0, len(rows), _PIECE)
        return np.concatenate(list(in_threads(lambda start: function(rows[start : start + _PIECE]), starts)))


def _k_means(faiss: Any, sample: Floats, count: int, seed: int) -> Floats:
    means = faiss.Kmeans(
        sample.shape[1],
        count,
        niter=_ROUNDS,
        seed=seed,
        min_points_per_centroid=1,  # it only warns
        max_points_per_centroid=_EXAMPLES_PER_BROAD_CLUSTER,
    )
    means.train(np.ascontiguousarray(sample))
    return np.asarray(means.centroids, np.float32)


def _half_norms(centres: Floats) -> tuple[Floats, Floats]:
    return centres, np.einsum("kd,kd->k", centres, centres) / 2


def _scores(rows: Floats, centres: tuple[Floats, Floats]) -> Floats:
    """The larger, the nearer: u.v - ||v||^2 / 2."""
    result: Floats = rows @ centres[0].T
    result -= centres[1]
    return result


def _nearest(rows: Floats, centres: tuple[Floats, Floats], count: int) -> Integers:
    """`[rows, count]`, nearest first; of 16 bits where that will do, which sorts faster."""
    scores = _scores(rows, centres)
    found = np.empty((len(rows), count), np.uint16 if scores.shape[1] <= 2**16 else np.int64)
    every = np.arange(len(rows))
    for column in range(count):  # for a few, quicker than a partition
        found[:, column] = scores.argmax(axis=1)
        scores[every, found[:, column]] = -np.inf
    return found
