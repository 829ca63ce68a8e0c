"""The generator of DAML: hard negatives made from easy ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_count
from tfdml.distances import length
from tfdml.layers.head import full_precision


@keras.saving.register_keras_serializable(package="tfdml")
class HardNegativeGenerator(keras.layers.Layer):
    """Makes a synthetic negative from the features of an anchor, a positive and a real negative.

    x~ = G([x-, x, x+]), fully connected layers on the three, one after the other. With `residual=True` the same three are seen
    from the anchor, and what is learnt is the way from the real negative:

    x~ = x- + r G([(x- - x) / r, (x+ - x) / r, x / s])

    where r and s are the root mean squares of x- - x and of x, through which no gradient flows. The scale of the features then
    does not matter, and the last layer begins at zero: before it has learnt anything, the synthetic negative is the real one.

    Duan, Zheng, Lin, Lu, Zhou, "Deep Adversarial Metric Learning" (DAML), CVPR 2018. `tfdml.models.DAML` trains it. It is
    needed in training only, and computes in float32, whatever the policy.

    Args:
        units: the widths of the hidden layers. The authors' published code has one of 512.
        residual: whether what is learnt is the way from the real negative. The paper's generator has no such shortcut.
        output_activation: after the last layer, None or a name known to Keras. The authors' code has "relu", which can only
            make features that are not negative.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: three times features `[..., F]` of one shape; returns `[..., F]`, float32.

    Raises:
        ValueError: no hidden layer, widths that are not positive integers, or features of different shapes.

    Example:
        >>> import tensorflow as tf
        >>> generator = HardNegativeGenerator(units=(16,))
        >>> generator(tf.zeros([5, 8]), tf.zeros([5, 8]), tf.ones([5, 8])).shape
        TensorShape([5, 8])
    """

    def __init__(
        self,
        units: Sequence[int] = (512, 512),
        residual: bool = True,
        output_activation: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": full_precision(kwargs.get("dtype"))})
        if isinstance(units, (str, int)) or not units:
            raise ValueError(f"units={units!r}: expected the widths of the hidden layers, e.g. (512, 512).")
        self.units = tuple(check_count("units", width, 1) for width in units)
        self.residual = bool(residual)
        self.output_activation = output_activation
        self.hidden = [
            keras.layers.Dense(width, "relu", kernel_initializer="he_normal", dtype=self.compute_dtype, name=f"hidden_{number}")
            for number, width in enumerate(self.units)
        ]
        self.last: Any = None

    def build(self, input_shape: Any) -> None:
        dimension = input_shape[-1]
        if self.last is None:
            first = "zeros" if self.residual else "glorot_uniform"
            self.last = keras.layers.Dense(
                dimension, self.output_activation, kernel_initializer=first, dtype=self.compute_dtype, name="last"
            )
            for layer, width in zip([*self.hidden, self.last], [3 * dimension, *self.units], strict=True):
                layer.build((None, width))
        self.built = True

    def call(self, anchors: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
        anchors, positives, negatives = (self._features(x) for x in (anchors, positives, negatives))
        for name, features in {"positives": positives, "negatives": negatives}.items():
            if not anchors.shape.is_compatible_with(features.shape):
                raise ValueError(
                    f"{name} have shape {tuple(features.shape)}: expected that of anchors, {tuple(anchors.shape)}."
                )
        if not self.residual:
            return self._perceptron(tf.concat([negatives, anchors, positives], -1))
        way = negatives - anchors
        unit = _root_mean_square(way)
        seen = [(way, unit), (positives - anchors, unit), (anchors, _root_mean_square(anchors))]
        return negatives + unit * self._perceptron(tf.concat([tf.math.divide_no_nan(x, scale) for x, scale in seen], -1))

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": list(self.units),
            "residual": self.residual,
            "output_activation": self.output_activation,
        }

    def _perceptron(self, x: tf.Tensor) -> tf.Tensor:
        for layer in [*self.hidden, self.last]:
            x = layer(x)
        return x

    def _features(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(x), self.compute_dtype)


def _root_mean_square(x: tf.Tensor) -> tf.Tensor:
    return tf.stop_gradient(length(x)) / float(x.shape[-1]) ** 0.5
