"""The N-pair losses."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice, check_positive
from tfdml.losses.base import attach_slopes, mean_over
from tfdml.losses.log_sums import log_sum_exp
from tfdml.losses.sums import AnchorSums, SumLoss
from tfdml.mining import All, Pairs, negative_mask
from tfdml.mining.masks import ClassPairs
from tfdml.mining.pairs import is_multi_hot


@keras.saving.register_keras_serializable(package="tfdml")
class NPairLoss(SumLoss):
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
    paper's; for batches with several examples per class, for items with several labels, and for `between`, where the penalty is
    that of the anchors.

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
        self.l2 = float(l2)
        self.positives = check_choice("positives", positives, ("one", "all"))

    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        if self.positives == "all":
            return super().per_anchor(labels, embeddings)
        if is_multi_hot(labels):
            raise ValueError(
                f"y_true has shape {tuple(labels.shape)}: positives='one' makes one pair after the other of each class, which "
                "takes one label per item. For items with several labels, use NPairLoss(positives='all')."
            )
        return self._pairs(labels, embeddings)

    def sums(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> list[AnchorSums]:
        if self.positives == "one":
            raise ValueError(
                "positives='one' makes pairs of the items of one batch, and cannot compare them with references. "
                "Use NPairLoss(positives='all')."
            )
        a, b, scale = _scaled(anchors, anchors if references is None else references)
        logits = scale * tf.matmul(a, b, transpose_b=True)
        x = tf.stop_gradient(logits)
        takes_part = tf.cast(pairs.complete, x.dtype)
        if self.variant == "mc":
            values, slopes = each_positive_against_all_negatives(x, pairs)
        else:
            # The larger the dot product, the nearer: its negative stands where triplets have a distance.
            sums = All().sums(-x, pairs, lambda z: (tf.nn.softplus(z), tf.sigmoid(z)))
            values, slopes = sums.values, -sums.slopes
        parts = [AnchorSums(attach_slopes(logits, values, slopes), positives_that_count(pairs, x.dtype))]
        if self.l2:
            norms = scale * tf.reduce_sum(tf.square(a), 1)
            parts.append(AnchorSums(self.l2 * takes_part * norms, takes_part))
        return parts

    @property
    def tied_by(self) -> str:
        return "positives='one' makes pairs of the items of one batch; take positives='all'" if self.positives == "one" else ""

    def get_config(self) -> dict[str, Any]:
        return {"variant": self.variant, "l2": self.l2, "positives": self.positives, **super().get_config()}

    def _pairs(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        first, second, exists, of_pair = ClassPairs.of(labels)
        # Places beyond the last pair are masked.
        negative = negative_mask(of_pair) & exists[:, None] & exists[None, :]
        rows, _, scale = _scaled(embeddings, embeddings)
        a, p = tf.unstack(tf.gather(rows, tf.stack([first, second])))
        # The factor on the rows, not on the matrix: of what is n x n, each step counts.
        logits = tf.matmul(scale * a, p, transpose_b=True)
        if self.variant == "mc":
            # One's own positive and the negatives; in a row that is masked altogether, the first alone, without any loss.
            # Added, since the gradient of a choice is another n x n: e^(what is far below) is 0 and so is its slope.
            kept_columns = tf.linalg.set_diag(negative, tf.ones_like(exists))
            lowest = tf.constant(logits.dtype.min / 2, logits.dtype)
            logits += lowest * (1 - tf.cast(kept_columns, logits.dtype))
            values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.range(tf.shape(first)[0]), logits=logits)
        else:
            x = tf.stop_gradient(logits)
            behind = x - tf.linalg.diag_part(x)[:, None]
            chosen = tf.cast(negative, x.dtype)
            slopes = chosen * tf.sigmoid(behind)
            values = tf.reduce_sum(chosen * tf.nn.softplus(behind), 1)
            values = attach_slopes(logits, values, tf.linalg.set_diag(slopes, -tf.reduce_sum(slopes, 1)))
        takes_part = tf.cast(tf.reduce_any(negative, 1), logits.dtype)
        if self.l2:
            values += self.l2 * takes_part * (0.5 * scale * tf.reduce_sum(tf.square(a) + tf.square(p), 1))
        of_anchors = tf.math.unsorted_segment_sum(values, first, tf.shape(labels)[0])
        return mean_over(of_anchors, tf.reduce_sum(takes_part))


def each_positive_against_all_negatives(x: tf.Tensor, pairs: Pairs) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum over the positives p of each anchor a of log(1 + sum over negatives n of e^(x_an - x_ap)), and its slopes by x."""
    others = log_sum_exp(x, pairs.negative)
    positive = tf.cast(pairs.positive, x.dtype)
    behind = others.value[:, None] - x
    slopes_p = positive * tf.sigmoid(behind)
    values = tf.reduce_sum(positive * tf.nn.softplus(behind), 1)
    return values, others.weights * tf.reduce_sum(slopes_p, 1)[:, None] - slopes_p


def positives_that_count(pairs: Pairs, dtype: Any) -> tf.Tensor:
    """`[B]`: how many positives each anchor has, 0 without a negative."""
    return tf.cast(tf.where(pairs.negative_count > 0, pairs.positive_count, 0), dtype)


def _scaled(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Rows of at most 1 in every component, and the factor that turns their dot products into those of `a` and `b`.

    The factor saturates at 1e15, so that the dot products of no batch overflow.
    """
    largest = tf.reduce_max(tf.abs(a))
    if b is not a:
        largest = tf.maximum(largest, tf.reduce_max(tf.abs(b)))
    largest = tf.stop_gradient(tf.maximum(largest, tf.constant(1e-37, a.dtype)))
    limit = tf.constant(1e15, a.dtype)
    return a / largest, b / largest, tf.minimum(tf.square(tf.minimum(largest, limit)), limit)
