"""Which pairs of a batch are positive and which are negative."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf


def same_class_mask(labels: Any) -> tf.Tensor:
    """`[B, B]` booleans: both items have the same label (an item and itself included).

    >>> same_class_mask([5, 7, 5]).numpy().astype(int).tolist()
    [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    """
    labels = tf.convert_to_tensor(labels)
    return tf.equal(labels[:, None], labels[None, :])


def positive_mask(labels: Any) -> tf.Tensor:
    """`[B, B]` booleans: the same label, and not the item itself.

    >>> positive_mask([5, 7, 5]).numpy().astype(int).tolist()
    [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    """
    same = same_class_mask(labels)
    return tf.linalg.set_diag(same, tf.zeros_like(same[0]))


def negative_mask(labels: Any) -> tf.Tensor:
    """`[B, B]` booleans: different labels.

    >>> negative_mask([5, 7, 5]).numpy().astype(int).tolist()
    [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    """
    labels = tf.convert_to_tensor(labels)
    return tf.not_equal(labels[:, None], labels[None, :])


class ClassGroups(NamedTuple):
    """The items of a batch grouped by class, so that the k-th positive of every anchor is found without a `[B, B]` mask.

    Attributes:
        order: `[B]` item numbers, sorted by label.
        start: `[B]` for each item, where its class begins in `order`.
        rank: `[B]` for each item, its place within its class.
        size: `[B]` for each item, how many items its class has.
    """

    order: tf.Tensor
    start: tf.Tensor
    rank: tf.Tensor
    size: tf.Tensor

    @classmethod
    def of(cls, labels: Any) -> ClassGroups:
        """Groups the items of a batch.

        >>> ClassGroups.of([5, 7, 5]).size.numpy().tolist()
        [2, 1, 2]
        """
        order, _, group = _sorted_by_class(labels)
        batch = tf.shape(order)[0]
        place = tf.range(batch)
        size = tf.gather(tf.math.unsorted_segment_sum(tf.ones_like(order), group, batch), group)
        start = tf.gather(tf.math.unsorted_segment_min(place, group, batch), group)
        back = tf.scatter_nd(order[:, None], place, [batch])
        start, size = tf.gather(start, back), tf.gather(size, back)
        return cls(order, start, back - start, size)

    def positive(self, k: Any) -> tf.Tensor:
        """`[B]` (or `[S, B]` for `k` of `[S, 1]`) item numbers: the k-th positive of each anchor, for 1 <= k < size.

        Beyond that they mean nothing: mask with `k < size`.

        >>> ClassGroups.of([5, 7, 5]).positive(1).numpy().tolist()
        [2, 1, 0]
        """
        # One's own place is left out.
        place = tf.where(k <= self.rank, k - 1, k)
        return tf.gather(self.order, self.start + tf.minimum(place, self.size - 1))

    def negative(self, n: Any) -> tf.Tensor:
        """`[B]` (or `[S, B]` for `n` of `[S, 1]` or `[S, B]`) item numbers: the n-th item of another class than the anchor's.

        In the order of the batch, for 0 <= n < B - size; beyond that, any item.

        >>> ClassGroups.of([5, 7, 5]).negative(0).numpy().tolist()
        [1, 0, 1]
        """
        n = tf.broadcast_to(n, tf.broadcast_dynamic_shape(tf.shape(n), tf.shape(self.size)))
        last = tf.shape(self.order)[0] - 1
        first = first_step(tf.reduce_max(tf.concat([self.size, [1]], 0)))

        def halve(step: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # `before` items of the anchor's class are known to stand before its n-th negative; do `step` more?
            further = before + step
            member = tf.gather(self.order, tf.minimum(self.start + further - 1, last))
            return step // 2, tf.where((further <= self.size) & (member - further < n), further, before)

        _, before = tf.while_loop(lambda step, _: step > 0, halve, (first, tf.zeros_like(n)))
        return tf.minimum(n + before, last)


class ClassPairs(NamedTuple):
    """The items of each class in pairs, in the order of the batch: the first with the second, the third with the fourth.

    Attributes:
        first: `[ceil(B / 2)]` item numbers, the first items of the pairs.
        second: `[ceil(B / 2)]` the second items.
        exists: `[ceil(B / 2)]` booleans. What is beyond the last pair means nothing; the shape is one that XLA knows.
        labels: `[ceil(B / 2)]` labels of the pairs.
    """

    first: tf.Tensor
    second: tf.Tensor
    exists: tf.Tensor
    labels: tf.Tensor

    @classmethod
    def of(cls, labels: Any) -> ClassPairs:
        """Makes the pairs.

        >>> pairs = ClassPairs.of([5, 7, 5, 7, 5])
        >>> pairs.first[:2].numpy().tolist(), pairs.second[:2].numpy().tolist(), pairs.exists.numpy().tolist()
        ([0, 1], [2, 3], [True, True, False])
        """
        order, ordered, group = _sorted_by_class(labels)
        batch = tf.shape(order)[0]
        place = tf.range(batch)
        rank = place - tf.gather(tf.math.unsorted_segment_min(place, group, batch), group)
        goes_on = tf.concat([tf.equal(group[1:], group[:-1]), tf.zeros_like(order[:1], tf.bool)], 0)
        first_of_pair = tf.equal(rank % 2, 0) & goes_on
        # In the order of the batch, whatever the labels are.
        at = tf.argsort(tf.where(first_of_pair, order, order + batch))[: (batch + 1) // 2]
        second = tf.gather(order, tf.minimum(at + 1, batch - 1))
        return cls(tf.gather(order, at), second, tf.gather(first_of_pair, at), tf.gather(ordered, at))


def _sorted_by_class(labels: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`[B]` item numbers sorted by label, their labels, and the number of each one's class, from 0."""
    labels = tf.convert_to_tensor(labels)
    if labels.dtype in (tf.bool, tf.uint16):  # which XLA cannot sort
        labels = tf.cast(labels, tf.int32)
    order = tf.argsort(labels, stable=True)
    ordered = tf.gather(labels, order)
    begins = tf.concat([tf.zeros_like(order[:1]), tf.cast(tf.not_equal(ordered[1:], ordered[:-1]), tf.int32)], 0)
    return order, ordered, tf.cumsum(begins)


def first_step(count: tf.Tensor) -> tf.Tensor:
    """Where a binary search among `count` >= 1 places begins: a power of two; halved down to 1, the steps reach all of them.

    >>> [int(first_step(tf.constant(n))) for n in (1, 2, 3, 4, 1000)]
    [1, 2, 2, 4, 512]
    """
    return tf.bitwise.left_shift(1, tf.cast(tf.math.log(tf.cast(count, tf.float32)) / math.log(2.0) + 1e-4, tf.int32))
