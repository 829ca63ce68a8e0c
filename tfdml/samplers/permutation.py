"""Stateless permutations of any length, one element at a time, out of stock TensorFlow ops.

`tf.random.experimental.index_shuffle` is not fit for this: one call on 128 elements takes milliseconds when the
permutations are shorter than a few dozen, and on lengths that small it reaches only some of the permutations, unevenly.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_ROUNDS = 32
_GOLDEN = 0x9E3779B97F4A7C15


def permuted_positions(positions: Any, length: Any, key: Any) -> Any:
    """Where a keyed random permutation of `0 .. length - 1` sends `positions`.

    The "swap-or-not" shuffle: in round r, x and its partner (k_r - x) mod n change places if a hash of (r, the larger of the
    two) says so. Each round is a permutation for any n, so their chain is one too; its cost per element does not depend on n,
    and nothing is stored. The way a single element is distributed halves its distance to uniform in every round; there are 32.
    V. T. Hoang, B. Morris, P. Rogaway: An Enciphering Scheme Based on a Card Shuffle. CRYPTO 2012.

    For shuffling data, not for secrets: the hash is fast, not cryptographic.

    Args:
        positions: int64, any shape, each within `0 .. length - 1`.
        length: int64, broadcastable to `positions`: the n of the permutation that an element belongs to.
        key: uint64 from `hashed`, broadcastable to `positions`: which of the permutations.

    Returns:
        int64, the shape of `positions`.

    Example:

    >>> key = hashed(tf.constant(42, tf.uint64))
    >>> sorted(permuted_positions(tf.range(5, dtype=tf.int64), tf.constant(5, tf.int64), key).numpy().tolist())
    [0, 1, 2, 3, 4]
    """
    length = tf.cast(length, tf.uint64)

    def swap_or_not(count: Any, x: Any) -> tuple[Any, Any]:
        round_key = hashed(key, count)
        pivot = round_key % length
        partner = tf.where(pivot >= x, pivot - x, pivot + length - x)
        swap = tf.bitwise.bitwise_and(hashed(round_key, tf.maximum(x, partner)), 1) == 1
        return count + 1, tf.where(swap, partner, x)

    _, result = tf.while_loop(
        lambda count, x: count < _ROUNDS,
        swap_or_not,
        (tf.constant(0, tf.uint64), tf.cast(positions, tf.uint64)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape(positions.shape)),
        maximum_iterations=_ROUNDS,
    )
    return tf.cast(result, tf.int64)


def hashed(key: Any, *values: Any) -> Any:
    """A uint64 that depends on `key` (uint64) and, one after the other, on `values` (integers); shapes broadcast.

    The mixer of SplitMix64 (G. Steele, D. Lea, C. Flood: Fast Splittable Pseudorandom Number Generators. OOPSLA 2014).
    """
    result = _mixed(key) if not values else key
    for value in values:
        result = _mixed(result + (tf.cast(value, tf.uint64) + 1) * _GOLDEN)
    return result


def _mixed(x: Any) -> Any:
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 30)) * 0xBF58476D1CE4E5B9
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 27)) * 0x94D049BB133111EB
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 31))
