"""Trainable or stateful parts of a model."""

from tfdml.layers.a_softmax import ASoftmax
from tfdml.layers.batch_normalization import BatchNormalization
from tfdml.layers.cosine_softmax import ArcFace, CosFace, NormalizedSoftmax
from tfdml.layers.cross_batch_memory import CrossBatchMemory
from tfdml.layers.head import ClassifierHead, Head
from tfdml.layers.identification_verification import IdentificationVerification
from tfdml.layers.l2_normalization import L2Normalization
from tfdml.layers.margin_beta import MarginBeta, MarginHead
from tfdml.layers.proxies import ProxyAnchor, ProxyNCA

__all__ = [
    "ASoftmax",
    "ArcFace",
    "BatchNormalization",
    "ClassifierHead",
    "CosFace",
    "CrossBatchMemory",
    "Head",
    "IdentificationVerification",
    "L2Normalization",
    "MarginBeta",
    "MarginHead",
    "NormalizedSoftmax",
    "ProxyAnchor",
    "ProxyNCA",
]
