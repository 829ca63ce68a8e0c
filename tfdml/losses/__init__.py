"""Losses on embeddings: `keras.losses.Loss` subclasses for `model.compile(loss=...)`, one family per file."""

from __future__ import annotations

from tfdml.losses.base import EmbeddingLoss, PairLoss
from tfdml.losses.circle import CircleLoss
from tfdml.losses.contrastive import ContrastiveLoss
from tfdml.losses.lifted_structure import LiftedStructureLoss
from tfdml.losses.margin import MarginLoss
from tfdml.losses.multi_similarity import MultiSimilarityLoss
from tfdml.losses.n_pair import NPairLoss
from tfdml.losses.nt_xent import NTXentLoss, SupConLoss
from tfdml.losses.row_blocks import RowBlocks
from tfdml.losses.sums import AnchorSums, SumLoss
from tfdml.losses.triplet import TripletLoss
from tfdml.losses.two_tower import TwoTowerLoss

__all__ = [
    "AnchorSums",
    "CircleLoss",
    "ContrastiveLoss",
    "EmbeddingLoss",
    "LiftedStructureLoss",
    "MarginLoss",
    "MultiSimilarityLoss",
    "NPairLoss",
    "NTXentLoss",
    "PairLoss",
    "RowBlocks",
    "SumLoss",
    "SupConLoss",
    "TripletLoss",
    "TwoTowerLoss",
]
