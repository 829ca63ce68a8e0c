"""Batch-hard mining, as "In Defense of the Triplet Loss" does it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml.mining.base import PerAnchorMiner, TripletChoice
from tfdml.mining.pairs import as_pairs


@keras.saving.register_keras_serializable(package="tfdml")
class Hard(PerAnchorMiner):
    """For every anchor, its farthest positive and its nearest negative.

    Of Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017 (batch hard).

    >>> from tfdml.mining import Hard
    >>> choice = Hard().choose([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]], [5, 5, 6])
    >>> choice.negatives[:2].numpy().tolist(), choice.valid.numpy().tolist()
    ([2, 2], [True, True, False])
    """

    def choose(self, distances: tf.Tensor, pairs: Any) -> TripletChoice:
        distances, pairs = tf.convert_to_tensor(distances), as_pairs(pairs)
        far = tf.constant(distances.dtype.max, distances.dtype)
        positives = tf.argmax(tf.where(pairs.positive, distances, -far), 1, output_type=tf.int32)
        negatives = tf.argmin(tf.where(pairs.negative, distances, far), 1, output_type=tf.int32)
        return TripletChoice(positives, negatives, pairs.complete)
