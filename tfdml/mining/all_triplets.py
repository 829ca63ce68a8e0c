"""No choosing: every triplet of the batch."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml.mining.base import TripletMiner, TripletSums, TripletTerm, slope_matrix, take
from tfdml.mining.masks import ClassGroups, same_class_mask


@keras.saving.register_keras_serializable(package="tfdml")
class All(TripletMiner):
    """Every triplet of the batch: all ordered positive pairs, each with all negatives of its anchor.

    Of Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017 (batch all).

    One positive of every anchor is taken at a time, so memory stays O(B^2) though there are O(B^3) triplets.

    >>> All()
    All()
    """

    def sums(self, distances: tf.Tensor, labels: tf.Tensor, term: TripletTerm) -> TripletSums:
        groups = ClassGroups.of(labels)
        batch, dtype = tf.shape(distances)[0], distances.dtype
        same = same_class_mask(labels)
        # Instead of masks, which are matrices: what is no negative lies too far away, and a positive that an anchor does not
        # have too near, for a triplet to have any loss.
        far = tf.constant(dtype.max, dtype)
        negatives = tf.where(same, far, distances)
        last = tf.where(tf.reduce_any(~same), tf.reduce_max(tf.concat([groups.size, [0]], 0)), 0)
        negative_count = tf.cast(batch - groups.size, dtype)

        def step(k: tf.Tensor, values: Any, slopes: Any, chosen: Any, active: Any) -> Any:
            positives, exists = groups.positive(k), k < groups.size
            to_positive = tf.where(exists, take(distances, positives), -far)
            loss, slope = term(to_positive[:, None] - negatives)
            return (
                k + 1,
                values + tf.reduce_sum(loss, 1),
                slopes - slope + slope_matrix(distances, positives, tf.reduce_sum(slope, 1)),
                chosen + tf.where(exists, negative_count, tf.zeros_like(negative_count)),
                active + tf.reduce_sum(tf.sign(loss), 1),
            )

        zero = tf.zeros_like(distances[:, 0])
        start = (1, zero, tf.zeros_like(distances), zero, zero)
        return TripletSums(*tf.while_loop(lambda k, *_: k < last, step, start)[1:])
