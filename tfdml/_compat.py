"""The differences between Keras 2.15 and Keras 3, in one place."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

KERAS_3 = int(keras.__version__.split(".")[0]) >= 3

# `add_weight(aggregation=...)` for state that every replica updates alike, of which the first replica's value is kept.
FIRST_REPLICA: Any = "only_first_replica" if KERAS_3 else tf.VariableAggregation.ONLY_FIRST_REPLICA


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
