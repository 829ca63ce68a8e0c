"""The angular softmax head of SphereFace."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_positive
from tfdml.layers._cosines import change_own, cosines, length
from tfdml.layers.head import ClassifierHead, add_state


@keras.saving.register_keras_serializable(package="tfdml")
class ASoftmax(ClassifierHead):
    """A-Softmax: a softmax over angles to class weights, in which an embedding must be `margin` times as close to its own.

    logit of class j:      ||x|| cos(theta_j)
    of the own class, in training:  ||x|| (lambda cos(theta) + psi(theta)) / (1 + lambda)
    psi(theta) = (-1)^k cos(m theta) - 2k  for theta in [k pi/m, (k + 1) pi/m]
    lambda = max(lambda_min, base (1 + gamma t)^(-power)),  t = number of training steps so far

    Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017. Class weights have length 1 and no
    bias; the length of the embedding is kept, so do not normalise it: `EmbeddingModel(..., normalize=False)`, and compare
    with `metric="cosine"`. cos(m theta) is a Chebyshev polynomial of cos(theta): no acos, whose slope is infinite at
    cos = 1.

    lambda weighs the plain softmax, which training cannot begin without. With the paper's `lambda_min=5` the margin never has
    more than 1/6 of the weight; `base=0, lambda_min=0` is the loss without annealing. t is saved with the weights, so that a
    training that goes on does not start again at 1000. The published Caffe code differs: it counts from 1, and scales
    the gradients.

    Args:
        num_classes: number of classes C.
        margin: m: 1 (the modified softmax, without a margin), 2, 3 or 4.
        base: lambda of the first step.
        gamma, power: how fast lambda falls.
        lambda_min: where it stops.
        **kwargs: those of `tfdml.layers.ClassifierHead`: `sampled_classes` and `seed`, for very many classes; `initial_length`
            of the class weights; and those of `keras.layers.Layer`.

    Shapes: embeddings `[B, D]`, labels `[B]` (needed in training only); logits `[B, C]`, float32. With `training=True` and
    labels the margin is in force, and t advances by one; otherwise logits are those of the modified softmax.

    Raises:
        ValueError: arguments or labels out of range.

    Example:
        >>> import tensorflow as tf
        >>> head = ASoftmax(num_classes=3, margin=4)
        >>> embeddings = tf.constant([[2.0, 1.0, 0.0]])
        >>> head(embeddings, tf.constant([0]), training=True).shape
        TensorShape([1, 3])
        >>> round(float(head.current_lambda()), 2)
        892.86
    """

    uses_length = True

    def __init__(
        self,
        num_classes: int,
        margin: int = 4,
        base: float = 1000.0,
        gamma: float = 0.12,
        power: float = 1.0,
        lambda_min: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        if margin not in (1, 2, 3, 4):
            raise ValueError(f"margin={margin!r}: expected 1, 2, 3 or 4. For margins between them, see ArcFace.")
        for name, value in {"base": base, "gamma": gamma, "power": power, "lambda_min": lambda_min}.items():
            check_positive(name, value, allow_zero=True)
        self.margin = int(margin)
        self.base, self.gamma, self.power, self.lambda_min = base, gamma, power, lambda_min

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.step = add_state(self, "step", (), "int64")

    def logits_for(self, embeddings: tf.Tensor, weights: Any, own: tf.Tensor | None) -> tf.Tensor:
        cosine = cosines(embeddings, weights)
        if own is not None:
            weight = self.current_lambda()
            self.step.assign(self.step + 1)
            cosine = change_own(cosine, own, lambda c: (weight * c + psi(c, self.margin)) / (1.0 + weight))
        return length(embeddings) * cosine

    def current_lambda(self) -> tf.Tensor:
        """lambda of the next training step."""
        step = tf.cast(tf.convert_to_tensor(self.step), self.compute_dtype)
        return tf.maximum(tf.cast(self.lambda_min, step.dtype), self.base * (1.0 + self.gamma * step) ** -self.power)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "margin": self.margin,
            "base": self.base,
            "gamma": self.gamma,
            "power": self.power,
            "lambda_min": self.lambda_min,
        }


def psi(cosine: tf.Tensor, margin: int) -> tf.Tensor:
    """(-1)^k cos(m theta) - 2k of cos(theta): continuous, and falling from 1 to 1 - 2m as theta goes from 0 to pi."""
    squared = cosine * cosine
    chebyshev = {
        1: lambda: cosine,
        2: lambda: 2.0 * squared - 1.0,
        3: lambda: (4.0 * squared - 3.0) * cosine,
        4: lambda: 8.0 * squared * (squared - 1.0) + 1.0,
    }[margin]()
    k = tf.zeros_like(cosine)
    for j in range(1, margin):
        k += tf.cast(cosine < math.cos(j * math.pi / margin), cosine.dtype)
    return (1.0 - 2.0 * tf.math.floormod(k, 2.0)) * chebyshev - 2.0 * k
