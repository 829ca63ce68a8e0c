"""Batch-hard mining, as "In Defense of the Triplet Loss" does it."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfdml.mining.base import PerAnchorMiner, TripletChoice
from tfdml.mining.masks import ClassGroups, positive_mask, same_class_mask


@keras.saving.register_keras_serializable(package="tfdml")
class Hard(PerAnchorMiner):
    """For every anchor, its farthest positive and its nearest negative.

    Of Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017 (batch hard).

    >>> from tfdml.mining import Hard
    >>> choice = Hard().choose([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]], [5, 5, 6])
    >>> choice.negatives[:2].numpy().tolist(), choice.valid.numpy().tolist()
    ([2, 2], [True, True, False])
    """

    def choose(self, distances: tf.Tensor, labels: tf.Tensor) -> TripletChoice:
        distances = tf.convert_to_tensor(distances)
        far = tf.constant(distances.dtype.max, distances.dtype)
        positives = tf.argmax(tf.where(positive_mask(labels), distances, -far), 1, output_type=tf.int32)
        negatives = tf.argmin(tf.where(same_class_mask(labels), far, distances), 1, output_type=tf.int32)
        size = ClassGroups.of(labels).size
        return TripletChoice(positives, negatives, (size > 1) & (size < tf.shape(size)[0]))
