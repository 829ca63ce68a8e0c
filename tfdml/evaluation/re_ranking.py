"""Re-ranking by k-reciprocal neighbours. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.evaluation._comparison import Comparison, comparison
from tfdml.index._nearest import BLOCK_BYTES, NearestRows
from tfdml.index.base import METRICS, Floats, Integers, check_vectors

Flags = npt.NDArray[np.bool_]


def k_reciprocal_distances(
    embeddings: npt.ArrayLike,
    gallery: npt.ArrayLike | None = None,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    metric: str = "euclidean",
    block: int = BLOCK_BYTES,
) -> Floats:
    r"""Distances that also say how alike the *neighbourhoods* of two items are: they bring in right answers that lie far off.

    Two items are k-reciprocal neighbours if each is among the k nearest of the other. R(p, k) is the set of those of p,
    p included, and R*(p, k) adds R(q, k/2) for each q in R(p, k) that shares more than 2/3 of it with R(p, k). With d the
    squared distance divided by the largest from p,

        v_p(g) = exp(-d(p, g)) for g in R*(p, k1), else 0; divided by its sum; then the mean of v over the k2 nearest of p
        J(p, g) = 1 - sum min(v_p, v_g) / sum max(v_p, v_g)
        result  = (1 - weight) J + weight d

    The neighbourhoods are those among queries and gallery together. So a result depends on all items there are, and must be
    computed anew for each set of queries: it is for evaluation, and for galleries that are searched in batches. The details
    (d squared and scaled, v divided by its sum, more than 2/3) are those of the authors' code.

    `tfdml.evaluation.retrieval_by_distances` turns the result into figures.

    Memory beside the embeddings and the result: for each item about `k1 * k2` numbers, and a few blocks. Time: that of
    exact search, plus a fraction of a millisecond for each item.

    Args:
        embeddings: `[Q, D]`, the queries, finite.
        gallery: `[G, D]`; None: the queries themselves.
        k1: neighbours in a neighbourhood.
        k2: neighbours that a neighbourhood is averaged over, the item itself counted; 1 leaves it as it is.
        weight: lambda, the original distance's share of the result; 1 keeps the original order.
        metric: `"euclidean"` or `"cosine"`.
        block: bytes of a block of distances.

    Returns:
        float32 `[Q, G]`, from 0 to 1; without a gallery `[Q, Q]`, whose diagonal is an item's distance to itself.

    Raises:
        ValueError: for NaN or infinity; for more neighbours than there are items; for a weight outside 0 to 1.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import k_reciprocal_distances, retrieval_by_distances
        >>> labels = np.arange(30) // 10
        >>> x = np.eye(3)[labels] + 0.35 * np.random.default_rng(0).normal(size=(30, 3))
        >>> before = k_reciprocal_distances(x, k1=8, k2=3, weight=1.0)
        >>> after = k_reciprocal_distances(x, k1=8, k2=3)
        >>> [round(retrieval_by_distances(d, labels, ks=(1,)).map_at_r, 2) for d in (before, after)]
        [0.86, 0.96]

    References:
        Zhong, Zheng, Cao and Li, Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017.
    """
    check_choice("metric", metric, METRICS)
    vectors = check_vectors(embeddings, metric)
    queries = len(vectors)
    if gallery is not None:
        items = check_vectors(gallery, metric, "gallery")
        if items.shape[1] != vectors.shape[1]:
            raise ValueError(f"gallery: dimension {items.shape[1]}, but embeddings have {vectors.shape[1]}.")
        vectors = np.concatenate([vectors, items])
    _check_neighbours(k1, k2, len(vectors))
    if isinstance(weight, bool) or not 0 <= weight <= 1:
        raise ValueError(f"weight={weight!r}: expected a number from 0 to 1.")

    nearest = _nearest(vectors, k1, block)
    distances = comparison(vectors, "squared_euclidean")
    largest = _largest(distances, block)
    encoding = _encoding(nearest, k1, k2, distances, largest)
    first = 0 if gallery is None else queries
    result = np.empty((queries, len(vectors) - first), np.float32)
    columns = np.arange(first, len(vectors))
    for rows in _row_blocks(queries, len(columns), block):
        original = distances.block(rows, columns) / largest[rows, None]
        result[rows] = (1 - weight) * encoding.jaccard_distances(rows)[:, first:] + weight * original
    return result


class _Encoding:
    """The sparse vectors v, row after row: `columns` and `values` from `ends[i - 1]` to `ends[i]` are those of item i."""

    def __init__(self, rows: list[tuple[Integers, npt.NDArray[np.float64]]]) -> None:
        self.columns = np.concatenate([columns for columns, _ in rows])
        self.values = np.concatenate([values for _, values in rows])
        self.ends = np.cumsum([len(columns) for columns, _ in rows])
        # The same by column: which items have a number there.
        order = np.argsort(self.columns, kind="stable")
        self.owners = np.repeat(np.arange(len(rows)), [len(columns) for columns, _ in rows])[order]
        self.by_column = self.values[order]
        self.starts = np.searchsorted(self.columns[order], np.arange(len(rows) + 1))

    def row(self, item: int) -> tuple[Integers, npt.NDArray[np.float64]]:
        part = slice(self.ends[item - 1] if item else 0, self.ends[item])
        return self.columns[part], self.values[part]

    def averaged(self, neighbours: Integers) -> _Encoding:
        """Each row the mean of the rows of its neighbours `[N, k]`."""
        rows = []
        for some in neighbours:
            parts = [self.row(item) for item in some]
            columns, place = np.unique(np.concatenate([columns for columns, _ in parts]), return_inverse=True)
            values = np.bincount(place.reshape(-1), np.concatenate([values for _, values in parts]), len(columns))
            rows.append((columns, values / len(some)))
        return _Encoding(rows)

    def jaccard_distances(self, items: Integers) -> npt.NDArray[np.float64]:
        """`[len(items), N]`. Every row sums up to 1, so the sum of the maxima is 2 less that of the minima."""
        minima = np.empty((len(items), len(self.ends)))
        for number, item in enumerate(items):
            columns, values = self.row(item)
            starts, lengths = self.starts[columns], np.diff(self.starts)[columns]
            # Everything in these columns, whose own numbers lie one after another in `by_column`.
            place = np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
            smaller = np.minimum(np.repeat(values, lengths), self.by_column[place])
            minima[number] = np.bincount(self.owners[place], smaller, len(self.ends))
        return 1 - minima / (2 - minima)


def _encoding(nearest: Integers, k1: int, k2: int, distances: Comparison, largest: npt.NDArray[np.float64]) -> _Encoding:
    half = int(np.around(k1 / 2))
    wide, narrow = _reciprocal(nearest, k1), _reciprocal(nearest, half)
    narrow_sizes = narrow.sum(axis=1)
    rows = []
    within = np.zeros(len(nearest), bool)
    for item, (neighbours, mutual) in enumerate(zip(nearest, wide, strict=True)):
        own = neighbours[mutual]
        within[own] = True
        others, theirs = nearest[own, : half + 1], narrow[own]
        shared = (within[others] & theirs).sum(axis=1)
        added = (shared > 2 / 3 * narrow_sizes[own])[:, None] & theirs
        within[own] = False
        columns = np.unique(np.concatenate([own, others[added]]))
        squares = distances.paired(np.full(len(columns), item), columns).astype(np.float64)
        values = np.exp(-squares / largest[item])
        rows.append((columns, values / values.sum()))
    encoding = _Encoding(rows)
    return encoding if k2 == 1 else encoding.averaged(nearest[:, :k2])


def _nearest(vectors: Floats, k: int, block: int) -> Integers:
    """`[N, 1 + k]`: each item itself, then its nearest."""
    nearest = np.empty((len(vectors), 1 + k), np.int64)
    nearest[:, 0] = np.arange(len(vectors))
    for part in NearestRows(vectors).search(vectors, k, nearest[:, 0], exact_distances=False, block_bytes=block):
        nearest[part.start : part.start + len(part.numbers), 1:] = part.numbers
    return nearest


def _reciprocal(nearest: Integers, k: int) -> Flags:
    """`[N, 1 + k]`: whether the item is among the 1 + k of its neighbour, too."""
    result = np.empty((len(nearest), 1 + k), bool)
    for rows in _row_blocks(len(nearest), (1 + k) ** 2, BLOCK_BYTES):
        back = nearest[nearest[rows, : 1 + k], : 1 + k]
        result[rows] = (back == rows[:, None, None]).any(axis=2)
    return result


def _largest(distances: Comparison, block: int) -> npt.NDArray[np.float64]:
    """Of each item to any other; 1 if all are 0."""
    everything = np.arange(len(distances))
    parts = [distances.block(rows, everything).max(axis=1) for rows in _row_blocks(len(distances), len(distances), block)]
    largest = np.concatenate(parts).astype(np.float64)
    return np.where(largest > 0, largest, 1)


def _row_blocks(count: int, numbers: int, block: int) -> Iterator[Integers]:
    height = max(1, block // (8 * numbers))
    for start in range(0, count, height):
        yield np.arange(start, min(start + height, count))


def _check_neighbours(k1: int, k2: int, count: int) -> None:
    for argument, value, most in (("k1", k1, count - 1), ("k2", k2, k1 + 1 if isinstance(k1, int) else 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
            there = f"there are {count} items in all" if argument == "k1" else f"k1 is {k1}"
            raise ValueError(f"{argument}={value!r}: expected a whole number from 1 to {most}, since {there}.")
