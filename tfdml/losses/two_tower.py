"""Losses for two networks that embed two kinds of things into one space."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml.distances import as_float
from tfdml.losses.base import EmbeddingLoss, PairLoss, as_labels
from tfdml.mining.pairs import is_multi_hot


@keras.saving.register_keras_serializable(package="tfdml")
class TwoTowerLoss(EmbeddingLoss):
    """Any loss on pairs, between what two networks made: queries and references, sketches and photographs, text and images.

    Every query of a batch is compared with all references of the batch, never with another query; with `symmetric=True` every
    reference with all queries, too, and the two are averaged. The i-th query and the i-th reference belong together: a positive
    pair, as are all others of the same label.

    `y_pred` is `[B, 2, D]`, the embedding of the query and of the reference. `y_true` is `[B]`, a label that both share, for
    example the number of the item, so that an item twice in a batch is no negative of itself; or `[B, 2]`, one for each; or
    `[B, L]` booleans, the labels that both have.

    With `loss=NTXentLoss(temperature)` it is the symmetric cross-entropy of Radford et al., "Learning Transferable Visual
    Models From Natural Language Supervision" (CLIP), ICML 2021, whose temperature is trained; here it is fixed.

    Args:
        loss: a `tfdml.losses.PairLoss`, such as `NTXentLoss(0.05)` or `TripletLoss(mining="hard")`. Its own reduction does not
            matter.
        symmetric: whether references are anchors, too.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        TypeError: `loss` is not a `PairLoss`.
        ValueError: shapes that do not fit, or a loss that has no definition between queries and references.

    >>> import keras, tensorflow as tf
    >>> from tfdml.losses import NTXentLoss
    >>> loss = TwoTowerLoss(NTXentLoss(temperature=0.1))
    >>> queries, references = tf.constant([[1.0, 0.0], [0.6, 0.8]]), tf.constant([[0.8, 0.6], [0.0, 1.0]])
    >>> print(f"{loss([0, 1], tf.stack([queries, references], 1)).numpy():.4f}")
    0.8921
    >>> query, reference = keras.Input((8,)), keras.Input((5,))
    >>> towers = [keras.layers.Reshape((1, 4))(keras.layers.Dense(4)(tower)) for tower in (query, reference)]
    >>> model = keras.Model([query, reference], keras.layers.Concatenate(axis=1)(towers))
    >>> model.compile("adam", loss=loss)
    """

    def __init__(
        self,
        loss: Any,
        symmetric: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "two_tower_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        self.loss = as_pair_loss(loss)
        self.symmetric = bool(symmetric)

    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        queries, references = embeddings[:, 0], embeddings[:, 1]
        of_queries, of_references = (labels, labels) if _one_for_both(labels) else (labels[:, 0], labels[:, 1])
        values = self.loss.between(of_queries, queries, of_references, references)
        if not self.symmetric:
            return values
        return 0.5 * (values + self.loss.between(of_references, references, of_queries, queries))

    def get_config(self) -> dict[str, Any]:
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "symmetric": self.symmetric,
            **super().get_config(),
        }

    def _prepare(self, y_true: Any, y_pred: Any) -> tuple[tf.Tensor, tf.Tensor]:
        embeddings = as_float(y_pred)
        if embeddings.shape.rank != 3 or embeddings.shape[1] not in (2, None):
            raise ValueError(
                f"y_pred has shape {tuple(embeddings.shape)}: expected the embeddings of queries and references, [B, 2, D], "
                "for example tf.stack([queries, references], axis=1)."
            )
        labels = tf.convert_to_tensor(y_true)
        if labels.dtype != tf.bool and labels.shape.rank == 2 and labels.shape[1] == 2:
            return tf.stack([as_labels(labels[:, 0]), as_labels(labels[:, 1])], 1), embeddings
        return as_labels(labels), embeddings


def as_pair_loss(loss: Any) -> PairLoss:
    """The loss, also from its configuration, if it is one on pairs; else raises a `TypeError`."""
    if isinstance(loss, dict):
        loss = keras.saving.deserialize_keras_object(loss)
    if not isinstance(loss, PairLoss):
        raise TypeError(f"loss={loss!r}: expected a loss on pairs of tfdml.losses, such as ContrastiveLoss() or TripletLoss().")
    return loss


def _one_for_both(labels: tf.Tensor) -> bool:
    return labels.shape.rank == 1 or is_multi_hot(labels)
