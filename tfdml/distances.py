"""Distances between embeddings, with gradients that are finite everywhere: the only place of the library that computes them.

`pairwise_distances` gives the matrix between all rows, by one matrix product; `paired_distances` goes row by row and is exact
even for near-duplicates. Three metrics are known to both:

| metric | d(u, v) |
|---|---|
| `"euclidean"` | ||u - v||_2 |
| `"squared_euclidean"` | ||u - v||_2^2 |
| `"cosine"` | 1 - cos(u, v); a zero vector has cos = 0 to everything |
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdml._checks import check_choice

__all__ = ["METRICS", "paired_distances", "pairwise_distances"]

METRICS = ("euclidean", "squared_euclidean", "cosine")


def pairwise_distances(a: Any, b: Any = None, metric: str = "euclidean") -> tf.Tensor:
    """Distances from every row of `a` to every row of `b` (or of `a` itself), for use inside a loss.

    Computed as |u|^2 + |v|^2 - 2 u.v on centred and scaled rows: one matrix product, O(N M) memory, no overflow however large
    or small the rows are (distances saturate near 1e15). The gradient is that of the definition, and 0 where a
    distance is 0. It can be differentiated twice.

    The price of the matrix product is the precision of near-duplicates: in float32, a distance below about 1/1000 of the
    spread of the batch has an error of per cents, below 1/5000 it is noise. Identical rows of `a` are 0 apart. Use
    `paired_distances` for distances that somebody will read.

    Args:
        a: `[N, D]` floats. float16 and bfloat16 are computed in float32; float64 stays.
        b: `[M, D]` floats, or `None` for the distances within `a`.
        metric: `"euclidean"`, `"squared_euclidean"` or `"cosine"`.

    Returns:
        `[N, M]` float32 (float64 for float64).

    Raises:
        ValueError: an unknown metric, or an argument that is not a float matrix.

    >>> pairwise_distances([[0.0, 0.0], [3.0, 4.0]]).numpy().tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    >>> pairwise_distances([[0.0, 0.0]], [[3.0, 4.0]], metric="squared_euclidean").numpy().tolist()
    [[25.0]]
    """
    check_choice("metric", metric, METRICS)
    a = _as_matrix("a", a)
    b = None if b is None else _as_matrix("b", b)
    if metric == "cosine":
        return _cosine_matrix(normalised(a), None if b is None else normalised(b))
    return _euclidean_matrix(a, b, squared=metric == "squared_euclidean")


def paired_distances(a: Any, b: Any, metric: str = "euclidean") -> tf.Tensor:
    """Distances from each row of `a` to the same row of `b`, computed from their difference: exact for near-duplicates too.

    Gradients are those of the definition, and 0 where the distance is 0.

    Args:
        a: `[..., D]` floats. float16 and bfloat16 are computed in float32; float64 stays.
        b: floats of the same shape.
        metric: `"euclidean"`, `"squared_euclidean"` or `"cosine"`.

    Returns:
        `[...]` float32 (float64 for float64).

    Raises:
        ValueError: an unknown metric.

    >>> print(f"{paired_distances([[0.0, 1.0]], [[0.0, 1.0001]]).numpy()[0]:.6f}")
    0.000100
    """
    check_choice("metric", metric, METRICS)
    a, b = as_float(a), as_float(b)
    if metric == "cosine":
        u, v = normalised(a), normalised(b)
        zeros = 2.0 - tf.reduce_sum(u * u, -1) - tf.reduce_sum(v * v, -1)
        # 1 - cos = |u - v|^2 / 2 for unit vectors; a zero vector is short of a unit one by 1/2, which is added back.
        return 0.5 * tf.reduce_sum(tf.square(u - v), -1) + 0.5 * tf.stop_gradient(tf.round(zeros))
    difference = a - b
    if metric == "squared_euclidean":
        return tf.minimum(tf.reduce_sum(tf.square(difference), -1), _LARGEST)
    return length(difference)[..., 0]


# Distances saturate near here: the squares of a whole float32 matrix of them still have a finite sum.
_LARGEST = 1e15


def as_float(x: Any) -> tf.Tensor:
    """`x` in the precision that distances and losses are computed in: float64 stays, everything else becomes float32."""
    x = tf.convert_to_tensor(x)
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def _as_matrix(argument: str, x: Any) -> tf.Tensor:
    x = as_float(x)
    if x.shape.rank not in (2, None):
        raise ValueError(f"{argument} has shape {tuple(x.shape)}: expected a matrix [N, D], one row per embedding.")
    return x


@tf.custom_gradient
def safe_sqrt(x: tf.Tensor) -> Any:
    """The square root, whose slope at 0 counts as 0."""
    root = tf.sqrt(x)
    return root, lambda g: tf.math.divide_no_nan(0.5 * g, root)


def _magnitude(x: tf.Tensor, axis: int | None = None) -> tf.Tensor:
    """The largest absolute value (1 if all are 0), to divide by so that squares neither overflow nor vanish."""
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(x), axis, keepdims=axis is not None))
    return tf.where(largest < 1e-37, tf.ones_like(largest), largest)


def length(x: tf.Tensor) -> tf.Tensor:
    """`||x||_2` along the last axis, which is kept; no square overflows or vanishes."""
    scale = _magnitude(x, axis=-1)
    return tf.minimum(scale, _LARGEST) * safe_sqrt(tf.reduce_sum(tf.square(x / scale), -1, keepdims=True))


def normalised(x: tf.Tensor) -> tf.Tensor:
    """`x / ||x||_2` along the last axis; a zero vector stays zero, with a zero gradient."""
    x = x / _magnitude(x, axis=-1)
    return tf.math.divide_no_nan(x, safe_sqrt(tf.reduce_sum(tf.square(x), -1, keepdims=True)))


def _cosine_matrix(u: tf.Tensor, v: tf.Tensor | None) -> tf.Tensor:
    return _within_0_and_2(1.0 - tf.matmul(u, u if v is None else v, transpose_b=True))


@tf.custom_gradient
def _within_0_and_2(x: tf.Tensor) -> Any:
    """What rounding took out of [0, 2] by an ulp is put back; the gradient goes straight through."""
    return tf.clip_by_value(x, 0.0, 2.0), lambda g: g


def _euclidean_matrix(a: tf.Tensor, b: tf.Tensor | None, squared: bool) -> tf.Tensor:
    within = b is None
    scale = _magnitude(a) if within else tf.maximum(_magnitude(a), _magnitude(b))
    scale_out = tf.minimum(scale, _LARGEST)
    a = a / scale
    # Distances do not change with the origin, but their rounding errors do: at the centre they are smallest.
    centre = tf.stop_gradient(tf.reduce_mean(a, 0))
    a = a - centre
    b = a if within else b / scale - centre
    product = tf.matmul(-2.0 * a, b, transpose_b=True)
    # Norms off the diagonal of the same product: identical rows come out exactly 0 apart.
    norms_a = -0.5 * tf.linalg.diag_part(product) if within else tf.reduce_sum(tf.square(a), -1)
    norms_b = norms_a if within else tf.reduce_sum(tf.square(b), -1)
    d2 = norms_a[:, None] + norms_b[None, :] + product
    if squared:
        return tf.minimum(scale_out * scale_out, _LARGEST) * tf.nn.relu(d2)
    return _scaled_root(d2, scale_out)


@tf.custom_gradient
def _scaled_root(x: tf.Tensor, scale: tf.Tensor) -> Any:
    """`scale * sqrt(x)`, 0 with a slope of 0 where x is not positive. The backward pass needs no other matrix than this one."""
    root = scale * tf.sqrt(tf.nn.relu(x))

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, None]:
        # In this order no factor overflows or vanishes, however large or small the scale is.
        return scale * tf.math.divide_no_nan((0.5 * scale) * g, root), None

    return root, gradient
