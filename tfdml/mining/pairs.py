"""Which pairs of items are positive and which negative: within a batch, or between a batch and other items."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdml.mining.masks import ClassGroups, negative_mask, positive_mask

# From n, a number or `[S, 1]` numbers, to `[B]` or `[S, B]` columns: the n-th of each row, from 0. Beyond the last, any column.
Nth = Callable[[Any], tf.Tensor]


class Pairs(abc.ABC):
    """Which pairs (anchor, reference) are positive, and which are negative. What is neither does not count.

    Two items are a positive pair if they have the same label, else a negative pair. Items that have several labels, given as
    boolean multi-hot rows, are a positive pair if they share one. No item makes a pair with itself.

    Made by `Pairs.within(labels)`, where every item of a batch is an anchor and a reference, or by `Pairs.between(...)`.

    Attributes:
        embeddings: `[B, D]` embeddings of the anchors, or None: what random draws depend on.

    >>> pairs = Pairs.within([5, 7, 5])
    >>> pairs.positive.numpy().astype(int).tolist()
    [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    """

    embeddings: tf.Tensor | None = None

    @staticmethod
    def within(labels: Any, embeddings: tf.Tensor | None = None) -> Pairs:
        """The pairs inside a batch.

        Args:
            labels: `[B]` labels, or `[B, L]` booleans.
            embeddings: `[B, D]`, for miners that draw.

        >>> Pairs.within([[True, False], [True, True], [False, True]]).positive.numpy().astype(int).tolist()
        [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
        """
        labels = tf.convert_to_tensor(labels)
        if is_multi_hot(labels):
            return Pairs.between(labels, labels, itself=tf.range(tf.shape(labels)[0]), embeddings=embeddings)
        pairs: Pairs = _OfClasses(labels)
        pairs.embeddings = embeddings
        return pairs

    @staticmethod
    def between(
        labels: Any,
        reference_labels: Any,
        valid: Any = None,
        itself: Any = None,
        embeddings: tf.Tensor | None = None,
    ) -> Pairs:
        """The pairs of anchors with references.

        Args:
            labels: `[B]` labels of the anchors, or `[B, L]` booleans.
            reference_labels: `[M]` or `[M, L]`, of the references.
            valid: `[M]` booleans: the other references are in no pair. None: all are valid.
            itself: `[B]` integers, where each anchor itself stands among the references; -1: nowhere. None: none does.
            embeddings: `[B, D]` of the anchors, for miners that draw.

        >>> pairs = Pairs.between([5, 7], [7, 5, 5], itself=[-1, 0])
        >>> pairs.positive.numpy().astype(int).tolist(), pairs.negative.numpy().astype(int).tolist()
        ([[0, 1, 1], [0, 0, 0]], [[1, 0, 0], [0, 1, 1]])
        """
        labels, others = tf.convert_to_tensor(labels), tf.convert_to_tensor(reference_labels)
        if is_multi_hot(labels):
            same = tf.matmul(tf.cast(labels, tf.float32), tf.cast(others, tf.float32), transpose_b=True) > 0.5
        else:
            labels, others = _one_type(labels, others)
            same = tf.equal(labels[:, None], others[None, :])
        positive, negative = same, ~same
        if valid is not None:
            valid = tf.cast(valid, tf.bool)
            positive, negative = positive & valid, negative & valid
        if itself is not None:
            other = tf.cast(itself, tf.int32)[:, None] != tf.range(tf.shape(others)[0])
            positive, negative = positive & other, negative & other
        pairs: Pairs = _OfMasks(positive, negative)
        pairs.embeddings = embeddings
        return pairs

    @property
    @abc.abstractmethod
    def positive(self) -> tf.Tensor:
        """`[B, M]` booleans."""

    @property
    @abc.abstractmethod
    def negative(self) -> tf.Tensor:
        """`[B, M]` booleans."""

    @property
    @abc.abstractmethod
    def positive_count(self) -> tf.Tensor:
        """`[B]` integers: how many positives each anchor has."""

    @property
    @abc.abstractmethod
    def negative_count(self) -> tf.Tensor:
        """`[B]` integers: how many negatives each anchor has."""

    # The following two prepare a search, which may then run inside a loop.

    @abc.abstractmethod
    def nth_positive(self) -> Nth:
        """Finds the n-th positive of each anchor."""

    @abc.abstractmethod
    def nth_negative(self) -> Nth:
        """Finds the n-th negative of each anchor."""

    @property
    def complete(self) -> tf.Tensor:
        """`[B]` booleans: the anchor has a positive and a negative."""
        return (self.positive_count > 0) & (self.negative_count > 0)


def as_pairs(labels: Any) -> Pairs:
    """Labels stand for the pairs inside their batch; `Pairs` are returned as they are."""
    return labels if isinstance(labels, Pairs) else Pairs.within(labels)


def is_multi_hot(labels: tf.Tensor) -> bool:
    """Whether labels are boolean rows, one column for each label that an item may have."""
    return labels.dtype == tf.bool and labels.shape.rank == 2


class _OfClasses(Pairs):
    """Within a batch whose items have one label each: grouped by class, which takes no matrix."""

    def __init__(self, labels: tf.Tensor) -> None:
        self.labels = labels
        self.groups = ClassGroups.of(labels)

    @property
    def positive(self) -> tf.Tensor:
        return positive_mask(self.labels)

    @property
    def negative(self) -> tf.Tensor:
        return negative_mask(self.labels)

    @property
    def positive_count(self) -> tf.Tensor:
        return self.groups.size - 1

    @property
    def negative_count(self) -> tf.Tensor:
        return tf.shape(self.labels)[0] - self.groups.size

    def nth_positive(self) -> Nth:
        return lambda n: self.groups.positive(n + 1)

    def nth_negative(self) -> Nth:
        return self.groups.negative


class _OfMasks(Pairs):
    def __init__(self, positive: tf.Tensor, negative: tf.Tensor) -> None:
        self._positive, self._negative = positive, negative

    @property
    def positive(self) -> tf.Tensor:
        return self._positive

    @property
    def negative(self) -> tf.Tensor:
        return self._negative

    @property
    def positive_count(self) -> tf.Tensor:
        return tf.math.count_nonzero(self._positive, 1, dtype=tf.int32)

    @property
    def negative_count(self) -> tf.Tensor:
        return tf.math.count_nonzero(self._negative, 1, dtype=tf.int32)

    def nth_positive(self) -> Nth:
        return _nth_of(self._positive)

    def nth_negative(self) -> Nth:
        return _nth_of(self._negative)


def _one_type(labels: tf.Tensor, others: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    if labels.dtype == others.dtype:
        return labels, others
    wide = tf.int64 if labels.dtype.is_integer and others.dtype.is_integer else tf.float64
    return tf.cast(labels, wide), tf.cast(others, wide)


def _nth_of(mask: tf.Tensor) -> Nth:
    rows, width = tf.shape(mask)[0], tf.shape(mask)[1]
    row_starts = tf.range(rows)[:, None] * width
    # The n-th that is kept moves to place n of its row. What is sent to -1 is dropped.
    place = tf.where(mask, row_starts + tf.cumsum(tf.cast(mask, tf.int32), 1) - 1, -1)
    columns = tf.broadcast_to(tf.range(width), tf.shape(mask))
    kept_first = tf.math.unsorted_segment_sum(tf.reshape(columns, [-1]), tf.reshape(place, [-1]), rows * width)
    return lambda n: tf.gather(kept_first, row_starts[:, 0] + tf.minimum(n, width - 1))
