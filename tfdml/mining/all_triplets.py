"""No choosing: every triplet of the batch."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml.mining.base import TripletMiner, TripletSums, TripletTerm, positives_to_visit, take
from tfdml.mining.pairs import as_pairs


@keras.saving.register_keras_serializable(package="tfdml")
class All(TripletMiner):
    """Every triplet of the batch: all ordered positive pairs, each with all negatives of its anchor.

    Of Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017 (batch all).

    One positive of every anchor is taken at a time, so memory stays O(B^2) though there are O(B^3) triplets.

    >>> All()
    All()
    """

    def sums(self, distances: tf.Tensor, pairs: Any, term: TripletTerm) -> TripletSums:
        pairs = as_pairs(pairs)
        dtype = distances.dtype
        # Instead of masks, which are matrices: what is no negative lies too far away, and a positive that an anchor does not
        # have too near, for a triplet to have any loss.
        far = tf.constant(dtype.max, dtype)
        negatives = tf.where(pairs.negative, distances, far)
        negative_count = tf.cast(pairs.negative_count, dtype)
        count, last = positives_to_visit(pairs)
        nth_positive, rows = pairs.nth_positive(), tf.range(tf.shape(distances)[0])

        def step(k: tf.Tensor, values: Any, slopes: Any, chosen: Any, active: Any) -> Any:
            positives, exists = nth_positive(k), k < count
            to_positive = tf.where(exists, take(distances, positives), -far)
            loss, slope = term(to_positive[:, None] - negatives)
            return (
                k + 1,
                values + tf.reduce_sum(loss, 1),
                # In place, on what the subtraction has made.
                tf.tensor_scatter_nd_add(slopes - slope, tf.stack([rows, positives], 1), tf.reduce_sum(slope, 1)),
                chosen + tf.where(exists, negative_count, tf.zeros_like(negative_count)),
                active + tf.reduce_sum(tf.sign(loss), 1),
            )

        zero = tf.zeros_like(distances[:, 0])
        start = (0, zero, tf.zeros_like(distances), zero, zero)
        return TripletSums(*tf.while_loop(lambda k, *_: k < last, step, start)[1:])
