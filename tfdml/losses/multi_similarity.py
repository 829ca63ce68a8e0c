"""The multi-similarity loss."""

from __future__ import annotations

import numbers
from typing import Any

import keras
import tensorflow as tf

from tfdml import distances as _distances
from tfdml._checks import check_positive
from tfdml.losses.base import attach_slopes
from tfdml.losses.log_sums import log_one_plus_sum_exp
from tfdml.losses.sums import AnchorSums, SumLoss
from tfdml.mining import Pairs


@keras.saving.register_keras_serializable(package="tfdml")
class MultiSimilarityLoss(SumLoss):
    """Weighs every pair by its own similarity and by how it compares with the anchor's other pairs.

    mean over anchors of   1/alpha * log(1 + sum over positives p of e^(-alpha (s_ap - base)))
                         + 1/beta  * log(1 + sum over negatives n of e^(beta (s_an - base)))

    with the cosine similarity s, over the pairs that the paper's mining leaves: positives that are not much more similar than
    the most similar negative, s_ap < max over n of s_an + epsilon, and negatives that are not much less similar than the least
    similar positive, s_an > min over p of s_ap - epsilon. Wang, Han, Huang, Dong, Scott, "Multi-Similarity Loss with General
    Pair Weighting for Deep Metric Learning", CVPR 2019.

    The mean is over the whole batch, as in the paper: anchors without a pair count as 0. The defaults are those of the
    published code; TensorFlow Similarity has `beta=40` and is the same otherwise.

    Args:
        alpha: sharpness over positives, > 0.
        beta: sharpness over negatives, > 0.
        base: the similarity around which pairs gain and lose weight (the paper's lambda).
        epsilon: slack of the mining, >= 0. `None`: no mining, all pairs count.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        ValueError: a number that is not allowed, or shapes that do not fit.

    >>> import tensorflow as tf
    >>> x = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> print(f"{MultiSimilarityLoss()([7, 7, 8, 8], x).numpy():.4f}")
    0.3394
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        epsilon: float | None = 0.1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "multi_similarity_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        check_positive("alpha", alpha)
        check_positive("beta", beta)
        given: Any = base  # NumPy's numbers, too
        if not isinstance(given, numbers.Real) or not -1 <= float(given) <= 1:
            raise ValueError(f"base={base!r}: expected a cosine similarity, a number from -1 to 1.")
        if epsilon is not None:
            check_positive("epsilon", epsilon, allow_zero=True)
        self.alpha, self.beta, self.base = float(alpha), float(beta), float(base)
        self.epsilon = None if epsilon is None else float(epsilon)

    def sums(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> list[AnchorSums]:
        distances = _distances.pairwise_distances(anchors, references, "cosine")
        similarities = 1.0 - tf.stop_gradient(distances)
        positive, negative = pairs.positive, pairs.negative
        if self.epsilon is not None:
            # Beyond any similarity, on the side where nothing is left if there is no positive, or no negative.
            least = tf.reduce_min(tf.where(positive, similarities, 9.0), 1, keepdims=True)
            most = tf.reduce_max(tf.where(negative, similarities, -9.0), 1, keepdims=True)
            positive &= similarities < most + self.epsilon
            negative &= similarities > least - self.epsilon
        above = similarities - self.base
        pull = log_one_plus_sum_exp(-self.alpha * above, positive, self.alpha * (1.0 + self.base))
        push = log_one_plus_sum_exp(self.beta * above, negative, self.beta * (1.0 - self.base))
        values = pull.value / self.alpha + push.value / self.beta
        # By the distances, which fall as similarities grow.
        values = attach_slopes(distances, values, pull.weights - push.weights)
        return [AnchorSums(values, tf.ones_like(values))]

    def get_config(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "beta": self.beta,
            "base": self.base,
            "epsilon": self.epsilon,
            **super().get_config(),
        }
