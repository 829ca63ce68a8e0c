"""What the papers' networks share: widths, and images that are too small."""

from __future__ import annotations

import keras

from tfdml._checks import check_positive


def scaled(count: int, width: float) -> int:
    """`count` maps or units, times `width`, at least 1."""
    check_positive("width", width)
    return max(1, round(count * width))


def check_size(input_shape: tuple[int, int, int], least: tuple[int, int], network: str) -> None:
    """Refuses images that shrink to nothing before the network's last layer."""
    if len(input_shape) != 3 or input_shape[0] < least[0] or input_shape[1] < least[1]:
        raise ValueError(
            f"input_shape={tuple(input_shape)}: {network} expects (height, width, channels), at least {least[0]} x {least[1]} "
            "pixels."
        )


def embedding_layer(dimension: int, **options: object) -> keras.layers.Layer:
    """The last layer. A bfloat16 or float16 policy computes before it; embeddings are compared and stored in float32."""
    return keras.layers.Dense(dimension, dtype="float32", name="embedding", **options)
