"""The distance that tells positive pairs from negative ones with the fewest errors."""

from __future__ import annotations

import tensorflow as tf


def best_threshold(distances: tf.Tensor, kinds: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
    """The threshold t with the smallest sum of two shares: positive pairs with d >= t, negative pairs with d < t.

    It lies half-way between two neighbouring distances; of equally good ones it is the smallest.

    Args:
        distances: `[N]` floats >= 0.
        kinds: `[N]` integers: 1 for a positive pair, -1 for a negative pair, 0 for one that does not count.
        otherwise: scalar, returned if a distance is not finite, or no threshold is better than none: without positive pairs,
            without negative pairs, or if the positive ones are the farther.
    """
    largest = distances.dtype.max
    counted = tf.not_equal(kinds, 0)
    order = tf.argsort(tf.where(counted, distances, largest))
    d, kinds = tf.gather(distances, order), tf.gather(kinds, order)
    positive, negative = tf.cast(kinds > 0, d.dtype), tf.cast(kinds < 0, d.dtype)
    positives, negatives = tf.reduce_sum(positive), tf.reduce_sum(negative)
    count = tf.reduce_sum(tf.cast(counted, tf.int32))
    # Entry i: the first i + 1 are taken for positive.
    errors = 1.0 - tf.math.divide_no_nan(tf.cumsum(positive), positives) + tf.math.divide_no_nan(tf.cumsum(negative), negatives)
    following = tf.concat([d[1:], d[-1:]], 0)
    # No threshold lies between equal distances, or beyond the last that counts.
    gap = (tf.range(tf.shape(d)[0]) < count - 1) & (d < following)
    errors = tf.where(gap, errors, tf.ones_like(errors))
    place = tf.argmin(errors)
    # To take all pairs for positive, or all for negative, is an error of 1.
    both = (positives > 0) & (negatives > 0)
    known = both & (errors[place] < 1.0 - 1e-6) & tf.reduce_all(tf.math.is_finite(tf.where(counted, distances, 0.0)))
    return tf.where(known, 0.5 * (d[place] + following[place]), otherwise)
