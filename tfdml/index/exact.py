"""Exact search."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.index._exact_spec import ExactSpec
from tfdml.index._files import check_bytes, map_vectors_at, write_atomically
from tfdml.index._ids import PackedIds
from tfdml.index._nearest import NearestRows
from tfdml.index._recall import recall_at
from tfdml.index.base import METRICS, Floats, Integers, SearchResult, check_ids, check_k, check_queries, check_vectors


class ExactIndex:
    """Compares every query with every item: no neighbour is ever missed.

    The yardstick that the approximate indexes are measured against, and the right choice up to about 100,000 items. A
    float32 matrix product finds the candidates on all cores, and float64 differences order them, so near-duplicates come
    in the right order too; equal distances are ordered by item number. Memory: two copies of the vectors and a few blocks
    of 32 MB, never `queries x items`; what `load` opened is mapped, and copied once, at the first search. Safe to search
    from several threads.

    Args:
        vectors: `[N, D]`, finite. Under cosine they are stored divided by their length.
        ids: N different strings.
        metric: `"cosine"` (distance `1 - cos(u, v)`) or `"euclidean"` (`||u - v||`).

    Raises:
        ValueError: for NaN or infinity, for a zero vector under cosine, for ids that are no strings, or not unique, or not
            one for each vector.

    Example:
        >>> from tfdml.index import ExactIndex
        >>> index = ExactIndex([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], ids=["east", "north", "north-east"])
        >>> found = index.search([2.0, 0.1], k=2)
        >>> found.ids[0].tolist()
        ['east', 'north-east']
        >>> [f"{distance:.3f}" for distance in found.distances[0]]
        ['0.001', '0.258']
    """

    def __init__(self, vectors: npt.ArrayLike, ids: Iterable[Any], metric: str = "cosine") -> None:
        self._metric = check_choice("metric", metric, METRICS)
        self._vectors = check_vectors(vectors, metric)
        self._ids: Sequence[str] = check_ids(ids, len(self._vectors))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], spec: ExactSpec | Mapping[str, Any], ids: Iterable[Any], *, checksum: bool = True
    ) -> ExactIndex:
        """Opens a saved index; its vectors are mapped from the file.

        Args:
            path: the file.
            spec: what `save` returned, or its dict.
            ids: the items' ids in order, as many as `spec.count`.
            checksum: False skips the SHA-256 only (for a caller that has computed it just before).

        Raises:
            IndexFormatError: if file and spec disagree; it says how.
            ValueError: for ids that are no strings, not unique, or not as many as there are items.
        """
        spec = ExactSpec.from_dict(spec.as_dict() if isinstance(spec, ExactSpec) else spec)
        file = Path(path)
        check_bytes(file, spec.bytes, spec.sha256 if checksum else None)
        index = cls.__new__(cls)
        index._metric = spec.metric
        index._vectors = map_vectors_at(file, 0, spec.count, spec.dimension, spec.metric)
        index._ids = ids if isinstance(ids, PackedIds) and len(ids) == spec.count else check_ids(ids, spec.count)
        return index

    def save(self, path: str | os.PathLike[str]) -> ExactSpec:
        """Writes the vectors to a file, all of it or nothing, and returns what a reader must know of it."""
        digest = write_atomically(self._vectors, Path(path))
        return dataclasses.replace(self.spec, sha256=digest)

    @property
    def spec(self) -> ExactSpec:
        """What `save` would record, but for the checksum."""
        return ExactSpec(
            dimension=self.dimension,
            metric=self._metric,
            count=len(self),
            search_k=len(self),
            recall_asked=1.0,
            recall=1.0,
            recall_at=recall_at(len(self)),
            sha256="",
            bytes=self._vectors.nbytes,
        )

    @property
    def kind(self) -> str:
        """`"exact"`."""
        return "exact"

    @cached_property
    def _nearest(self) -> NearestRows:
        return NearestRows(self._vectors)

    @cached_property
    def _id_array(self) -> npt.NDArray[np.object_]:
        return np.array(list(self._ids), dtype=object)

    @property
    def dimension(self) -> int:
        return int(self._vectors.shape[1])

    @property
    def metric(self) -> str:
        return self._metric

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self._vectors)

    def vectors(self, numbers: npt.ArrayLike | None = None) -> Floats:
        """The stored vectors (of length 1 under cosine) of some items, or of all."""
        return self._vectors if numbers is None else self._vectors[np.asarray(numbers)]

    def gather(self, numbers: npt.NDArray[np.integer[Any]]) -> Floats:
        """As `vectors` of some items."""
        return self._vectors.take(numbers, axis=0)

    def candidates(self, query: list[float], count: int, search_k: int) -> Integers:
        """The numbers of the `count` nearest items of one query, nearest first; `search_k` changes nothing."""
        return self.search(query, min(count, len(self))).numbers[0]

    def search(self, queries: npt.ArrayLike, k: int = 10, exclude: npt.ArrayLike | None = None) -> SearchResult:
        """The k nearest items of each query.

        Args:
            queries: `[B, D]`, or one query `[D]`.
            k: 1 to the number of items.
            exclude: an item number for each query that must not be returned (the query's own, when it is in the gallery);
                -1 excludes nothing.

        Raises:
            ValueError: if k is larger than the number of items that can be returned, if a query holds NaN or infinity, has
                another dimension, or is zero under cosine.
        """
        batch = check_queries(queries, self.dimension, self.metric)
        left_out = None if exclude is None else _check_exclude(exclude, len(batch), len(self))
        k = check_k(k, len(self) - (left_out is not None and bool((left_out >= 0).any())))
        numbers = np.empty((len(batch), k), np.int64)
        squared = np.empty((len(batch), k))
        for block in self._nearest.search(batch, k, left_out):
            part = slice(block.start, block.start + len(block.numbers))
            numbers[part], squared[part] = block.numbers, block.squared_distances
        return SearchResult(numbers, self._id_array[numbers], distances_from_squares(squared, self.metric))

    def __repr__(self) -> str:
        return f"ExactIndex({len(self)} items, dimension={self.dimension}, metric={self.metric!r})"


def distances_from_squares(squared: npt.NDArray[np.float64], metric: str) -> Floats:
    """The distances that are reported, from squared Euclidean ones (of unit vectors, under cosine)."""
    return (squared / 2 if metric == "cosine" else np.sqrt(squared)).astype(np.float32)


def _check_exclude(exclude: npt.ArrayLike, queries: int, items: int) -> Integers:
    array = np.asarray(exclude)
    if array.shape != (queries,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"exclude: expected {queries} whole numbers, one for each query, received shape {array.shape}, dtype {array.dtype}."
        )
    if array.size and (array.min() < -1 or array.max() >= items):
        raise ValueError(
            f"exclude: expected item numbers 0 to {items - 1}, or -1 for none, received {array.min()} to {array.max()}."
        )
    return array.astype(np.int64)
