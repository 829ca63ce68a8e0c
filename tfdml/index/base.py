"""What every index promises, and the checks that all of them share. NumPy and the standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

METRICS = ("cosine", "euclidean")

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class IndexFormatError(ValueError):
    """A stored index that cannot be trusted: damaged, truncated, or made for another dimension, metric or gallery."""


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of a batch of queries, nearest first.

    Attributes:
        numbers: int64 `[B, k]`, item numbers: positions in the gallery that the index was built from.
        ids: object array of `str`, `[B, k]`, the items' own ids.
        distances: float32 `[B, k]`, in the metric of the index: `||u - v||` for euclidean, `1 - cos(u, v)` for cosine.
    """

    numbers: Integers
    ids: npt.NDArray[np.object_]
    distances: Floats

    def __len__(self) -> int:
        return len(self.numbers)


@runtime_checkable
class VectorIndex(Protocol):
    """A gallery of vectors that can be searched: what a bundle and the retrieval service know of an index.

    `search` takes queries `[B, D]`, or one query `[D]` (which counts as B = 1), and must be safe to call from several
    threads at once. It returns exactly k neighbours for each query; asking for more than there are items is an error, not
    a shorter answer.
    """

    @property
    def dimension(self) -> int: ...

    @property
    def metric(self) -> str: ...

    @property
    def ids(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def search(self, queries: npt.ArrayLike, k: int) -> SearchResult: ...


def check_vectors(vectors: npt.ArrayLike, metric: str, argument: str = "vectors") -> Floats:
    """Returns `vectors` as a finite, non-empty float32 `[N, D]` array; of length 1 each if the metric is cosine.

    Raises:
        ValueError: for another shape, for NaN or infinity, and for zero vectors under cosine; it names the rows.
    """
    array = np.asarray(vectors)
    if array.ndim != 2:
        raise ValueError(f"{argument}: expected a 2-D array [items, dimension], received shape {array.shape}.")
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise ValueError(f"{argument}: received shape {array.shape}, which is empty. Expected at least one vector.")
    # What a model of the policy mixed_bfloat16 predicts: NumPy does not know its type as a number.
    half = array.dtype.name == "bfloat16"
    if not (half or np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{argument}: expected real numbers, received dtype {array.dtype}.")
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(array, dtype=np.float32)
    # A row's sum is finite in float64 exactly when all of its float32 numbers are: no [N, D] mask is needed.
    bad = np.flatnonzero(~np.isfinite(result.sum(axis=1, dtype=np.float64)))
    if bad.size:
        raise ValueError(
            f"{argument}: NaN or infinity (in float32) in {_count_of(bad, len(result))}. "
            "Leave these items out, or find what the model made of them."
        )
    return normalized(result, argument) if metric == "cosine" else result


def normalized(vectors: Floats, argument: str = "vectors") -> Floats:
    """The rows of a finite float32 array, each divided by its length; a zero row has no direction and is an error."""
    result = np.empty_like(vectors)
    step = max(1, (1 << 22) // vectors.shape[1])
    zero: list[int] = []
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step].astype(np.float64)
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
        zero.extend(start + int(i) for i in np.flatnonzero(lengths == 0))
        result[start : start + step] = block / np.where(lengths == 0, 1, lengths)[:, None]
    if zero:
        raise ValueError(
            f"{argument}: zero vector in {_count_of(np.asarray(zero), len(vectors))}, and a zero vector has no cosine. "
            "Leave these items out, or use metric='euclidean'."
        )
    return result


def check_ids(ids: Iterable[Any], count: int) -> tuple[str, ...]:
    """Returns `ids` as a tuple of `count` different strings.

    Raises:
        ValueError: for another count, for ids that are no strings, and for duplicates; it names the first offenders.
    """
    if isinstance(ids, (str, bytes)):
        raise ValueError(f"ids={ids!r}: expected a sequence of {count} strings, received a single one.")
    items = list(ids)
    if len(items) != count:
        raise ValueError(f"ids: received {len(items)} ids for {count} vectors. Expected exactly one id for each vector.")
    strange = [number for number, item in enumerate(items) if not isinstance(item, str)]
    if strange:
        first = strange[0]
        raise ValueError(
            f"ids: expected strings, received {type(items[first]).__name__} {items[first]!r} for item {first} "
            f"({len(strange)} of {count} are no strings). Convert them first: [str(i) for i in ids]."
        )
    result = tuple(str(item) for item in items)
    if len(set(result)) != count:
        seen: dict[str, int] = {}
        for number, item in enumerate(result):
            if item in seen:
                raise ValueError(
                    f"ids: {item!r} is the id of item {seen[item]} and of item {number} "
                    f"({count - len(set(result))} duplicates in all). Every item needs an id of its own."
                )
            seen[item] = number
    return result


def check_queries(queries: npt.ArrayLike, dimension: int, metric: str) -> Floats:
    """Returns one query `[D]` or a batch `[B, D]` as a float32 `[B, D]` array; of length 1 each if the metric is cosine."""
    array = np.asarray(queries)
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2 or array.shape[1] != dimension:
        raise ValueError(
            f"queries: expected shape [B, {dimension}] or [{dimension}], the dimension of this index, "
            f"received {np.asarray(queries).shape}."
        )
    if array.shape[0] == 0:
        return np.zeros((0, dimension), np.float32)
    return check_vectors(array, metric, "queries")


def check_k(k: object, count: int) -> int:
    """Returns k as an int in 1..count; k larger than the gallery is an error, never a shorter answer."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k={k!r}: expected a whole number >= 1.")
    if k > count:
        raise ValueError(f"k={k}: only {count} items can be returned. Ask for at most that many: k=min(k, {count}).")
    return int(k)


def _count_of(rows: npt.NDArray[Any], total: int, shown: int = 5) -> str:
    names = ", ".join(str(int(row)) for row in rows[:shown])
    more = f" and {len(rows) - shown} more" if len(rows) > shown else ""
    return f"row{'s' if len(rows) > 1 else ''} {names}{more} of {total}"
