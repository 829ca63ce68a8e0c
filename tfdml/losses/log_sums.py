"""Sums of exponentials over chosen entries of each row, in logarithms, with their derivatives. Nothing overflows."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class LogSum(NamedTuple):
    """One logarithm of a sum for each row, and its derivatives.

    Attributes:
        value: `[N]`. Of no entries at all: lower than any number that a loss has (but finite).
        weights: `[N, M]` the derivative of `value[i]` by the entry (i, j): 0 for entries that are not kept.
    """

    value: tf.Tensor
    weights: tf.Tensor


def log_sum_exp(x: tf.Tensor, kept: tf.Tensor) -> LogSum:
    """log(sum of e^x over the kept entries of each row).

    >>> value, weights = log_sum_exp(tf.constant([[0.0, 0.0, 900.0]]), tf.constant([[True, True, False]]))
    >>> round(float(value[0]), 4), weights.numpy().tolist()
    (0.6931, [[0.5, 0.5, 0.0]])
    """
    top, terms = _shifted(x, kept, x.dtype.min / 2)
    total = tf.reduce_sum(terms, 1)
    value = top + tf.math.log(tf.maximum(total, tf.constant(1e-37, x.dtype)))
    return LogSum(value, terms * tf.math.reciprocal_no_nan(total)[:, None])


def log_one_plus_sum_exp(x: tf.Tensor, kept: tf.Tensor, largest: float | None = None) -> LogSum:
    """log(1 + sum of e^x over the kept entries of each row): 0 if there are none.

    If x is known to be at most `largest`, and that is small, no maximum has to be found.

    >>> log_one_plus_sum_exp(tf.constant([[900.0, 5.0]]), tf.constant([[True, False]])).value.numpy().tolist()
    [900.0]
    """
    if largest is not None and largest < _SAFE:
        terms = tf.exp(tf.where(kept, x, tf.constant(x.dtype.min, x.dtype)))
        total = 1.0 + tf.reduce_sum(terms, 1)
        return LogSum(tf.math.log(total), terms / total[:, None])
    top, terms = _shifted(x, kept, 0.0)
    total = tf.exp(-top) + tf.reduce_sum(terms, 1)
    return LogSum(top + tf.math.log(total), terms / total[:, None])


# A sum of a million times e to this is still finite in float32.
_SAFE = 70.0


def _shifted(x: tf.Tensor, kept: tf.Tensor, least: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest kept entry of each row (at least `least`), and e^(x - that), 0 where x is not kept."""
    x = tf.where(kept, x, tf.constant(x.dtype.min, x.dtype))
    top = tf.maximum(tf.reduce_max(x, 1), tf.constant(least, x.dtype))
    return top, tf.exp(x - top[:, None])
