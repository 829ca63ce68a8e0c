"""The contrastive loss of DrLIM."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfdml import distances as _distances
from tfdml._checks import check_choice, check_positive
from tfdml.distances import as_float
from tfdml.losses.base import as_labels, attach_slopes, mean_over
from tfdml.losses.sums import AnchorSums, SumLoss
from tfdml.mining import Pairs


@keras.saving.register_keras_serializable(package="tfdml")
class ContrastiveLoss(SumLoss):
    """Pulls positive pairs together, and pushes negative pairs apart until a margin lies between them.

    positive pair: 1/2 d^2        negative pair: 1/2 [margin - d]_+^2

    Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping" (DrLIM), CVPR 2006. A positive pair is
    a spring of rest length 0; a negative pair is a spring that only repels, up to the margin. The paper uses plain Euclidean
    distance on embeddings that are not normalised, and the sum over given pairs. With embeddings on the unit sphere, distances
    lie in [0, 2], and random ones near 1.4.

    `pairs="batch"`: all pairs of a batch count, positive if their labels are equal: `call(labels [B], embeddings [B, D])`.

    `pairs="explicit"`: for siamese networks, whose pairs come with the data. `y_pred` is `[B, 2, D]`, both embeddings of each
    pair. `y_true` is `[B]`, the paper's Y: **0 = similar, 1 = dissimilar** (`similar_label=1` turns it round, for labels
    made for TensorFlow Addons or Caffe, where 1 = similar), or `[B, 2]`, the labels of both items.

    Elsewhere the same name means other things, some of which `form` offers:

    | `form` | positive pair | negative pair | |
    |---|---|---|---|
    | `"squared"` | 1/2 d^2 | 1/2 [margin - d]_+^2 | the paper; Caffe; twice this: TensorFlow Addons |
    | `"legacy"` | 1/2 d^2 | 1/2 [margin - d^2]_+ | Caffe's `legacy_version` |
    | `"hinge"` | d | [margin - d]_+ | pytorch-metric-learning, with `average="balanced"` |

    TensorFlow Addons takes distances as `y_pred`; it and Caffe call a similar pair 1.

    Args:
        margin: beyond this distance a negative pair has no loss. In units of `distance`; of its square for `form="legacy"`.
        pairs: `"batch"` or `"explicit"`.
        distance: `"euclidean"` (the paper's), `"squared_euclidean"` or `"cosine"`. It takes the place of d above.
        average: `"pairs"`: the paper's sum, over the number of pairs. `"balanced"`: the mean over positive pairs plus the mean
            over those negative pairs that lie inside the margin. In P x K batches of normalised embeddings `"pairs"` trains
            better, with a margin well below the distance of random embeddings. Its value is small, since most pairs are
            negative and far apart; an optimiser like Adam does not mind, plain SGD needs a larger learning rate.
        form: `"squared"` (the paper's), `"legacy"` or `"hinge"`. `"hinge"` pulls and pushes all pairs alike, however far they
            are, and goes well with a margin of 1 on normalised embeddings.
        similar_label: what `y_true` says of a similar pair, 0 or 1. For `pairs="explicit"` with `[B]` labels only.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        ValueError: an argument that is not known, labels of given pairs that are neither 0 nor 1, or shapes that do not fit.

    >>> import tensorflow as tf
    >>> loss = ContrastiveLoss(margin=1.0, average="pairs")
    >>> print(f"{loss([7, 7, 8], tf.constant([[0.0, 0.0], [0.0, 0.6], [0.6, 0.0]])).numpy():.4f}")
    0.0905

    Explicit pairs:

    >>> siamese = ContrastiveLoss(margin=1.0, pairs="explicit")
    >>> pair_embeddings = tf.constant([[[0.0, 0.0], [0.0, 0.6]], [[0.0, 0.0], [0.6, 0.0]]])
    >>> print(f"{siamese([0, 1], pair_embeddings).numpy():.4f}")
    0.1300
    """

    def __init__(
        self,
        margin: float = 0.5,
        pairs: str = "batch",
        distance: str = "euclidean",
        average: str = "pairs",
        form: str = "squared",
        similar_label: int = 0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "contrastive_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        check_positive("margin", margin)
        self.margin = float(margin)
        self.pairs = check_choice("pairs", pairs, ("batch", "explicit"))
        self.distance = check_choice("distance", distance, _distances.METRICS)
        self.average = check_choice("average", average, ("pairs", "balanced"))
        self.form = check_choice("form", form, ("squared", "legacy", "hinge"))
        if similar_label not in (0, 1):
            raise ValueError(f"similar_label={similar_label!r}: expected 0 (the paper's) or 1 (TensorFlow Addons', Caffe's).")
        self.similar_label = similar_label

    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        return (self._explicit if self.pairs == "explicit" else super().per_anchor)(labels, embeddings)

    def sums(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> list[AnchorSums]:
        if self.pairs == "explicit":
            raise ValueError(
                "pairs='explicit' is for pairs that come with the data, and cannot compare anchors with references. "
                "Use ContrastiveLoss(pairs='batch')."
            )
        distances = _distances.pairwise_distances(anchors, references, self.distance)
        d, dtype = tf.stop_gradient(distances), distances.dtype
        terms = self.terms(d, tf.cast(pairs.positive, dtype), tf.cast(pairs.negative, dtype))
        pull, push = tf.reduce_sum(terms.pull, 1), tf.reduce_sum(terms.push, 1)
        positives = tf.cast(pairs.positive_count, dtype)
        if self.average == "pairs":
            values = attach_slopes(distances, pull + push, terms.pull_slope - terms.push_slope)
            return [AnchorSums(values, positives + tf.cast(pairs.negative_count, dtype))]
        inside = tf.reduce_sum(tf.sign(terms.push), 1)
        return [
            AnchorSums(attach_slopes(distances, pull, terms.pull_slope), positives),
            AnchorSums(attach_slopes(distances, push, -terms.push_slope), inside),
        ]

    @property
    def tied_by(self) -> str:
        return "pairs='explicit' has pairs that come with the data, which take no blocks" if self.pairs == "explicit" else ""

    def get_config(self) -> dict[str, Any]:
        return {
            "margin": self.margin,
            "pairs": self.pairs,
            "distance": self.distance,
            "average": self.average,
            "form": self.form,
            "similar_label": self.similar_label,
            **super().get_config(),
        }

    def _explicit(self, similar: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        d = _distances.paired_distances(embeddings[:, 0], embeddings[:, 1], self.distance)
        positive = tf.cast(similar, d.dtype)
        terms = self.terms(d, positive, 1.0 - positive)
        if self.average == "pairs":
            return terms.pull + terms.push
        active = tf.reduce_sum(tf.sign(tf.stop_gradient(terms.push)))
        return mean_over(terms.pull, tf.reduce_sum(positive)) + mean_over(terms.push, active)

    def terms(self, d: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> PairTerms:
        """What pairs at distances `d` add, where `positive` and `negative` are 1; differentiable."""
        stretch = d * positive
        gap = tf.nn.relu(self.margin - (tf.square(d) if self.form == "legacy" else d)) * negative
        if self.form == "hinge":
            return PairTerms(stretch, positive, gap, tf.sign(gap))
        if self.form == "legacy":
            return PairTerms(0.5 * tf.square(stretch), stretch, 0.5 * gap, d * tf.sign(gap))
        return PairTerms(0.5 * tf.square(stretch), stretch, 0.5 * tf.square(gap), gap)

    def _prepare(self, y_true: Any, y_pred: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if self.pairs == "batch":
            return super()._prepare(y_true, y_pred)
        embeddings = as_float(y_pred)
        if embeddings.shape.rank != 3 or embeddings.shape[1] not in (2, None):
            raise ValueError(
                f"y_pred has shape {tuple(embeddings.shape)}: pairs='explicit' expects both embeddings of each pair, "
                "[B, 2, D], for example keras.ops.stack or tf.stack([first, second], axis=1)."
            )
        labels = tf.convert_to_tensor(y_true)
        if labels.shape.rank == 2 and labels.shape[1] == 2:
            return tf.equal(as_labels(labels[:, 0]), as_labels(labels[:, 1])), embeddings
        flags = as_flags(labels)
        return tf.equal(flags, tf.cast(self.similar_label, flags.dtype)), embeddings


def as_flags(y_true: Any) -> tf.Tensor:
    """`[B]` labels of given pairs, each 0 or 1. Others raise, except under XLA."""
    flags = as_labels(y_true)
    if flags.dtype == tf.bool:
        return flags
    good = tf.equal(flags, tf.zeros([], flags.dtype)) | tf.equal(flags, tf.ones([], flags.dtype))
    expected = "expected 0 or 1 for each pair; similar_label says which of them is similar."
    if tf.executing_eagerly():
        if not tf.reduce_all(good):
            raise ValueError(f"y_true contains {tf.boolean_mask(flags, ~good)[0].numpy()}: {expected}")
        return flags
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(good), [f"y_true: {expected} Received:", flags])]):
        return tf.identity(flags)


class PairTerms(NamedTuple):
    """The loss of each pair as a positive and as a negative one, and by how much these grow and fall with the distance."""

    pull: tf.Tensor
    pull_slope: tf.Tensor
    push: tf.Tensor
    push_slope: tf.Tensor
