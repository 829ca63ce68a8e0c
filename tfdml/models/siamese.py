"""Two images through one encoder."""

from __future__ import annotations

import keras


def siamese(encoder: keras.Model, name: str = "siamese") -> keras.Model:
    """A model of image pairs: both go through the same encoder, and their embeddings come out stacked.

    For losses on explicit pairs, such as `tfdml.losses.ContrastiveLoss(pairs="explicit")`. The encoder keeps its weights, so
    after training it embeds single images.

    Args:
        encoder: images to vectors; an `EmbeddingModel` or any `keras.Model` with one input of known shape.
        name: the model's name.

    Returns:
        A `keras.Model` of two image batches `[B, h, w, C]` to `[B, 2, D]`.

    Example:
        >>> import tensorflow as tf
        >>> from tfdml.models import conv_encoder
        >>> pairs = siamese(conv_encoder((16, 16, 1), filters=(4,), dimension=8))
        >>> pairs([tf.zeros([5, 16, 16, 1]), tf.zeros([5, 16, 16, 1])]).shape
        TensorShape([5, 2, 8])
    """
    shape = tuple(encoder.input_shape[1:])
    first, second = keras.Input(shape, name="first"), keras.Input(shape, name="second")
    rows = [keras.layers.Reshape((1, -1))(encoder(side)) for side in (first, second)]
    return keras.Model([first, second], keras.layers.Concatenate(axis=1)(rows), name=name)
