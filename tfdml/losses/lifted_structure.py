"""The lifted structure losses."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml import distances as _distances
from tfdml._checks import check_choice, check_positive
from tfdml.losses.base import attach_slopes
from tfdml.losses.log_sums import log_sum_exp
from tfdml.losses.sums import AnchorSums, SumLoss
from tfdml.mining import Pairs


@keras.saving.register_keras_serializable(package="tfdml")
class LiftedStructureLoss(SumLoss):
    """Sets every positive pair against all negatives of both its items, smoothly: near negatives weigh most.

    `variant="original"`, over the set P of (unordered) positive pairs of the batch:

    J_ij = log(sum over negatives k of i of e^(margin - d_ik) + sum over negatives l of j of e^(margin - d_jl)) + d_ij

    1 / (2 |P|) * sum over P of [J_ij]_+^2

    Song, Xiang, Jegelka, Savarese, "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016. The same as
    TensorFlow Addons' `LiftedStructLoss`.

    `variant="generalized"`, over the anchors that have a positive and a negative:

    mean of [log(sum over positives p of e^(d_ap)) + log(sum over negatives n of e^(margin - d_an))]_+

    Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017 (L_LG; the paper has the sum). It
    uses all positives of an anchor at once, where the original goes pair by pair.

    In `between`, the negatives of a reference are the anchors of other labels.

    Both papers use plain Euclidean distances between embeddings that are not normalised. Memory and time are O(B^2).

    Args:
        margin: a number > 0, in units of `distance`.
        variant: `"original"` or `"generalized"`.
        distance: `"euclidean"`, `"squared_euclidean"` or `"cosine"`.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        ValueError: an argument that is not known, or shapes that do not fit.

    >>> import tensorflow as tf
    >>> x = tf.constant([[0.0, 0.0], [0.0, 0.6], [0.6, 0.0]])
    >>> for variant in ("original", "generalized"):
    ...     print(f"{LiftedStructureLoss(1.0, variant)([7, 7, 8], x).numpy():.4f}")
    1.2428
    0.8757
    """

    def __init__(
        self,
        margin: float = 1.0,
        variant: str = "original",
        distance: str = "euclidean",
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "lifted_structure_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        check_positive("margin", margin)
        self.margin = float(margin)
        self.variant = check_choice("variant", variant, ("original", "generalized"))
        self.distance = check_choice("distance", distance, _distances.METRICS)

    def sums(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> list[AnchorSums]:
        distances = _distances.pairwise_distances(anchors, references, self.distance)
        if self.variant == "generalized":
            return [self._generalized(pairs, distances)]
        return [self._original(pairs, distances, symmetric=references is None)]

    @property
    def tied_by(self) -> str:
        if self.variant == "generalized":
            return ""
        return "variant='original' weighs a pair by the negatives of both of its items; take variant='generalized'"

    def get_config(self) -> dict[str, Any]:
        return {"margin": self.margin, "variant": self.variant, "distance": self.distance, **super().get_config()}

    def _original(self, pairs: Pairs, distances: tf.Tensor, symmetric: bool) -> AnchorSums:
        d = tf.stop_gradient(distances)
        positive, negative = pairs.positive, pairs.negative
        of_anchors = log_sum_exp(self.margin - d, negative)
        of_references = of_anchors if symmetric else log_sum_exp(self.margin - tf.transpose(d), tf.transpose(negative))
        one, other = of_anchors.value[:, None], of_references.value[None, :]
        # log(e^one + e^other), either of which may be of no negatives at all: near the lowest number that there is.
        both = tf.maximum(one, other) + tf.nn.softplus(-tf.abs(other - one))
        hinge = tf.where(positive, tf.nn.relu(both + d), tf.zeros([], d.dtype))
        values = 0.5 * tf.reduce_sum(tf.square(hinge), 1)
        count = tf.cast(pairs.positive_count, d.dtype)

        @tf.custom_gradient
        def attached(_: tf.Tensor) -> Any:
            def gradient(g: tf.Tensor) -> tf.Tensor:
                to_pair = g[:, None] * hinge
                # J_ij moves with the negatives of i by this share, and with those of j by the rest.
                to_one = to_pair * tf.sigmoid(one - other)
                to_anchors, to_references = tf.reduce_sum(to_one, 1), tf.reduce_sum(to_pair - to_one, 0)
                if symmetric:
                    return to_pair - (to_anchors + to_references)[:, None] * of_anchors.weights
                return (
                    to_pair
                    - to_anchors[:, None] * of_anchors.weights
                    - tf.transpose(to_references[:, None] * of_references.weights)
                )

            return tf.identity(values), gradient

        return AnchorSums(attached(distances), count)

    def _generalized(self, pairs: Pairs, distances: tf.Tensor) -> AnchorSums:
        d = tf.stop_gradient(distances)
        far, near = log_sum_exp(d, pairs.positive), log_sum_exp(self.margin - d, pairs.negative)
        valid = tf.cast(pairs.complete, d.dtype)
        values = valid * tf.nn.relu(far.value + near.value)
        slopes = tf.sign(values)[:, None] * (far.weights - near.weights)
        return AnchorSums(attach_slopes(distances, values, slopes), valid)
