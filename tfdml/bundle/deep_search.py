"""The part of the deep verification that searches with the model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfdml.bundle.catalogue import Catalogue
from tfdml.bundle.errors import BundleError
from tfdml.bundle.manifest import Manifest
from tfdml.bundle.runner import SearchAnswers, SignatureRunner
from tfdml.index import StoredIndex
from tfdml.index._nearest import NearestRows

_ITEMS = 32
_LARGEST_EXACT = 200_000

# Of a distance. Both sides are float64 sums rounded to float32 once; only their order of summation may differ.
_RELATIVE = 1e-6
# Of the length of a vector, for a query that comes from its image: other kernels round differently.
_FROM_IMAGE = 2e-3


def check_search_signatures(
    runner: SignatureRunner, manifest: Manifest, index: StoredIndex, catalogue: Catalogue, images: list[bytes]
) -> int:
    """Searches for items of the gallery, by their vectors and for the probes by their images, and returns how many.

    Raises:
        BundleError: if one does not find itself (or a copy of itself), or what is found has other distances, another order or
            other fields than index and catalogue have.
    """
    assert manifest.search is not None
    k = min(10, manifest.search.max_k)
    items = np.unique(np.linspace(0, len(index) - 1, _ITEMS).astype(int))
    vectors = index.vectors(items)
    answers = runner.search_embeddings(vectors, k)
    _check_answers(answers, vectors, k, manifest, index, catalogue)
    own = answers.distances[:, 0] > _RELATIVE
    if own.any():
        raise BundleError(f"the model's search does not find item {index.ids[items[int(np.argmax(own))]]!r} by its own vector.")
    if manifest.search.method == "exact" and len(index) <= _LARGEST_EXACT:
        _check_exact(answers, _prepared(vectors, manifest.metric), index)
    if images:
        embeddings, _ = runner.from_bytes(images)
        answers = runner.search_bytes(images, k)
        _check_answers(answers, _prepared(embeddings, manifest.metric), k, manifest, index, catalogue)
        vectors = index.vectors(list(manifest.probes))
        far = _FROM_IMAGE * np.maximum(np.linalg.norm(vectors, axis=1), np.finfo(np.float32).tiny)
        nearest = answers.distances[:, 0] if manifest.metric == "euclidean" else np.sqrt(2 * answers.distances[:, 0])
        if (nearest > far).any():
            item = index.ids[manifest.probes[int(np.argmax(nearest > far))]]
            raise BundleError(f"the model's search does not find item {item!r} by its own image.")
    return len(items)


def _check_answers(
    answers: SearchAnswers,
    queries: npt.NDArray[np.float32],
    k: int,
    manifest: Manifest,
    index: StoredIndex,
    catalogue: Catalogue,
) -> None:
    """Whether ids, distances, order and fields are those of index and catalogue."""
    expected = min(k, len(index))
    if not answers.valid.all() or (answers.count != expected).any():
        raise BundleError(f"the model's search does not return {expected} items for each query.")
    ids = answers.ids[:, :expected]
    try:
        numbers = np.array(catalogue.numbers(ids.ravel().tolist())).reshape(ids.shape)
    except KeyError as error:
        raise BundleError(f"the model's search returns an item that the catalogue has not: {error.args[0]}") from error
    rows = index.vectors(numbers.ravel()).reshape(*numbers.shape, -1)
    differences = rows.astype(np.float64) - queries[:, None]
    squares = np.einsum("qkd,qkd->qk", differences, differences)
    distances = squares / 2 if manifest.metric == "cosine" else np.sqrt(squares)
    found = answers.distances[:, :expected].astype(np.float64)
    # What comes from an image was embedded twice, and may have been rounded differently.
    if not np.allclose(found, distances, rtol=1e-5, atol=1e-5 * float(np.abs(queries).max())):
        raise BundleError("the model's search returns other distances than the vectors of the index have.")
    if (np.diff(found, axis=1) < 0).any() or any(len(set(row)) < len(row) for row in numbers.tolist()):
        raise BundleError("the model's search returns items out of order, or twice.")
    if manifest.search and manifest.search.fields:
        items = catalogue.items(numbers.ravel().tolist())
        for name in manifest.search.fields:
            there = answers.fields[name][:, :expected].ravel().tolist()
            if there != [_served(item[name]) for item in items]:
                raise BundleError(f"the model's search returns other values of {name!r} than the catalogue has.")


def _check_exact(answers: SearchAnswers, queries: npt.NDArray[np.float32], index: StoredIndex) -> None:
    k = int(answers.count[0])
    blocks = list(NearestRows(np.ascontiguousarray(index.vectors())).search(queries, k))
    squares = np.concatenate([block.squared_distances for block in blocks])
    distances = np.sqrt(squares) if index.metric == "euclidean" else squares / 2
    if not np.allclose(answers.distances[:, :k], distances, rtol=1e-5, atol=1e-7):
        raise BundleError(
            "the model's search is exact, but misses neighbours that an exact search of the index's vectors finds."
        )


def _prepared(embeddings: npt.NDArray[np.float32], metric: str) -> npt.NDArray[np.float32]:
    if metric != "cosine":
        return embeddings
    wide = embeddings.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def _served(value: object) -> object:
    return "" if value is None else value
