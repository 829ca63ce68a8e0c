"""Trainable or stateful parts of a model."""

from tfdml.layers.batch_normalization import BatchNormalization
from tfdml.layers.l2_normalization import L2Normalization

__all__ = ["BatchNormalization", "L2Normalization"]
