"""Neighbourhood graphs for `PairSampler`: nearest neighbours, and copies that an embedding should not tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfdml._checks import check_choice
from tfdml.index._nearest import NearestRows
from tfdml.index.base import METRICS, check_vectors
from tfdml.samplers._arguments import check_integer
from tfdml.samplers.pairs import as_edges


def nearest_neighbours(vectors: Any, k: int = 5, metric: str = "euclidean") -> NDArray[np.int64]:
    """The similar pairs of an unlabelled data set: each item with its k nearest others, by exact search.

    DrLIM's graph for MNIST is that of the 5 nearest in pixels. Items i and j are similar if either is among the other's k
    nearest. Search goes block by block, so memory beside the vectors and one copy of them stays at some tens of MB.

    Args:
        vectors: `[N, D]`, or images `[N, ...]`, which are flattened.
        k: neighbours of each item, from 1 to N - 1.
        metric: `"euclidean"` or `"cosine"`.

    Returns:
        int64 `[E, 2]` with i < j, each pair once; E lies between N k / 2 and N k.

    Raises:
        ValueError: for vectors that are empty or hold NaN, or k beyond N - 1.

    Example:

    >>> nearest_neighbours([[0.0], [1.0], [3.0], [9.0]], k=1).tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    check_choice("metric", metric, METRICS)
    array = np.asarray(vectors)
    rows = check_vectors(array.reshape(len(array), -1) if array.ndim > 2 else array, metric)
    k = check_integer("k", k, 1, len(rows) - 1)
    pairs = np.empty((len(rows), k, 2), np.int64)
    pairs[:, :, 0] = np.arange(len(rows))[:, None]
    for block in NearestRows(rows).search(rows, k, np.arange(len(rows))):
        pairs[block.start : block.start + len(block.numbers), :, 1] = block.numbers
    return as_edges(pairs.reshape(-1, 2))


def translated_copies(images: Any, shifts: Sequence[tuple[int, int]]) -> NDArray[Any]:
    """The images, followed by a copy of all of them for each shift: item i's copy number c is item c N + i.

    DrLIM's shifted MNIST has `shifts=[(0, -6), (0, -3), (0, 3), (0, 6)]`. Feed the copies to `nearest_neighbours` and each
    shift makes a cluster of its own; pair them by `pairs_of_copies` and the embedding learns to ignore shifts.

    Args:
        images: `[N, height, width]` or `[N, height, width, channels]`.
        shifts: (down, right) in pixels, negative for up and left. What moves in from outside is zero.

    Returns:
        `[(1 + number of shifts) * N, ...]`, of the images' type.

    Example:

    >>> translated_copies(np.array([[[1, 2, 3]]]), [(0, 1), (0, -1)]).tolist()
    [[[1, 2, 3]], [[0, 1, 2]], [[2, 3, 0]]]
    """
    array = np.asarray(images)
    if array.ndim not in (3, 4):
        raise ValueError(f"images have shape {array.shape}: expected [N, height, width] or [N, height, width, channels].")
    result = np.zeros((1 + len(shifts), *array.shape), array.dtype)
    result[0] = array
    for copy, (down, right) in zip(result[1:], shifts, strict=True):
        if abs(down) >= array.shape[1] or abs(right) >= array.shape[2]:
            raise ValueError(
                f"shifts: ({down}, {right}) moves images of {array.shape[1]} x {array.shape[2]} out of sight. "
                "Expected (down, right) in pixels, less than height and width."
            )
        copy[_shifted(down, right)] = array[_shifted(-down, -right)]
    return result.reshape(-1, *array.shape[1:])


def pairs_of_copies(pairs: Any, num_items: int, copies: int) -> NDArray[np.int64]:
    """The graph on items and their copies in which copies are as similar as what they are copies of.

    Every copy of an item is similar to its other copies, and to every copy of its neighbours: DrLIM's shift-invariant
    experiment.

    Args:
        pairs: `[E, 2]`, similar pairs among the originals; may be empty.
        num_items: N, originals.
        copies: how many copies there are of each, the originals not counted. Copy c of item i is item c N + i, as
            `translated_copies` orders them.

    Returns:
        int64 `[E', 2]`, with `E' = E (copies + 1)^2 + N copies (copies + 1) / 2`.

    Example:

    >>> pairs_of_copies([[0, 1]], num_items=2, copies=1).tolist()
    [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    """
    edges = as_edges(pairs)
    num_items = check_integer("num_items", num_items, int(edges.max(initial=-1)) + 1)
    shifts = np.arange(check_integer("copies", copies, 1) + 1, dtype=np.int64) * num_items
    first, second = (part.ravel() for part in np.meshgrid(shifts, shifts, indexing="ij"))
    across = edges[:, None, :] + np.stack([first, second], axis=-1)
    upper = first < second
    own = np.arange(num_items)[:, None, None] + np.stack([first[upper], second[upper]], axis=-1)
    return as_edges(np.concatenate([across.reshape(-1, 2), own.reshape(-1, 2)]))


def _shifted(down: int, right: int) -> tuple[slice, slice, slice]:
    """Where images that are shifted lie within their frames."""
    return slice(None), _side(down), _side(right)


def _side(shift: int) -> slice:
    return slice(shift, None) if shift >= 0 else slice(None, shift)
