"""Trainable or stateful parts of a model."""

from tfdml.layers.a_softmax import ASoftmax
from tfdml.layers.batch_normalization import BatchNormalization
from tfdml.layers.cosine_softmax import ArcFace, CosFace, NormalizedSoftmax
from tfdml.layers.cross_batch_memory import CrossBatchMemory
from tfdml.layers.hard_negative_generator import HardNegativeGenerator
from tfdml.layers.head import ClassifierHead, Head
from tfdml.layers.identification_verification import IdentificationVerification
from tfdml.layers.l2_normalization import L2Normalization
from tfdml.layers.locally_connected import LocallyConnected2D
from tfdml.layers.margin_beta import MarginBeta, MarginHead
from tfdml.layers.proxies import ProxyAnchor, ProxyNCA
from tfdml.layers.views import ImageViews, MergeViews

__all__ = [
    "ASoftmax",
    "ArcFace",
    "BatchNormalization",
    "ClassifierHead",
    "CosFace",
    "CrossBatchMemory",
    "HardNegativeGenerator",
    "Head",
    "IdentificationVerification",
    "ImageViews",
    "L2Normalization",
    "LocallyConnected2D",
    "MarginBeta",
    "MarginHead",
    "MergeViews",
    "NormalizedSoftmax",
    "ProxyAnchor",
    "ProxyNCA",
]
