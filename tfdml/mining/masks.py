"""Which pairs of a batch are positive and which are negative."""

from __future__ import annotations

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
        labels = tf.convert_to_tensor(labels)
        if labels.dtype in (tf.bool, tf.uint16):  # which XLA cannot sort
            labels = tf.cast(labels, tf.int32)
        batch = tf.shape(labels)[0]
        order = tf.argsort(labels, stable=True)
        ordered = tf.gather(labels, order)
        begins = tf.concat([tf.zeros_like(order[:1]), tf.cast(ordered[1:] != ordered[:-1], tf.int32)], 0)
        group = tf.cumsum(begins)
        place = tf.range(batch)
        size = tf.gather(tf.math.unsorted_segment_sum(tf.ones_like(order), group, batch), group)
        start = tf.gather(tf.math.unsorted_segment_min(place, group, batch), group)
        back = tf.scatter_nd(order[:, None], place, [batch])
        start, size = tf.gather(start, back), tf.gather(size, back)
        return cls(order, start, back - start, size)

    def positive(self, k: Any) -> tf.Tensor:
        """`[B]` (or `[S, B]` for `k` of `[S, 1]`) item numbers: the k-th positive of each anchor, for 1 <= k < size.

        Beyond that they repeat: mask with `k < size`.

        >>> ClassGroups.of([5, 7, 5]).positive(1).numpy().tolist()
        [2, 1, 0]
        """
        return tf.gather(self.order, self.start + (self.rank + k) % self.size)
