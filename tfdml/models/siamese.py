"""Several images through one encoder."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_count
from tfdml.layers.head import full_precision


def siamese(encoder: keras.Model, images: int = 2, name: str = "siamese") -> keras.Model:
    """A model of image pairs, or triplets: all go through the same encoder, and their embeddings come out stacked.

    For losses on explicit pairs and triplets, such as `tfdml.losses.ContrastiveLoss(pairs="explicit")` and
    `tfdml.losses.TripletLoss(mining="explicit")`. The encoder keeps its weights, so after training it embeds single images.

    All images of a step are one batch to the encoder: batch normalisation sees them together, as it does in P x K batches.

    Args:
        encoder: images to vectors; an `EmbeddingModel` or any `keras.Model` with one input of known shape.
        images: how many belong together: 2 for pairs, 3 for triplets.
        name: the model's name.

    Returns:
        A `keras.Model` of `images` image batches `[B, h, w, C]` to `[B, images, D]`.

    Raises:
        ValueError: if `images` is not a positive number.

    Example:
        >>> import tensorflow as tf
        >>> from tfdml.models import conv_encoder
        >>> triplets = siamese(conv_encoder((16, 16, 1), filters=(4,), dimension=8), images=3)
        >>> triplets([tf.zeros([5, 16, 16, 1])] * 3).shape
        TensorShape([5, 3, 8])
    """
    images = check_count("images", images, 1)
    shape = tuple(encoder.input_shape[1:])
    inputs = [keras.Input(shape, name=f"image_{number}") for number in range(images)]
    embeddings = encoder(keras.layers.Concatenate(axis=0)(inputs) if images > 1 else inputs[0])
    return keras.Model(inputs, StackedEmbeddings(images)(embeddings), name=name)


@keras.saving.register_keras_serializable(package="tfdml")
class StackedEmbeddings(keras.layers.Layer):
    """`[images * B, D]`, all first images before all second ones, to `[B, images, D]`; float32, whatever the policy."""

    def __init__(self, images: int, **kwargs: Any) -> None:
        # A policy of half precision would round embeddings on their way to the loss.
        super().__init__(**{**kwargs, "dtype": full_precision(kwargs.get("dtype"))})
        self.images = int(images)

    def call(self, embeddings: tf.Tensor) -> tf.Tensor:
        return tf.transpose(tf.reshape(embeddings, [self.images, -1, embeddings.shape[-1]]), [1, 0, 2])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None, self.images, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "images": self.images}
