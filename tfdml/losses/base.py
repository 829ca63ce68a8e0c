"""What all losses on embeddings share: exact labels, float32 inside, one value per anchor, the same reductions everywhere."""

from __future__ import annotations

import abc
from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice
from tfdml.distances import as_float

REDUCTIONS = ("sum_over_batch_size", "sum", "none")


class EmbeddingLoss(keras.losses.Loss, abc.ABC):
    """Base class of the losses that compare the embeddings of a batch with each other.

    A subclass implements `per_anchor(labels, embeddings) -> [B]`, whose mean is the loss of the batch: denominators that
    depend on the whole batch are folded into the values, so that sums over replicas come out right.

    What it takes care of:

    - labels reach `per_anchor` as they are. `keras.losses.Loss` casts them to float32, where 16777216 equals 16777217.
      Float labels are accepted and compared as they are;
    - `[B, 1]` labels (Keras 2 makes them) become `[B]`;
    - float16 and bfloat16 embeddings are computed in float32; float64 stays;
    - reductions and sample weights mean the same on Keras 2.15 and Keras 3;
    - a NaN or infinite embedding makes every value, and every gradient, NaN: it is never hidden, and a loss-scale optimizer
      sees it and skips the step.

    Args:
        reduction: `"sum_over_batch_size"` (also `"auto"`, `"mean"`), `"sum"`, or `"none"` (also `None`).
        name: name of the loss.
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        aliases = {"auto": "sum_over_batch_size", "mean": "sum_over_batch_size", None: "none"}
        reduction = check_choice("reduction", aliases.get(reduction, reduction), REDUCTIONS)
        super().__init__(reduction=reduction, name=name)

    @abc.abstractmethod
    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        """`[B]` labels and `[B, D]` float32 or float64 embeddings to `[B]` values, whose mean is the loss of the batch."""

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value per anchor.

        Args:
            y_true: `[B]` or `[B, 1]` integer labels.
            y_pred: `[B, D]` embeddings.

        Returns:
            `[B]` float32 (float64 for float64 embeddings).

        Raises:
            ValueError: labels that are strings, or shapes that do not fit.
        """
        labels, embeddings = self._prepare(y_true, y_pred)
        with tf.control_dependencies(_same_length(labels, embeddings)):
            batch = tf.shape(embeddings)[0]
            values = self.per_anchor(not_empty(labels), not_empty(embeddings))[:batch]
        finite = tf.reduce_all(tf.math.is_finite(embeddings))
        return values * tf.where(finite, tf.ones([], values.dtype), tf.constant(float("nan"), values.dtype))

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        values = self.call(y_true, y_pred)
        if sample_weight is not None:
            values *= _as_weights(sample_weight, values)
        reduce = _Reduce(self.reduction, values.dtype)
        # Keras 2 sets this on the losses that it was given to compile, and asks for it under a distribution strategy.
        reduce._allow_sum_over_batch_size = getattr(self, "_allow_sum_over_batch_size", False)
        return reduce(values, values)

    def get_config(self) -> dict[str, Any]:
        return {"reduction": self.reduction, "name": self.name}

    def _prepare(self, y_true: Any, y_pred: Any) -> tuple[tf.Tensor, tf.Tensor]:
        return as_labels(y_true), as_embeddings(y_pred)


def as_labels(y_true: Any) -> tf.Tensor:
    """`[B]` labels of whatever type they have; `[B, 1]` is squeezed."""
    labels = tf.convert_to_tensor(y_true)
    if labels.dtype == tf.string:
        raise ValueError(
            "y_true holds strings: losses compare class numbers. Number the classes first, for example with "
            "numpy.unique(names, return_inverse=True)[1], keras.layers.StringLookup, or a tfdml Dataset's .labels."
        )
    rank = labels.shape.rank
    if rank == 1:
        return labels
    if rank is None or (rank == 2 and labels.shape[1] in (1, None)):
        return tf.reshape(labels, [-1])
    raise ValueError(
        f"y_true has shape {tuple(labels.shape)}: expected one class number per embedding, [B] or [B, 1]. "
        "One-hot labels: pass tf.argmax(y_true, -1)."
    )


def as_embeddings(y_pred: Any) -> tf.Tensor:
    """`[B, D]` embeddings, float32 or float64."""
    embeddings = as_float(y_pred)
    if embeddings.shape.rank not in (2, None):
        raise ValueError(
            f"y_pred has shape {tuple(embeddings.shape)}: expected embeddings [B, D]. "
            "End the model with a pooling, Flatten or Dense layer."
        )
    return embeddings


def attach_slopes(distances: tf.Tensor, values: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    """`values` `[B]`, with `slopes[a, j]` as the derivative of `values[a]` by `distances[a, j]`."""

    @tf.custom_gradient
    def attached(_: tf.Tensor) -> Any:
        return tf.identity(values), lambda g: g[:, None] * slopes

    return attached(distances)


def mean_over(values: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """`[B]` values whose mean is sum(values) / count, and 0 where the count is."""
    batch = tf.cast(tf.shape(values)[0], values.dtype)
    return values * tf.math.divide_no_nan(batch, count)


class _Reduce(keras.losses.Loss):
    """Keras's own reduction of the values it is given, whatever the version does for distribution strategies."""

    def __init__(self, reduction: str, dtype: Any) -> None:
        super().__init__(reduction=reduction, name="reduce")
        self._dtype = dtype.name

    @property
    def dtype(self) -> Any:
        return self._dtype

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


def _same_length(labels: tf.Tensor, embeddings: tf.Tensor) -> list[Any]:
    known = labels.shape[0], embeddings.shape[0]
    if None in known:
        check = tf.debugging.assert_equal(
            tf.shape(labels)[0], tf.shape(embeddings)[0], "y_true and y_pred: expected one label per embedding."
        )
        return [] if check is None else [check]
    if known[0] != known[1]:
        raise ValueError(f"y_true has {known[0]} labels and y_pred {known[1]} embeddings: expected one label per embedding.")
    return []


def not_empty(x: tf.Tensor) -> tf.Tensor:
    """One item of zeros in place of none: under a distribution strategy a replica can be left without any."""
    if x.shape[0] not in (None, 0):
        return x
    missing = tf.cast(tf.equal(tf.shape(x)[0], 0), tf.int32)
    return tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))


def _as_weights(sample_weight: Any, values: tf.Tensor) -> tf.Tensor:
    weights = tf.cast(tf.convert_to_tensor(sample_weight), values.dtype)
    if weights.shape.rank == 0:
        return weights
    if weights.shape.rank in (1, None) or (weights.shape.rank == 2 and weights.shape[1] in (1, None)):
        return tf.reshape(weights, [-1])
    raise ValueError(f"sample_weight has shape {tuple(weights.shape)}: expected one weight per anchor, [B] or [B, 1].")
