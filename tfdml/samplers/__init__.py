"""Samplers: labels in, a plain `tf.data.Dataset` of training batches out.

A sampler chooses from the data; mining (`tfdml.mining`) then chooses inside a batch. The cost of a batch and the size of the
graph do not grow with the number of classes.
"""

from __future__ import annotations

from tfdml.samplers.base import Sampler
from tfdml.samplers.class_mining import HardClassMining
from tfdml.samplers.facenet import FaceNetSampler
from tfdml.samplers.grouping import ClassGroups
from tfdml.samplers.n_pair import NPairSampler
from tfdml.samplers.neighbours import nearest_neighbours, pairs_of_copies, translated_copies
from tfdml.samplers.pairs import PairSampler
from tfdml.samplers.permutation import permuted_positions
from tfdml.samplers.pk import PKSampler
from tfdml.samplers.relevance import GradedRelevance, colour_histograms, total_relevance
from tfdml.samplers.streaming import OnlineTripletSampler
from tfdml.samplers.triplets import RelevanceTripletSampler

__all__ = [
    "ClassGroups",
    "FaceNetSampler",
    "GradedRelevance",
    "HardClassMining",
    "NPairSampler",
    "OnlineTripletSampler",
    "PKSampler",
    "PairSampler",
    "RelevanceTripletSampler",
    "Sampler",
    "colour_histograms",
    "nearest_neighbours",
    "pairs_of_copies",
    "permuted_positions",
    "total_relevance",
    "translated_copies",
]
