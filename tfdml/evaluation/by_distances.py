"""Retrieval figures of a matrix of distances, wherever it comes from. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.evaluation._labels import check_answers, check_ks, class_numbers, shared_class_numbers
from tfdml.evaluation._ties import TIES, figures_of, groups
from tfdml.evaluation.ranking import precisions
from tfdml.evaluation.retrieval_result import PerQuery, RetrievalResult, result_of
from tfdml.index._nearest import k_smallest


def retrieval_by_distances(
    distances: npt.ArrayLike,
    labels: npt.ArrayLike,
    gallery_labels: npt.ArrayLike | None = None,
    *,
    ks: int | Sequence[int] | None = None,
    ties: str = "number",
    name: str = "given",
) -> RetrievalResult:
    """Recall@k, R-Precision and MAP@R of given distances, such as those of `k_reciprocal_distances`.

    The figures are those of `tfdml.evaluation.retrieval`.

    Args:
        distances: `[Q, G]`, without NaN; smaller is nearer.
        labels: `[Q]`, integers or strings.
        gallery_labels: `[G]`, of the same kind; None if queries and gallery are the same items: then an item is left out of
            its own answer, whatever its distance to itself is.
        ks: the k of Recall@k, as in `retrieval`.
        ties: what counts where right and wrong answers are equally near, as in `retrieval`.
        name: what the result calls these distances.

    Raises:
        ValueError: for NaN, for another shape, and for labels by which no figure means anything.

    Example:
        >>> import numpy as np
        >>> distances = np.array([[0, 1, 5, 6], [1, 0, 4, 5], [5, 4, 0, 4.5], [6, 5, 4.5, 0]])
        >>> print(retrieval_by_distances(distances, [0, 0, 1, 1], ks=(1,)))
        Recall@1      75.00%
        R-Precision   75.00%
        MAP@R         75.00%
        4 queries; 4 items; given distance
    """
    matrix = np.asarray(distances)
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number):
        raise ValueError(
            f"distances: expected a matrix [queries, items] of numbers, received shape {matrix.shape}, {matrix.dtype}."
        )
    count, items = matrix.shape
    if gallery_labels is None:
        if count != items:
            raise ValueError(
                f"gallery_labels=None: expected one label for each of the {items} items that {count} queries find."
            )
        classes = gallery_classes = class_numbers(labels, count, "labels")
        exclude = np.arange(count)
    else:
        classes, gallery_classes = shared_class_numbers(labels, count, gallery_labels, items)
        exclude = np.full(count, -1)
    answers = check_answers(classes, gallery_classes, exclude)
    available = items - (gallery_labels is None)
    ks = check_ks([k for k in (1, 5, 10) if k <= max(available, 1)] if ks is None else ks, available)
    largest = max(ks)
    check_choice("ties", ties, TIES)

    found = PerQuery(
        nearest=np.empty((count, largest), np.int64),
        distances=np.empty((count, largest), np.float32),
        correct=np.empty((count, largest), bool),
        answers=answers,
        r_precision=np.full(count, np.nan),
        map_at_r=np.full(count, np.nan),
        classes=classes,
    )
    values = {f"recall_at_{k}": np.full(count, np.nan) for k in ks}
    values |= {"r_precision": found.r_precision, "map_at_r": found.map_at_r}
    tied = np.zeros(count, bool)
    for query in range(count):
        row = matrix[query].astype(np.float64)
        if np.isnan(row).any():
            raise ValueError(f"distances: NaN in row {query} of {count}.")
        if exclude[query] >= 0:
            row = np.delete(row, query)
        depth = max(largest, int(answers[query]))
        numbers, near = k_smallest(row, depth)
        beyond = np.setdiff1d(np.flatnonzero(row == near[-1]), numbers, assume_unique=True)
        numbers = np.concatenate([numbers, beyond])
        numbers = numbers + ((numbers >= query) & (exclude[query] >= 0))
        relevant = gallery_classes[numbers] == classes[query]
        found.nearest[query], found.distances[query] = numbers[:largest], near[:largest]
        found.correct[query] = relevant[:largest]
        if not answers[query]:
            continue
        near = np.append(near, np.full(len(beyond), near[-1]))
        equal = groups(near, relevant)
        tied[query] = ((equal.right > 0) & (equal.right < equal.size)).any()
        if ties != "number" and tied[query]:
            figures = figures_of(equal, int(answers[query]), ks, ties)
        else:
            at_r = precisions(relevant[None, :depth], answers[query : query + 1])
            figures = {"r_precision": at_r[0][0], "map_at_r": at_r[1][0]}
            figures |= {f"recall_at_{k}": float(relevant[:k].any()) for k in ks}
        for key, each in values.items():
            each[query] = figures[key]
    return result_of(found, ks, items, name, values, tied, ties)
