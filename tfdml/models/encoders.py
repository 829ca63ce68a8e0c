"""Small encoders: images to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfdml._checks import check_choice
from tfdml.layers import BatchNormalization


def conv_encoder(
    input_shape: tuple[int, int, int] = (64, 64, 3),
    filters: Sequence[int] = (32, 64, 128, 128),
    dimension: int = 64,
    pooling: str = "average",
    name: str = "conv_encoder",
) -> keras.Model:
    """A small convolutional encoder that trains in minutes on a CPU.

    Each block is a 3 x 3 convolution, batch normalisation, ReLU and 2 x 2 max-pooling; then pooling and a dense layer. Scaling
    from 0..255 to 0..1 is its first layer, so images go in as they come from a file. The embedding is not normalised:
    `tfdml.EmbeddingModel` does that, or `tfdml.layers.L2Normalization` in a model of your own.

    Args:
        input_shape: height, width and channels of the images.
        filters: the number of maps in each block.
        dimension: the length of the embedding.
        pooling: `"average"` over positions, or `"flatten"` to keep them (small images).
        name: the model's name.

    Returns:
        A functional `keras.Model`, `[B, h, w, C]` (0 to 255) to `[B, dimension]`.

    Example:
        >>> encoder = conv_encoder((28, 28, 1), filters=(64, 64, 64, 64), pooling="flatten")
        >>> tuple(encoder.output_shape)
        (None, 64)
    """
    check_choice("pooling", pooling, ["average", "flatten"])
    if min(input_shape[:2]) < 2 ** len(filters):
        raise ValueError(
            f"input_shape={tuple(input_shape)}: {len(filters)} blocks halve each side {len(filters)} times; "
            f"expected at least {2 ** len(filters)} pixels a side, or fewer filters."
        )
    inputs = keras.Input(input_shape, name="image")
    maps = keras.layers.Rescaling(1 / 255)(inputs)
    for count in filters:
        maps = keras.layers.Conv2D(count, 3, padding="same", kernel_initializer="he_normal")(maps)
        maps = BatchNormalization(momentum=0.9, epsilon=1e-5)(maps)
        maps = keras.layers.ReLU()(maps)
        maps = keras.layers.MaxPooling2D(2)(maps)
    features = keras.layers.GlobalAveragePooling2D()(maps) if pooling == "average" else keras.layers.Flatten()(maps)
    # A bfloat16 or float16 policy computes above; embeddings are compared and stored in float32.
    return keras.Model(inputs, keras.layers.Dense(dimension, dtype="float32", name="embedding")(features), name=name)
