"""The encoders of digits: that of DrLIM, and Caffe's siamese LeNet."""

from __future__ import annotations

import keras

from tfdml._checks import check_choice
from tfdml.models._sizes import check_size, embedding_layer

VARIANTS = ("drlim", "caffe")


def drlim_encoder(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    dimension: int = 2,
    variant: str = "drlim",
    activation: str = "tanh",
    name: str = "drlim_encoder",
) -> keras.Model:
    """The LeNet-like encoder of DrLIM, digits into the plane.

    | `variant="drlim"` | 28 x 28 | `variant="caffe"` | 28 x 28 |
    |---|---|---|---|
    | zeros around | 32 x 32 x 1 | convolution 5 x 5 | 24 x 24 x 20 |
    | convolution 6 x 6 | 27 x 27 x 15 | max-pooling 2 | 12 x 12 x 20 |
    | average of 3 x 3 | 9 x 9 x 15 | convolution 5 x 5 | 8 x 8 x 50 |
    | convolution 9 x 9 | 1 x 1 x 30 | max-pooling 2 | 4 x 4 x 50 |
    | dense | 2 | dense, ReLU, dense, dense | 500, 10, 2 |

    Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006. Sizes come out as whole
    numbers for images of 32 x 32, to which LeNet's digits were padded, so smaller images get zeros around them. LeNet's
    subsampling has a trained gain and bias for each map; as nothing bends between it and the next convolution, that one's
    weights hold them already. `"caffe"` is the network of Caffe's siamese example, which many ports call DrLIM; it is linear up
    to its one ReLU.

    Args:
        input_shape: height, width and channels of the images.
        dimension: the length of the embedding; the paper's is 2.
        variant: `"drlim"` or `"caffe"`, see above.
        activation: after the convolutions of `"drlim"`.
        name: the model's name.

    Returns:
        A functional `keras.Model`, `[B, h, w, C]` (0 to 255) to `[B, dimension]`. The embedding is not normalised, and must not
        be: `EmbeddingModel(..., normalize=False)`.

    Raises:
        ValueError: an unknown variant, or images too small for `"caffe"` (below 16 x 16).

    Example:
        >>> tuple(drlim_encoder().output_shape)
        (None, 2)
    """
    check_choice("variant", variant, VARIANTS)
    inputs = keras.Input(input_shape, name="image")
    maps = keras.layers.Rescaling(1 / 255)(inputs)
    if variant == "drlim":
        features = _drlim(maps, input_shape, activation)
    else:
        check_size(input_shape, (16, 16), name)
        features = _caffe(maps)
    return keras.Model(inputs, embedding_layer(dimension)(features), name=name)


def _drlim(maps: keras.KerasTensor, input_shape: tuple[int, int, int], activation: str) -> keras.KerasTensor:
    missing = [max(32 - side, 0) for side in input_shape[:2]]
    if any(missing):
        maps = keras.layers.ZeroPadding2D([(m // 2, m - m // 2) for m in missing], name="padding")(maps)
    maps = keras.layers.Conv2D(15, 6, activation=activation, name="conv1")(maps)
    maps = keras.layers.AveragePooling2D(3, name="pool1")(maps)
    maps = keras.layers.Conv2D(30, 9, activation=activation, name="conv2")(maps)
    return keras.layers.Flatten()(maps)


def _caffe(maps: keras.KerasTensor) -> keras.KerasTensor:
    maps = keras.layers.Conv2D(20, 5, name="conv1")(maps)
    maps = keras.layers.MaxPooling2D(2, name="pool1")(maps)
    maps = keras.layers.Conv2D(50, 5, name="conv2")(maps)
    maps = keras.layers.MaxPooling2D(2, name="pool2")(maps)
    features = keras.layers.Dense(500, activation="relu", name="dense1")(keras.layers.Flatten()(maps))
    return keras.layers.Dense(10, name="dense2")(features)
