"""The N-pair losses."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice, check_positive
from tfdml.losses.base import EmbeddingLoss, attach_slopes, mean_over
from tfdml.losses.log_sums import log_sum_exp
from tfdml.mining import All, ClassGroups, negative_mask, positive_mask


@keras.saving.register_keras_serializable(package="tfdml")
class NPairLoss(EmbeddingLoss):
    """Sets every anchor's positive against one negative of each other class of the batch at once.

    variant="mc":   mean over i of log(1 + sum over j != i of e^(f_i . f_j+ - f_i . f_i+)) + l2 * mean |f|^2

    variant="ovo":  mean over i of sum over j != i of log(1 + e^(f_i . f_j+ - f_i . f_i+)) + l2 * mean |f|^2

    Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016. "mc" is the softmax cross-entropy
    of the anchor-positive matrix, with the diagonal as target; "ovo" is never smaller. Embeddings are **not** normalised: what
    keeps their norms in bounds is the penalty. With normalised embeddings, whose dot products lie within [-1, 1], use
    `NTXentLoss`, which has a temperature.

    `positives="one"`: the items of each class make pairs in the order in which they stand in the batch, the first with the
    second, the third with the fourth; the first of a pair is the anchor f_i, the second its positive f_i+. An item left over
    takes no part. The paper's batch is K = 2 in P x K (`PKSampler(labels, classes=60, examples=2)`). Where a class has several
    pairs, they are not each other's negatives. (TensorFlow Addons' `npairs_loss`, which is given the matrix, is the same for
    one pair per class; for more, it spreads the target over them.) Only anchors have a value in what `call` returns, and
    weights of other items do nothing.

    `positives="all"`: every item is an anchor, with each of its positives in turn, against all items of other classes. Not the
    paper's; for batches with several examples per class.

    Args:
        variant: `"mc"` (multi-class) or `"ovo"` (one against one).
        l2: weight of the penalty, the mean squared norm of all items that take part. The paper has 0.02; the value that other
            implementations work out to is often smaller, for example 0.005.
        positives: `"one"` or `"all"`.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        ValueError: an argument that is not known, or shapes that do not fit.

    >>> import tensorflow as tf
    >>> x = tf.constant([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8], [-1, 0], [-0.8, -0.6]])
    >>> for variant in ("mc", "ovo"):
    ...     print(f"{NPairLoss(variant, l2=0.0)([5, 5, 6, 6, 7, 7], x).numpy():.4f}")
    0.5997
    0.6683
    """

    def __init__(
        self,
        variant: str = "mc",
        l2: float = 0.02,
        positives: str = "one",
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "n_pair_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        check_positive("l2", l2, allow_zero=True)
        self.variant = check_choice("variant", variant, ("mc", "ovo"))
        self.l2 = l2
        self.positives = check_choice("positives", positives, ("one", "all"))

    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        return (self._pairs if self.positives == "one" else self._every_positive)(labels, embeddings)

    def get_config(self) -> dict[str, Any]:
        return {"variant": self.variant, "l2": self.l2, "positives": self.positives, **super().get_config()}

    def _pairs(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        batch = tf.shape(labels)[0]
        groups = ClassGroups.of(labels)
        first_of_pair = (groups.rank % 2 == 0) & (groups.rank + 1 < groups.size)
        # Half of the batch is enough for all anchors, and a shape that XLA knows; places beyond the anchors are masked.
        anchors = tf.argsort(tf.cast(~first_of_pair, tf.int32), stable=True)[: (batch + 1) // 2]
        positives = tf.gather(groups.positive(1), anchors)
        kept = tf.gather(first_of_pair, anchors)
        negative = negative_mask(tf.gather(labels, anchors)) & kept[:, None] & kept[None, :]

        rows, scale = _scaled(embeddings)
        a, p = tf.gather(rows, anchors), tf.gather(rows, positives)
        logits = scale * tf.matmul(a, p, transpose_b=True)
        x = tf.stop_gradient(logits)
        own = tf.linalg.diag_part(x)
        if self.variant == "mc":
            others = log_sum_exp(x, negative)
            values = tf.nn.softplus(others.value - own)
            slopes = tf.sigmoid(others.value - own)
            slopes_n = slopes[:, None] * others.weights
        else:
            chosen = tf.cast(negative, x.dtype)
            values = tf.reduce_sum(chosen * tf.nn.softplus(x - own[:, None]), 1)
            slopes_n = chosen * tf.sigmoid(x - own[:, None])
            slopes = tf.reduce_sum(slopes_n, 1)
        values = attach_slopes(logits, values, tf.linalg.set_diag(slopes_n, -slopes))
        takes_part = tf.cast(tf.reduce_any(negative, 1), x.dtype)
        norms = 0.5 * scale * (tf.reduce_sum(tf.square(a), 1) + tf.reduce_sum(tf.square(p), 1))
        values += self.l2 * takes_part * norms
        return mean_over(tf.math.unsorted_segment_sum(values, anchors, batch), tf.reduce_sum(takes_part))

    def _every_positive(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        rows, scale = _scaled(embeddings)
        logits = scale * tf.matmul(rows, rows, transpose_b=True)
        x = tf.stop_gradient(logits)
        size = ClassGroups.of(labels).size
        takes_part = tf.cast((size > 1) & (size < tf.shape(size)[0]), x.dtype)
        pairs = takes_part * tf.cast(size - 1, x.dtype)
        if self.variant == "mc":
            values, slopes = each_positive_against_all_negatives(x, labels)
        else:
            # The larger the dot product, the nearer: its negative stands where triplets have a distance.
            sums = All().sums(-x, labels, lambda z: (tf.nn.softplus(z), tf.sigmoid(z)))
            values, slopes = sums.values, -sums.slopes
        values = mean_over(attach_slopes(logits, values, slopes), tf.reduce_sum(pairs))
        norms = scale * tf.reduce_sum(tf.square(rows), 1)
        return values + mean_over(self.l2 * takes_part * norms, tf.reduce_sum(takes_part))


def each_positive_against_all_negatives(x: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum over the positives p of each anchor a of log(1 + sum over negatives n of e^(x_an - x_ap)), and its slopes by x."""
    others = log_sum_exp(x, negative_mask(labels))
    positive = tf.cast(positive_mask(labels), x.dtype)
    behind = others.value[:, None] - x
    slopes_p = positive * tf.sigmoid(behind)
    values = tf.reduce_sum(positive * tf.nn.softplus(behind), 1)
    return values, others.weights * tf.reduce_sum(slopes_p, 1)[:, None] - slopes_p


def _scaled(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows of at most 1 in every component, and the factor that turns their dot products into those of `x`.

    The factor saturates at 1e15, so that the dot products of no batch overflow.
    """
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(x)))
    largest = tf.where(largest < 1e-37, tf.ones_like(largest), largest)
    limit = tf.constant(1e15, x.dtype)
    return x / largest, tf.minimum(tf.square(tf.minimum(largest, limit)), limit)
