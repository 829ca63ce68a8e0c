"""How far apart two items are, for many pairs at a time: distances of vectors, or what another object says. NumPy only."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.index.base import Floats, Integers, check_vectors

METRICS = ("cosine", "euclidean", "squared_euclidean")

_PAIR_BYTES = 4 << 20  # float64 differences in flight at a time: small enough to stay in the cache
_NEAR = 1e-6
"""Squared distances below this share of the largest are computed from differences: the product's error shows there."""


class Scorer(Protocol):
    """What can stand in a metric's place, such as a `JointBayesian`: two vectors score higher the more they are alike."""

    def score(self, left: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """`[P, D]` and `[P, D]` to `[P]`: each row with the same row."""

    def pairwise(self, left: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """`[N, D]` and `[M, D]` to `[N, M]`: each row with each."""


class Comparison:
    """Distances between items of one array, as float32: a smaller one is a surer "same".

    Attributes:
        name: of the metric.
        sign: 1 if distances are what a person reads, -1 if they are scores with the sign turned.
    """

    name: str
    sign: float = 1.0

    def __len__(self) -> int:
        raise NotImplementedError

    def paired(self, left: Integers, right: Integers) -> Floats:
        """`[P]`: from each item of `left` to the same of `right`."""
        raise NotImplementedError

    def block(self, rows: Integers, columns: Integers) -> Floats:
        """`[N, M]`: from each item of `rows` to each of `columns`."""
        raise NotImplementedError


def comparison(embeddings: npt.ArrayLike, metric: str | Scorer, argument: str = "embeddings") -> Comparison:
    """A `Comparison` for a metric's name, or for a `Scorer`."""
    if hasattr(metric, "score") and hasattr(metric, "pairwise"):
        return _ByScorer(check_vectors(embeddings, "euclidean", argument), metric)
    return _ByDistance(embeddings, check_choice("metric", metric, METRICS), argument)


class _ByDistance(Comparison):
    def __init__(self, embeddings: npt.ArrayLike, metric: str, argument: str) -> None:
        self.name = metric
        self._vectors = check_vectors(embeddings, "cosine" if metric == "cosine" else "euclidean", argument)
        # Distances do not change with the origin, but their rounding errors do: at the centre they are smallest.
        self._center = self._vectors.mean(axis=0, dtype=np.float64)
        self._norms = np.empty(len(self._vectors))
        step = max(1, _PAIR_BYTES // (8 * self._vectors.shape[1]))
        for start in range(0, len(self._vectors), step):
            centred = self._vectors[start : start + step] - self._center
            self._norms[start : start + step] = np.einsum("nd,nd->n", centred, centred)
        self._near = _NEAR * self._norms.max()

    def __len__(self) -> int:
        return len(self._vectors)

    def paired(self, left: Integers, right: Integers) -> Floats:
        return self._from_squares(self._squares(left, right))

    def block(self, rows: Integers, columns: Integers) -> Floats:
        product = (self._vectors[rows] - self._center) @ (self._vectors[columns] - self._center).T
        product *= -2
        product += self._norms[rows][:, None]
        product += self._norms[columns]
        row, column = np.nonzero(product <= self._near)
        product[row, column] = self._squares(rows[row], columns[column])
        return self._from_squares(product)

    def _squares(self, left: Integers, right: Integers) -> npt.NDArray[np.float64]:
        result = np.empty(len(left))
        step = max(1, _PAIR_BYTES // (8 * self._vectors.shape[1]))
        for start in range(0, len(left), step):
            part = slice(start, start + step)
            difference = np.subtract(self._vectors[left[part]], self._vectors[right[part]], dtype=np.float64)
            np.einsum("nd,nd->n", difference, difference, out=result[part])
        return result

    def _from_squares(self, squares: npt.NDArray[np.float64]) -> Floats:
        if self.name == "euclidean":
            np.sqrt(squares, out=squares)
        elif self.name == "cosine":
            squares *= 0.5
        return squares.astype(np.float32)


class _ByScorer(Comparison):
    sign = -1.0

    def __init__(self, vectors: Floats, scorer: Any) -> None:
        self.name = type(scorer).__name__
        self._vectors, self._scorer = vectors, scorer

    def __len__(self) -> int:
        return len(self._vectors)

    def paired(self, left: Integers, right: Integers) -> Floats:
        result = np.empty(len(left), np.float32)
        step = max(1, 4 * _PAIR_BYTES // (8 * self._vectors.shape[1]))
        for start in range(0, len(left), step):
            part = slice(start, start + step)
            result[part] = self._checked(
                self._scorer.score(self._vectors[left[part]], self._vectors[right[part]]), len(result[part])
            )
        return result

    def block(self, rows: Integers, columns: Integers) -> Floats:
        return self._checked(self._scorer.pairwise(self._vectors[rows], self._vectors[columns]), len(rows), len(columns))

    def _checked(self, scores: Any, *shape: int) -> Floats:
        scores = np.asarray(scores)
        if scores.shape != shape or not np.isfinite(scores).all():
            raise ValueError(
                f"metric: {self.name} returned shape {scores.shape}{', NaN or infinity' if scores.shape == shape else ''}; "
                f"expected finite scores of shape {shape}."
            )
        result: Floats = np.negative(scores, dtype=np.float32, casting="unsafe")
        return result
