"""NT-Xent and SupCon: softmax cross-entropies over the cosine similarities of a batch."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml import distances as _distances
from tfdml._checks import check_positive
from tfdml.losses.base import attach_slopes
from tfdml.losses.log_sums import log_sum_exp
from tfdml.losses.n_pair import each_positive_against_all_negatives, positives_that_count
from tfdml.losses.sums import AnchorSums, SumLoss
from tfdml.mining import Pairs


class _TemperatureLoss(SumLoss):
    def __init__(self, temperature: float, reduction: str | None, name: str | None) -> None:
        super().__init__(reduction=reduction, name=name)
        check_positive("temperature", temperature)
        self.temperature = float(temperature)

    def get_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature, **super().get_config()}


@keras.saving.register_keras_serializable(package="tfdml")
class NTXentLoss(_TemperatureLoss):
    """Sets every positive pair against all negatives of its anchor: normalised, temperature-scaled cross-entropy.

    -log(e^(s_ap / t) / (e^(s_ap / t) + sum over negatives n of e^(s_an / t)))

    with the cosine similarity s, averaged over the ordered positive pairs (a, p) whose anchor has a negative. Chen, Kornblith,
    Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR), ICML 2020. There each
    item has one positive, its other view: give both views the same label. With several positives per class each is taken in
    turn, and is not among the others' negatives; `SupConLoss` differs in that. TF Similarity's `SimCLRLoss` adds the means over
    first and over second views, which makes twice this.

    Args:
        temperature: t > 0. The smaller, the more the nearest negatives weigh.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        ValueError: a temperature that is not allowed, or shapes that do not fit.

    >>> import tensorflow as tf
    >>> x = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> print(f"{NTXentLoss(temperature=0.1)([7, 7, 8, 8], x).numpy():.4f}")
    0.9668
    """

    def __init__(
        self,
        temperature: float = 0.1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "nt_xent_loss",
    ) -> None:
        super().__init__(temperature, reduction, name)

    def sums(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> list[AnchorSums]:
        distances = _distances.pairwise_distances(anchors, references, "cosine")
        values, slopes = each_positive_against_all_negatives((1.0 - tf.stop_gradient(distances)) / self.temperature, pairs)
        values = attach_slopes(distances, values, slopes / -self.temperature)
        return [AnchorSums(values, positives_that_count(pairs, values.dtype))]


@keras.saving.register_keras_serializable(package="tfdml")
class SupConLoss(_TemperatureLoss):
    """Supervised contrastive loss: every positive should be as likely as the others among all items of the batch.

    -1 / |P(a)| * sum over positives p of log(e^(s_ap / t) / sum over j != a of e^(s_aj / t))

    with the cosine similarity s, averaged over the anchors a that have a positive. Khosla et al., "Supervised Contrastive
    Learning", NeurIPS 2020 (L_out). The sum below the line holds the other positives too, so with several of them the loss does
    not reach 0. The published code also multiplies by t / 0.07, which changes nothing for a temperature of 0.07.

    Args:
        temperature: t > 0. The smaller, the more the nearest items weigh.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        ValueError: a temperature that is not allowed, or shapes that do not fit.

    >>> import tensorflow as tf
    >>> x = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> print(f"{SupConLoss(temperature=0.1)([7, 7, 8, 8], x).numpy():.4f}")
    0.9668
    """

    def __init__(
        self,
        temperature: float = 0.1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "sup_con_loss",
    ) -> None:
        super().__init__(temperature, reduction, name)

    def sums(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> list[AnchorSums]:
        distances = _distances.pairwise_distances(anchors, references, "cosine")
        x = (1.0 - tf.stop_gradient(distances)) / self.temperature
        positive, count = pairs.positive, tf.cast(pairs.positive_count, x.dtype)
        target = tf.cast(positive, x.dtype) * tf.math.reciprocal_no_nan(count)[:, None]
        everything = log_sum_exp(x, positive | pairs.negative)
        valid = tf.sign(count)
        # Differences before sums: near the optimum the two parts are large and almost equal.
        values = tf.reduce_sum(target * (everything.value[:, None] - x), 1)
        slopes = (target - valid[:, None] * everything.weights) / self.temperature
        return [AnchorSums(attach_slopes(distances, values, slopes), valid)]
