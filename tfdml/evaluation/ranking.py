"""Retrieval figures: how good the nearest neighbours are. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.index._nearest import BLOCK_BYTES, NearestRows
from tfdml.index.base import METRICS, Floats, Integers, check_ids, check_vectors
from tfdml.index.exact import distances_from_squares

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PerQuery:
    """The figures of single queries, and what each of them found: for pictures of the best and the worst answers.

    Attributes:
        nearest: int64 `[Q, k]`, gallery numbers of the nearest items, k being the largest of the `ks`.
        distances: float32 `[Q, k]`, in the metric of the evaluation.
        correct: bool `[Q, k]`, whether these are of the query's class.
        answers: int64 `[Q]`, R: how many items of the query's class the gallery holds, the query itself not counted.
        r_precision: float64 `[Q]`; NaN for a query without an answer.
        map_at_r: float64 `[Q]`; NaN for a query without an answer.
    """

    nearest: Integers
    distances: Floats
    correct: npt.NDArray[np.bool_]
    answers: Integers
    r_precision: Doubles
    map_at_r: Doubles

    def hit_at(self, k: int) -> npt.NDArray[np.bool_]:
        """Whether one of the k nearest is right, `[Q]`."""
        if not 1 <= k <= self.correct.shape[1]:
            raise ValueError(f"k={k}: expected 1 to {self.correct.shape[1]}, the largest of the ks that were evaluated.")
        return np.asarray(self.correct[:, :k].any(axis=1))

    def best(self, count: int) -> Integers:
        """Numbers of the queries with the highest AP@R, the best first; queries without an answer are left out."""
        return self._by(-self.map_at_r, count)

    def worst(self, count: int) -> Integers:
        """Numbers of the queries with the lowest AP@R, the worst first; queries without an answer are left out."""
        return self._by(self.map_at_r, count)

    def _by(self, values: Doubles, count: int) -> Integers:
        order = np.argsort(values, kind="stable")  # NaN comes last
        return order[: min(count, int((self.answers > 0).sum()))]


@dataclass(frozen=True)
class RetrievalResult:
    """What `retrieval` found. Figures are fractions from 0 to 1: means over the queries that have an answer.

    Attributes:
        recall_at: for each k, the share of queries with a right answer among the k nearest.
        r_precision: share of right answers among the nearest R, R being the number of right answers there are.
        map_at_r: mean average precision at R.
        queries: number of queries, those without an answer included.
        queries_without_answer: queries of whose class the gallery holds no other item; they count in no figure.
        gallery: number of items in the gallery.
        metric: `"cosine"` or `"euclidean"`.
        per_query: the figures of single queries.
    """

    recall_at: dict[int, float]
    r_precision: float
    map_at_r: float
    queries: int
    queries_without_answer: int
    gallery: int
    metric: str
    per_query: PerQuery = field(repr=False, compare=False)

    def figures(self, prefix: str = "") -> dict[str, float]:
        """`recall_at_<k>` for each k, `r_precision` and `map_at_r`, each name with the prefix."""
        values = {f"recall_at_{k}": value for k, value in self.recall_at.items()}
        values |= {"r_precision": self.r_precision, "map_at_r": self.map_at_r}
        return {prefix + name: value for name, value in values.items()}

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """The figures, and the counts `queries` and `queries_without_answer`: plain numbers, ready for JSON."""
        counts = {"queries": self.queries, "queries_without_answer": self.queries_without_answer}
        return self.figures(prefix) | {prefix + name: value for name, value in counts.items()}

    def __str__(self) -> str:
        rows = [(f"Recall@{k}", value) for k, value in self.recall_at.items()]
        rows += [("R-Precision", self.r_precision), ("MAP@R", self.map_at_r)]
        lines = [f"{name:<12}{value:8.2%}" for name, value in rows]
        left_out = f", of which {self.queries_without_answer:,} have no answer" if self.queries_without_answer else ""
        lines.append(f"{self.queries:,} queries{left_out}; {self.gallery:,} items; {self.metric} distance")
        return "\n".join(lines)


def retrieval(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    ids: Iterable[Any] | None = None,
    gallery: npt.ArrayLike | None = None,
    gallery_labels: npt.ArrayLike | None = None,
    gallery_ids: Iterable[Any] | None = None,
    *,
    metric: str = "cosine",
    ks: Sequence[int] | None = None,
    block: int = BLOCK_BYTES,
) -> RetrievalResult:
    r"""Recall@k, R-Precision and MAP@R by exact search: does an image find the other images of its class?

    Without a gallery every embedding is a query against all others. It is left out of its own answer *by number*, so exact
    duplicates of it are found like any other item. With a gallery, an item that has the query's id is left out.

    With R the number of right answers in the gallery, rel(i) = 1 if the i-th nearest item is right, and P(i) the share of
    right ones among the nearest i, a query counts

        Recall@k     1 if any of the k nearest is right, else 0
        R-Precision  (rel(1) + ... + rel(R)) / R
        MAP@R        (P(1) rel(1) + ... + P(R) rel(R)) / R

    Queries with R = 0 have no answer: they are counted, reported and left out of the means. Items at equal distance are
    ordered by their number, so the figures are the same on every machine; near-duplicates are told apart by exact differences.

    Memory beside the embeddings and one copy of them: for each core about twice `block` bytes, never queries x gallery. Time:
    that of the matrix product and of ordering R neighbours of each query.

    Args:
        embeddings: `[Q, D]`, finite.
        labels: `[Q]`, integers or strings.
        ids: Q different strings; they matter together with `gallery_ids` only.
        gallery: `[G, D]`, the items to search in; None: the embeddings themselves.
        gallery_labels: `[G]`, of the same kind as `labels`.
        gallery_ids: G different strings.
        metric: `"cosine"` or `"euclidean"`.
        ks: the k of Recall@k; none may exceed the number of items that a query can find. None takes those of 1, 5 and 10
            that there are items for.
        block: bytes of a block of distances.

    Raises:
        ValueError: for NaN or infinity; for a zero vector under cosine; for labels of another number or kind; if everything
            is of one class, where every answer would be right; if no query has an answer; if a k is too large.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import retrieval
        >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.6, 0.5], [-1.0, 0.0]])
        >>> print(retrieval(embeddings, ["cup", "cup", "lamp", "lamp", "shoe"], ks=(1, 3)))
        Recall@1      75.00%
        Recall@3     100.00%
        R-Precision   75.00%
        MAP@R         75.00%
        5 queries, of which 1 have no answer; 5 items; cosine distance

    References:
        Musgrave, Belongie and Lim, A Metric Learning Reality Check, ECCV 2020: R-Precision and MAP@R.
    """
    check_choice("metric", metric, METRICS)
    queries = check_vectors(embeddings, metric, "embeddings")
    names = None if ids is None else check_ids(ids, len(queries))
    if gallery is None:
        if gallery_labels is not None or gallery_ids is not None:
            raise ValueError("gallery_labels and gallery_ids belong to a gallery, and gallery=None.")
        classes = gallery_classes = class_numbers(labels, len(queries), "labels")
        items, exclude = queries, np.arange(len(queries))
    else:
        if gallery_labels is None:
            raise ValueError("gallery_labels=None: expected one label for each item of the gallery.")
        items = check_vectors(gallery, metric, "gallery")
        if items.shape[1] != queries.shape[1]:
            raise ValueError(
                f"gallery: dimension {items.shape[1]}, but embeddings have {queries.shape[1]}. Both must come from one model."
            )
        classes, gallery_classes = shared_class_numbers(labels, len(queries), gallery_labels, len(items))
        exclude = _same_ids(names, len(queries), gallery_ids, len(items))
    answers = check_answers(classes, gallery_classes, exclude)
    available = len(items) - int((exclude >= 0).any())
    if ks is None:
        ks = [k for k in (1, 5, 10) if k <= max(available, 1)]
    largest = check_ks(ks, available)

    found = PerQuery(
        nearest=np.empty((len(queries), largest), np.int64),
        distances=np.empty((len(queries), largest), np.float32),
        correct=np.empty((len(queries), largest), bool),
        answers=answers,
        r_precision=np.empty(len(queries)),
        map_at_r=np.empty(len(queries)),
    )
    nearest = NearestRows(items)
    for group in _groups_of_similar_depth(np.maximum(answers, largest)):
        depth = int(max(largest, answers[group].max()))
        for part in nearest.search(queries[group], depth, exclude[group], exact_distances=False, block_bytes=block):
            rows = group[part.start : part.start + len(part.numbers)]
            relevant = gallery_classes[part.numbers] == classes[rows, None]
            found.nearest[rows] = part.numbers[:, :largest]
            found.correct[rows] = relevant[:, :largest]
            squared = nearest.squared_distances(queries[rows], part.numbers[:, :largest])
            found.distances[rows] = distances_from_squares(squared, metric)
            found.r_precision[rows], found.map_at_r[rows] = precisions(relevant, answers[rows])

    return result_of(found, ks, len(items), metric)


def result_of(found: PerQuery, ks: Sequence[int], gallery: int, metric: str) -> RetrievalResult:
    """The means over the queries that have an answer."""
    counted = found.answers > 0
    return RetrievalResult(
        recall_at={int(k): float(found.hit_at(int(k))[counted].mean()) for k in ks},
        r_precision=float(found.r_precision[counted].mean()),
        map_at_r=float(found.map_at_r[counted].mean()),
        queries=len(counted),
        queries_without_answer=int((~counted).sum()),
        gallery=gallery,
        metric=metric,
        per_query=found,
    )


def class_numbers(labels: npt.ArrayLike, count: int, argument: str) -> Integers:
    """Numbers 0, 1, ... for `count` labels, equal where the labels are equal."""
    return np.unique(_check_labels(labels, count, argument), return_inverse=True)[1].reshape(-1)


def check_answers(classes: Integers, gallery_classes: Integers, exclude: Integers) -> Integers:
    """How many right answers each query has, itself not counted; an error if the figures could not mean anything."""
    if np.unique(gallery_classes).size == 1 and np.unique(classes).size == 1 and classes[0] == gallery_classes[0]:
        raise ValueError(
            f"labels: all {len(gallery_classes)} items are of one class, so every answer would be right. "
            "Evaluate on at least two classes."
        )
    sizes = np.bincount(gallery_classes, minlength=int(classes.max()) + 1)
    itself = (exclude >= 0) & (gallery_classes[exclude] == classes)
    answers = sizes[classes] - itself
    if not answers.any():
        raise ValueError(
            f"labels: none of the {len(classes)} queries has an answer: no class has another item in the gallery. "
            "Evaluate on classes with two images or more."
        )
    return answers


def check_ks(ks: Sequence[int], available: int) -> int:
    """The largest of the ks."""
    numbers = list(ks) if isinstance(ks, Iterable) else [ks]
    if not numbers or any(isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1 for k in numbers):
        raise ValueError(f"ks={ks!r}: expected whole numbers >= 1, such as (1, 5, 10).")
    if max(numbers) > available:
        raise ValueError(f"ks={ks!r}: a query can find only {available} items. Leave out the larger ones.")
    return int(max(numbers))


def precisions(relevant: npt.NDArray[np.bool_], answers: Integers) -> tuple[Doubles, Doubles]:
    """R-Precision and AP@R of each query; NaN where R = 0."""
    ranks = np.arange(1, relevant.shape[1] + 1)
    within = relevant & (ranks <= answers[:, None])
    right = np.cumsum(within, axis=1, dtype=np.int32)
    counts = np.where(answers > 0, answers, np.nan)
    at_ranks = np.divide(right, ranks, where=within, out=np.zeros(right.shape))
    return right[:, -1] / counts, at_ranks.sum(axis=1) / counts


def _groups_of_similar_depth(depth: Integers) -> Iterator[Integers]:
    """Queries whose depths differ by less than a factor of two: one large class must not deepen the search of all others."""
    octave = np.frexp(depth)[1]
    for value in np.unique(octave):
        yield np.flatnonzero(octave == value)


def _check_labels(labels: npt.ArrayLike, count: int, argument: str) -> npt.NDArray[Any]:
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,):
        raise ValueError(f"{argument}: expected {count} labels, one for each embedding, received shape {array.shape}.")
    if array.dtype == object and all(isinstance(label, str) for label in array):
        array = array.astype(str)
    if not (np.issubdtype(array.dtype, np.integer) or array.dtype.kind in "US"):
        raise ValueError(f"{argument}: expected integers or strings, received dtype {array.dtype}.")
    return array


def shared_class_numbers(
    labels: npt.ArrayLike, count: int, gallery_labels: npt.ArrayLike, gallery_count: int
) -> tuple[Integers, Integers]:
    first = _check_labels(labels, count, "labels")
    second = _check_labels(gallery_labels, gallery_count, "gallery_labels")
    if (first.dtype.kind in "iu") != (second.dtype.kind in "iu") or {first.dtype.kind, second.dtype.kind} == {"U", "S"}:
        raise ValueError(
            f"gallery_labels: dtype {second.dtype}, but labels have {first.dtype}, so none could be equal. Use one kind."
        )
    if {first.dtype.kind, second.dtype.kind} == {"i", "u"}:
        # NumPy would take both to float64, where large labels become equal.
        first, second = first.astype(object), second.astype(object)
    numbers = np.unique(np.concatenate([first, second]), return_inverse=True)[1].reshape(-1)
    return numbers[:count], numbers[count:]


def _same_ids(ids: tuple[str, ...] | None, count: int, gallery_ids: Iterable[Any] | None, gallery_count: int) -> Integers:
    """For each query the number of the item with its id, or -1."""
    if gallery_ids is None:
        return np.full(count, -1)
    try:
        numbers = {name: number for number, name in enumerate(check_ids(gallery_ids, gallery_count))}
    except ValueError as error:
        raise ValueError(f"gallery_{error}") from None
    return np.full(count, -1) if ids is None else np.array([numbers.get(name, -1) for name in ids])
