"""Samplers: labels in, a plain `tf.data.Dataset` of training batches out.

A sampler chooses from the data; mining (`tfdml.mining`) then chooses inside a batch. The cost of a batch and the size of the
graph do not grow with the number of classes.
"""

from __future__ import annotations

from tfdml.samplers.grouping import ClassGroups
from tfdml.samplers.permutation import permuted_positions
from tfdml.samplers.pk import PKSampler

__all__ = ["ClassGroups", "PKSampler", "permuted_positions"]
