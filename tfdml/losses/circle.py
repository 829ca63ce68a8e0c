"""The circle loss."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml import distances as _distances
from tfdml._checks import check_positive
from tfdml.losses.base import attach_slopes
from tfdml.losses.log_sums import log_sum_exp
from tfdml.losses.sums import AnchorSums, SumLoss
from tfdml.mining import Pairs


@keras.saving.register_keras_serializable(package="tfdml")
class CircleLoss(SumLoss):
    """Sets all positives of an anchor against all its negatives, each pulled the harder the farther it is from its optimum.

    log(1 + sum over n of e^(gamma w_n (s_n - margin)) * sum over p of e^(-gamma w_p (s_p - 1 + margin)))

    with the cosine similarities s_p and s_n of an anchor to its positives and negatives, and the weights
    w_p = [1 + margin - s_p]_+ and w_n = [s_n + margin]_+, which count as constants in the gradient. Sun, Cheng, Zhang, Zhang,
    Zheng, Wang, Wei, "Circle Loss: A Unified Perspective of Pair Similarity Optimization", CVPR 2020: the form for pair-wise
    labels. The mean is over the anchors that have a positive and a negative.

    TensorFlow Similarity's `CircleLoss` is another loss: it adds log(1 + sum) of both sides instead of multiplying the sums,
    and differentiates the weights. pytorch-metric-learning's is this one, but averages over the anchors whose loss is above 0.

    Args:
        margin: the relaxation m, > 0. A circle of this radius around (s_p, s_n) = (1, 0) is the decision boundary.
        gamma: scale, > 0. The default fits fine-grained retrieval; face recognition used `margin=0.25, gamma=256`.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        ValueError: a number that is not allowed, or shapes that do not fit.

    >>> import tensorflow as tf
    >>> x = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> print(f"{CircleLoss()([7, 7, 8, 8], x).numpy():.4f}")
    28.8648
    """

    def __init__(
        self,
        margin: float = 0.4,
        gamma: float = 80.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "circle_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        check_positive("margin", margin)
        check_positive("gamma", gamma)
        self.margin, self.gamma = float(margin), float(gamma)

    def sums(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> list[AnchorSums]:
        distances = _distances.pairwise_distances(anchors, references, "cosine")
        d = tf.stop_gradient(distances)
        # In distances, s = 1 - d.
        weights_p = self.gamma * tf.nn.relu(d + self.margin)
        weights_n = self.gamma * tf.nn.relu(1.0 + self.margin - d)
        far = log_sum_exp(weights_p * (d - self.margin), pairs.positive)
        near = log_sum_exp(weights_n * (1.0 - self.margin - d), pairs.negative)
        valid = tf.cast(pairs.complete, d.dtype)
        x = far.value + near.value
        slopes = (valid * tf.sigmoid(x))[:, None] * (far.weights * weights_p - near.weights * weights_n)
        return [AnchorSums(attach_slopes(distances, valid * tf.nn.softplus(x), slopes), valid)]

    def get_config(self) -> dict[str, Any]:
        return {"margin": self.margin, "gamma": self.gamma, **super().get_config()}
