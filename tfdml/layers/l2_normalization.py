"""L2 normalisation as a layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml.layers.head import full_precision


@keras.saving.register_keras_serializable(package="tfdml")
class L2Normalization(keras.layers.Layer):
    """Scales each embedding to length 1, so that it lies on the unit sphere.

    Formula: `f / max(||f||_2, epsilon)`; a zero vector stays zero, with a finite gradient. Takes and returns float32, whatever
    the global policy: squares of float16 values would overflow, and an index stores float32. `dtype="float64"` stays.

    Args:
        epsilon: the shortest length that is still scaled to 1.

    Shapes: `[B, D]` in, `[B, D]` out.

    Example:
        >>> import tensorflow as tf
        >>> L2Normalization()(tf.constant([[3.0, 4.0], [0.0, 0.0]])).numpy().round(3).tolist()
        [[0.6..., 0.8...], [0.0, 0.0]]
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": full_precision(kwargs.get("dtype"))})
        self.epsilon = epsilon

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        embeddings = tf.cast(inputs, self.compute_dtype)
        # l2_normalize takes the bound on the squared length.
        return tf.math.l2_normalize(embeddings, axis=-1, epsilon=self.epsilon**2)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
