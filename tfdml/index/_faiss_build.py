"""Building the file of `FaissIndex`, block by block. Only a graph needs memory for all its vectors.

The vectors are written first, to their final place, and everything else is made of them as they are stored. An inverted file is
grown in three passes:

1. The centres of the lists (and FAISS's quantiser) learn from a sample.
2. Every part of the vectors is assigned to lists and encoded; its codes go, in the order of their lists, to a temporary file.
3. Group by group the lists are gathered from all parts and written, one after the other, as FAISS's own list format, from which
   it maps them. (FAISS writes that format from memory only.)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfdml.index._clusters import Clusters
from tfdml.index._faiss_spec import STORED
from tfdml.index.base import Floats, Integers

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many items of it are done, and of how many."""

_PAGE = 4096
_EXAMPLES_PER_LIST = 64
_EXAMPLES_PER_LIST_OF_MANY = 32
MANY_LISTS = 16_384
_EXAMPLES_OF_CODES = 65_536
_EF_CONSTRUCTION = 80
_PART_BYTES = 256 << 20
_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class Plan:
    """What is to be built."""

    count: int
    dimension: int
    kind: str
    lists: int
    links: int
    code_bytes: int
    seed: int
    stored: str


class Built(NamedTuple):
    """Where in the file the vectors begin, and the items that some training has looked at (None: it may have been all)."""

    vectors_at: int
    seen: Integers | None


def write(faiss: Any, plan: Plan, blocks: Iterable[Floats], path: Path, progress: Progress) -> Built:
    """Builds an index of the kind and writes its file; other files beside it come and go.

    Raises:
        ValueError: if there are more or fewer vectors than planned.
    """
    kind = STORED[plan.stored]
    if plan.kind == "hnsw":
        # FAISS holds the vectors of a graph in memory, and how long its part becomes is known only at the end.
        apart = path.with_name("vectors")
        _write_vectors(plan, blocks, apart, 0, progress)
        graph = faiss.IndexHNSWFlat(plan.dimension, plan.links)
        graph.hnsw.efConstruction = _EF_CONSTRUCTION
        for start, rows in _parts(np.memmap(apart, kind, "r", shape=(plan.count, plan.dimension))):
            graph.add(rows)
            progress("linking", start + len(rows), plan.count)
        faiss.write_index(graph, str(path))
        del graph
        with open(path, "ab") as file, open(apart, "rb") as vectors:
            file.write(bytes(-file.tell() % _PAGE))
            begin = file.tell()
            shutil.copyfileobj(vectors, file, 1 << 22)
        apart.unlink()
        return Built(begin, None)
    begin = 0 if plan.kind == "flat" else _most_bytes(plan)
    _write_vectors(plan, blocks, path, begin, progress)
    if plan.kind == "flat":
        return Built(0, None)
    stored: Floats = np.memmap(path, kind, "r", begin, (plan.count, plan.dimension))
    index, clusters, seen = _trained(faiss, plan, stored, progress)
    sizes = _write_codes(faiss, index, clusters, stored, path.parent, progress)
    _write_lists(faiss, index, sizes, path, begin, progress)
    return Built(begin, seen)


def _write_vectors(plan: Plan, blocks: Iterable[Floats], path: Path, begin: int, progress: Progress) -> None:
    done = 0
    limit = float(np.finfo(STORED[plan.stored]).max)
    with open(path, "wb") as file:
        file.seek(begin)
        for block in blocks:
            if plan.stored != "float32" and max(block.max(), -block.min()) > limit:
                raise ValueError(
                    f"stored={plan.stored!r}: a number of vectors {done} to {done + len(block) - 1} is beyond {limit:.0f}, the "
                    "largest that it holds. Take stored='float32', or scale the vectors."
                )
            done += len(block)
            if done > plan.count:
                break
            block.astype(STORED[plan.stored], copy=False).tofile(file)
            progress("storing", done, plan.count)
    if done != plan.count:
        found = f"more than {plan.count}" if done > plan.count else str(done)
        raise ValueError(
            f"vectors: the blocks hold {found} vectors for {plan.count} ids. Expected exactly one id for each vector."
        )


