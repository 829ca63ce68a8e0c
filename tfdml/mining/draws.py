"""Random numbers without state, the same eagerly, in a graph and under XLA."""

from __future__ import annotations

import operator
from typing import Any

import tensorflow as tf

# tf.random's stateless numbers are others under XLA than without.
_GOLDEN = 0x9E3779B97F4A7C15

# Resolution of `uniform`: integers up to this are exact in float32.
UNITS = float(2**23)


def check_seed(seed: Any) -> int:
    """Returns `seed` if it is an integer of 32 bits, else raises a `ValueError`.

    >>> check_seed(7)
    7
    """
    number = None if isinstance(seed, bool) or not hasattr(seed, "__index__") else operator.index(seed)
    if number is None or not -(2**31) <= number < 2**31:
        raise ValueError(f"seed={seed!r}: expected an integer of 32 bits.")
    return number


def content_key(seed: int, content: tf.Tensor) -> tf.Tensor:
    """A uint64 that changes with the seed, and with any bit of the content, which is made of floats."""
    bits = tf.cast(tf.reshape(tf.bitcast(content, tf.int32), [-1]), tf.int64)
    place = tf.range(tf.shape(bits)[0], dtype=tf.int64)
    # Whole numbers wrap around, and their sum does not depend on the order in which they are added.
    each = _mixed(tf.bitcast(bits + place * (1 << 32), tf.uint64))
    of_content = tf.bitcast(tf.reduce_sum(tf.bitcast(each, tf.int64)), tf.uint64)
    return _mixed(of_content + _mixed(tf.constant(seed % 2**64, tf.uint64)) * _GOLDEN)


def uniform(key: tf.Tensor, counter: tf.Tensor) -> tf.Tensor:
    """Floats in [0, 1) of 23 bits each, the `counter`-th of the key's sequence."""
    return tf.cast(tf.cast(tf.bitwise.right_shift(_at(key, counter), 41), tf.int32), tf.float32) / UNITS


def below(key: tf.Tensor, counter: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """Integers in [0, end), the `counter`-th of the key's sequence; 0 where the end is. Uniform up to 2^-32 of the end."""
    scaled = tf.bitwise.right_shift(_at(key, counter), 32) * tf.cast(ends, tf.uint64)
    return tf.cast(tf.bitwise.right_shift(scaled, 32), tf.int32)


def _at(key: tf.Tensor, counter: tf.Tensor) -> tf.Tensor:
    return _mixed(key + (tf.cast(counter, tf.uint64) + 1) * _GOLDEN)


def _mixed(x: tf.Tensor) -> tf.Tensor:
    # The mixer of SplitMix64 (G. Steele, D. Lea, C. Flood: Fast Splittable Pseudorandom Number Generators. OOPSLA 2014).
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 30)) * 0xBF58476D1CE4E5B9
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 27)) * 0x94D049BB133111EB
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 31))
