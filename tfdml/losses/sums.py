"""Losses that are means of sums over each anchor's pairs, so that a batch can be taken apart into anchors."""

from __future__ import annotations

import abc
from typing import NamedTuple

import tensorflow as tf

from tfdml.losses.base import PairLoss, mean_over
from tfdml.mining.pairs import Pairs


class AnchorSums(NamedTuple):
    """A sum of terms for each anchor, and how many they are.

    Attributes:
        values: `[B]`, differentiable.
        counts: `[B]` floats, without gradient. The loss is sum(values) / sum(counts) over the whole batch, 0 for none.
    """

    values: tf.Tensor
    counts: tf.Tensor


class SumLoss(PairLoss):
    """Base class of the losses on pairs whose only tie between anchors is what their sum is divided by.

    A subclass implements `sums(pairs, anchors, references)`; the loss is the sum of the means of its parts. `RowBlocks` can
    compute such a loss for some anchors at a time.
    """

    @abc.abstractmethod
    def sums(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> list[AnchorSums]:
        """The parts of the loss, one after the other. Arguments are those of `compare`."""

    def compare(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> tf.Tensor:
        return tf.add_n([mean_over(part.values, tf.reduce_sum(part.counts)) for part in self.sums(pairs, anchors, references)])

    @property
    def tied_by(self) -> str:
        """What else ties the anchors of a batch together, as its options are; empty if nothing does."""
        return ""
