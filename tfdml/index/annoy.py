"""Approximate search with Annoy: one memory-mapped file, shared by every process that opens it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import annoy
import numpy as np
import numpy.typing as npt

from tfdml.index import _annoy_file
from tfdml.index._annoy_spec import AnnoySpec
from tfdml.index._ids import PackedIds, packed_ids
from tfdml.index._measured import Folder, MeasuredIndex, checked
from tfdml.index._recall import recall_at
from tfdml.index.base import Floats, Integers


class AnnoyIndex(MeasuredIndex[AnnoySpec]):
    """Approximate nearest neighbours by a forest of random projection trees (Annoy), in one memory-mapped file.

    `build` makes the trees and then *measures*: it finds how many candidates a search must look at (`search_k`) to return the
    asked share of the true neighbours to queries that the trees have not seen, against exact search. What Annoy finds is put
    in order by exact float64 differences, so near-duplicates come in the right order, and a search always returns k
    neighbours.

    Nothing changes after build or load, so any number of threads may search at once; processes share the file's memory.

    The file is tied to the machine's byte order only. Under cosine it holds vectors of length 1 (Annoy's "angular").

    Example:
        >>> import numpy as np, os, tempfile
        >>> from tfdml.index import AnnoyIndex
        >>> vectors = np.random.default_rng(0).normal(size=(500, 16))
        >>> ids = [f"item-{i}" for i in range(500)]
        >>> index = AnnoyIndex.build(vectors, ids, metric="cosine", recall=0.9)
        >>> bool(index.search(vectors[7], k=3).ids[0, 0] == "item-7")
        True
        >>> path = os.path.join(tempfile.mkdtemp(), "index.ann")
        >>> spec = index.save(path)
        >>> again = AnnoyIndex.load(path, spec, ids)
        >>> len(again), again.spec.recall >= 0.9
        (500, True)

    References:
        Bernhardsson, Annoy: https://github.com/spotify/annoy
    """

    def __init__(
        self, path: Path, spec: AnnoySpec, ids: PackedIds, vectors: Floats, *, prefault: bool, keep: object = None
    ) -> None:
        # Private: use build or load. `spec` has been checked against the file when this runs, and `vectors` are mapped from it.
        super().__init__(path, spec, ids, keep)
        self._vectors = vectors
        self._rows = _annoy_file.map_rows(path, spec.dimension, spec.metric, spec.count)
        self._annoy = annoy.AnnoyIndex(spec.dimension, _annoy_file.ANNOY_METRIC[spec.metric])
        self._annoy.load(str(path), prefault=prefault)
        _annoy_file.self_test(self._annoy, self._vectors, spec.count, spec.trees, path)

    @classmethod
    def build(
        cls,
        vectors: npt.ArrayLike,
        ids: Iterable[Any],
        metric: str = "cosine",
        *,
        trees: int | str = "auto",
        seed: int = 0,
        recall: float = 0.95,
        queries: npt.ArrayLike | None = None,
        search_k: int | None = None,
        folder: Folder = None,
    ) -> AnnoyIndex:
        """Builds the trees, tests them, and chooses `search_k` for the asked recall.

        Args:
            vectors: `[N, D]`, finite; under cosine none may be zero.
            ids: N different strings.
            metric: `"cosine"` or `"euclidean"`.
            trees: more trees find more in the same time and take more space. `"auto"`: 2 log2(N), from 10 to 50.
            seed: of the random projections. The same vectors and seed give the same file (so one core builds).
            recall: asked share of the 10 true nearest neighbours that a search returns, in (0, 1].
            queries: `[Q, D]`, vectors like those that will be asked for, to measure the recall on; up to 512 are used. By
                default a second forest is built without up to 512 of the items, and those are the queries: an item is too
                easy a query for a forest that holds it.
            search_k: fixes the number of candidates by hand; the recall is then only measured.
            folder: where the file lies until `save`; default: the system's temporary folder.

        Raises:
            ValueError: for bad vectors, ids or options, and when the asked recall is not reached (it names the best recall).
        """
        rows, names, asked = checked(vectors, ids, metric, recall=recall, seed=seed, search_k=search_k, queries=queries)
        forest = number_of_trees(trees, len(rows))
        index = cls._grow(rows, names, metric, forest, int(seed), folder)
        index._measure(
            rows,
            asked,
            lambda kept: cls._grow(kept, PackedIds(names[: len(kept)]), metric, forest, int(seed), folder),
            recall=float(recall),
            fixed=search_k,
            trees=forest,
            way_out="Build more trees, allow a larger search_k, or ask for less.",
        )
        return index

    @classmethod
    def _grow(
        cls,
        rows: Floats,
        ids: PackedIds,
        metric: str,
        trees: int,
        seed: int,
        folder: Folder,
    ) -> AnnoyIndex:
        """A tested forest of which no recall is known yet."""
        home = tempfile.TemporaryDirectory(prefix=".tfdml-index-", dir=folder, ignore_cleanup_errors=True)
        path = Path(home.name) / "index.ann"
        _annoy_file.write(rows, metric, trees, seed, path)
        spec = AnnoySpec(
            dimension=rows.shape[1],
            metric=metric,
            count=len(rows),
            trees=trees,
            seed=seed,
            search_k=trees,
            recall_asked=0.0,
            recall=0.0,
            recall_at=recall_at(len(rows)),
            recall_queries=0,
            sha256="",
            bytes=path.stat().st_size,
        )
        vectors = _annoy_file.map_items(path, spec.dimension, metric, spec.count)
        return cls(path, spec, ids, vectors, prefault=False, keep=home)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        spec: AnnoySpec | Mapping[str, Any],
        ids: Iterable[Any],
        *,
        prefault: bool = False,
        checksum: bool = True,
    ) -> AnnoyIndex:
        """Opens a saved index, after making sure that it is the one that `spec` describes.

        Size, SHA-256 and the layout of the items are checked *before* Annoy opens the file (a wrong dimension can crash it),
        then the number of items and trees, and then some items are searched for: n of n neighbours must come back.

        Args:
            path: the file.
            spec: what `save` returned, or its dict.
            ids: the items' ids in order, as many as `spec.count`.
            prefault: read the whole file into memory now instead of page by page.
            checksum: False skips the SHA-256 only (for a caller that has computed it just before).

        Raises:
            IndexFormatError: if anything disagrees; it says what.
            ValueError: for ids that are no strings, not unique, or not as many as there are items.
        """
        spec = spec if isinstance(spec, AnnoySpec) else AnnoySpec.from_dict(spec)
        file = Path(path)
        vectors = _annoy_file.check(
            file, spec.dimension, spec.metric, spec.count, spec.bytes, spec.sha256 if checksum else None
        )
        return cls(file, spec, packed_ids(ids, spec.count), vectors, prefault=prefault)

    @property
    def kind(self) -> str:
        """`"annoy"`."""
        return self._spec.backend

    def candidates(self, query: list[float], count: int, search_k: int) -> Integers:
        """Numbers of up to `count` items that the trees find near one query, as Annoy orders them: nearest first in float32.

        For whoever passes over some of them, such as a search with a filter; `search` is what finds k neighbours. Nothing is
        checked here: the query has `dimension` finite numbers, and length 1 under cosine.
        """
        return np.array(self._annoy.get_nns_by_vector(query, count, search_k=search_k), np.int64)

    def gather(self, numbers: npt.NDArray[np.integer[Any]]) -> Floats:
        """The stored vectors of some items, as `vectors` returns them, in half the time: rows of the file are copied whole."""
        return self._rows.take(numbers, axis=0)[:, -self._spec.dimension :]

    def _found(self, batch: Floats, k: int, width: int) -> Iterator[Integers]:
        return (self._around(query, k, width) for query in batch)

    def _around(self, query: Floats, k: int, width: int) -> Integers:
        """At least k different items, in the order of their numbers."""
        # More than k, because Annoy's own float32 order is wrong among near-duplicates.
        wanted = min(len(self), max(2 * k, k + 16))
        vector = query.tolist()
        everything = len(self) * self._spec.trees
        while True:
            found = self.candidates(vector, wanted, max(width, wanted))
            if len(found) >= k:
                return np.sort(found)
            if width >= everything:
                return np.arange(len(self))
            width = min(4 * max(width, wanted), everything)

    def __repr__(self) -> str:
        return (
            f"AnnoyIndex({len(self)} items, dimension={self.dimension}, metric={self.metric!r}, trees={self._spec.trees}, "
            f"search_k={self._spec.search_k}, recall@{self._spec.recall_at}={self._spec.recall:.3f})"
        )


def number_of_trees(trees: object, count: int) -> int:
    """How many trees `AnnoyIndex.build` builds over `count` vectors."""
    if trees == "auto":
        return int(np.clip(round(2 * np.log2(max(count, 2))), 10, 50))
    if isinstance(trees, bool) or not isinstance(trees, (int, np.integer)) or trees < 1:
        raise ValueError(f"trees={trees!r}: expected a whole number >= 1, or 'auto'.")
    return int(trees)
