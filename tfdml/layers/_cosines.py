"""Cosines to class weights, and what is done to the cosine of an embedding's own class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdml import distances as _distances


def unit(x: Any) -> tf.Tensor:
    """Rows of length 1, however large or small they were; a zero row stays zero. Gradients are finite."""
    return _distances.normalised(tf.convert_to_tensor(x))


def length(x: tf.Tensor) -> tf.Tensor:
    """`[N, 1]` lengths of rows. The gradient of a zero row is 0."""
    return _distances.length(x)


def cosines(x: tf.Tensor, weights: Any, scale: float = 1.0) -> tf.Tensor:
    """`[B, D]` and `[C, D]` to `[B, C]`, times `scale`. Rounding can leave [-scale, scale] by an ulp."""
    # Scaled before the product, which is the largest matrix by far.
    return tf.matmul(scale * unit(x), unit(weights), transpose_b=True)


def change_own(matrix: tf.Tensor, labels: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """`[B, C]` with `change(v)` in place of the value v that each row has in the column of its label.

    Value and gradient touch B entries only: no one-hot matrix is made.
    """
    rows = tf.range(tf.shape(labels, out_type=labels.dtype)[0])
    own = tf.stack([rows, labels], axis=1)

    @tf.custom_gradient
    def changed(matrix: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            values = tf.gather_nd(matrix, own)
            tape.watch(values)
            new = change(values)
        slopes = tape.gradient(new, values)

        def gradient(g: tf.Tensor) -> tf.Tensor:
            return tf.tensor_scatter_nd_update(g, own, tf.gather_nd(g, own) * slopes)

        return tf.tensor_scatter_nd_update(matrix, own, new), gradient

    return changed(matrix)
