"""The ConvNet of DeepID2."""

from __future__ import annotations

from typing import Any

import keras

from tfdml.layers import LocallyConnected2D
from tfdml.models._sizes import check_size, embedding_layer, scaled


def deepid2_encoder(
    input_shape: tuple[int, int, int] = (55, 47, 3), dimension: int = 160, width: float = 1.0, name: str = "deepid2_encoder"
) -> keras.Model:
    """The network of DeepID2, for aligned images such as faces: its upper layers have other weights in every place.

    | layer | 55 x 47 x 3 becomes | weights |
    |---|---|---|
    | `conv1`, `pool1` | 52 x 44 x 20, 26 x 22 x 20 | 4 x 4, the same everywhere |
    | `conv2`, `pool2` | 24 x 20 x 40, 12 x 10 x 40 | 3 x 3, the same everywhere |
    | `conv3`, `pool3` | 10 x 8 x 60, 5 x 4 x 60 | 3 x 3, shared by 2 x 2 neighbours |
    | `conv4` | 4 x 3 x 80 | 2 x 2, not shared |
    | `embedding` | 160 | of `pool3` and `conv4`, all of both |

    Sun et al., "Deep Learning Face Representation by Joint Identification-Verification", NIPS 2014. No padding, poolings of
    2 x 2 drop an odd row or column, ReLU after each layer, the last included: embeddings have no negative numbers.
    It is trained with `tfdml.layers.IdentificationVerification`, and not normalised: `EmbeddingModel(..., normalize=False)`.

    Args:
        input_shape: height, width and channels of the images.
        dimension: the length of the embedding.
        width: times the number of maps of every layer.
        name: the model's name.

    Returns:
        A functional `keras.Model`, `[B, h, w, C]` (0 to 255) to `[B, dimension]`.

    Raises:
        ValueError: images smaller than 39 x 39, of which nothing would be left.

    Example:
        >>> tuple(deepid2_encoder((64, 64, 3), width=0.5).output_shape)
        (None, 160)
    """
    check_size(input_shape, (39, 39), name)
    relu: dict[str, Any] = {"activation": "relu", "kernel_initializer": "he_normal"}
    inputs = keras.Input(input_shape, name="image")
    maps = keras.layers.Rescaling(1 / 255)(inputs)
    maps = keras.layers.Conv2D(scaled(20, width), 4, name="conv1", **relu)(maps)
    maps = keras.layers.MaxPooling2D(2, name="pool1")(maps)
    maps = keras.layers.Conv2D(scaled(40, width), 3, name="conv2", **relu)(maps)
    maps = keras.layers.MaxPooling2D(2, name="pool2")(maps)
    maps = LocallyConnected2D(scaled(60, width), 3, share=2, name="conv3", **relu)(maps)
    coarse = keras.layers.MaxPooling2D(2, name="pool3")(maps)
    fine = LocallyConnected2D(scaled(80, width), 2, name="conv4", **relu)(coarse)
    both = [keras.layers.Flatten()(coarse), keras.layers.Flatten()(fine)]
    features = keras.layers.Concatenate(name="features")(both)
    return keras.Model(inputs, embedding_layer(dimension, **relu)(features), name=name)
