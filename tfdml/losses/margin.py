"""The margin loss of "Sampling Matters in Deep Embedding Learning", with a fixed boundary."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml import distances as _distances
from tfdml._checks import check_choice, check_positive
from tfdml.losses.sums import AnchorSums, SumLoss
from tfdml.mining import (
    All,
    DistanceWeighted,
    Pairs,
    TripletMiner,
    triplet_miner,
)


@keras.saving.register_keras_serializable(package="tfdml")
class MarginLoss(SumLoss):
    """Keeps positive pairs nearer than a boundary beta and negative pairs farther, each by a margin alpha.

    positive pair: [alpha + d - beta]_+        negative pair: [alpha + beta - d]_+

    over the pairs that the mining chooses, with the plain Euclidean distance d. Wu, Manmatha, Smola, Kraehenbuehl, "Sampling
    Matters in Deep Embedding Learning", ICCV 2017. Like a triplet loss it does not ask for positives to collapse into a point;
    like a contrastive loss it needs only pairs. For **normalised embeddings**. Here beta is fixed.

    - `"distance_weighted"`: every ordered positive pair, and for each a negative of its anchor drawn so that all distances are
      equally likely (`tfdml.mining.DistanceWeighted`): the paper's.
    - `"all"`: every pair of the batch, once from each of its ends.
    - `"semi_hard"`, `"hard"`, `"random"`, or any other `tfdml.mining.TripletMiner`: the positive and the negative pair of every
      triplet that it chooses.

    The paper has the sum; its published code divides by the number of pairs whose loss is above zero, as is done here, and
    trains with beta = 1.2 as the start of a learned boundary for each class.

    Args:
        alpha: the margin, > 0.
        beta: the boundary, > 0.
        mining: `"distance_weighted"`, `"all"`, `"semi_hard"`, `"hard"`, `"random"` or a `tfdml.mining.TripletMiner`, for
            example `tfdml.mining.DistanceWeighted(upper=None, seed=3)`.
        average: `"active"`: the mean over pairs with a loss above zero. `"valid"`: over all chosen pairs.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        ValueError: an argument that is not known, or shapes that do not fit.
        TypeError: `mining` is neither a string nor a miner.

    >>> import keras, tensorflow as tf
    >>> x = tf.constant([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8], [-1, 0], [-0.8, -0.6]])
    >>> print(f"{MarginLoss(mining='all')([5, 5, 6, 6, 7, 7], x).numpy():.4f}")
    0.5056
    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4), keras.layers.UnitNormalization()])
    >>> model.compile("adam", loss=MarginLoss(alpha=0.2, beta=1.2))
    """

    def __init__(
        self,
        alpha: float = 0.2,
        beta: float = 1.2,
        mining: Any = "distance_weighted",
        average: str = "active",
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "margin_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        check_positive("alpha", alpha)
        check_positive("beta", beta)
        self.alpha, self.beta = float(alpha), float(beta)
        if isinstance(mining, dict):
            mining = keras.saving.deserialize_keras_object(mining)
        self.mining = triplet_miner(mining)
        self.average = check_choice("average", average, ("active", "valid"))

    def sums(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> list[AnchorSums]:
        distances = _distances.pairwise_distances(anchors, references)
        counts = chosen_pairs(self.mining, pairs, anchors, distances)
        values, active = margin_terms(distances, counts, self.alpha, self.beta)
        if self.average == "valid":
            active = tf.reduce_sum(tf.abs(counts), 1)
        return [AnchorSums(values, active)]

    def get_config(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "beta": self.beta,
            "mining": keras.saving.serialize_keras_object(self.mining),
            "average": self.average,
            **super().get_config(),
        }


def chosen_pairs(mining: TripletMiner, labels: Any, embeddings: tf.Tensor, distances: tf.Tensor) -> tf.Tensor:
    """How many times each pair counts, as `MarginLoss` has it: above 0 for a positive pair, below 0 for a negative one.

    Args:
        mining: a miner.
        labels: `[B]`, or `tfdml.mining.Pairs`.
        embeddings: `[B, D]`, the anchors, normalised.
        distances: `[B, M]`, their Euclidean distances from the references; from each other, within a batch.

    Returns:
        `[B, M]` floats that are whole numbers, without gradient: row = anchor.
    """
    distances = tf.stop_gradient(distances)
    pairs = labels if isinstance(labels, Pairs) else Pairs.within(labels, tf.stop_gradient(embeddings))
    if isinstance(mining, All):
        return tf.cast(pairs.positive, distances.dtype) - tf.cast(pairs.negative, distances.dtype)
    counts = mining.sums(distances, pairs, _one_for_each).slopes
    if isinstance(mining, DistanceWeighted):
        # Positives count even where no negative could be drawn: at the start, when all items are far apart, that is common.
        counts = tf.where(pairs.positive, tf.ones([], counts.dtype), counts)
    return counts


def margin_terms(distances: tf.Tensor, counts: tf.Tensor, alpha: float, beta: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The margin loss of each anchor, summed over its pairs. Differentiable by the distances and by beta.

    Args:
        distances: `[B, M]`.
        counts: `[B, M]` how many times each pair counts, as `chosen_pairs` has it.
        alpha: the margin.
        beta: the boundary: a number, or `[B]`, one for each anchor.

    Returns:
        `[B]` sums, and `[B]` how many of the terms are above zero (without gradient).
    """
    # Not a cast of the number: that would round it to float32 first.
    beta = tf.cast(beta, distances.dtype) if tf.is_tensor(beta) else tf.convert_to_tensor(beta, distances.dtype)
    beta = tf.broadcast_to(beta, tf.shape(distances)[:1])
    beyond = tf.stop_gradient(distances) - tf.stop_gradient(beta)[:, None]
    # count * [alpha + beyond]_+ of positive pairs, and count * [alpha - beyond]_+ of negative ones.
    terms = tf.nn.relu(alpha * tf.abs(counts) + counts * beyond)
    slopes = counts * tf.sign(terms)
    values = tf.reduce_sum(terms, 1)

    @tf.custom_gradient
    def attached(*_: tf.Tensor) -> Any:
        return tf.identity(values), lambda g: (g[:, None] * slopes, -g * tf.reduce_sum(slopes, 1))

    return attached(distances, beta), tf.reduce_sum(tf.abs(slopes), 1)


def _one_for_each(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A term whose slopes count triplets: 1 for each, 0 for what a miner masks by an infinite difference."""
    one = tf.cast(x > x.dtype.min / 4, x.dtype)
    return one, one
