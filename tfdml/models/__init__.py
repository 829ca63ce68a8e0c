"""Encoders, and the model that is trained, judged and exported around them."""

import tfdml.losses  # noqa: F401  registers what a compiled model is saved with
from tfdml.models.embedding_model import EmbeddingModel
from tfdml.models.encoders import conv_encoder
from tfdml.models.siamese import siamese

__all__ = ["EmbeddingModel", "conv_encoder", "siamese"]