def _most_bytes(plan: Plan) -> int:
    """Room for FAISS's part: its lists, its centres and the graph over them, the codes' own centres, and headers."""
    lists = plan.count * (_code_size(plan) + 8) + 8 * plan.lists
    centres = plan.lists * (4 * plan.dimension + 4 * 4 * _CENTRE_LINKS + 32)
    codes = 4 * 256 * plan.dimension + 8 * plan.dimension
    return -(-(lists + centres + codes + 2 * _PAGE) // _PAGE) * _PAGE


_CENTRE_LINKS = 32


def _code_size(plan: Plan) -> int:
    return {"ivf": 4 * plan.dimension, "ivf_sq": plan.dimension, "ivf_pq": plan.code_bytes}[plan.kind]


def _trained(faiss: Any, plan: Plan, vectors: Floats, progress: Progress) -> tuple[Any, Clusters, Integers | None]:
    """An empty index, its clusters, and the items that they have seen."""
    each = _EXAMPLES_PER_LIST_OF_MANY if plan.lists >= MANY_LISTS else _EXAMPLES_PER_LIST
    wanted = max(plan.lists * each, _EXAMPLES_OF_CODES)
    seen = None
    if wanted < plan.count:
        seen = np.sort(np.random.default_rng(plan.seed).choice(plan.count, wanted, replace=False, shuffle=False))
    progress("clustering", 0, plan.lists)
    sample = np.asarray(vectors if seen is None else _rows(vectors, seen), np.float32)
    clusters = Clusters(faiss, sample, plan.lists, plan.seed)
    progress("clustering", plan.lists, plan.lists)
    if plan.lists >= MANY_LISTS:
        centres = faiss.IndexHNSWFlat(plan.dimension, _CENTRE_LINKS)
        centres.hnsw.efConstruction = _EF_CONSTRUCTION
    else:
        centres = faiss.IndexFlatL2(plan.dimension)
    centres.add(clusters.centres)
    if plan.kind == "ivf":
        index = faiss.IndexIVFFlat(centres, plan.dimension, plan.lists)
    elif plan.kind == "ivf_sq":
        index = faiss.IndexIVFScalarQuantizer(centres, plan.dimension, plan.lists, faiss.ScalarQuantizer.QT_8bit)
    else:
        index = faiss.IndexIVFPQ(centres, plan.dimension, plan.lists, plan.code_bytes, 8)
        index.pq.cp.seed = plan.seed
        index.pq.cp.max_points_per_centroid = _EXAMPLES_OF_CODES // 256
    # With its centres given, this trains the codes only.
    index.train(np.ascontiguousarray(sample[:: max(1, len(sample) // _EXAMPLES_OF_CODES)]))
    return index, clusters, seen


def _rows(vectors: Floats, numbers: Integers, step: int = 1 << 18) -> Floats:
    """As float32, without a second copy of them all."""
    result = np.empty((len(numbers), vectors.shape[1]), np.float32)
    for start in range(0, len(numbers), step):
        result[start : start + step] = vectors[numbers[start : start + step]]
    return result


def _parts(vectors: Floats) -> Iterator[tuple[int, Floats]]:
    step = max(1, _PART_BYTES // (4 * vectors.shape[1]))
    for start in range(0, len(vectors), step):
        yield start, np.asarray(vectors[start : start + step], np.float32)


def _write_codes(faiss: Any, index: Any, clusters: Clusters, vectors: Floats, folder: Path, progress: Progress) -> Integers:
    """Writes `codes` and `items`, part after part, each in the order of its lists. Returns sizes `[parts, lists]`."""
    sizes = []
    with open(folder / "codes", "wb") as codes_file, open(folder / "items", "wb") as items_file:
        for start, rows in _parts(vectors):
            lists = clusters.assign(rows)
            codes = np.empty((len(rows), index.code_size), np.uint8)
            index.encode_vectors(len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(lists), faiss.swig_ptr(codes))
            order = np.argsort(lists, kind="stable")
            codes[order].tofile(codes_file)
            (start + order).astype("<i8").tofile(items_file)
            sizes.append(np.bincount(lists, minlength=index.nlist))
            progress("encoding", start + len(rows), len(vectors))
    return np.array(sizes, np.int64)


def _write_lists(faiss: Any, index: Any, sizes: Integers, path: Path, room: int, progress: Progress) -> None:
    count = int(sizes.sum())
    index.own_invlists = False
    index.invlists = None
    index.ntotal = count
    head = faiss.serialize_index(index).tobytes()
    if not head.endswith(b"il00"):
        raise RuntimeError("this release of FAISS writes an index without lists in another way than those known.")
    totals = sizes.sum(axis=0)
    codes = np.memmap(path.with_name("codes"), np.uint8, "r", shape=(count, index.code_size))
    items = np.memmap(path.with_name("items"), "<i8", "r", shape=(count,))
    # Where in these files each part's share of each list begins; the last column is where the part ends.
    places = np.cumsum(np.concatenate([np.zeros(1, np.int64), sizes.ravel()]))
    with open(path, "rb+") as file:
        file.write(head[:-4] + b"ilar" + np.array([index.nlist, index.code_size], "<u8").tobytes())
        file.write(b"full" + np.array([index.nlist], "<u8").tobytes() + totals.astype("<u8").tobytes())
        done, first = 0, 0
        while first < index.nlist:
            last = first + 1
            group = int(totals[first])
            most = max(1, _GROUP_BYTES // (index.code_size + 8))
            while last < index.nlist and group + totals[last] <= most:
                group += int(totals[last])
                last += 1
            spans = [slice(places[part * index.nlist + first], places[part * index.nlist + last]) for part in range(len(sizes))]
            lists = np.concatenate([np.repeat(np.arange(first, last), part[first:last]) for part in sizes])
            order = np.argsort(lists, kind="stable")
            some_codes = np.concatenate([codes[span] for span in spans])[order]
            some_items = np.concatenate([items[span] for span in spans])[order]
            ends = np.cumsum(totals[first:last])
            for begin, end in zip(ends - totals[first:last], ends, strict=True):
                file.write(some_codes[begin:end].data)
                file.write(some_items[begin:end].data)
            done, first = done + group, last
            progress("writing lists", done, count)
        if file.tell() > room:
            raise RuntimeError(f"FAISS's part is {file.tell()} bytes long, and {room} were kept free for it.")
    for name in ("codes", "items"):
        path.with_name(name).unlink()
