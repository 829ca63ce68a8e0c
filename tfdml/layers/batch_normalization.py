"""Batch normalisation on TensorFlow's fused kernel."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._compat import KERAS_3
from tfdml.losses.base import not_empty


@keras.saving.register_keras_serializable(package="tfdml")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` on the fused kernel, for images.

    Keras 3 composes batch normalisation of many small operations, which on a CPU costs about a third of a small convolutional
    network's training step. This layer takes Keras's own arguments, holds the same weights under the same names and gives the
    same values; what the fused kernel cannot do (another rank or axis, a mask, no scale or centre, batch renormalisation,
    statistics of all replicas) goes to Keras's own code. Keras 2.15 uses the fused kernel already, so there this class changes
    nothing.

    Where several replicas share a batch of fewer rows than there are replicas, as at the end of an epoch, those without rows
    leave their averages as they are. (Keras 3's own layer then makes them, and the gradient of the scale, NaN.)

    Args:
        **kwargs: those of `keras.layers.BatchNormalization`.

    Shapes: `[B, h, w, C]` in and out.

    Example:
        >>> import tensorflow as tf
        >>> BatchNormalization()(tf.zeros([2, 4, 4, 3]), training=True).shape
        TensorShape([2, 4, 4, 3])
    """

    def call(self, inputs: tf.Tensor, training: Any = None, mask: Any = None) -> tf.Tensor:
        synchronized = getattr(self, "synchronized", False)
        if not (KERAS_3 and training is True and self.trainable and mask is None and not synchronized and _several_replicas()):
            return self._normalised(inputs, training, mask)
        averages = self.non_trainable_weights
        before = [tf.convert_to_tensor(average) for average in averages]
        batch = tf.shape(inputs)[0]
        outputs = self._normalised(not_empty(inputs), training, mask)[:batch]
        for average, old in zip(averages, before, strict=True):
            average.assign(tf.where(batch > 0, tf.convert_to_tensor(average), old))
        return outputs

    def _normalised(self, inputs: tf.Tensor, training: Any, mask: Any) -> tf.Tensor:
        if not (KERAS_3 and self._fits_kernel(inputs, mask) and isinstance(training, (bool, type(None)))):
            return super().call(inputs, training=training, mask=mask)
        gamma, beta, mean, variance = (tf.cast(v.value, tf.float32) for v in self._statistics())
        if not (training and self.trainable):
            return tf.compat.v1.nn.fused_batch_norm(
                inputs, gamma, beta, mean, variance, epsilon=self.epsilon, is_training=False
            )[0]
        outputs, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, epsilon=self.epsilon, is_training=True
        )
        # The kernel reports the variance with Bessel's correction; Keras averages the plain one.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        batch_variance = batch_variance * (count - 1.0) / tf.maximum(count, 1.0)
        self._average(self.moving_mean, batch_mean)
        self._average(self.moving_variance, batch_variance)
        return outputs

    def _fits_kernel(self, inputs: tf.Tensor, mask: Any) -> bool:
        # Not every Keras has both.
        special = getattr(self, "synchronized", False) or getattr(self, "renorm", False)
        plain = self.scale and self.center and not special and mask is None
        last_axis = self.axis in (-1, 3)
        return plain and last_axis and inputs.shape.rank == 4 and inputs.dtype in (tf.float32, tf.float16, tf.bfloat16)

    def _statistics(self) -> tuple[Any, Any, Any, Any]:
        return self.gamma, self.beta, self.moving_mean, self.moving_variance

    def _average(self, moving: Any, batch: tf.Tensor) -> None:
        moving.assign(moving * self.momentum + tf.cast(batch, moving.dtype) * (1.0 - self.momentum))


def _several_replicas() -> bool:
    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync > 1
