"""Exact nearest rows in blocks: the one place that ranks a gallery, for `ExactIndex` and for the evaluation room.

Everything here is squared Euclidean distance. Cosine is the same thing on rows of length 1: 1 - cos = ||u - v||^2 / 2.

A float32 matrix product finds the candidates and float64 differences put them in order. The product alone would not do: it
loses near-duplicates (for unit vectors that are 1e-4 apart nearly all of its answers are 0). So every row whose product
lies within the rounding error of the k-th best stays a candidate, and what the product cannot tell apart is computed from
the differences. Equal distances are ordered by row number, so the answer is the same on every machine.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from tfdml.index.base import Floats, Integers

Doubles = npt.NDArray[np.float64]
Exclude = Callable[[slice], tuple[Integers, Integers]]
"""For a slice of the queries the pairs that must not be returned: places in the slice, and row numbers."""

_T = TypeVar("_T")

BLOCK_BYTES = 64 << 20
"""Size of one block of the float32 product of queries and rows. Each worker thread holds one, and about half as much again."""

_PAIR_BYTES = 4 << 20  # float64 differences in flight at a time: small enough to stay in the cache
_UNIT_ROUNDOFF = 2.0**-24


class Block(NamedTuple):
    """The answers to queries `start` to `start + len(numbers)`.

    `tied` are the rows that are as near as the last of `numbers` and not among them: places in the block, in order, and row
    numbers.
    """

    start: int
    numbers: Integers
    squared_distances: Doubles
    tied: tuple[Integers, Integers]


class _Candidates(NamedTuple):
    """A block's candidates in the order of their numbers, each row padded with infinite scores."""

    scores: Floats
    rows: Integers
    error: Doubles
    flooded: Integers  # queries with too many candidates: they have none here


