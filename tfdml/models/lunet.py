"""LuNet: the small network of "In Defense of the Triplet Loss"."""

from __future__ import annotations

import keras

from tfdml.layers import BatchNormalization
from tfdml.models._sizes import check_size, embedding_layer, scaled

# Maps inside and after each block; a pooling of 3 x 3, stride 2, stands between two stages.
STAGES = (
    ((32, 128),),
    ((32, 128), (32, 128), (64, 256)),
    ((64, 256), (64, 256)),
    ((64, 256), (64, 256), (128, 512)),
    ((128, 512), (128, 512)),
    ((128, 512), (512, 128)),
)


def lunet(
    input_shape: tuple[int, int, int] = (128, 64, 3),
    dimension: int = 128,
    width: float = 1.0,
    slope: float = 0.3,
    name: str = "lunet",
) -> keras.Model:
    """LuNet, a residual network of 5 million weights that is trained from scratch.

    A convolution of 7 x 7, then residual blocks as in ResNet-v2 (normalisation and activation before each convolution; 1 x 1,
    3 x 3, 1 x 1), leaky ReLU, max-poolings of 3 x 3 with stride 2 in place of strided convolutions, and, in place of the
    average over positions, a last block that reduces the maps to 128. All positions then enter a dense layer of 512 units with
    normalisation and leaky ReLU, and the linear embedding.

    Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017. The order of blocks is chosen to
    agree with that description and with the paper's 5.00 million parameters (5.01 here, 5.00 of them without the scales and
    shifts of the normalisations). Trained with `TripletLoss(margin="soft", mining="hard")`, P = 32, K = 4, plain Euclidean
    distances: `EmbeddingModel(..., normalize=False)`; learning rate and beta_1 as in `tfdml.schedules`.

    Args:
        input_shape: height, width and channels of the images.
        dimension: the length of the embedding.
        width: times the number of maps of every layer; 1/4 trains on a CPU.
        slope: of the leaky ReLU below 0.
        name: the model's name.

    Returns:
        A functional `keras.Model`, `[B, h, w, C]` (0 to 255) to `[B, dimension]`.

    Raises:
        ValueError: images smaller than 32 x 32.

    Example:
        >>> tuple(lunet((64, 64, 3), dimension=32, width=1 / 8).output_shape)
        (None, 32)
    """
    check_size(input_shape, (32, 32), name)
    inputs = keras.Input(input_shape, name="image")
    maps = keras.layers.Rescaling(1 / 255)(inputs)
    maps = _convolution(scaled(128, width), 7, name="conv1")(maps)
    for number, stage in enumerate(STAGES):
        if number:
            maps = keras.layers.MaxPooling2D(3, 2, "same", name=f"pool{number}")(maps)
        for inside, after in stage:
            maps = _block(maps, scaled(inside, width), scaled(after, width), slope)
    features = keras.layers.Flatten(name="flatten")(maps)
    features = keras.layers.Dense(scaled(512, width), use_bias=False, kernel_initializer="he_normal", name="dense1")(features)
    features = _activated(features, slope)
    return keras.Model(inputs, embedding_layer(dimension)(features), name=name)


def _block(maps: keras.KerasTensor, inside: int, after: int, slope: float) -> keras.KerasTensor:
    ready = _activated(maps, slope)
    straight = maps if maps.shape[-1] == after else _convolution(after, 1)(ready)
    bent = _convolution(inside, 1)(ready)
    bent = _convolution(inside, 3)(_activated(bent, slope))
    bent = _convolution(after, 1)(_activated(bent, slope))
    return keras.layers.Add()([straight, bent])


def _activated(x: keras.KerasTensor, slope: float) -> keras.KerasTensor:
    # Keras 2 and 3 call the argument by different names.
    return keras.layers.LeakyReLU(slope)(BatchNormalization(momentum=0.9, epsilon=1e-5)(x))


def _convolution(filters: int, size: int, **options: object) -> keras.layers.Layer:
    return keras.layers.Conv2D(filters, size, padding="same", use_bias=False, kernel_initializer="he_normal", **options)
