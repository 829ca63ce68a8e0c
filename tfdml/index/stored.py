"""One way to build and open every index that can be saved: by a word, or by a mapping of settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.index._faiss_file import import_faiss
from tfdml.index._faiss_spec import FAISS_KINDS, sized
from tfdml.index._milvus_server import import_milvus
from tfdml.index._milvus_spec import MILVUS_KINDS, milvus_sizes
from tfdml.index._record import IndexSpec
from tfdml.index.annoy import AnnoyIndex, number_of_trees
from tfdml.index.base import Floats, IndexFormatError, Integers, VectorIndex
from tfdml.index.exact import ExactIndex
from tfdml.index.faiss import FaissIndex
from tfdml.index.milvus import MilvusIndex

IndexSettings = str | Mapping[str, Any]
"""`"exact"`, `"annoy"`, one of `FAISS_KINDS`, `"milvus"`, `"milvus_"` with one of `MILVUS_KINDS`, or a mapping
`{"backend": ..., setting: value, ...}`."""

_WORDS: dict[str, dict[str, Any]] = {
    "exact": {"backend": "exact"},
    "annoy": {"backend": "annoy"},
    "faiss": {"backend": "faiss", "kind": "hnsw"},
    **{kind: {"backend": "faiss", "kind": kind} for kind in FAISS_KINDS},
    "milvus": {"backend": "milvus", "kind": "hnsw"},
    **{f"milvus_{kind}": {"backend": "milvus", "kind": kind} for kind in MILVUS_KINDS},
}
_SETTINGS: dict[str, tuple[str, ...]] = {
    "exact": (),
    "annoy": ("trees",),
    "faiss": ("kind", "lists", "links", "code_bytes"),
    "milvus": ("kind", "lists", "links", "cluster", "token"),
}
_CLASSES: dict[str, Any] = {"annoy": AnnoyIndex, "faiss": FaissIndex, "milvus": MilvusIndex}
_KINDS = {"faiss": FAISS_KINDS, "milvus": MILVUS_KINDS}


@runtime_checkable
class StoredIndex(VectorIndex, Protocol):
    """A `VectorIndex` that can be saved and holds its vectors: what a bundle keeps, and the service searches.

    `candidates` gives up to `count` items near one checked query, nearest first, after looking at `search_k` of them.
    """

    @property
    def spec(self) -> IndexSpec: ...

    @property
    def kind(self) -> str: ...

    def vectors(self, numbers: npt.ArrayLike | None = None) -> Floats: ...

    def gather(self, numbers: npt.NDArray[np.integer[Any]]) -> Floats: ...

    def candidates(self, query: list[float], count: int, search_k: int) -> Integers: ...

    def save(self, path: str | os.PathLike[str]) -> IndexSpec: ...


def index_settings(index: IndexSettings) -> dict[str, Any]:
    """The mapping that a word stands for, or a checked copy of the mapping.

    Raises:
        ValueError: for an unknown word, backend or setting; it lists the known ones.
        ImportError: if the backend is not installed; it names the extra.

    Example:
        >>> from tfdml.index import index_settings
        >>> index_settings("annoy")
        {'backend': 'annoy'}
        >>> index_settings({"backend": "annoy", "leaves": 3})
        Traceback (most recent call last):
        ...
        ValueError: index: 'leaves' is not a setting of 'annoy'. Known: 'trees'.
    """
    if isinstance(index, str):
        settings = dict(_WORDS[check_choice("index", index, _WORDS)])
    elif isinstance(index, Mapping):
        settings = dict(index)
        backend = check_choice("index['backend']", settings.get("backend"), _SETTINGS)
        for name in settings.keys() - {"backend", *_SETTINGS[backend]}:
            known = ", ".join(map(repr, _SETTINGS[backend])) or "none"
            raise ValueError(f"index: {name!r} is not a setting of {backend!r}. Known: {known}.")
        if backend in _KINDS:
            check_choice("index['kind']", settings.setdefault("kind", "hnsw"), _KINDS[backend])
    else:
        raise ValueError(f"index={index!r}: expected one of {', '.join(map(repr, _WORDS))}, or a mapping with a 'backend'.")
    if settings["backend"] == "faiss":
        import_faiss()
    elif settings["backend"] == "milvus":
        import_milvus()
    return settings


def build_index(
    vectors: npt.ArrayLike,
    ids: Iterable[Any],
    metric: str = "cosine",
    index: IndexSettings = "annoy",
    *,
    recall: float = 0.95,
    seed: int = 0,
    queries: npt.ArrayLike | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> StoredIndex:
    """Builds an index of any backend, and measures its recall.

    Args:
        vectors: `[N, D]`, finite; under cosine none may be zero.
        ids: N different strings.
        metric: `"cosine"` or `"euclidean"`.
        index: a word, `"exact"`, `"annoy"`, `"flat"`, `"hnsw"`, `"ivf"`, `"ivf_sq"`, `"ivf_pq"` (FAISS's; `"faiss"` is its
            HNSW), `"milvus"` or `"milvus_flat"`, `"milvus_ivf"`, `"milvus_ivf_sq"` (Milvus Lite; `"milvus"` is its HNSW), or a
            mapping such as `{"backend": "faiss", "kind": "ivf", "lists": 4096}`, whose settings are arguments of
            `AnnoyIndex.build`, `FaissIndex.build` or `MilvusIndex.build`: `{"backend": "milvus", "cluster": True}`.
        recall: asked share of the 10 true nearest neighbours.
        seed: of what the backend draws.
        queries: `[Q, D]`, to measure the recall on.
        folder: where the file lies until `save`.

    Raises:
        ValueError: for bad vectors, ids or settings, and when the asked recall is not reached.
        ImportError: if the backend is not installed.

    Example:
        >>> import numpy as np
        >>> from tfdml.index import build_index
        >>> vectors = np.random.default_rng(0).normal(size=(300, 8))
        >>> index = build_index(vectors, [str(i) for i in range(300)], index={"backend": "annoy", "trees": 12}, recall=0.9)
        >>> index.kind, index.spec.recall >= 0.9
        ('annoy', True)
    """
    settings = index_settings(index)
    backend = settings.pop("backend")
    if backend == "exact":
        return ExactIndex(vectors, ids, metric)
    found: StoredIndex = _CLASSES[backend].build(
        vectors, ids, metric, recall=recall, seed=seed, queries=queries, folder=folder, **settings
    )
    return found


def load_index(
    path: str | os.PathLike[str], record: Mapping[str, Any], ids: Iterable[Any], *, checksum: bool = True
) -> StoredIndex:
    """Opens an index that was saved, of the backend that its record names.

    Args:
        path: the file.
        record: `spec.as_dict()` of what `save` returned.
        ids: the items' ids in order.
        checksum: False skips the SHA-256 only.

    Raises:
        IndexFormatError: for an unknown backend, or if file and record disagree.
        ImportError: if the backend is not installed.
        ValueError: for ids that are no strings, not unique, or not as many as there are items.
    """
    backend = record.get("backend") if isinstance(record, Mapping) else None
    load: Callable[..., StoredIndex]
    if backend == "exact":
        load = ExactIndex.load
    elif isinstance(backend, str) and backend in _CLASSES:
        load = _CLASSES[backend].load
    else:
        raise IndexFormatError(
            f"index record: backend={str(backend)[:40]!r}; this reader knows {', '.join(map(repr, _SETTINGS))}. "
            "It is damaged, or of a newer tfdml."
        )
    return load(path, record, ids, checksum=checksum)


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that build such an index over another gallery: what was chosen automatically is chosen anew."""
    backend, count, dimension = record["backend"], record["count"], record["dimension"]
    if backend == "annoy":
        given = {} if record["trees"] == number_of_trees("auto", count) else {"trees": record["trees"]}
        return {"backend": backend, **given}
    if backend == "faiss":
        names = ("lists", "links", "code_bytes")
        chosen = sized(record["kind"], count, dimension, "auto", "auto", "auto")
        given = {name: record[name] for name, auto in zip(names, chosen, strict=True) if record[name] != auto}
        return {"backend": backend, "kind": record["kind"], **given}
    if backend == "milvus":
        automatic = milvus_sizes(record["kind"], count, "auto", "auto")
        given = {name: record[name] for name, auto in zip(("lists", "links"), automatic, strict=True) if record[name] != auto}
        return {"backend": backend, "kind": record["kind"], **given, **({"cluster": True} if record["cluster"] else {})}
    return {"backend": backend}