class NearestRows:
    """Ranks float32 rows `[N, D]` by their distance to queries.

    Memory beside the rows: one centred copy of them, and for each worker thread a block of `block_bytes` (and about half as
    much again), whatever N is; a block holds at least one query, 4 N bytes.
    """

    def __init__(self, rows: Floats) -> None:
        self._rows = rows
        # Distances do not change with a common shift, but the rounding of the product shrinks with the norms.
        self._center: Doubles = rows.mean(axis=0, dtype=np.float64)
        norms = _norms(rows, self._center)
        self._scale = float(norms.max()) or 1.0
        norms /= self._scale
        # The half squared norm is one more column, so that the product alone gives ||v||^2 / 2 - u.v.
        self._columns = np.empty((rows.shape[1] + 1, len(rows)), np.float32)
        step = max(1, _PAIR_BYTES // (8 * rows.shape[1]))
        for start in range(0, len(rows), step):
            self._columns[:-1, start : start + step] = ((rows[start : start + step] - self._center) / self._scale).T
        self._columns[-1] = norms**2 / 2

    def search(
        self,
        queries: Floats,
        k: int,
        exclude: Integers | Exclude | None = None,
        *,
        exact_distances: bool = True,
        block_bytes: int = BLOCK_BYTES,
    ) -> Iterator[Block]:
        """Yields the k nearest rows of every query in order, block by block.

        Args:
            queries: float32 `[Q, D]`.
            k: how many, at most the number of rows. Where fewer are not excluded, excluded ones follow at distance infinity.
            exclude: int64 `[Q]`, a row number for each query that must not be returned, -1 excluding nothing; or, for several
                of each query, a function, see `Exclude`.
            exact_distances: whether the distances come from float64 differences for every neighbour. Otherwise only the
                *order* is exact, and the distances carry the rounding of a float32 product, which is quicker for large k.
            block_bytes: size of a block of the product.
        """
        # A row of the product; of the candidates: value, number and order, of seldom more than 2 k of them; and the query.
        row_bytes = 4 * len(self._rows) + 24 * min(len(self._rows), 2 * k) + 24 * queries.shape[1]
        height = int(np.clip(block_bytes // row_bytes, 1, 4096))

        def block(start: int) -> Block:
            part = slice(start, start + height)
            return Block(start, *self._block(queries[part], k, _excluded(exclude, part), exact_distances))

        yield from in_threads(block, range(0, len(queries), height))

    def squared_distances(self, queries: Floats, numbers: Integers) -> Doubles:
        """Of queries `[Q, D]` to rows of the given numbers `[Q, k]`, from float64 differences."""
        query = np.repeat(np.arange(len(queries)), numbers.shape[1])
        return self._squared_distances(queries, query, numbers.ravel()).reshape(numbers.shape)

    def _block(
        self, queries: Floats, k: int, exclude: tuple[Integers, Integers], exact_distances: bool
    ) -> tuple[Integers, Doubles, tuple[Integers, Integers]]:
        found = self._candidates(queries, k, exclude)
        if exact_distances:
            values, rows = found.scores.astype(np.float64), found.rows
            query, place = np.nonzero(np.isfinite(values))
            values[query, place] = self._squared_distances(queries, query, rows[query, place])
            # Candidates come in the order of their numbers, and a stable sort leaves equal distances in it.
            order = np.argsort(values, axis=1, kind="stable")
            values, rows = np.take_along_axis(values, order, axis=1), np.take_along_axis(rows, order, axis=1)
        else:
            values, rows = self._settled(queries, found)
        numbers, distances = rows[:, :k], np.maximum(values[:, :k], 0)
        last = distances[:, -1:]
        tied, place = np.nonzero((values[:, k:] == last) & np.isfinite(last))
        beyond = [(tied, rows[tied, k + place])]
        for one in found.flooded:
            numbers[one], distances[one], more = self._one_query(queries[one], k, exclude[1][exclude[0] == one])
            beyond.append((np.full(len(more), int(one)), more))
        places, others = (np.concatenate(parts) for parts in zip(*beyond, strict=True))
        order = np.argsort(places, kind="stable")
        return numbers, distances, (places[order], others[order])

    def _candidates(self, queries: Floats, k: int, exclude: tuple[Integers, Integers]) -> _Candidates:
        """For each query all rows that may be among its k nearest, as far as the float32 product can tell."""
        scaled, error = self._scaled(queries)
        scores = scaled @ self._columns
        scores[exclude] = np.inf
        minima = _group_minima(scores, k)
        bound = np.partition(minima, k - 1, axis=1)[:, k - 1] + 2 * error.astype(np.float32)
        chosen = _at_most(scores, bound, minima)
        query, row = np.divmod(chosen, scores.shape[1])
        counts = np.bincount(query, minlength=len(queries))

        # Rows by the thousand that the product cannot tell apart: a collapsed embedding, or copies of one picture.
        flooded = np.flatnonzero(counts > 3 * k + 512)
        if flooded.size:
            keep = ~np.isin(query, flooded)
            chosen, query, row = chosen[keep], query[keep], row[keep]
            counts[flooded] = 0

        shape = (len(queries), max(k, int(counts.max())))
        place = query, np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        padded, rows = np.full(shape, np.inf, np.float32), np.zeros(shape, np.int64)
        padded[place], rows[place] = scores.ravel()[chosen], row
        return _Candidates(padded, rows, error, flooded)

    def _scaled(self, queries: Floats) -> tuple[Floats, Doubles]:
        """The queries as the product wants them, and how far its result for each of them may be off."""
        centred = (queries - self._center) / self._scale
        norms = np.sqrt(np.einsum("qd,qd->q", centred, centred))
        # So far outside the gallery that float32 would overflow: no score at all, everything is computed from differences.
        far = norms > 1e30
        centred[far], norms[far] = 0, 1e30
        scaled = np.ones((len(queries), centred.shape[1] + 1), np.float32)
        scaled[:, :-1] = -centred
        # Higham and Mary 2019: a sum of n rounded products is off by c sqrt(n) u at most but for a chance exp(-c^2 / 2).
        error = (8 + 6 * np.sqrt(scaled.shape[1])) * _UNIT_ROUNDOFF * (norms + 0.5)
        return scaled, error

    def _settled(self, queries: Floats, found: _Candidates) -> tuple[Doubles, Integers]:
        """Squared distances and rows in order: from the scores, or from differences where these are closer than their error."""
        centred = queries - self._center
        own = np.einsum("qd,qd->q", centred, centred)[:, None]  # what the scores leave out: it is the same for all rows
        unit = 2 * self._scale**2
        scores, rows = _sorted_with_rows(found.scores, found.rows)
        squares = scores.astype(np.float64) * unit + own
        with np.errstate(invalid="ignore"):
            close = np.diff(squares, axis=1) <= 2 * unit * found.error[:, None]
        unsure = np.zeros(squares.shape, bool)
        unsure[:, 1:] |= close
        unsure[:, :-1] |= close
        query, place = np.nonzero(unsure)
        row = rows[query, place]
        exact = self._squared_distances(queries, query, row)
        # Every run of unsure neighbours is put in order by itself: by distance, then by number.
        follows = np.zeros(squares.shape, bool)
        follows[:, 1:] = close
        run = np.cumsum(~follows[query, place])
        order = np.lexsort((row, exact, run))
        squares[query, place], rows[query, place] = exact[order], row[order]
        return squares, rows

    def _squared_distances(self, queries: Floats, query: Integers, row: Integers) -> Doubles:
        result = np.empty(len(query))
        step = max(1, _PAIR_BYTES // (8 * queries.shape[1]))
        for start in range(0, len(query), step):
            part = slice(start, start + step)
            difference = np.subtract(self._rows[row[part]], queries[query[part]], dtype=np.float64)
            np.einsum("nd,nd->n", difference, difference, out=result[part])
        return result

    @cached_property
    def _distinct(self) -> tuple[Floats, Integers]:
        """The different rows, and which of them each row is."""
        keys = np.ascontiguousarray(self._rows).view(np.dtype((np.void, self._rows.itemsize * self._rows.shape[1])))
        _, first, which = np.unique(keys.ravel(), return_index=True, return_inverse=True)
        return self._rows[first], which

    def _one_query(self, query: Floats, k: int, exclude: Integers) -> tuple[Integers, Doubles, Integers]:
        """Every distance from differences; copies of one row are computed once."""
        rows, which = self._distinct
        distinct = np.empty(len(rows))
        step = max(1, _PAIR_BYTES // (8 * len(query)))
        for start in range(0, len(rows), step):
            difference = np.subtract(rows[start : start + step], query, dtype=np.float64)
            np.einsum("nd,nd->n", difference, difference, out=distinct[start : start + step])
        distances = distinct[which]
        distances[exclude] = np.inf
        numbers, nearest = k_smallest(distances, k)
        tied = np.flatnonzero(distances == nearest[-1]) if np.isfinite(nearest[-1]) else numbers
        return numbers, nearest, np.setdiff1d(tied, numbers, assume_unique=True)


def in_threads(function: Callable[[int], _T], starts: range) -> Iterator[_T]:
    """What the function returns for each start, in order, computed on all cores."""
    workers = min(os.cpu_count() or 1, len(starts))
    if workers <= 1:
        yield from map(function, starts)
        return
    with ThreadPoolExecutor(workers) as pool:
        # A window, so that finished blocks do not pile up when the caller is slower than the search.
        pending: deque[Future[_T]] = deque()
        for start in starts:
            pending.append(pool.submit(function, start))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def k_smallest(values: Doubles, k: int) -> tuple[Integers, Doubles]:
    """Positions and values of the k smallest of a row, smallest first, equal ones by position."""
    bound = np.partition(values, k - 1)[k - 1]
    below = np.flatnonzero(values < bound)
    equal = np.flatnonzero(values == bound)[: k - len(below)]
    chosen = np.sort(np.concatenate([below, equal]))
    chosen = chosen[np.argsort(values[chosen], kind="stable")]
    return chosen, values[chosen]


def squared_distances(vectors: Floats, numbers: Integers, query: Floats, step: int = 65536) -> Doubles:
    """Of one query to the rows of the given numbers, from float64 differences."""
    result = np.empty(len(numbers))
    for start in range(0, len(numbers), step):
        difference = np.subtract(vectors[numbers[start : start + step]], query, dtype=np.float64)
        np.einsum("nd,nd->n", difference, difference, out=result[start : start + step])
    return result


def _excluded(exclude: Integers | Exclude | None, part: slice) -> tuple[Integers, Integers]:
    if callable(exclude):
        return exclude(part)
    numbers = np.empty(0, np.int64) if exclude is None else exclude[part]
    places = np.flatnonzero(numbers >= 0)
    return places, numbers[places]


def _sorted_with_rows(scores: Floats, rows: Integers) -> tuple[Floats, Integers]:
    """Scores in order, and their rows. One integer holds both, which sorts several times faster than an `argsort`."""
    bits = scores.view(np.int32)
    # Of two floats the larger one has the larger bits, but for the negative ones, whose bits are turned.
    keys = (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).astype(np.int64)
    packed = (keys << 32) | rows
    packed.sort(axis=1)
    keys = (packed >> 32).astype(np.int32)
    bits = keys ^ ((keys >> 31) & np.int32(0x7FFFFFFF))
    return bits.view(np.float32), packed & 0xFFFFFFFF


def _norms(rows: Floats, center: Doubles) -> Doubles:
    result = np.empty(len(rows))
    step = max(1, _PAIR_BYTES // (8 * rows.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step] - center
        result[start : start + step] = np.sqrt(np.einsum("nd,nd->n", block, block))
    return result


def _group_minima(scores: Floats, k: int) -> Floats:
    """For each row the minima of groups of its scores, of which it has at least 8 k; the scores themselves if there are few.

    The k-th smallest of these minima is a number that at least k scores do not exceed: seldom much above the k-th smallest
    score, and it costs a fraction of a partition of the whole row. A group takes every m-th column, so that neighbours in the
    gallery, often of one class, fall into different groups. The last columns, fewer than there are groups, are in none.
    """
    groups = max(8 * k, 128)
    depth = min(scores.shape[1] // groups, 64)
    if depth < 4:
        return scores
    groups = scores.shape[1] // depth
    result: Floats = scores[:, : depth * groups].reshape(len(scores), depth, groups).min(axis=1)
    return result


def _at_most(scores: Floats, bound: Floats, minima: Floats) -> Integers:
    """`np.flatnonzero(scores <= bound[:, None])`, looking only into groups whose minimum is small enough."""
    groups, columns = minima.shape[1], scores.shape[1]
    depth = columns // groups
    near = _flat_nonzero(minima <= bound[:, None])
    if depth == 1 or 4 * len(near) > minima.size:
        return near if depth == 1 else _flat_nonzero(scores <= bound[:, None])
    query, group = np.divmod(near, groups)
    candidates = (query * columns + group)[:, None] + groups * np.arange(depth)
    inside = candidates[scores.ravel()[candidates] <= bound[query, None]]
    query, column = np.nonzero(scores[:, depth * groups :] <= bound[:, None])
    return np.sort(np.concatenate([inside, query * columns + depth * groups + column]))


def _flat_nonzero(mask: npt.NDArray[np.bool_]) -> Integers:
    """`np.flatnonzero`, eight flags at a time: nearly all are False."""
    flat = mask.ravel()
    whole = len(flat) // 8 * 8
    words = np.flatnonzero(flat[:whole].view(np.uint64))
    within = np.flatnonzero(flat[:whole].reshape(-1, 8)[words])
    found = words[within // 8] * 8 + within % 8
    return np.concatenate([found, whole + np.flatnonzero(flat[whole:])])
