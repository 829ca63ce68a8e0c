"""How relevant images are to each other: what `RelevanceTripletSampler` draws by. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfdml.samplers._arguments import check_integer, check_share
from tfdml.samplers.grouping import ClassGroups

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Relevance = Callable[[Integers, Integers], Any]

_BLOCK_BYTES = 32 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class GradedRelevance:
    """Relevance in two parts: whether two items are of one class, and how alike they look.

    r(i, j) = class_weight [class of i = class of j] + (1 - class_weight) max(0, cos(f_i, f_j)), from 0 to 1.

    A stand-in for the "golden features" of Deep Ranking where there are labels and any simple image feature, such as
    `colour_histograms`. With `class_weight` of at least 0.5 an item of the own class is always at least as relevant as one of
    another class of the category.

    Args:
        labels: `[N]`, the classes, finer than the categories; integers or strings.
        features: `[N, F]`, one row for each item; `None` leaves the classes alone to say what is relevant.
        class_weight: the share of the class in relevance, from 0 to 1.

    Calling it with two arrays of item indices, `[a]` and `[b]`, gives their relevance `[a, b]`.

    Example:

    >>> relevance = GradedRelevance(["red apple", "red apple", "green apple"], [[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    >>> relevance(np.array([0]), np.array([0, 1, 2])).round(2).tolist()
    [[1.0, 1.0, 0.3]]
    """

    labels: Any
    features: Any = None
    class_weight: float = 0.5

    def __post_init__(self) -> None:
        check_share("class_weight", self.class_weight)
        labels = np.asarray(self.labels)
        if labels.ndim != 1:
            raise ValueError(f"labels have shape {labels.shape}: expected one label per item, shape [N].")
        object.__setattr__(self, "labels", np.unique(labels, return_inverse=True)[1])
        if self.features is None:
            return
        features = np.asarray(self.features, np.float64)
        if features.ndim != 2 or len(features) != len(labels) or not np.isfinite(features).all():
            raise ValueError(
                f"features have shape {features.shape}: expected finite numbers, a row for each of {len(labels)} items."
            )
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        object.__setattr__(self, "features", features / np.where(lengths > 0, lengths, 1))

    def __call__(self, first: Integers, second: Integers) -> Doubles:
        same = self.labels[first][:, None] == self.labels[second][None, :]
        if self.features is None:
            return same.astype(np.float64)
        alike = np.maximum(self.features[first] @ self.features[second].T, 0)
        return self.class_weight * same + (1 - self.class_weight) * alike


def colour_histograms(images: Any, bins: int = 4) -> NDArray[np.float32]:
    """A simple image feature: the square root of each image's histogram of colours, of length 1.

    The cosine of two of them is the Bhattacharyya coefficient of the histograms, from 0 (no colour in common) to 1.

    Args:
        images: `[N, height, width, channels]`, 0 to 255, 1 or 3 channels; or a `tfdml.datasets.Dataset`.
        bins: how many steps each channel is divided into.

    Returns:
        float32 `[N, bins ** channels]`.

    Example:

    >>> black_and_white = np.stack([np.zeros([2, 2, 3]), np.full([2, 2, 3], 255)])
    >>> colour_histograms(black_and_white, bins=2).round(2).tolist()
    [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    """
    bins = check_integer("bins", bins, 2, 64)
    batches = images.batches(256).as_numpy_iterator() if hasattr(images, "batches") else [np.asarray(images)]
    return np.concatenate([_histograms(batch, bins) for batch in batches])


def total_relevance(categories: Any, relevance: Any) -> Doubles:
    """Each item's total relevance: the sum of its relevance to the other items of its category.

    The weight by which queries are drawn, and what `OnlineTripletSampler` must know of each item of its stream. Block by block:
    memory is O(N).

    Args:
        categories: `[N]`, integers or strings.
        relevance: a function of two arrays of item indices, `[a]` and `[b]`, to `[a, b]`, or a matrix `[N, N]`.

    Returns:
        float64 `[N]`.

    Example:

    >>> total_relevance(["fruit", "fruit", "milk"], [[0, 2, 9], [2, 0, 9], [9, 9, 0]]).tolist()
    [2.0, 2.0, 0.0]
    """
    groups = ClassGroups.from_labels(categories)
    totals = np.zeros(groups.num_items)
    for rows, _, block in relevance_blocks(groups, relevance):
        totals[rows] = block.sum(axis=1)
    return totals


def relevance_blocks(groups: ClassGroups, relevance: Any) -> Iterator[tuple[Integers, Integers, Doubles]]:
    """For each category, some rows at a time: (rows, all members, their relevance `[rows, members]`, to themselves 0)."""
    function = _as_function(relevance, groups.num_items)
    for number in range(groups.num_classes):
        members = groups.items_of(number).astype(np.int64)
        step = max(1, _BLOCK_BYTES // (8 * len(members)))
        for start in range(0, len(members), step):
            rows = members[start : start + step]
            block = np.array(function(rows, members), np.float64)
            _check_block(block, rows, members)
            block[np.arange(len(rows)), start + np.arange(len(rows))] = 0
            yield rows, members, block


def _as_function(relevance: Any, num_items: int) -> Relevance:
    if callable(relevance):
        return relevance
    matrix = np.asarray(relevance)
    if matrix.shape != (num_items, num_items):
        raise ValueError(
            f"relevance has shape {matrix.shape}: expected [{num_items}, {num_items}], a row and a column for each item, or a "
            "function of two arrays of item indices."
        )
    return lambda first, second: matrix[np.ix_(first, second)]


def _check_block(block: Doubles, rows: Integers, members: Integers) -> None:
    if block.shape != (len(rows), len(members)):
        raise ValueError(
            f"relevance(first, second) returned shape {block.shape} for {len(rows)} and {len(members)} items: expected "
            f"[{len(rows)}, {len(members)}]."
        )
    bad = np.argwhere(~(np.isfinite(block) & (block >= 0)))
    if bad.size:
        row, column = bad[0]
        raise ValueError(
            f"relevance of items {rows[row]} and {members[column]} is {block[row, column]}: expected a finite number >= 0."
        )


def _histograms(images: NDArray[Any], bins: int) -> NDArray[np.float32]:
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"images have shape {images.shape}: expected [N, height, width, channels], 1 or 3 channels.")
    channels = images.shape[3]
    steps = np.clip(images.astype(np.int64) * bins // 256, 0, bins - 1)
    colours = (steps * bins ** np.arange(channels - 1, -1, -1)).sum(axis=3).reshape(len(images), -1)
    size = bins**channels
    flat = colours + size * np.arange(len(images))[:, None]
    counts = np.bincount(flat.ravel(), minlength=size * len(images)).reshape(len(images), size)
    return np.sqrt(counts / colours.shape[1]).astype(np.float32)
