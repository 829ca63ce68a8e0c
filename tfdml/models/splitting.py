"""Cutting an encoder in two: features below, the learnt metric above."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class SplitEncoder:
    """An encoder as two networks, which share its weights.

    Not a Keras object, so that a model that holds it does not count the weights twice.

    Attributes:
        both: images to (features `[B, F]`, the encoder's output `[B, D]`).
        metric: features to the encoder's output.
        width: F.
    """

    both: keras.Model
    metric: keras.Model
    width: int


def split_encoder(encoder: keras.Model, metric_from: str | None = None) -> SplitEncoder:
    """Cuts `encoder` below its layer `metric_from`; None takes the last layer with weights.

    Raises:
        ValueError: if the encoder is not made of layers, has no such layer, its input is not vectors `[B, F]`, or another path
            leads past it.

    >>> layers = [keras.layers.Input((4,)), keras.layers.Dense(3, name="trunk"), keras.layers.Dense(2, name="embedding")]
    >>> encoder = keras.Sequential(layers)
    >>> split_encoder(encoder).width, split_encoder(encoder, "trunk").width
    (3, 4)
    """
    if not getattr(encoder, "inputs", None) or not getattr(encoder, "outputs", None):
        raise ValueError(
            f"encoder={encoder.name!r} is not made of layers that can be taken apart, and its features cannot be seen. "
            "Expected a functional or sequential model."
        )
    layer = _first_of_metric(encoder, metric_from)
    place = f"metric_from={layer.name!r}"
    try:
        features: Any = layer.input
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{place}: the layer has no single input. {_KNOWN.format(_names(encoder))}") from error
    if isinstance(features, (list, tuple)) or len(features.shape) != 2 or features.shape[-1] is None:
        shape = "several" if isinstance(features, (list, tuple)) else tuple(features.shape)
        raise ValueError(
            f"{place}: the layer's input is {shape}; expected vectors [B, F], the feature space. "
            f"{_KNOWN.format(_names(encoder))}"
        )
    try:
        both = keras.Model(encoder.inputs, [features, encoder.outputs[0]])
        metric = keras.Model(features, encoder.outputs[0])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{place}: not all of the encoder goes through this layer's input. If the layer is a model of its own, call its "
            f"layers in the encoder one by one. {_KNOWN.format(_names(encoder))}"
        ) from error
    return SplitEncoder(both, metric, int(features.shape[-1]))


_KNOWN = "Layers of the encoder with weights: {}."


def _first_of_metric(encoder: keras.Model, name: str | None) -> Any:
    layers = {layer.name: layer for layer in encoder.layers}
    if name is None:
        with_weights = [layer for layer in encoder.layers if layer.weights]
        if not with_weights:
            raise ValueError(f"encoder={encoder.name!r} has no weights: there is nothing to learn.")
        return with_weights[-1]
    if name not in layers:
        raise ValueError(f"metric_from={name!r} is not a layer of the encoder. {_KNOWN.format(_names(encoder))}")
    return layers[name]


def _names(encoder: keras.Model) -> str:
    return ", ".join(repr(layer.name) for layer in encoder.layers if layer.weights)
