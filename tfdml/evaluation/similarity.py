"""Figures on triplets that say which of two images is more similar to a query: Deep Ranking's evaluation. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.index._nearest import NearestRows
from tfdml.index.base import METRICS, Floats, Integers, check_k, check_vectors

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class SimilarityResult:
    """What `similarity` found.

    Attributes:
        precision: similarity precision: the share of the triplets in which the positive is nearer to the query than the
            negative is.
        score: score-at-top-K: over the triplets whose positive or negative is among the query's K nearest, how many are right,
            minus how many are wrong.
        k: K.
        triplets: how many triplets there are.
        triplets_at_top_k: how many of them the score is about; it lies between minus this number and this number.
        gallery: how many images the K nearest are among, the query not counted.
        metric: `"cosine"` or `"euclidean"`.
        correct: bool `[T]`, which triplets are right.
    """

    precision: float
    score: int
    k: int
    triplets: int
    triplets_at_top_k: int
    gallery: int
    metric: str
    correct: npt.NDArray[np.bool_] = field(repr=False, compare=False)

    def figures(self, prefix: str = "") -> dict[str, float]:
        """`similarity_precision` and `score_at_top_<K>`, each name with the prefix."""
        return {f"{prefix}similarity_precision": self.precision, f"{prefix}score_at_top_{self.k}": self.score}

    def __str__(self) -> str:
        return (
            f"Similarity precision {self.precision:.2%}\n"
            f"Score-at-top-{self.k} {self.score:+,d} ({self.triplets_at_top_k:,} of {self.triplets:,} triplets, "
            f"{self.gallery:,} images; {self.metric} distance)"
        )


def similarity(
    embeddings: npt.ArrayLike,
    triplets: npt.ArrayLike,
    k: int = 30,
    *,
    metric: str = "cosine",
) -> SimilarityResult:
    r"""Similarity precision and score-at-top-K: does an embedding order images by similarity as people, or labels, do?

    For triplets (q, p, n) of which p is known to be more similar to q than n is:

        similarity precision   share of the triplets with D(q, p) < D(q, n)
        score-at-top-K         (number right) - (number wrong), over the triplets whose p or n is among the K nearest of q

    The first counts all of the ranking, the second its top alone. A triplet with D(q, p) = D(q, n) is wrong, so that an
    embedding that has collapsed into one point gets 0, and not one half. Every embedding but the query itself can be among
    the K nearest; the paper has K = 30 of 1,000 images. Distances come from float64 differences, and equal ones are ordered by
    number.

    Args:
        embeddings: `[N, D]`, finite.
        triplets: int `[T, 3]`, numbers of query, positive and negative among the embeddings.
        k: K, at most N - 1.
        metric: `"cosine"` or `"euclidean"`.

    Raises:
        ValueError: for NaN or infinity; for a zero vector under cosine; for triplets of another shape, of numbers that there
            are not, or in which two items are one; if K is too large.

    Example:
        >>> from tfdml.evaluation import similarity
        >>> embeddings = [[0.0], [1.0], [2.0], [9.0], [10.0]]
        >>> print(similarity(embeddings, [[0, 1, 2], [0, 4, 3], [3, 4, 0], [4, 2, 3]], k=1, metric="euclidean"))
        Similarity precision 50.00%
        Score-at-top-1 +1 (3 of 4 triplets, 4 images; euclidean distance)

    References:
        Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, CVPR 2014.
    """
    check_choice("metric", metric, METRICS)
    vectors = check_vectors(embeddings, metric, "embeddings")
    rows = _check_triplets(triplets, len(vectors))
    k = check_k(k, len(vectors) - 1)
    query, positive, negative = rows.T
    correct = _squares(vectors, query, positive) < _squares(vectors, query, negative)

    queries, number = np.unique(query, return_inverse=True)
    number = number.reshape(-1)
    near = np.zeros(len(rows), bool)
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(len(queries) + 1))
    for block in NearestRows(vectors).search(vectors[queries], k, queries):
        these = order[ends[block.start] : ends[block.start + len(block.numbers)]]
        found = block.numbers[number[these] - block.start]
        near[these] = ((found == positive[these, None]) | (found == negative[these, None])).any(axis=1)
    return SimilarityResult(
        precision=float(correct.mean()),
        score=int(2 * (correct & near).sum() - near.sum()),
        k=k,
        triplets=len(rows),
        triplets_at_top_k=int(near.sum()),
        gallery=len(vectors) - 1,
        metric=metric,
        correct=correct,
    )


def _check_triplets(triplets: Any, count: int) -> Integers:
    array = np.asarray(triplets)
    if array.ndim != 2 or array.shape[1] != 3 or not len(array):
        raise ValueError(f"triplets: expected numbers of query, positive and negative, [T, 3], received shape {array.shape}.")
    if array.dtype.kind not in "iu":
        raise ValueError(f"triplets: expected whole numbers, received dtype {array.dtype}.")
    if array.min() < 0 or array.max() >= count:
        raise ValueError(
            f"triplets: expected numbers 0 to {count - 1} of {count} embeddings, received {array.min()} to {array.max()}."
        )
    twice = (array == np.roll(array, 1, axis=1)).any(axis=1)
    if twice.any():
        first = int(np.argmax(twice))
        raise ValueError(
            f"triplets: number {first}, {array[first].tolist()}, holds one image twice ({int(twice.sum())} of {len(array)}). "
            "Query, positive and negative must be three images."
        )
    return array.astype(np.int64)


def _squares(vectors: Floats, first: Integers, second: Integers) -> npt.NDArray[np.float64]:
    """Squared Euclidean distances of pairs of rows, from float64 differences."""
    result = np.empty(len(first))
    step = max(1, _BLOCK_BYTES // (8 * vectors.shape[1]))
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        difference = np.subtract(vectors[first[part]], vectors[second[part]], dtype=np.float64)
        np.einsum("nd,nd->n", difference, difference, out=result[part])
    return result
