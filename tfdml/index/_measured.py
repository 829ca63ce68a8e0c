"""What the approximate indexes have in common: a mapped file, a recall that was measured, and exact order of what is found."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.index._annoy_spec import AnnoySpec
from tfdml.index._faiss_spec import FaissSpec
from tfdml.index._files import copy_atomically, sha256
from tfdml.index._ids import PackedIds, packed_ids
from tfdml.index._milvus_spec import MilvusSpec
from tfdml.index._nearest import k_smallest, squared_distances
from tfdml.index._recall import Tunable, check_recall, check_seed, check_width, choose_search_k
from tfdml.index.base import (
    METRICS,
    Floats,
    IndexFormatError,
    Integers,
    SearchResult,
    check_k,
    check_queries,
    check_vectors,
)
from tfdml.index.exact import distances_from_squares

Spec = TypeVar("Spec", AnnoySpec, FaissSpec, MilvusSpec)
Folder = str | os.PathLike[str] | None


class MeasuredIndex(abc.ABC, Generic[Spec]):
    """Base class of `AnnoyIndex`, `FaissIndex` and `MilvusIndex`. A subclass finds candidates, with `_found`.

    Nothing changes after build or load: any number of threads may search at once.
    """

    _vectors: Floats

    def __init__(self, path: Path, spec: Spec, ids: PackedIds, keep: object) -> None:
        self._path, self._ids = path, ids
        self._spec: Spec = spec
        self._keep = keep  # the temporary folder of an index that was built and not yet saved

    @abc.abstractmethod
    def _found(self, batch: Floats, k: int, width: int) -> Iterable[Integers]:
        """For each query at least k different items, in the order of their numbers, after looking at about `width`."""

    def save(self, path: str | os.PathLike[str]) -> Spec:
        """Writes the index to a file, all of it or nothing, and returns what a reader must know of it.

        The bytes go to a temporary file beside `path`, are flushed to the disk, and take its place in one step.
        """
        digest = copy_atomically(self._path, Path(path))
        if digest != self._spec.sha256:
            raise IndexFormatError(f"{self._path}: the index changed on the disk since it was built or opened.")
        return self._spec

    @property
    def spec(self) -> Spec:
        return self._spec

    @property
    def dimension(self) -> int:
        return self._spec.dimension

    @property
    def metric(self) -> str:
        return self._spec.metric

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """Which way of searching it is."""

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return self._spec.count

    def vectors(self, numbers: npt.ArrayLike | None = None) -> Floats:
        """The stored vectors (of length 1 under cosine) of some items, or of all (mapped, read-only)."""
        return self._vectors if numbers is None else self._vectors[np.asarray(numbers)]

    def search(self, queries: npt.ArrayLike, k: int = 10, search_k: int | None = None) -> SearchResult:
        """The k nearest items of each query, as far as the index finds them.

        Args:
            queries: `[B, D]`, or one query `[D]`.
            k: 1 to the number of items. For k above `spec.recall_at` the search widens in proportion.
            search_k: candidates to look at; default: the number that was chosen for the asked recall.

        Raises:
            ValueError: if k is larger than the number of items, if a query holds NaN or infinity, has another dimension, or
                is zero under cosine.
        """
        batch = check_queries(queries, self.dimension, self.metric)
        k = check_k(k, len(self))
        width = search_k or -(-self._spec.search_k * max(k, self._spec.recall_at) // self._spec.recall_at)
        numbers = np.empty((len(batch), k), np.int64)
        squared = np.empty((len(batch), k))
        for row, found in enumerate(self._found(batch, k, width)):
            distances = squared_distances(self._vectors, found, batch[row])
            order, squared[row] = k_smallest(distances, k)
            numbers[row] = found[order]
        return SearchResult(numbers, self._ids.take(numbers), distances_from_squares(squared, self.metric))

    def _measure(
        self,
        rows: Floats,
        queries: Floats | None,
        twin_of: Callable[[Floats], Tunable],
        *,
        recall: float,
        fixed: int | None,
        trees: int = 1,
        least: int = 1,
        way_out: str,
        unseen: Integers | None = None,
    ) -> None:
        """Chooses `search_k` for the asked recall, or measures the fixed one's; at least `least`, and records it all."""
        spec = self._spec
        chosen = choose_search_k(
            self,
            rows,
            queries,
            twin_of,
            asked=recall,
            fixed=fixed,
            trees=trees,
            at=spec.recall_at,
            seed=spec.seed,
            way_out=way_out,
            unseen=unseen,
        )
        self._spec = replace(
            spec,
            search_k=min(max(chosen.search_k, least), len(rows) * trees),
            recall_asked=recall,
            recall=chosen.recall,
            recall_queries=chosen.queries,
            sha256=sha256(self._path),
        )


def checked(
    vectors: npt.ArrayLike,
    ids: Iterable[Any],
    metric: str,
    *,
    recall: float,
    seed: int,
    search_k: int | None,
    queries: npt.ArrayLike | None,
) -> tuple[Floats, PackedIds, Floats | None]:
    """Vectors, ids and queries of a `build`, after making sure that its arguments make sense."""
    check_options(metric, recall, seed, 2**32, search_k)
    rows = check_vectors(vectors, metric)
    names = packed_ids(ids, len(rows))
    return rows, names, checked_queries(queries, rows.shape[1], metric)


def check_options(metric: str, recall: float, seed: int, seeds: int, search_k: int | None) -> None:
    check_choice("metric", metric, METRICS)
    check_recall(recall)
    check_seed(seed, seeds)
    check_width(search_k)


def checked_queries(queries: npt.ArrayLike | None, dimension: int, metric: str) -> Floats | None:
    """The queries of a `build`."""
    asked = None if queries is None else check_queries(queries, dimension, metric)
    if asked is not None and len(asked) == 0:
        raise ValueError("queries: received none. Expected at least one, or None to measure on items.")
    return asked
