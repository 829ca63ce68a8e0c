"""Which labels are likely to be wrong: items whose neighbours are of another class. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice, check_positive
from tfdml.evaluation._labels import class_numbers
from tfdml.index._nearest import NearestRows
from tfdml.index.base import METRICS, Integers, check_vectors

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelDoubts:
    """How far the neighbours of each item contradict its label.

    Attributes:
        doubt: float64 `[N]`, from -1 (all neighbours agree with the label) to 1 (all are of one other class).
        self_confidence: float64 `[N]`, the weight of neighbours of the item's own class, from 0 to 1.
        suggested: int64 `[N]`, the number of an item of the class that most of the *other* neighbours have: its label is what
            the neighbours suggest.
        neighbours: int64 `[N, k]`, the neighbours' numbers, nearest first.
        judged: bool `[N]`, False for the only item of a class: no neighbour could agree, so it is not judged.
    """

    doubt: Doubles
    self_confidence: Doubles
    suggested: Integers
    neighbours: Integers
    judged: npt.NDArray[np.bool_]

    def worst(self, count: int | None = None) -> Integers:
        """Numbers of the items that were judged, the most doubtful first."""
        order = np.argsort(np.where(self.judged, -self.doubt, np.inf), kind="stable")
        found = int(self.judged.sum())
        return order[: found if count is None else min(count, found)].astype(np.int64)


def label_doubts(embeddings: npt.ArrayLike, labels: npt.ArrayLike, k: int = 10, *, metric: str = "cosine") -> LabelDoubts:
    r"""Ranks items by how likely their label is wrong, by the labels of their k nearest neighbours.

    A neighbour at distance d counts w = exp(-(d - d_1) / s), with d_1 the distance of the nearest and s the median distance of
    all k-th neighbours, divided by the sum over the k neighbours. With c(x) the sum of w over the neighbours of class x, and
    r(x) the most that this could be, if as many of the nearest as class x has items were of it,

        self-confidence  c(own)
        doubt            c(rival) / r(rival) - c(own) / r(own),    rival: the class other than the own with the largest c

    The division keeps the items of a small class from being doubted for its size.

    It is the nearest-neighbour form of ranking by normalised margin in confident learning: no classifier is trained, and an
    item never votes for itself. The embedding should come from a model that was not trained on these labels (the unseen
    classes of a run, or a model trained on other data): a model that was fitted to a wrong label for long agrees with it.

    Args:
        embeddings: `[N, D]`, finite.
        labels: `[N]`, integers or strings.
        k: neighbours that vote; N - 1 if there are fewer.
        metric: `"cosine"` or `"euclidean"`.

    Raises:
        ValueError: for NaN or infinity, labels of another number, or if everything is of one class, where no label can be
            doubted.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import label_doubts
        >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.1], [0.9, 0.0], [0.0, 1.0], [0.1, 1.0], [0.0, 0.9], [0.05, 1.0]])
        >>> labels = ["cup", "cup", "cup", "lamp", "lamp", "lamp", "cup"]
        >>> doubts = label_doubts(embeddings, labels, k=3)
        >>> int(doubts.worst(1)[0]), labels[doubts.suggested[6]]
        (6, 'lamp')

    References:
        Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021.
    """
    check_choice("metric", metric, METRICS)
    check_positive("k", k)
    vectors = check_vectors(embeddings, metric, "embeddings")
    classes = class_numbers(labels, len(vectors), "labels")
    sizes = np.bincount(classes)
    if len(sizes) < 2:
        raise ValueError(f"labels: all {len(vectors)} items are of one class, so none can be doubted. Expected two or more.")
    k = min(int(k), len(vectors) - 1)
    neighbours = np.empty((len(vectors), k), np.int64)
    squared = np.empty((len(vectors), k))
    everyone = np.arange(len(vectors))
    nearest = NearestRows(vectors)
    for part in nearest.search(vectors, k, everyone, exact_distances=False):
        rows = slice(part.start, part.start + len(part.numbers))
        neighbours[rows] = part.numbers
        squared[rows] = nearest.squared_distances(vectors[rows], part.numbers)
    distances = squared / 2 if metric == "cosine" else np.sqrt(squared)
    scale = float(np.median(distances[:, -1])) or 1.0
    # From the nearest distance on, so that an outlier's weights do not all vanish.
    weights = np.exp(-(distances - distances[:, :1]) / scale)
    weights /= weights.sum(axis=1, keepdims=True)

    votes = classes[neighbours]
    own = (weights * (votes == classes[:, None])).sum(axis=1)
    other, rival = _strongest_other(votes, weights, classes)
    rivals = neighbours[everyone, rival]
    most = np.cumsum(weights, axis=1)

    def reach(items: Integers) -> Doubles:
        return most[everyone, np.clip(items, 1, k) - 1]

    doubt = other / reach(sizes[classes[rivals]]) - own / reach(sizes[classes] - 1)
    return LabelDoubts(
        doubt=np.clip(doubt, -1, 1),
        self_confidence=own,
        suggested=rivals,
        neighbours=neighbours,
        judged=sizes[classes] > 1,
    )


def _strongest_other(votes: Integers, weights: Doubles, classes: Integers) -> tuple[Doubles, Integers]:
    """The largest weight of one class other than the own, and the place of its nearest neighbour (0 if there is none)."""
    best, place = np.zeros(len(votes)), np.zeros(len(votes), np.int64)
    for column in range(votes.shape[1]):
        vote = votes[:, column]
        total = np.where(vote != classes, (weights * (votes == vote[:, None])).sum(axis=1), 0.0)
        better = total > best * (1 + 1e-12)
        best, place = np.where(better, total, best), np.where(better, column, place)
    return best, place
