"""The margin loss with a trained boundary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_count, check_positive
from tfdml.distances import pairwise_distances
from tfdml.layers.head import Head, as_classes, full_precision, nan_outside
from tfdml.losses.base import mean_over, not_empty
from tfdml.losses.margin import chosen_pairs, margin_terms
from tfdml.mining import triplet_miner
from tfdml.replicas import gather


@keras.saving.register_keras_serializable(package="tfdml")
class MarginBeta(keras.layers.Layer):
    """The boundary between near and far of each anchor, trained: one for all, and offsets for classes and for images.

    beta(i) = beta_0 + beta_class[c(i)] + beta_image[i]

    Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017; offsets begin at 0. `MarginHead` is the loss around it.

    Args:
        beta: where beta_0 begins.
        num_classes: number of classes that have an offset of their own; None: none has.
        num_images: number of training images that have an offset of their own; None: none has.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: labels `[B]` integers, and, if `num_images` was given, image numbers `[B]`; boundaries `[B]`, float32.

    Raises:
        ValueError: arguments, labels or image numbers out of range.

    Example:
        >>> import tensorflow as tf
        >>> MarginBeta(beta=1.2, num_classes=3)(tf.constant([0, 2])).numpy().round(3).tolist()
        [1.2..., 1.2...]
    """

    def __init__(self, beta: float = 1.2, num_classes: int | None = None, num_images: int | None = None, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": full_precision(kwargs.get("dtype"))})
        check_positive("beta", beta)
        self.first_beta = beta
        self.num_classes = None if num_classes is None else check_count("num_classes", num_classes, 1)
        self.num_images = None if num_images is None else check_count("num_images", num_images, 1)

    def build(self, input_shape: Any) -> None:
        first = keras.initializers.Constant(self.first_beta)
        self.beta = self.add_weight(name="beta", shape=(), initializer=first)
        if self.num_classes:
            self.class_offsets = self.add_weight(name="class_offsets", shape=(self.num_classes,), initializer="zeros")
        if self.num_images:
            self.image_offsets = self.add_weight(name="image_offsets", shape=(self.num_images,), initializer="zeros")
        self.built = True

    def call(self, labels: tf.Tensor, images: tf.Tensor | None = None) -> tf.Tensor:
        classes = as_classes(labels, self.num_classes)
        betas = tf.fill(tf.shape(classes), tf.convert_to_tensor(self.beta))
        if self.num_classes:
            betas += nan_outside(_rows(self.class_offsets, classes), classes, self.num_classes)
        if self.num_images:
            if images is None:
                raise ValueError(
                    f"images=None: with num_images={self.num_images}, the number of each anchor's image is needed."
                )
            numbers = as_classes(images, self.num_images, "images")
            betas += nan_outside(_rows(self.image_offsets, numbers), numbers, self.num_images)
        return betas

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> Any:
        return (input_shape[0],)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta": self.first_beta,
            "num_classes": self.num_classes,
            "num_images": self.num_images,
        }


@keras.saving.register_keras_serializable(package="tfdml")
class MarginHead(Head):
    """The margin loss with a trained boundary for each class: `tfdml.losses.MarginLoss`, whose beta is a weight.

    positive pair: [alpha + d - beta(a)]_+        negative pair: [alpha + beta(a) - d]_+        + nu beta(a) for each anchor a

    over the pairs that the mining chooses, divided by the number of pairs whose loss is above zero. Wu et al., "Sampling
    Matters in Deep Embedding Learning", ICCV 2017. For normalised embeddings. A positive nu pushes boundaries down.

    The published code trains beta 1000 times as fast as the network (SGD 0.1 beside Adam 1e-4). Keras has one learning rate for
    all weights; with Adam, beta moves by about the learning rate in a step, so with a small one it stays near where it began:
    choose `beta` with care then, or train `head.beta_layer` with an optimiser of its own.

    Args:
        num_classes: number of classes with an offset of their own; None: one boundary for all.
        alpha: the margin.
        beta: where the boundary begins.
        nu: weight of the regulariser. The published code has 0.
        mining: as in `tfdml.losses.MarginLoss`.
        num_images: number of training images with an offset of their own; None: none has. Image numbers are then a third
            input, which an `EmbeddingModel` does not have: use a functional model.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: embeddings `[B, D]`, labels `[B]`, image numbers `[B]` if asked for; losses `[B]`, float32.

    Raises:
        ValueError: arguments, labels or image numbers out of range.

    Example:
        >>> import tensorflow as tf
        >>> x = tf.constant([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8], [-1, 0], [-0.8, -0.6]])
        >>> head = MarginHead(num_classes=3, mining="all")
        >>> print(f"{tf.reduce_mean(head(x, tf.constant([0, 0, 1, 1, 2, 2]))).numpy():.4f}")
        0.5056
    """

    def __init__(
        self,
        num_classes: int | None = None,
        alpha: float = 0.2,
        beta: float = 1.2,
        nu: float = 0.0,
        mining: Any = "distance_weighted",
        num_images: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_positive("alpha", alpha)
        check_positive("nu", nu, allow_zero=True)
        self.alpha, self.nu = alpha, nu
        self.mining = triplet_miner(keras.saving.deserialize_keras_object(mining) if isinstance(mining, Mapping) else mining)
        self.beta_layer = MarginBeta(beta, num_classes, num_images, dtype=full_precision(kwargs.get("dtype")))

    def build(self, input_shape: Any) -> None:
        self.beta_layer.build((None,))
        self.built = True

    def call(self, embeddings: tf.Tensor, labels: tf.Tensor, images: tf.Tensor | None = None) -> tf.Tensor:
        given = [self.classes(labels), embeddings] + ([] if images is None else [images])
        everything = gather(*given)
        classes, embeddings, *numbers = everything.tensors
        batch = tf.shape(classes)[0]
        beta = not_empty(self.beta_layer(classes, *numbers))
        classes, embeddings = not_empty(classes), not_empty(embeddings)
        distances = pairwise_distances(embeddings)
        counts = chosen_pairs(self.mining, classes, embeddings, distances)
        values, active = margin_terms(distances, counts, self.alpha, beta)
        return everything.own(mean_over(values + self.nu * beta, tf.reduce_sum(active))[:batch])

    def per_anchor(self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self(embeddings, labels)

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> Any:
        return (input_shape[0],)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "beta": self.beta_layer.first_beta,
            "nu": self.nu,
            "mining": keras.saving.serialize_keras_object(self.mining),
            "num_images": self.beta_layer.num_images,
        }


def _rows(weights: Any, numbers: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.convert_to_tensor(weights), numbers)
