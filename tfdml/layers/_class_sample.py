"""A sample of classes for one step: those of the batch, and others drawn at random.

Its cost does not depend on how many classes there are. Only operations that XLA compiles, and only shapes that are known when
the batch's is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfdml.samplers.permutation import hashed, permuted_positions


class ClassSample(NamedTuple):
    """Classes without repetition, and where in it the class of each item stands.

    Attributes:
        classes: `[S]` int64.
        own: `[B]` int64: `classes[own[i]]` is the class of item i.
    """

    classes: tf.Tensor
    own: tf.Tensor


def draw_classes(labels: tf.Tensor, size: int, num_classes: int, seed: int, step: tf.Tensor) -> ClassSample:
    """All classes of the batch first, then others, each set of them equally likely, until `size` are full.

    There is room for every item's class: S is the larger of `size` and B, but not more than there are classes.

    Args:
        labels: `[B]` int64, from 0 to `num_classes - 1`.
        size: how many classes.
        num_classes: how many to draw from.
        seed: an integer of 32 bits.
        step: int64: each number draws others.

    >>> sample = draw_classes(tf.constant([7, 3, 7], tf.int64), 5, 1_000_000, seed=0, step=tf.constant(0, tf.int64))
    >>> sample.classes.shape, sample.classes[:2].numpy().tolist(), sample.own.numpy().tolist()
    (TensorShape([5]), [7, 3], [0, 1, 0])
    """
    batch: Any = labels.shape[0]
    if batch is None:
        batch = tf.shape(labels)[0]
        size = tf.minimum(tf.maximum(size, batch), num_classes)
    else:
        size = min(max(size, batch), num_classes)
    key = hashed(tf.constant(seed % 2**64, tf.uint64), step)
    # The beginning of a random permutation of all classes. Enough of them are left without the batch's own.
    drawn = permuted_positions(tf.range(size, dtype=tf.int64), num_classes, key)
    every = tf.concat([labels, drawn], 0)
    first = first_of_each(every)
    new = tf.equal(first, tf.range(tf.shape(every)[0]))
    place = tf.cumsum(tf.cast(new, tf.int32)) - 1
    kept = tf.where(new & (place < size), place, -1)
    classes = tf.math.unsorted_segment_sum(every, kept, size)
    return ClassSample(classes, tf.cast(tf.gather(place, first[:batch]), tf.int64))


def first_of_each(values: tf.Tensor) -> tf.Tensor:
    """`[N]` int32: the place of the first value that equals each. `values` are integers below 2^31.

    >>> first_of_each(tf.constant([5, 3, 5, 3, 5])).numpy().tolist()
    [0, 1, 0, 1, 0]
    """
    values = tf.cast(values, tf.int32)
    count = tf.size(values)
    order = tf.argsort(values, stable=True)
    in_order = tf.gather(values, order)
    begins = tf.equal(tf.range(count), 0) | tf.not_equal(in_order, tf.gather(in_order, tf.nn.relu(tf.range(count) - 1)))
    run = tf.cumsum(tf.cast(begins, tf.int32)) - 1
    leaders = tf.math.unsorted_segment_sum(tf.where(begins, order, 0), run, count)
    return tf.math.unsorted_segment_sum(tf.gather(leaders, run), order, count)
