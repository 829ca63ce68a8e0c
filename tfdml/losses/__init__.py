"""Losses on embeddings: `keras.losses.Loss` subclasses for `model.compile(loss=...)`, one family per file."""

from __future__ import annotations

from tfdml.losses.base import EmbeddingLoss
from tfdml.losses.contrastive import ContrastiveLoss
from tfdml.losses.triplet import TripletLoss

__all__ = ["ContrastiveLoss", "EmbeddingLoss", "TripletLoss"]
