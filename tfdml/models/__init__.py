"""Encoders, and the model that is trained, judged and exported around them."""

import tfdml.integrations.tf_addons
import tfdml.losses
import tfdml.optimizers
import tfdml.schedules  # noqa: F401  these register what a compiled model is saved with
from tfdml.models.daml import DAML
from tfdml.models.deep_ranking import deep_ranking_encoder
from tfdml.models.deepid2 import deepid2_encoder
from tfdml.models.distributed import fit_distributed
from tfdml.models.embedding_model import EmbeddingModel
from tfdml.models.encoders import conv_encoder
from tfdml.models.lenet import drlim_encoder
from tfdml.models.lunet import lunet
from tfdml.models.siamese import siamese
from tfdml.models.sphereface import sphereface_encoder
from tfdml.models.trinet import trinet
from tfdml.models.views import with_views

__all__ = [
    "DAML",
    "EmbeddingModel",
    "conv_encoder",
    "deep_ranking_encoder",
    "deepid2_encoder",
    "drlim_encoder",
    "fit_distributed",
    "lunet",
    "siamese",
    "sphereface_encoder",
    "trinet",
    "with_views",
]
