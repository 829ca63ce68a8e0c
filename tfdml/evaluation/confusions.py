"""Which classes are taken for each other. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_positive
from tfdml.evaluation._labels import class_numbers, shared_class_numbers
from tfdml.evaluation.retrieval_result import PerQuery
from tfdml.index.base import Integers


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes of which each is found in the other's place.

    Attributes:
        first: number of an item of the first class: `labels[first]` is its label.
        second: number of an item of the second class.
        mistakes: how many queries of the two found an item of the other class nearest.
        queries: how many queries the two classes have.
        examples: int64 `[m, 2]`: those queries and what they found, by their numbers, the surest mistakes first.
    """

    first: int
    second: int
    mistakes: int
    queries: int
    examples: Integers

    @property
    def share(self) -> float:
        """Mistakes / queries."""
        return self.mistakes / self.queries


def confused_classes(
    found: PerQuery, labels: npt.ArrayLike, count: int = 10, *, gallery_labels: npt.ArrayLike | None = None
) -> list[ConfusedPair]:
    """The pairs of classes that are most often taken for each other by the nearest neighbour, the worst first.

    Pairs are ordered by mistakes / queries, both directions added up, and then by the number of mistakes.

    Args:
        found: `retrieval(...).per_query`.
        labels: `[Q]`, the queries' labels.
        count: how many pairs at most.
        gallery_labels: `[G]`, if the gallery was another than the queries; then `first` and `second` are numbers of queries and
            of gallery items, in the order of `examples`.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import confused_classes, retrieval
        >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.2], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0], [-1.0, 0.1]])
        >>> labels = np.array(["cup", "cup", "mug", "mug", "shoe", "shoe"])
        >>> worst = confused_classes(retrieval(embeddings, labels, ks=(1,)).per_query, labels)[0]
        >>> labels[[worst.first, worst.second]].tolist(), worst.mistakes, worst.queries
        (['cup', 'mug'], 4, 4)
    """
    check_positive("count", count)
    queries = len(found.nearest)
    if gallery_labels is None:
        classes = gallery_classes = class_numbers(labels, queries, "labels")
    else:
        classes, gallery_classes = shared_class_numbers(labels, queries, gallery_labels, np.size(gallery_labels))
    wrong = np.flatnonzero((found.answers > 0) & ~found.correct[:, 0])
    if not wrong.size:
        return []
    answers = found.nearest[wrong, 0]
    one, two = classes[wrong], gallery_classes[answers]
    total = int(max(classes.max(), gallery_classes.max())) + 1
    keys, which = np.unique(np.minimum(one, two) * total + np.maximum(one, two), return_inverse=True)
    sizes = np.bincount(classes[found.answers > 0], minlength=total)
    mistakes = np.bincount(which.reshape(-1))
    asked = sizes[keys // total] + sizes[keys % total]
    pairs = []
    for place in np.lexsort((keys, -mistakes, -mistakes / asked))[:count]:
        mine = np.flatnonzero(which.reshape(-1) == place)
        mine = mine[np.argsort(found.distances[wrong[mine], 0], kind="stable")]
        examples = np.stack([wrong[mine], answers[mine]], axis=1)
        # The first class is the one with the lower number, whichever way round the surest mistake was.
        ends = examples[0] if one[mine[0]] < two[mine[0]] or gallery_labels is not None else examples[0][::-1]
        pairs.append(ConfusedPair(int(ends[0]), int(ends[1]), int(mistakes[place]), int(asked[place]), examples))
    return pairs
