"""Stateless draws from weights and from what is left over, many at once, out of stock TensorFlow ops."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdml.samplers.permutation import hashed


def uniform(key: Any, *values: Any) -> Any:
    """float64 in [0, 1 - 2^-52], a multiple of 2^-52, that depends on `key` and `values` as `hashed` does."""
    bits = tf.bitwise.right_shift(hashed(key, *values), tf.constant(12, tf.uint64))
    return tf.cast(bits, tf.float64) * tf.constant(2.0**-52, tf.float64)


def first_above(table: Any, starts: Any, sizes: Any, values: Any) -> Any:
    """How many numbers of a slice of `table` are <= `values`, where each slice, `table[start : start + size]`, is rising.

    A binary search for each element: cost grows with the logarithm of the largest slice, memory not at all. Elements of size 0
    get 0.

    Args:
        table: `[T]`.
        starts, sizes: int64, broadcastable to `values`.
        values: of the table's type, any shape.

    Returns:
        int64, the shape of `values`.

    Example:

    >>> table = tf.constant([1.0, 2.0, 4.0,  0.5, 3.0], tf.float64)
    >>> first_above(table, tf.constant([0, 3], tf.int64), tf.constant([3, 2], tf.int64), tf.constant([2.0, 0.1], tf.float64))
    <tf.Tensor: shape=(2,), dtype=int64, numpy=array([2, 0])>
    """
    starts = tf.broadcast_to(starts, tf.shape(values))
    low = tf.zeros_like(starts)
    high = tf.broadcast_to(sizes, tf.shape(values))
    last = tf.size(table, out_type=tf.int64) - 1

    def halve(low: Any, high: Any) -> tuple[Any, Any]:
        middle = (low + high) // 2
        searching = low < high
        above = tf.gather(table, tf.clip_by_value(starts + middle, tf.zeros_like(last), last)) > values
        return (
            tf.where(searching & ~above, middle + 1, low),
            tf.where(searching & above, middle, high),
        )

    shape = tf.TensorShape(values.shape)
    found, _ = tf.while_loop(
        lambda low, high: tf.reduce_any(low < high),
        halve,
        (low, high),
        shape_invariants=(shape, shape),
    )
    return found


def weighted(cumulative: Any, starts: Any, sizes: Any, draws: Any) -> Any:
    """Places 0 .. size - 1 drawn with the weights whose running sums are the slices of `cumulative` (float64).

    A place of weight zero is never drawn, however `draws`, numbers of `uniform`, fall.
    """
    ends = tf.gather(cumulative, starts + sizes - 1)
    # A draw is at most 1 - 2^-52, so that the product lies below the sum in float64 too.
    return first_above(cumulative, starts, sizes, draws * ends)
