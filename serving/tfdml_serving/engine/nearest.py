"""The nearest of some vectors, exactly: a float32 product finds candidates, float64 differences put them in order.

The product alone loses near-duplicates, of which product photographs are full; whatever it cannot tell from the k-th best
stays a candidate (as in `tfdml.index`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BLOCK = 1024
"""Vectors to a product: in the second-level cache, and too few for a BLAS to start threads of its own for."""

_STEP = 8192


def candidates(scores: Floats, k: int, error: float) -> Integers:
    """Places of all scores that may be among the k smallest, when each may be off by `error`; infinite ones never are."""
    usable = int(np.count_nonzero(scores < np.inf))
    if usable <= k:
        return np.flatnonzero(scores < np.inf)
    bound = np.partition(scores, k - 1)[k - 1] + 2 * error
    return np.flatnonzero(scores <= min(float(bound), float(np.finfo(np.float32).max)))


def product_error(longest: float, query: Floats) -> float:
    """How far `|v|^2 / 2 - v.q` in float32 may be off, for vectors of a length up to `longest`.

    Higham and Mary 2019: a sum of n rounded products is off by c sqrt(n) u at most but for a chance exp(-c^2 / 2).
    """
    length = float(np.sqrt(np.dot(query.astype(np.float64), query.astype(np.float64))))
    return (8 + 6 * np.sqrt(len(query) + 1)) * 2.0**-24 * longest * (length + longest / 2)


def squared_distances(vectors: Floats, query: Floats) -> Doubles:
    """From float64 differences, in steps that bound the memory."""
    result = np.empty(len(vectors))
    for start in range(0, len(vectors), _STEP):
        difference = np.subtract(vectors[start : start + _STEP], query, dtype=np.float64)
        np.einsum("nd,nd->n", difference, difference, out=result[start : start + _STEP])
    return result
