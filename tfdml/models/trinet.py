"""TriNet: a pretrained backbone under the head of "In Defense of the Triplet Loss"."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml.layers import BatchNormalization
from tfdml.models._sizes import embedding_layer


def trinet(
    input_shape: tuple[int, int, int] = (256, 128, 3),
    backbone: keras.Model | None = None,
    weights: str | None = None,
    hidden: int = 1024,
    dimension: int = 128,
    name: str = "trinet",
) -> keras.Model:
    """TriNet: a backbone, then dense 1024, batch normalisation, ReLU, and the linear embedding of 128.

    Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017: ResNet-50 without its last
    layer, pretrained on ImageNet; 25.74 million parameters. Trained with `TripletLoss(margin="soft", mining="hard")`, P = 18,
    K = 4, plain Euclidean distances: `EmbeddingModel(..., normalize=False)`; learning rate 3e-4, see `tfdml.schedules`.

    Args:
        input_shape: height, width and channels of the images; taken from `backbone` if one is given.
        backbone: any model of images 0 to 255 to maps `[B, h, w, n]`, which are averaged over positions, or to vectors
            `[B, n]`. None: ResNet-50 of `keras.applications`, with the pixels prepared as it expects them.
        weights: of that ResNet-50: None for random ones, `"imagenet"` (Keras downloads them), or a file.
        hidden: units of the dense layer.
        dimension: the length of the embedding.
        name: the model's name.

    Returns:
        A functional `keras.Model`, `[B, h, w, C]` (0 to 255) to `[B, dimension]`.

    Raises:
        ValueError: `weights` beside a `backbone`, or a backbone whose output is neither maps nor vectors.

    Example:
        >>> backbone = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(8, 3)])
        >>> tuple(trinet(backbone=backbone, hidden=16, dimension=4).output_shape)
        (None, 4)
    """
    if backbone is None:
        backbone = _resnet50(input_shape, weights)
    elif weights is not None:
        raise ValueError(
            f"weights={weights!r} beside backbone={backbone.name!r}: they are of the built-in ResNet-50. Leave one out."
        )
    output = tuple(backbone.output_shape)
    if len(output) not in (2, 4):
        raise ValueError(f"backbone={backbone.name!r} gives {output}; expected maps [B, h, w, n] or vectors [B, n].")
    inputs = keras.Input(tuple(backbone.input_shape)[1:], name="image")
    features = backbone(inputs)
    if len(output) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="average")(features)
    features = keras.layers.Dense(hidden, name="hidden")(features)
    features = keras.layers.ReLU()(BatchNormalization(momentum=0.9, epsilon=1e-5)(features))
    # Orthogonal, as in the authors' code.
    embeddings = embedding_layer(dimension, kernel_initializer="orthogonal")(features)
    return keras.Model(inputs, embeddings, name=name)


@keras.saving.register_keras_serializable(package="tfdml")
class CaffePixels(keras.layers.Layer):
    """What `keras.applications`' ResNet-50 was trained on: blue first, the mean of ImageNet taken away, no scaling."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.reverse(inputs, [-1]) - tf.constant([103.939, 116.779, 123.68], inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def _resnet50(input_shape: tuple[int, int, int], weights: str | None) -> keras.Model:
    maps = keras.applications.ResNet50(include_top=False, weights=weights, input_shape=tuple(input_shape))
    inputs = keras.Input(tuple(input_shape))
    return keras.Model(inputs, maps(CaffePixels()(inputs)), name="backbone")
