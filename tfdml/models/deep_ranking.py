"""The multi-scale network of Deep Ranking."""

from __future__ import annotations

import keras

from tfdml.layers import L2Normalization
from tfdml.models._sizes import check_size, embedding_layer, scaled


def deep_ranking_encoder(
    input_shape: tuple[int, int, int] = (225, 225, 3),
    dimension: int = 4096,
    convnet: keras.Model | None = None,
    width: float = 1.0,
    dropout: float = 0.6,
    l2: float = 0.0,
    name: str = "deep_ranking_encoder",
) -> keras.Model:
    """The network of Deep Ranking: a deep path for what is seen, two shallow ones at low resolution for how it looks.

    | path 1 | path 2 | path 3 |
    |---|---|---|
    | 225 x 225 | average of 4 x 4: 57 x 57 | average of 8 x 8: 29 x 29 |
    | ConvNet: 4096 | convolution 8 x 8, stride 4: 15 x 15 x 96 | convolution 8 x 8, stride 4: 8 x 8 x 96 |
    | | max-pooling 7 x 7, stride 4: 4 x 4 x 96 | max-pooling 3 x 3, stride 2: 4 x 4 x 96 |

    Path 1 is scaled to length 1, paths 2 and 3 together to length 1. All three, 4096 + 1536 + 1536 numbers, go into one linear
    layer of 4096 units, whose output is scaled to length 1.

    Wang et al., "Learning Fine-grained Image Similarity with Deep Ranking", CVPR 2014. The paper's figure prints the two
    poolings the other way round, with which 15 x 15 and 8 x 8 do not become 4 x 4; here the paths have changed them. All
    convolutions and poolings pad as needed (`"same"`). The figure's 3074 is 2 x 4 x 4 x 96 = 3072. Path 1 is a network in the
    manner of AlexNet, without its response normalisation, which the paper trains on ImageNet first: give your own pretrained
    one as `convnet`.

    Args:
        input_shape: height, width and channels of the images.
        dimension: the length of the embedding.
        convnet: path 1, any model of images 0 to 255 to vectors `[B, n]`; None: the network described above.
        width: times the number of maps and units of every path; 1/8 trains on a CPU.
        dropout: share of units dropped in training before and after the fully connected layers of the built-in path 1, and
            before the embedding.
        l2: weight of the squares of the weights of all layers made here. The paper's lambda is 0.001, beside the sum, not
            the mean, of the hinges.
        name: the model's name.

    Returns:
        A functional `keras.Model`, `[B, h, w, C]` (0 to 255) to `[B, dimension]`, of length 1.

    Raises:
        ValueError: images smaller than 32 x 32, or a `convnet` that does not fit.

    Example:
        >>> encoder = deep_ranking_encoder((64, 64, 3), dimension=32, width=1 / 16)
        >>> tuple(encoder.output_shape)
        (None, 32)
    """
    check_size(input_shape, (32, 32), name)
    weights = {"kernel_regularizer": keras.regularizers.L2(l2) if l2 else None}
    inputs = keras.Input(input_shape, name="image")
    if convnet is None:
        convnet = _convnet(input_shape, width, dropout, weights)
    else:
        _check_convnet(convnet, input_shape)
    deep = L2Normalization(name="path1")(convnet(inputs))
    pixels = keras.layers.Rescaling(1 / 255)(inputs)
    shallow = [
        _path(pixels, 2, every=4, pool=7, stride=4, maps=scaled(96, width), weights=weights),
        _path(pixels, 3, every=8, pool=3, stride=2, maps=scaled(96, width), weights=weights),
    ]
    looks = L2Normalization(name="paths2and3")(keras.layers.Concatenate()(shallow))
    features = keras.layers.Concatenate(name="features")([deep, looks])
    features = keras.layers.Dropout(dropout)(features)
    embeddings = embedding_layer(dimension, **weights)(features)
    return keras.Model(inputs, L2Normalization(dtype="float32", name="normalized")(embeddings), name=name)


def _path(
    pixels: keras.KerasTensor, number: int, every: int, pool: int, stride: int, maps: int, weights: dict[str, object]
) -> keras.KerasTensor:
    small = keras.layers.AveragePooling2D(every, padding="same", name=f"subsample{number}")(pixels)
    small = keras.layers.Conv2D(
        maps, 8, 4, "same", activation="relu", kernel_initializer="he_normal", name=f"conv{number}", **weights
    )(small)
    small = keras.layers.MaxPooling2D(pool, stride, "same", name=f"pool{number}")(small)
    return keras.layers.Flatten()(small)


def _convnet(input_shape: tuple[int, int, int], width: float, dropout: float, weights: dict[str, object]) -> keras.Model:
    inputs = keras.Input(input_shape)
    maps = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    # Maps, kernel, stride, and whether 3 x 3 max-pooling of stride 2 follows.
    for count, kernel, stride, pooled in ((96, 11, 4, True), (256, 5, 1, True), (384, 3, 1, 0), (384, 3, 1, 0), (256, 3, 1, 1)):
        maps = keras.layers.Conv2D(
            scaled(count, width), kernel, stride, "same", activation="relu", kernel_initializer="he_normal", **weights
        )(maps)
        if pooled:
            maps = keras.layers.MaxPooling2D(3, 2, "same")(maps)
    features = keras.layers.Flatten()(maps)
    for _ in range(2):
        features = keras.layers.Dropout(dropout)(features)
        features = keras.layers.Dense(scaled(4096, width), activation="relu", kernel_initializer="he_normal", **weights)(
            features
        )
    return keras.Model(inputs, features, name="convnet")


def _check_convnet(convnet: keras.Model, input_shape: tuple[int, int, int]) -> None:
    expected, output = tuple(convnet.input_shape), tuple(convnet.output_shape)
    fits = len(expected) == 4 and all(e in (None, s) for e, s in zip(expected[1:], input_shape, strict=True))
    if not fits or len(output) != 2:
        raise ValueError(
            f"convnet={convnet.name!r} takes {expected} and gives {output}; expected images of input_shape="
            f"{tuple(input_shape)} and vectors [B, n]. Pool its maps, and give the input_shape that it was made for."
        )
