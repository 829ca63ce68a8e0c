"""Vectors that need not fit in the memory: whatever holds them, as checked blocks of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.index.base import Floats, check_vectors

Vectors = npt.ArrayLike | str | os.PathLike[str] | Iterable[Any] | Callable[[], Iterable[Any]]
"""An array `[N, D]`, anything with a `shape` that gives rows by slices (a memory map, an HDF5 data set), the path of an `.npy`
file, or several such parts: a list, an iterator, or a function that returns one of these."""

_BLOCK_BYTES = 16 << 20


class VectorBlocks:
    """Blocks of float32 rows, finite, and of length 1 under cosine. Read once.

    Args:
        vectors: see `Vectors`.
        metric: `"cosine"` or `"euclidean"`.

    Attributes:
        dimension: length of a vector.
        count: how many vectors there are, or None where only reading them all would tell.

    Raises:
        ValueError: for what holds no vectors; while reading, for a part of another dimension, NaN, infinity, and zero vectors
            under cosine. It names the rows.
    """

    def __init__(self, vectors: Vectors, metric: str) -> None:
        self._metric = metric
        parts = _parts(vectors)
        if isinstance(parts, list):
            self.count: int | None = sum(part.shape[0] for part in parts)
            self._several = len(parts) > 1
        else:
            self.count, self._several = None, True
        rest = iter(parts)
        first = next((part for part in rest if part.shape[0]), None)
        if first is None:
            raise ValueError("vectors: received no part that holds any. Expected at least one vector.")
        self.dimension = int(first.shape[1])
        self._rest = chain([first], rest)

    def __iter__(self) -> Iterator[Floats]:
        step = max(1, _BLOCK_BYTES // (4 * max(1, self.dimension)))
        total = 0
        for part in self._rest:
            if part.shape[1] != self.dimension:
                raise ValueError(
                    f"vectors: the part that begins with row {total} has dimension {part.shape[1]}, those before it "
                    f"{self.dimension}. Expected one dimension for all."
                )
            for start in range(0, part.shape[0], step):
                block = np.asarray(part[start : start + step])
                whole = len(block) == part.shape[0] and not self._several
                name = "vectors" if whole else f"vectors, counted from row {total} on"
                yield check_vectors(block, self._metric, name)
                total += len(block)


def _parts(vectors: Vectors) -> list[Any] | Iterator[Any]:
    """Arrays `[n, D]`, not yet read: a list, or an iterator where that is what was given."""
    if callable(vectors):
        vectors = vectors()
    if isinstance(vectors, (str, os.PathLike)) or hasattr(vectors, "shape"):
        return [_part(vectors)]
    if isinstance(vectors, (list, tuple)):
        if vectors and all(isinstance(one, (str, os.PathLike)) or getattr(one, "ndim", 0) == 2 for one in vectors):
            return [_part(one) for one in vectors]
        return [_part(np.asarray(vectors))]
    if isinstance(vectors, Iterable):
        return (_part(one) for one in vectors)
    return [_part(np.asarray(vectors))]


def _part(part: Any) -> Any:
    if isinstance(part, (str, os.PathLike)):
        path = Path(part)
        try:
            part = np.load(path, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise ValueError(f"vectors: {path} is no array that np.save has written: {error}") from error
        if not isinstance(part, np.ndarray):
            raise ValueError(f"vectors: {path} holds several arrays. Expected an .npy file with one, [items, dimension].")
    elif not hasattr(part, "shape"):
        part = np.asarray(part)
    if len(part.shape) != 2:
        raise ValueError(f"vectors: expected a 2-D array [items, dimension], received shape {tuple(part.shape)}.")
    return part
