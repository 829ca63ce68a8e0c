"""Softmax heads on cosines to class weights: with a temperature, with a margin on the cosine, with a margin on the angle."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_count, check_positive
from tfdml.distances import safe_sqrt
from tfdml.layers._cosines import change_own, cosines
from tfdml.layers.head import ClassifierHead


class CosineHead(ClassifierHead):
    """Base class: logits are `scale` times the cosines of embeddings to class weights, both of length 1.

    A subclass may override `own_cosine`: what takes the place of the cosine to an embedding's own class in training.
    """

    def __init__(self, num_classes: int, scale: float, sub_centers: int = 1, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        check_positive("scale", scale)
        self.scale = scale
        self.sub_centers = check_count("sub_centers", sub_centers, 1, "the number of weight vectors of each class")

    def logits_for(self, embeddings: tf.Tensor, weights: Any, own: tf.Tensor | None) -> tf.Tensor:
        logits = cosines(embeddings, weights, self.scale)
        if self.sub_centers > 1:
            logits = tf.reduce_max(tf.reshape(logits, [tf.shape(logits)[0], -1, self.sub_centers]), axis=-1)
        if own is None:
            return logits
        return change_own(logits, own, lambda cosine: self.scale * self.own_cosine(cosine / self.scale))

    def own_cosine(self, cosine: tf.Tensor) -> tf.Tensor:
        """`[B]` cosines of embeddings to their own class, as they enter the softmax in training."""
        return cosine

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "sub_centers": self.sub_centers}


@keras.saving.register_keras_serializable(package="tfdml")
class NormalizedSoftmax(CosineHead):
    """A softmax over cosines to class weights, divided by a temperature: the plain and strong baseline.

    logit of class j: cos(theta_j) / temperature

    Zhai and Wu, "Classification is a Strong Baseline for Deep Metric Learning", BMVC 2019.

    Args:
        num_classes: number of classes C.
        temperature: the smaller, the harder classes are told apart; the paper's is 0.05.
        sub_centers: weight vectors of each class, of which the nearest counts.
        **kwargs: those of `tfdml.layers.ClassifierHead`: `sampled_classes` and `seed`, for very many classes; `initial_length`
            of the class weights; and those of `keras.layers.Layer`.

    Shapes: embeddings `[B, D]` of any length, labels `[B]` (optional); logits `[B, C]`, float32.

    Raises:
        ValueError: arguments or labels out of range.

    Example:
        >>> import keras, tfdml
        >>> images, embedding = keras.Input((8,)), keras.layers.Dense(4)
        >>> model = keras.Sequential([images, embedding, NormalizedSoftmax(num_classes=10)])
        >>> model.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> tuple(model.output_shape)
        (None, 10)
    """

    def __init__(self, num_classes: int, temperature: float = 0.05, sub_centers: int = 1, **kwargs: Any) -> None:
        check_positive("temperature", temperature)
        super().__init__(num_classes, 1.0 / temperature, sub_centers, **kwargs)
        self.temperature = temperature

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "temperature": self.temperature}
        del config["scale"]
        return config


@keras.saving.register_keras_serializable(package="tfdml")
class CosFace(CosineHead):
    """A softmax over cosines to class weights, in which the cosine to the own class must win by a margin.

    logit of class j: s cos(theta_j);  of the own class, in training: s (cos(theta) - margin)

    Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018 (Additive Margin Softmax is the same).

    Args:
        num_classes: number of classes C.
        margin: in cosine. Start lower where classes are few or the network small.
        scale: s, the length on which embeddings are compared.
        sub_centers: weight vectors of each class, of which the nearest counts: for classes with several faces, or noisy labels
            (Deng et al., "Sub-center ArcFace", ECCV 2020).
        **kwargs: those of `tfdml.layers.ClassifierHead`: `sampled_classes` and `seed`, for very many classes; `initial_length`
            of the class weights; and those of `keras.layers.Layer`.

    Shapes: embeddings `[B, D]` of any length, labels `[B]`; logits `[B, C]`, float32. The margin is in force with
    `training=True` and labels.

    Raises:
        ValueError: arguments or labels out of range.

    Example:
        >>> import tensorflow as tf
        >>> head = CosFace(num_classes=2, margin=0.35, scale=10.0)
        >>> x, y = tf.constant([[3.0, 4.0]]), tf.constant([1])
        >>> (head(x, y, training=True) - head(x)).numpy().round(3).tolist()
        [[0.0, -3.5]]
    """

    def __init__(
        self, num_classes: int, margin: float = 0.35, scale: float = 64.0, sub_centers: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, scale, sub_centers, **kwargs)
        check_positive("margin", margin, allow_zero=True)
        self.margin = margin

    def own_cosine(self, cosine: tf.Tensor) -> tf.Tensor:
        return cosine - self.margin

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable(package="tfdml")
class ArcFace(CosineHead):
    """A softmax over cosines to class weights, in which the angle to the own class must win by a margin.

    logit of class j: s cos(theta_j);  of the own class, in training: s cos(theta + margin)

    Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019. cos(theta + m) is computed as
    cos(theta) cos(m) - sin(theta) sin(m), without acos, and its gradient is finite at cos = 1 and -1.

    Where theta + m passes pi, cos(theta + m) would rise again, and reward a larger angle. As in the authors' code,
    cos(theta) - m sin(m) takes its place there; with `easy_margin` the margin is in force for theta < pi / 2 only, and
    cos(theta) stands beyond.

    Args:
        num_classes: number of classes C.
        margin: in radians, below pi / 2. Start lower where classes are few or the network small.
        scale: s, the length on which embeddings are compared.
        sub_centers: weight vectors of each class, of which the nearest counts: for classes with several faces, or noisy labels
            (Deng et al., "Sub-center ArcFace", ECCV 2020).
        easy_margin: see above.
        **kwargs: those of `tfdml.layers.ClassifierHead`: `sampled_classes` and `seed`, for very many classes; `initial_length`
            of the class weights; and those of `keras.layers.Layer`.

    Shapes: embeddings `[B, D]` of any length, labels `[B]`; logits `[B, C]`, float32. The margin is in force with
    `training=True` and labels.

    Raises:
        ValueError: arguments or labels out of range.

    Example:
        >>> import tensorflow as tf, tfdml
        >>> encoder = tfdml.models.conv_encoder((16, 16, 3), filters=(8, 8), dimension=4)
        >>> model = tfdml.EmbeddingModel(encoder, head=ArcFace(num_classes=3, margin=0.3, scale=16.0))
        >>> model.compile("adam")
        >>> images, labels = tf.zeros([6, 16, 16, 3], tf.uint8), tf.constant([0, 0, 1, 1, 2, 2])
        >>> history = model.fit(images, labels, batch_size=6, verbose=0)
        >>> model(images).shape
        TensorShape([6, 4])
    """

    def __init__(
        self,
        num_classes: int,
        margin: float = 0.5,
        scale: float = 64.0,
        sub_centers: int = 1,
        easy_margin: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, scale, sub_centers, **kwargs)
        check_positive("margin", margin, allow_zero=True)
        # Up to here the value falls with the angle everywhere, also where it leaves cos(theta + m).
        if margin >= math.pi / 2:
            raise ValueError(f"margin={margin!r}: expected radians below pi / 2. 28.6 degrees are 0.5.")
        self.margin = margin
        self.easy_margin = bool(easy_margin)

    def own_cosine(self, cosine: tf.Tensor) -> tf.Tensor:
        sine = safe_sqrt(tf.nn.relu((1.0 - cosine) * (1.0 + cosine)))
        shifted = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        if self.easy_margin:
            return tf.where(cosine > 0.0, shifted, cosine)
        return tf.where(cosine > -math.cos(self.margin), shifted, cosine - self.margin * math.sin(self.margin))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "easy_margin": self.easy_margin}
