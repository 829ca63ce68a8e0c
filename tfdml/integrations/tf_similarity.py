"""tfdml's indexes as search backends of TF Similarity."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tfdml.index import AnnoyIndex, AnnoySpec, ExactIndex, IndexFormatError
from tfdml.index.base import Floats, check_vectors

Search: Any = object
SEARCH_ALIASES: dict[str, Any] = {}
_missing: ImportError | None = None
try:
    Search = importlib.import_module("tensorflow_similarity.search").Search
    SEARCH_ALIASES = importlib.import_module("tensorflow_similarity.search.utils").SEARCH_ALIASES
except ImportError as error:
    _missing = error

# TF Similarity's name of a distance -> the metric of the index.
METRIC_OF = {"cosine": "cosine", "euclidean": "euclidean", "squared_euclidean": "euclidean"}
RECORD, ANNOY_FILE, VECTORS_FILE = "search_index.json", "search_index.ann", "search_index.npy"


class _IndexSearch(Search):
    """What both backends share: items are collected, and the index is built when somebody looks something up."""

    # Under which `make_search` finds the class again when an index is loaded.
    canonical_name: ClassVar[str]

    def __init__(self, distance: Any, dim: int, verbose: int = 0, name: str | None = None) -> None:
        _require_tf_similarity()
        super().__init__(distance=distance, dim=int(dim), verbose=verbose, name=name or self.canonical_name)
        if self.distance.name not in METRIC_OF:
            raise ValueError(
                f"distance={self.distance.name!r}: {self.canonical_name} knows {', '.join(map(repr, METRIC_OF))}. "
                "For others use TF Similarity's own search='nmslib'."
            )
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forgets all items."""
        self._idxs: list[int] = []
        self._known: set[int] = set()
        self._rows: list[Floats] = []
        self._index: AnnoyIndex | ExactIndex | None = None
        self._numbers = np.empty(0, np.int64)  # of the items in the index

    def __len__(self) -> int:
        return len(self._idxs)

    def __repr__(self) -> str:
        return f"{self.canonical_name}({len(self)} items, dim={self.dim}, distance={self.distance.name!r})"

    def add(self, embedding: Any, idx: int, verbose: int = 1, **_: Any) -> None:
        """Adds one embedding `[D]`. It can be found from the next lookup on."""
        self.batch_add(np.asarray(embedding)[None], [idx], verbose=verbose)

    def batch_add(self, embeddings: Any, idxs: Sequence[int], verbose: int = 1, **_: Any) -> None:
        """Adds embeddings `[N, D]` with their numbers. They can be found from the next lookup on.

        Raises:
            ValueError: for embeddings of another dimension, with NaN, or zero under cosine, and for numbers that are taken.
        """
        rows = check_vectors(embeddings, METRIC_OF[self.distance.name], "embeddings")
        if rows.shape[1] != self.dim or len(rows) != len(idxs):
            raise ValueError(
                f"embeddings: received shape {rows.shape} for {len(idxs)} idxs, expected [{len(idxs)}, {self.dim}]. "
                f"Make the search with the length of the model's embeddings: {self.canonical_name}(..., dim={rows.shape[1]})."
            )
        new = [int(idx) for idx in idxs]
        taken = self._known.intersection(new)
        if taken or len(set(new)) != len(new):
            example = min(taken) if taken else next(idx for idx in new if new.count(idx) > 1)
            raise ValueError(f"idxs: {example} is already the number of another embedding. Every embedding needs its own.")
        with self._lock:
            self._rows.append(rows)
            self._idxs += new
            self._known.update(new)
            self._index = None
        if verbose:
            print(f"|-{len(rows)} embeddings added; {self.canonical_name} builds at the next lookup.")

    def lookup(self, embedding: Any, k: int = 5) -> tuple[list[int], list[float]]:
        """Numbers and distances of the k nearest embeddings of one query `[D]`, nearest first."""
        idxs, distances = self.batch_lookup(np.asarray(embedding)[None], k)
        return idxs[0], distances[0]

    def batch_lookup(self, embeddings: Any, k: int = 5) -> tuple[list[list[int]], list[list[float]]]:
        """Numbers and distances of the k nearest embeddings of each query `[B, D]`; of all, if there are fewer than k.

        Distances are those of the distance that the search was made with (NMSLIB gives squared ones for `"euclidean"`).
        """
        queries = np.asarray(embeddings)
        index = self._built()
        if index is None:
            return [[] for _ in queries], [[] for _ in queries]
        found = index.search(queries, min(k, len(index)))
        distances = found.distances**2 if self.distance.name == "squared_euclidean" else found.distances
        return self._numbers[found.numbers].tolist(), distances.tolist()

    def get_config(self) -> dict[str, Any]:
        # Not the config of the base class: its canonical_name is the name of the Python class.
        return {
            "distance": self.distance.name,
            "dim": self.dim,
            "verbose": self.verbose,
            "name": self.name,
            "canonical_name": self.canonical_name,
        }

    def save(self, path: str) -> None:
        """Writes the items, and the built index, into the folder `path`."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            "backend": self.canonical_name,
            "distance": self.distance.name,
            "dim": self.dim,
            "idxs": self._idxs,
            "index": self._write(folder) if self._idxs else None,
        }
        (folder / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")

    def load(self, path: str) -> None:
        """Reads what `save` wrote, in place of all items.

        Raises:
            IndexFormatError: if it was written by another backend, for another distance or dimension, or is damaged.
        """
        record = _read_record(Path(path) / RECORD)
        for key, expected in {"backend": self.canonical_name, "distance": self.distance.name, "dim": self.dim}.items():
            if record[key] != expected:
                raise IndexFormatError(f"{path}: {key}={record[key]!r} where this search has {expected!r}.")
        self.reset()
        if record["idxs"]:
            idxs = [int(idx) for idx in record["idxs"]]
            index = self._read(Path(path), record["index"], idxs)
            self._idxs, self._known, self._index = idxs, set(idxs), index
            self._rows, self._numbers = [index.vectors()], np.array(idxs, np.int64)

    def _built(self) -> AnnoyIndex | ExactIndex | None:
        with self._lock:
            if self._index is None and self._idxs:
                self._rows = [np.concatenate(self._rows)]
                self._index = self._build(self._rows[0], _as_ids(self._idxs))
                self._numbers = np.array(self._idxs, np.int64)
            return self._index

    def _build(self, rows: Floats, ids: list[str]) -> AnnoyIndex | ExactIndex:
        raise NotImplementedError

    def _write(self, folder: Path) -> Any:
        raise NotImplementedError

    def _read(self, folder: Path, index: Any, idxs: list[int]) -> AnnoyIndex | ExactIndex:
        raise NotImplementedError


class AnnoySearch(_IndexSearch):
    """`tfdml.index.AnnoyIndex` as a search backend of TF Similarity.

        search = tfdml.integrations.AnnoySearch("cosine", dim=64, recall=0.95)
        model.compile("adam", loss=tfdml.losses.TripletLoss(distance="cosine"), search=search)
        model.fit(...)
        model.index(images, labels)
        model.lookup(photos, k=5)
        model.save_index("shop")

    Annoy's trees cannot be added to: they are **rebuilt at the first lookup after items were added**, whatever `build` says,
    and not before. Add many items at a time, or use `ExactSearch` where items come one by one between lookups. As in
    `AnnoyIndex.build`, the recall is measured then, and the asked one is an error if it is not reached.

    What is passed to `compile` is a pattern: TF Similarity makes an empty search of the same settings from it. To load an
    index in another process, import this class before `load_index`, as with any custom Keras object.

    Args:
        distance: `"cosine"`, `"euclidean"` or `"squared_euclidean"`.
        dim: length of the model's embeddings.
        trees, recall, seed, search_k: as in `AnnoyIndex.build`.
        verbose, name, canonical_name: as everywhere in TF Similarity.

    Raises:
        ImportError: TF Similarity is not installed; it says what to install.
        ValueError: a distance that Annoy does not have, or options that are out of range.
    """

    canonical_name = "AnnoySearch"

    def __init__(
        self,
        distance: Any,
        dim: int,
        trees: int | str = "auto",
        recall: float = 0.95,
        seed: int = 0,
        search_k: int | None = None,
        verbose: int = 0,
        name: str | None = None,
        canonical_name: str = "AnnoySearch",
    ) -> None:
        super().__init__(distance, dim, verbose, name)
        self.trees, self.recall, self.seed, self.search_k = trees, recall, seed, search_k

    def get_config(self) -> dict[str, Any]:
        own = {"trees": self.trees, "recall": self.recall, "seed": self.seed, "search_k": self.search_k}
        return {**super().get_config(), **own}

    def _build(self, rows: Floats, ids: list[str]) -> AnnoyIndex:
        options: dict[str, Any] = {"trees": self.trees, "seed": self.seed, "search_k": self.search_k}
        return AnnoyIndex.build(rows, ids, METRIC_OF[self.distance.name], recall=self.recall, **options)

    def _write(self, folder: Path) -> dict[str, Any]:
        index = self._built()
        assert isinstance(index, AnnoyIndex)
        return index.save(folder / ANNOY_FILE).as_dict()

    def _read(self, folder: Path, index: Any, idxs: list[int]) -> AnnoyIndex:
        return AnnoyIndex.load(folder / ANNOY_FILE, AnnoySpec.from_dict(index), _as_ids(idxs))


class ExactSearch(_IndexSearch):
    """`tfdml.index.ExactIndex` as a search backend of TF Similarity: every item is compared, and none is ever missed.

        model.compile("adam", loss=..., search=tfdml.integrations.ExactSearch("cosine", dim=64))

    The right choice up to about 100,000 items, and where items are added between lookups: nothing is trained, only copied.

    Args:
        distance: `"cosine"`, `"euclidean"` or `"squared_euclidean"`.
        dim: length of the model's embeddings.
        verbose, name, canonical_name: as everywhere in TF Similarity.

    Raises:
        ImportError: TF Similarity is not installed; it says what to install.
        ValueError: another distance.
    """

    canonical_name = "ExactSearch"

    def __init__(
        self, distance: Any, dim: int, verbose: int = 0, name: str | None = None, canonical_name: str = "ExactSearch"
    ) -> None:
        super().__init__(distance, dim, verbose, name)

    def _build(self, rows: Floats, ids: list[str]) -> ExactIndex:
        return ExactIndex(rows, ids, METRIC_OF[self.distance.name])

    def _write(self, folder: Path) -> None:
        index = self._built()
        assert isinstance(index, ExactIndex)
        np.save(folder / VECTORS_FILE, index.vectors(), allow_pickle=False)

    def _read(self, folder: Path, index: Any, idxs: list[int]) -> ExactIndex:
        try:
            rows = np.load(folder / VECTORS_FILE, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise IndexFormatError(f"{folder / VECTORS_FILE}: damaged ({error}).") from error
        if rows.shape != (len(idxs), self.dim):
            raise IndexFormatError(f"{folder / VECTORS_FILE}: shape {rows.shape}, expected {(len(idxs), self.dim)}.")
        return self._build(rows, _as_ids(idxs))


for _backend in (AnnoySearch, ExactSearch):
    SEARCH_ALIASES[_backend.canonical_name] = _backend
    # TF Similarity 0.17 refuses any search object whose class has another name, and then makes it again by the canonical name.
    _backend.__name__ = "NMSLibSearch"


def _read_record(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_bytes())
        return {key: record[key] for key in ("backend", "distance", "dim", "idxs", "index")}
    except (ValueError, KeyError, TypeError) as error:
        raise IndexFormatError(f"{file}: not a record of a search, or damaged ({type(error).__name__}: {error}).") from error


def _as_ids(idxs: list[int]) -> list[str]:
    return [str(idx) for idx in idxs]


def _require_tf_similarity() -> None:
    if _missing is not None:
        raise ImportError(
            "TF Similarity is not installed, or cannot be imported here. It needs TensorFlow 2.15 and Python 3.11 or older: "
            "pip install 'tfdml[keras2]'. Without it, use tfdml.index.AnnoyIndex or tfdml.index.ExactIndex."
        ) from _missing
