"""For models that were made for TF Addons."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_positive
from tfdml.distances import as_float
from tfdml.losses.base import EmbeddingLoss
from tfdml.losses.contrastive import as_flags


@keras.saving.register_keras_serializable(package="tfdml")
class DistanceContrastiveLoss(EmbeddingLoss):
    """The contrastive loss of DrLIM for models whose output is the distance of a pair, as TF Addons has it.

    similar pair: 1/2 d^2        dissimilar pair: 1/2 [margin - d]_+^2

    Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping" (DrLIM), CVPR 2006. The same as
    `tfdml.losses.ContrastiveLoss(pairs="explicit")`, which is given both embeddings instead: prefer that for a new model,
    since it can be exported as an encoder, and its gradient is finite for a pair of equal embeddings, where that of the
    square root in a distance layer of one's own often is not. `tfa.losses.ContrastiveLoss` has no 1/2: its value is twice this.

    Args:
        margin: beyond this distance a dissimilar pair has no loss.
        similar_label: what `y_true` says of a similar pair. TF Addons and Caffe have 1, the paper has 0; there is no default,
            because the wrong one trains without a complaint.
        reduction: see `tfdml.losses.EmbeddingLoss`.
        name: name of the loss.

    Shapes: `y_true` `[B]` or `[B, 1]`, 0 or 1; `y_pred` `[B]` or `[B, 1]`, distances >= 0.

    Raises:
        ValueError: an argument that is not allowed, labels that are neither 0 nor 1, or shapes that do not fit.

    >>> loss = DistanceContrastiveLoss(margin=1.0, similar_label=1)
    >>> print(f"{loss([1, 0], [0.6, 0.6]).numpy():.4f}")
    0.1300
    """

    def __init__(
        self,
        margin: float = 1.0,
        *,
        similar_label: int,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "distance_contrastive_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        check_positive("margin", margin)
        if similar_label not in (0, 1):
            raise ValueError(f"similar_label={similar_label!r}: expected 1 (TF Addons', Caffe's) or 0 (the paper's).")
        self.margin, self.similar_label = float(margin), similar_label

    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        similar = tf.equal(labels, tf.cast(self.similar_label, labels.dtype))
        return 0.5 * tf.square(tf.where(similar, embeddings, tf.nn.relu(self.margin - embeddings)))

    def get_config(self) -> dict[str, Any]:
        return {"margin": self.margin, "similar_label": self.similar_label, **super().get_config()}

    def _prepare(self, y_true: Any, y_pred: Any) -> tuple[tf.Tensor, tf.Tensor]:
        distances = as_float(y_pred)
        if distances.shape.rank not in (1, None) and not (distances.shape.rank == 2 and distances.shape[1] in (1, None)):
            raise ValueError(
                f"y_pred has shape {tuple(distances.shape)}: expected one distance for each pair, [B] or [B, 1]. For the "
                "embeddings of both items, [B, 2, D], use tfdml.losses.ContrastiveLoss(pairs='explicit')."
            )
        return as_flags(y_true), tf.reshape(distances, [-1])
