"""The differences between Keras 2.15 and Keras 3, in one place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

KERAS_3 = int(keras.__version__.split(".")[0]) >= 3

# `add_weight(aggregation=...)` for state that every replica updates alike, of which the first replica's value is kept.
FIRST_REPLICA: Any = "only_first_replica" if KERAS_3 else tf.VariableAggregation.ONLY_FIRST_REPLICA


def rows_of(variable: Any, rows: tf.Tensor) -> tf.Tensor:
    """Rows of a weight, read without touching the others, with a gradient of `tf.IndexedSlices`.

    A read of the whole comes first, and after a sparse update is a copy, unless it is TensorFlow's own variable that is asked.
    """
    return tf.gather(variable.value if KERAS_3 else variable, rows)


def total_loss(model: keras.Model, value: tf.Tensor, y: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
    """What `compute_loss` returns: the loss that `model` was compiled with, if any, those of its layers, and `value`.

    `value` is a mean over this replica's batch; Keras wants the sum over replicas to be the mean.
    """
    if not KERAS_3:
        return model.compiled_loss(y, y_pred, sample_weight, regularization_losses=[*model.losses, value])
    value = value / tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, value.dtype)
    if model._compile_loss is None and not model.losses:
        return value
    return value + keras.Model.compute_loss(model, y=y, y_pred=y_pred, sample_weight=sample_weight)


def scaled_loss(optimizer: Any, loss: tf.Tensor) -> tf.Tensor:
    """`loss`, times the scale of an optimizer that has one, as those of float16 do. Take gradients of that."""
    if KERAS_3:
        return optimizer.scale_loss(loss)
    return optimizer.get_scaled_loss(loss) if hasattr(optimizer, "get_scaled_loss") else loss


def apply_scaled_gradients(optimizer: Any, gradients: Any, variables: Any) -> None:
    """One step of `optimizer` with gradients of a `scaled_loss`."""
    if not KERAS_3 and hasattr(optimizer, "get_unscaled_gradients"):
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


@contextlib.contextmanager
def unlocked(layer: keras.layers.Layer) -> Iterator[None]:
    """Lets a layer that is built take further parts, for a subclass of a model that is built when it is made."""
    if not KERAS_3:
        yield
        return
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


def build_for(model: keras.Model, batch: Any) -> None:
    """Makes the variables that Keras 3 would make in its first step, such as those of metrics, where a strategy forbids it.

    `batch` is of tensors, or of anything that has their shapes and types.
    """
    if KERAS_3:
        model._symbolic_build(data_batch=batch)
