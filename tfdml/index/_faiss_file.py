"""The file of `FaissIndex`: FAISS's own bytes, filled up to whole pages, and behind them all vectors as float32 or float16.

FAISS reads its part and stops, so it opens the file as its own. The vectors are mapped by NumPy: they put what FAISS finds in
exact order, also where FAISS holds short codes only, and they are what a search with a filter compares. A flat index has no
part of FAISS's: its kernels search the mapped vectors themselves.

Distances are squared Euclidean throughout. Cosine is the same thing on vectors of length 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tfdml.index._faiss_spec import STORED, FaissSpec
from tfdml.index._files import map_vectors_at
from tfdml.index.base import Floats, IndexFormatError

_CLASSES = {
    "hnsw": "IndexHNSWFlat",
    "ivf": "IndexIVFFlat",
    "ivf_sq": "IndexIVFScalarQuantizer",
    "ivf_pq": "IndexIVFPQ",
}


def import_faiss() -> Any:
    """FAISS, which is asked for only where it is needed."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            f"this index needs FAISS, which cannot be imported here ({error}). Install it: pip install 'tfdml[faiss]'"
        ) from error
    return faiss


def map_vectors(path: Path, spec: FaissSpec) -> Floats:
    """The items' vectors `[count, dimension]`, mapped read-only: finite, and of length 1 under cosine."""
    stored = STORED[spec.stored].str
    return map_vectors_at(path, spec.vectors_at, spec.count, spec.dimension, spec.metric, stored)


def open_structure(path: Path, spec: FaissSpec, prefault: bool) -> Any:
    """FAISS's part, after making sure that it is what the record says. None for a flat index, which has none.

    Graph and lists stay in the file and are mapped; with `prefault` they are read into memory.
    """
    faiss = import_faiss()
    if spec.kind == "flat":
        return None
    if spec.vectors_at == 0:
        raise IndexFormatError(f"{path}: FAISS's part is missing.")
    mapped = faiss.IO_FLAG_MMAP_IFC if spec.kind == "hnsw" else faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    try:
        index = faiss.read_index(str(path), 0 if prefault else mapped)
    except (RuntimeError, MemoryError) as error:
        raise IndexFormatError(f"{path}: FAISS cannot read it: {_short(error)}") from error
    expected = f"a FAISS index of {spec.count} items with dimension={spec.dimension} and kind={spec.kind!r}"
    fits = (
        type(index).__name__ == _CLASSES[spec.kind]
        and (index.d, index.ntotal) == (spec.dimension, spec.count)
        and index.metric_type == faiss.METRIC_L2
        and index.is_trained
        and (_graph_fits(faiss, index, spec) if spec.kind == "hnsw" else _lists_fit(faiss, index, spec))
    )
    if not fits:
        raise IndexFormatError(f"{path}: this is not {expected}.")
    return index


def _graph_fits(faiss: Any, index: Any, spec: FaissSpec) -> bool:
    """Every number by which a search finds its way through the graph is one of the graph."""
    graph, storage = index.hnsw, faiss.downcast_index(index.storage)
    levels, offsets = faiss.vector_to_array(graph.levels), faiss.vector_to_array(graph.offsets)
    neighbours = faiss.vector_to_array(graph.neighbors)
    return bool(
        (storage.d, storage.ntotal) == (spec.dimension, spec.count)
        and graph.nb_neighbors(0) == 2 * spec.links
        and len(levels) == spec.count
        and len(offsets) == spec.count + 1
        and offsets[0] == 0
        and offsets[-1] == len(neighbours)
        and (np.diff(offsets.astype(np.int64)) > 0).all()
        and neighbours.min() >= -1
        and neighbours.max() < spec.count
        and 0 <= graph.entry_point < spec.count
        and levels[graph.entry_point] == graph.max_level + 1
    )


def _lists_fit(faiss: Any, index: Any, spec: FaissSpec) -> bool:
    """The lists hold every item once."""
    centres, lists = index.quantizer, faiss.downcast_InvertedLists(index.invlists)
    if (index.nlist, centres.ntotal, centres.d) != (spec.lists, spec.lists, spec.dimension):
        return False
    if spec.kind == "ivf_pq" and spec.code_bytes != index.pq.M:
        return False
    seen = np.zeros(spec.count, bool)
    total = 0
    for number in range(spec.lists):
        size = lists.list_size(number)
        total += size
        if total > spec.count:
            return False
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            if ids.min() < 0 or ids.max() >= spec.count:
                return False
            seen[ids] = True
    if hasattr(lists, "prefetch_nthread"):
        lists.prefetch_nthread = 0  # starting threads for each search costs more than the pages that they fetch
    return bool(total == spec.count and seen.all())


def _short(error: BaseException) -> str:
    """FAISS's message without the function and the line that it comes from."""
    return (str(error).rsplit("Error: ", 1)[-1] or type(error).__name__)[:200]
