"""Search with FAISS: flat, by a graph, or in inverted lists that stay on the disk, in one memory-mapped file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.index import _faiss_file
from tfdml.index._blocks import VectorBlocks, Vectors
from tfdml.index._compared import ComparedIndex, compared
from tfdml.index._faiss_build import MANY_LISTS, Plan, Progress, write
from tfdml.index._faiss_spec import STORED, FaissSpec, sized
from tfdml.index._files import check_bytes, move_atomically
from tfdml.index._ids import PackedIds, packed_ids
from tfdml.index._measured import Folder, check_options, checked_queries
from tfdml.index._recall import recall_at
from tfdml.index.base import Floats, Integers

# Product codes are coarse: so small a part of what was looked at is compared by the vectors themselves.
_COMPARED_OF_CODES = 16
_FEWEST_CENTRES = 64
_BLOCK = 65_536


class FaissIndex(ComparedIndex[FaissSpec]):
    """Nearest neighbours with FAISS, behind the same protocol, file rules and recall measurement as `AnnoyIndex`.

    | kind | what a search does | memory that a search keeps warm, bytes an item |
    |---|---|---|
    | `"flat"` | compares all vectors | 4 D |
    | `"hnsw"` | follows a graph of near items | 4 D + 8 links |
    | `"ivf"` | compares the vectors of the nearest lists | 4 D + 8 |
    | `"ivf_sq"` | the same with 8 bits for a number | D + 8 |
    | `"ivf_pq"` | the same with product codes of `code_bytes` | code_bytes + 8 |

    `build` measures how many items a search must look at (`search_k`) to return the asked share of the true neighbours to
    queries that the index has not seen. The file also holds the vectors themselves. What FAISS finds is put in order by exact
    float64 differences from them, so codes cost no precision in what is returned, and near-duplicates come in the right order.
    Of the vectors a search reads only the rows that it compares, so they may be far larger than the memory. `stored="float16"`
    halves them.

    A hundred million vectors need not fit in the memory to be indexed, either: `build` takes parts, files and generators, and
    an inverted file grows on the disk. From 1,024 lists on these are learned in two levels, from 16,384 on a graph finds the
    lists near a query. `save(move=True)` spares the copy.

    Opened, graph and lists are mapped from the file (the lists are FAISS's on-disk lists), and processes share them. Nothing
    changes after build or load: any number of threads may search at once.

    Needs FAISS: `pip install 'tfdml[faiss]'`.

    Example:
        >>> import numpy as np, os, tempfile
        >>> from tfdml.index import FaissIndex
        >>> vectors = np.random.default_rng(0).normal(size=(500, 16))
        >>> ids = [f"item-{i}" for i in range(500)]
        >>> index = FaissIndex.build(vectors, ids, metric="cosine", kind="hnsw", recall=0.9)
        >>> bool(index.search(vectors[7], k=3).ids[0, 0] == "item-7")
        True
        >>> path = os.path.join(tempfile.mkdtemp(), "index.faiss")
        >>> spec = index.save(path)
        >>> again = FaissIndex.load(path, spec, ids)
        >>> len(again), again.spec.recall >= 0.9
        (500, True)

    References:
        Douze et al., The Faiss library, 2024: https://arxiv.org/abs/2401.08281
        Malkov and Yashunin, HNSW, 2016: https://arxiv.org/abs/1603.09320
        Jegou, Douze and Schmid, product quantisation, 2011: https://doi.org/10.1109/TPAMI.2010.57
    """

    def __init__(self, path: Path, spec: FaissSpec, ids: PackedIds, *, prefault: bool, keep: object = None) -> None:
        # Private: use build or load. The file's size is that of `spec` when this runs.
        super().__init__(path, spec, ids, keep)
        self._faiss = _faiss_file.import_faiss()
        self._vectors = _faiss_file.map_vectors(path, spec)
        if prefault:
            self._vectors = self._vectors.copy()
        self._structure = _faiss_file.open_structure(path, spec, prefault)
        self._self_test()

    @classmethod
    def build(
        cls,
        vectors: Vectors,
        ids: Iterable[Any],
        metric: str = "cosine",
        *,
        kind: str = "hnsw",
        lists: int | str = "auto",
        links: int | str = "auto",
        code_bytes: int | str = "auto",
        stored: str = "float32",
        seed: int = 0,
        recall: float = 0.95,
        queries: npt.ArrayLike | None = None,
        search_k: int | None = None,
        folder: Folder = None,
        progress: Progress | None = None,
    ) -> FaissIndex:
        """Builds the index, tests it, and chooses `search_k` for the asked recall.

        An inverted file (`"ivf..."`) and a flat index are built block by block, and need little memory beside the ids: a
        sample to learn the lists from (some 200 vectors for each list at most) and a few blocks. The disk holds the codes
        twice for a while. A graph needs its vectors in memory, twice over.

        Args:
            vectors: `[N, D]`, finite; under cosine none may be zero. An array, a memory map or anything else that gives rows
                by slices, the path of an `.npy` file, or several parts: a list of these, an iterator, or a function that
                returns one. They are read once.
            ids: N different strings, read once, in order. Of ids in blocks: `itertools.chain.from_iterable(blocks)`.
            metric: `"cosine"` or `"euclidean"`.
            kind: `"flat"`, `"hnsw"`, `"ivf"`, `"ivf_sq"` or `"ivf_pq"`.
            lists: of an inverted file. `"auto"`: 4 sqrt(N).
            links: of an item in the graph, HNSW's M. `"auto"`: 16.
            code_bytes: of an item's product code, a divisor of D. `"auto"`: one for 4 dimensions, more if that does not divide.
            stored: `"float32"`, or `"float16"`: half the file, and half of what must be read or stay in memory. All distances,
                and the exact search that the recall is measured against, are then those of the rounded vectors (numbers keep
                11 bits, up to 65,504).
            seed: of the clustering. (FAISS builds a graph on several cores, and not twice the same.)
            recall: asked share of the 10 true nearest neighbours that a search returns, in (0, 1].
            queries: `[Q, D]`, vectors like those that will be asked for, to measure the recall on; up to 512 are used. By
                default they are up to 512 items: of an inverted file that learned from a sample, items outside it (not counted
                as answers to themselves); otherwise of a second index, which is built without them.
            search_k: fixes the number of items to look at by hand; the recall is then only measured.
            folder: where the file lies until `save`, and what is needed while it grows; default: the system's temporary
                folder. Nothing stays there if the build fails.
            progress: called with (stage, items done, items), to show it.

        Raises:
            ImportError: without FAISS.
            ValueError: for bad vectors, ids or options, and when the asked recall is not reached (it names what was).
        """
        _faiss_file.import_faiss()
        check_options(metric, recall, seed, 2**31, search_k)
        check_choice("stored", stored, STORED)
        blocks = VectorBlocks(vectors, metric)
        names = packed_ids(ids, blocks.count)
        asked = checked_queries(queries, blocks.dimension, metric)
        sizes = sized(kind, len(names), blocks.dimension, lists, links, code_bytes)
        told = progress or _silence
        plan = Plan(len(names), blocks.dimension, kind, *sizes, int(seed), stored)
        index, seen = cls._grow(plan, blocks, names, metric, folder, told)
        # A graph's search keeps at least as many as are put in exact order, and was measured so.
        graph = kind == "hnsw" and search_k is None
        told("measuring", 0, len(names))
        index._measure(
            index._vectors,
            asked,
            lambda kept: index._twin(plan, kept, folder),
            recall=float(recall),
            fixed=search_k if search_k is not None else len(names) if kind == "flat" else None,
            least=min(compared(index.spec.recall_at), len(names)) if graph else 1,
            way_out="Allow a larger search_k, or leave it out to have it chosen, or ask for less.",
            unseen=None if seen is None else _others(seen, len(names), int(seed)),
        )
        told("measuring", len(names), len(names))
        return index

    @classmethod
    def _grow(
        cls, plan: Plan, blocks: Iterable[Floats], ids: PackedIds, metric: str, folder: Folder, progress: Progress
    ) -> tuple[FaissIndex, Integers | None]:
        """A tested index of which no recall is known yet, and the items that its training has seen, unless it was all."""
        home = tempfile.TemporaryDirectory(prefix=".tfdml-index-", dir=folder, ignore_cleanup_errors=True)
        path = Path(home.name) / "index.faiss"
        plan = replace(plan, lists=min(plan.lists, plan.count))
        start, seen = write(_faiss_file.import_faiss(), plan, blocks, path, progress)
        spec = FaissSpec(
            dimension=plan.dimension,
            metric=metric,
            count=plan.count,
            kind=plan.kind,
            lists=plan.lists,
            links=plan.links,
            code_bytes=plan.code_bytes,
            seed=plan.seed,
            search_k=1,
            recall_asked=0.0,
            recall=0.0,
            recall_at=recall_at(plan.count),
            recall_queries=0,
            vectors_at=start,
            stored=plan.stored,
            sha256="",
            bytes=path.stat().st_size,
        )
        return cls(path, spec, ids, prefault=False, keep=home), seen

    def _twin(self, plan: Plan, kept: Floats, folder: Folder) -> FaissIndex:
        """The same over some of the rows."""
        names = PackedIds(self.ids[: len(kept)])
        plan = replace(plan, count=len(kept))
        return self._grow(plan, [np.asarray(kept, np.float32)], names, self.metric, folder, _silence)[0]

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        spec: FaissSpec | Mapping[str, Any],
        ids: Iterable[Any],
        *,
        prefault: bool = False,
        checksum: bool = True,
    ) -> FaissIndex:
        """Opens a saved index, after making sure that it is the one that `spec` describes.

        Size and SHA-256 are checked before FAISS opens the file; then that its graph or lists are those of these items, and
        that some items find themselves.

        Args:
            path: the file.
            spec: what `save` returned, or its dict.
            ids: the items' ids in order, as many as `spec.count`.
            prefault: read everything into memory now instead of mapping it.
            checksum: False skips the SHA-256 only (for a caller that has computed it just before).

        Raises:
            ImportError: without FAISS.
            IndexFormatError: if anything disagrees; it says what.
            ValueError: for ids that are no strings, not unique, or not as many as there are items.
        """
        spec = FaissSpec.from_dict(spec.as_dict() if isinstance(spec, FaissSpec) else spec)
        file = Path(path)
        check_bytes(file, spec.bytes, spec.sha256 if checksum else None)
        return cls(file, spec, packed_ids(ids, spec.count), prefault=prefault)

    def save(self, path: str | os.PathLike[str], *, move: bool = False) -> FaissSpec:
        """Writes the index to a file, all of it or nothing, and returns what a reader must know of it.

        The bytes go to a temporary file beside `path`, are flushed to the disk, and take its place in one step.

        Args:
            path: the file; what was there is replaced.
            move: of an index that was just built, let its own temporary file become the file, without a copy, if it lies on
                the same file system (`build(..., folder=)`). The index itself goes on working.
        """
        if move and self._keep is not None and move_atomically(self._path, Path(path)):
            self._path, self._keep = Path(path), None
            return self._spec
        return super().save(path)

    @property
    def kind(self) -> str:
        return self._spec.kind

    def _looked_at(self, batch: Floats, wanted: int, width: int) -> list[Integers]:
        return [found[found >= 0] for found in self._numbers(batch, wanted, width)]

    def _numbers(self, batch: Floats, wanted: int, width: int) -> Integers:
        """The nearest as FAISS sees them, `wanted` or more columns, -1 where there are fewer."""
        if self._structure is None or width >= len(self):
            return self._compared_with_all(batch, wanted)
        if self.kind == "hnsw":
            options = self._faiss.SearchParametersHNSW(efSearch=max(width, wanted))
        else:
            lists = min(self._spec.lists, -(-max(width, 1) * self._spec.lists // len(self)))
            options = self._faiss.SearchParametersIVF(nprobe=lists)
            if self._spec.lists >= MANY_LISTS:
                # Their centres are found by a graph. The parameters hold no reference of their own to these.
                centres = self._faiss.SearchParametersHNSW(efSearch=max(_FEWEST_CENTRES, 2 * lists))
                options.quantizer_params = centres
            if self.kind == "ivf_pq":
                wanted = min(len(self), max(2 * wanted, width // _COMPARED_OF_CODES))
        return np.asarray(self._structure.search(batch, wanted, params=options)[1])

    def _compared_with_all(self, batch: Floats, wanted: int) -> Integers:
        if self._vectors.dtype == np.float32:
            return np.asarray(self._faiss.knn(batch, self._vectors, wanted)[1])
        best = self._faiss.ResultHeap(len(batch), wanted)
        for start in range(0, len(self), _BLOCK):
            block = self._vectors[start : start + _BLOCK].astype(np.float32)
            distances, numbers = self._faiss.knn(batch, block, min(wanted, len(block)))
            best.add_result(distances, numbers + start)
        best.finalize()
        return np.asarray(best.I)

    def __repr__(self) -> str:
        return (
            f"FaissIndex({len(self)} items, dimension={self.dimension}, metric={self.metric!r}, kind={self.kind!r}, "
            f"search_k={self._spec.search_k}, recall@{self._spec.recall_at}={self._spec.recall:.3f})"
        )


def _others(seen: Integers, count: int, seed: int) -> Integers:
    """Some items that are not among those seen."""
    some = np.random.default_rng([seed, 1]).choice(count, min(count, 8192), replace=False, shuffle=False)
    place = np.searchsorted(seen, some)
    place[place == len(seen)] = 0
    return some[seen[place] != some]


def _silence(stage: str, done: int, count: int) -> None:
    pass
