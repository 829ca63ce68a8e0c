"""Negatives drawn uniformly: what the other ways of mining are compared with."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml.mining.base import TripletMiner, TripletSums, TripletTerm, sum_over_each_positive
from tfdml.mining.draws import below, check_seed, content_key
from tfdml.mining.pairs import as_pairs


@keras.saving.register_keras_serializable(package="tfdml")
class RandomNegative(TripletMiner):
    """For every ordered positive pair, a negative drawn at random: all negatives of the anchor are equally likely.

    The plain triplet loss, as it was before mining. Most negatives of a batch are easy, so most triplets soon have no loss;
    semi-hard, hard and distance-weighted mining are measured against it. Draws are with replacement, one for each positive.

    There is no state. The draw depends on `seed` and on the numbers of the batch itself, so it differs from step to step and
    from replica to replica, a run can be repeated, and the same batch of embeddings always has the same loss.

    Args:
        seed: an integer: another seed, other draws.

    Raises:
        ValueError: a seed that is not an integer of 32 bits.

    >>> RandomNegative(seed=3)
    RandomNegative(seed=3)
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = check_seed(seed)

    def sums(self, distances: tf.Tensor, pairs: Any, term: TripletTerm) -> TripletSums:
        pairs = as_pairs(pairs)
        key = content_key(self.seed, distances if pairs.embeddings is None else pairs.embeddings)
        batch, ends, nth_negative = tf.shape(distances)[0], pairs.negative_count, pairs.nth_negative()

        def negatives_of(k: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, None]:
            return nth_negative(below(key, k * batch + tf.range(batch), ends)), None

        return sum_over_each_positive(distances, pairs, negatives_of, term)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}
