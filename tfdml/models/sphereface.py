"""The networks of SphereFace."""

from __future__ import annotations

import keras

from tfdml.models._sizes import check_size, embedding_layer, scaled

# Residual units in each of the four stages, by the number of convolutions.
UNITS = {4: (0, 0, 0, 0), 10: (0, 1, 2, 0), 20: (1, 2, 4, 1), 36: (2, 4, 8, 2), 64: (3, 8, 16, 3)}
MAPS = (64, 128, 256, 512)


def sphereface_encoder(
    depth: int = 20,
    input_shape: tuple[int, int, int] = (112, 96, 3),
    dimension: int = 512,
    width: float = 1.0,
    name: str = "sphereface_encoder",
) -> keras.Model:
    """The networks of SphereFace: residual, PReLU, no batch normalisation.

    Each of four stages begins with a convolution of 3 x 3 and stride 2, to 64, 128, 256 and 512 maps (56 x 48, 28 x 24,
    14 x 12 and 7 x 6 of them for faces of 112 x 96), and goes on with residual units of two convolutions of 3 x 3. All
    positions of the last maps enter the linear embedding.

    | depth | 4 | 10 | 20 | 36 | 64 |
    |---|---|---|---|---|---|
    | units in the stages | none | 0, 1, 2, 0 | 1, 2, 4, 1 | 2, 4, 8, 2 | 3, 8, 16, 3 |

    Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017. Paddings and beginnings are
    those of the authors' Caffe files: one row of zeros on each side, also where the stride is 2 (TensorFlow's `"same"` pads
    below and to the right only); units begin at N(0, 0.01), without bias, so that they begin as almost nothing; all else by
    Glorot. Their file for 64 layers leaves out one unit of the second stage; here all eight of the paper's table are there.
    Pixels become (x - 127.5) / 128. Trained with `tfdml.layers.ASoftmax`; lengths matter, so
    `EmbeddingModel(..., normalize=False)`. In the test the feature is that of an image and of its mirror image together:
    `tfdml.models.with_views(model, crops="none", combine="concatenate")`.

    Args:
        depth: number of convolutions: 4, 10, 20, 36 or 64.
        input_shape: height, width and channels of the images.
        dimension: the length of the embedding.
        width: times the number of maps of every layer.
        name: the model's name.

    Returns:
        A functional `keras.Model`, `[B, h, w, C]` (0 to 255) to `[B, dimension]`.

    Raises:
        ValueError: an unknown depth.

    Example:
        >>> tuple(sphereface_encoder(4, (64, 64, 3), dimension=64, width=0.25).output_shape)
        (None, 64)
    """
    if depth not in UNITS:
        raise ValueError(f"depth={depth!r}: expected one of {', '.join(map(str, UNITS))}, the number of convolutions.")
    check_size(input_shape, (1, 1), name)
    inputs = keras.Input(input_shape, name="image")
    maps = keras.layers.Rescaling(1 / 128, offset=-127.5 / 128)(inputs)
    for stage, (count, units) in enumerate(zip(MAPS, UNITS[depth], strict=True), start=1):
        maps = keras.layers.ZeroPadding2D(1)(maps)
        maps = keras.layers.Conv2D(scaled(count, width), 3, 2, name=f"conv{stage}_1")(maps)
        maps = _prelu(f"prelu{stage}_1")(maps)
        for unit in range(units):
            maps = _unit(maps, stage, 2 + 2 * unit)
    return keras.Model(inputs, embedding_layer(dimension)(keras.layers.Flatten()(maps)), name=name)


def _unit(maps: keras.KerasTensor, stage: int, first: int) -> keras.KerasTensor:
    bent = maps
    for number in (first, first + 1):
        bent = keras.layers.Conv2D(
            maps.shape[-1],
            3,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name=f"conv{stage}_{number}",
        )(bent)
        bent = _prelu(f"prelu{stage}_{number}")(bent)
    return keras.layers.Add(name=f"unit{stage}_{first + 1}")([maps, bent])


def _prelu(name: str) -> keras.layers.Layer:
    """One slope for each map, beginning at 1/4, as in Caffe."""
    return keras.layers.PReLU(keras.initializers.Constant(0.25), shared_axes=[1, 2], name=name)
