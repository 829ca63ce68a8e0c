"""Annoy's file: writing it, and making sure that it is the right one before Annoy maps it.

The file has no header: Annoy opens a 32-dimensional index as a 31-dimensional one without a word, and may then crash. What the
file does have is a layout: an array of equal nodes, the items first and in order. An item's node begins with the number 1 and
ends with its vector. That is checked here, and lets NumPy map the vectors without a copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import annoy
import numpy as np
import numpy.typing as npt

from tfdml.index._files import check_bytes
from tfdml.index.base import Floats, IndexFormatError

ANNOY_METRIC: dict[str, Any] = {"cosine": "angular", "euclidean": "euclidean"}
# Words of 4 bytes. A node: the number of descendants, for euclidean an offset, two children (a leaf lists items from there on,
# over the place of the vector, too), and the vector.
_HEADER_WORDS = {"cosine": 3, "euclidean": 4}
_FIRST_CHILD = {"cosine": 1, "euclidean": 2}
_CHUNK = 1 << 22


def write(rows: Floats, metric: str, trees: int, seed: int, path: Path) -> None:
    """Builds the trees. One job: only then does the same seed give the same file."""
    forest = annoy.AnnoyIndex(rows.shape[1], ANNOY_METRIC[metric])
    forest.set_seed(seed)
    step = max(1, _CHUNK // rows.shape[1])
    for start in range(0, len(rows), step):
        for number, vector in enumerate(rows[start : start + step].tolist(), start):
            forest.add_item(number, vector)
    forest.build(trees, n_jobs=1)
    forest.save(str(path))


def check(path: Path, dimension: int, metric: str, count: int, size: int, digest: str | None) -> Floats:
    """The items' vectors; `IndexFormatError` unless the file is, byte for byte, what is expected. Annoy is not asked."""
    check_bytes(path, size, digest)
    return map_items(path, dimension, metric, count)


def map_items(path: Path, dimension: int, metric: str, count: int) -> Floats:
    """The items' vectors `[count, dimension]`, mapped read-only, after checking that this is how the file is laid out.

    Every number by which Annoy would find its way through the file is checked, so a wrong file cannot lead it astray.
    """
    words = _HEADER_WORDS[metric] + dimension
    size = path.stat().st_size
    expected = f"an Annoy index of {count} items with dimension={dimension} and metric={metric!r}"
    if size % (4 * words) or size // (4 * words) <= count:
        raise IndexFormatError(f"{path}: {size} bytes cannot be {expected}.")
    nodes = np.memmap(path, dtype="<i4", mode="r").reshape(-1, words)
    vectors: Floats = nodes.view("<f4")[:count, _HEADER_WORDS[metric] :]
    # The last node is the root of a tree, and counts the items.
    fits = int(nodes[-1, 0]) == count
    step = max(1, _CHUNK // (4 * words))
    for start in range(0, len(nodes) if fits else 0, step):
        block = nodes[start : start + step]
        fits = fits and _items_fit(block[: max(0, count - start)], metric)
        fits = fits and _trees_fit(block[max(0, count - start) :], metric, max(start, count), count)
    if not fits:
        raise IndexFormatError(f"{path}: this is not {expected}: its nodes are laid out differently.")
    for start in range(0, count, step):
        if not np.isfinite(vectors[start : start + step].sum(axis=1, dtype=np.float64)).all():
            raise IndexFormatError(f"{path}: a vector holds NaN or infinity.")
        lengths = np.linalg.norm(vectors[start : start + step], axis=1)
        if metric == "cosine" and np.abs(lengths - 1).max() > 1e-3:
            raise IndexFormatError(f"{path}: this is not {expected}: its vectors are not of length 1.")
    return vectors


def map_rows(path: Path, dimension: int, metric: str, count: int) -> Floats:
    """The items' whole nodes `[count, words]`, mapped from a file that was checked: contiguous, each ending with its vector."""
    rows: Floats = np.asarray(np.memmap(path, dtype="<f4", mode="r", shape=(count, _HEADER_WORDS[metric] + dimension)))
    return rows


def _items_fit(nodes: npt.NDArray[np.int32], metric: str) -> bool:
    """An item counts one descendant. Between that and its vector lie: cosine, its squared length and 0; euclidean, zeros."""
    if metric == "euclidean":
        return bool((nodes[:, 0] == 1).all() and not nodes[:, 1 : _HEADER_WORDS[metric]].any())
    floats = nodes.view("<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", floats[:, 3:], floats[:, 3:])
        same_length = np.isclose(floats[:, 1], squares, rtol=1e-3, atol=0, equal_nan=True)
    return bool((nodes[:, 0] == 1).all() and not nodes[:, 2].any() and same_length.all())


def _trees_fit(nodes: npt.NDArray[np.int32], metric: str, first: int, count: int) -> bool:
    """A leaf lists items, any other node has two children that come before it."""
    descendants, children = nodes[:, 0], nodes[:, _FIRST_CHILD[metric] :]
    room = children.shape[1]
    leaf = descendants <= room
    listed = np.arange(room) < np.where(leaf, descendants, 2)[:, None]
    limit = np.where(leaf, count, first + np.arange(len(nodes)))[:, None]
    return bool(
        ((descendants >= 1) & (descendants <= count)).all() and (~listed | ((children >= 0) & (children < limit))).all()
    )


def self_test(forest: Any, vectors: Floats, count: int, trees: int, path: Path, items: int = 16) -> None:
    """Searches for some items: Annoy must hold the same vectors, and return n of n neighbours, the item (or a copy) first."""
    # Trees of a single leaf are counted twice by Annoy, so there may be more than were built.
    if forest.get_n_items() != count or forest.get_n_trees() < trees:
        raise IndexFormatError(
            f"{path}: Annoy found {forest.get_n_items()} items in {forest.get_n_trees()} trees, expected {count} in {trees}."
        )
    wanted = min(10, count)
    for number in np.unique(np.linspace(0, count - 1, items).astype(int)):
        vector = vectors[number]
        if not np.array_equal(np.array(forest.get_item_vector(int(number)), np.float32), vector):
            raise IndexFormatError(f"{path}: Annoy reads another vector for item {number} than the file holds.")
        found = forest.get_nns_by_vector(vector.tolist(), wanted, search_k=wanted * trees)
        if len(set(found)) != wanted or min(found) < 0 or max(found) >= count:
            raise IndexFormatError(
                f"{path}: a search for {wanted} neighbours of item {number} returned {len(set(found))} of {count} items. "
                "This build of Annoy does not work on this machine: reinstall it from source (pip install --no-binary annoy)."
            )
        nearest = vectors[found].astype(np.float64) - vector
        if np.einsum("nd,nd->n", nearest, nearest).min() > 0:
            raise IndexFormatError(f"{path}: item {number} does not find itself. The trees are damaged.")
