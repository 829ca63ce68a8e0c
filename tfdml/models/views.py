"""Better embeddings for more computing in the test: several views of each image."""

from __future__ import annotations

from typing import Any

import keras

from tfdml._checks import check_positive
from tfdml.layers import ImageViews, MergeViews
from tfdml.models.embedding_model import EmbeddingModel
from tfdml.preprocessing import ImagePreprocessing


def with_views(
    model: keras.Model,
    crops: str = "five",
    flip: bool = True,
    combine: str = "average",
    enlarge: float = 1.125,
) -> keras.Model:
    """A model that embeds several views of an image with `model`, weights shared, and joins their embeddings.

    | paper | call | views of an image |
    |---|---|---|
    | Hermans et al., 2017 | `with_views(model)` | five crops and their mirror images, averaged |
    | SphereFace, 2017 | `with_views(model, crops="none", combine="concatenate")` | it and its mirror image, concatenated |

    Each view costs as much as one embedding. For the test only: train `model`, then evaluate, embed or export what this
    function returns. Crops are taken from images that are `enlarge` times as large: by the returned model's `preprocessing`, if
    `model` is an `EmbeddingModel` that has one, so load images, also an export's gallery, with that:
    `test.with_preprocessing(better.preprocessing)`. Leave `flip` off where a mirror image is something else, as with letters.

    Args:
        model: an `EmbeddingModel`, or any Keras model of images `[B, h, w, C]` to vectors `[B, D]`.
        crops: `"five"`: corners and centre; `"center"`; `"none"`: the whole image, as in training.
        flip: whether to add the mirror image of each.
        combine: `"average"`, or `"concatenate"` to `[B, views D]`.
        enlarge: height and width of the images, times those of `model`; not used with `crops="none"`. A preprocessing that
            already resizes to more than it crops, such as `ImagePreprocessing(size=64, resize=72)`, says so itself.

    Returns:
        A model of the same kind: an `EmbeddingModel`, without head, for an `EmbeddingModel`, whose vectors are again
        normalised if its own were.

    Raises:
        ValueError: an unknown choice, `enlarge` below 1, or a model whose shapes are not known.

    Example:
        >>> import tfdml
        >>> encoder = tfdml.models.conv_encoder((32, 32, 3), filters=(4, 4), dimension=8)
        >>> model = tfdml.EmbeddingModel(encoder, preprocessing=tfdml.preprocessing.ImagePreprocessing(size=32))
        >>> better = with_views(model)
        >>> better.preprocessing.size, tuple(better.output_shape)
        ((36, 36), (None, 8))
    """
    check_positive("enlarge", enlarge)
    if enlarge < 1:
        raise ValueError(f"enlarge={enlarge!r}: expected at least 1; crops are taken from a larger image.")
    if isinstance(model, EmbeddingModel):
        preprocessing = _larger(model.preprocessing, crops, enlarge)
        outer = preprocessing.shape if preprocessing else _larger_shape(model.input_shape, crops, enlarge)
        encoder = _around(model.without_head(), model.input_shape, outer, crops, flip, combine)
        return EmbeddingModel(encoder, model.normalize, preprocessing, name=model.name)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            f"model={model.name!r} takes {shape}; expected one input [B, h, w, C] with known sizes, e.g. a functional model."
        )
    return _around(model, shape, _larger_shape(shape, crops, enlarge), crops, flip, combine)


def _around(model: keras.Model, inner: Any, outer: Any, crops: str, flip: bool, combine: str) -> keras.Model:
    views = ImageViews(tuple(inner[1:3]), crops, flip)
    inputs = keras.Input(tuple(outer), name="image")
    embeddings = MergeViews(views.count, combine)(model(views(inputs)))
    return keras.Model(inputs, embeddings, name=f"{model.name}_views")


def _larger(preprocessing: ImagePreprocessing | None, crops: str, enlarge: float) -> ImagePreprocessing | None:
    """A preprocessing that keeps what the crops are taken from."""
    if preprocessing is None or crops == "none":
        return preprocessing
    if preprocessing.resize != preprocessing.size:
        return preprocessing.uncropped()
    height, width, channels = _larger_shape((None, *preprocessing.shape), crops, enlarge)
    return ImagePreprocessing((height, width), channels, preprocessing.fit)


def _larger_shape(shape: Any, crops: str, enlarge: float) -> tuple[int, int, int]:
    height, width, channels = shape[1:]
    if crops == "none":
        return height, width, channels
    return round(height * enlarge), round(width * enlarge), channels
