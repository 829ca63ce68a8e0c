"""The triplet loss."""

from __future__ import annotations

import numbers
from typing import Any

import keras
import tensorflow as tf

from tfdml import distances as _distances
from tfdml._checks import check_choice, check_positive
from tfdml.distances import as_float
from tfdml.losses.base import attach_slopes, mean_over
from tfdml.losses.sums import AnchorSums, SumLoss
from tfdml.mining import (
    TRIPLET_MINERS,
    All,
    DistanceWeighted,
    Pairs,
    PerAnchorMiner,
    TripletMiner,
    miner_name,
    triplet_miner,
)


@keras.saving.register_keras_serializable(package="tfdml")
class TripletLoss(SumLoss):
    """Pulls every anchor nearer to its positives than to its negatives, by a margin.

    [d(a, p) - d(a, n) + margin]_+          or, with margin="soft", ln(1 + e^(d(a, p) - d(a, n)))

    over the triplets (a, p, n) of a batch that the mining chooses. `call(labels [B], embeddings [B, D]) -> [B]`; use P x K
    batches (`tfdml.samplers.PKSampler`). Anchors without a positive or without a negative have no triplet and add nothing.
    `between` finds positives and negatives among references instead.

    - `"semi_hard"`: every ordered positive pair (a, p), with the nearest negative that is farther than the positive; if none
      is, with the farthest negative. Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015.
    - `"hard"`: every anchor, with its farthest positive and its nearest negative (batch hard). Hermans, Beyer, Leibe, "In
      Defense of the Triplet Loss for Person Re-Identification", 2017.
    - `"all"`: every ordered positive pair, with every negative (batch all). The same paper.
    - `"random"`: every ordered positive pair, with one negative drawn at random: the plain triplet loss, without mining.
    - `"distance_weighted"`: every ordered positive pair, with a negative drawn so that all distances are equally likely. For
      plain Euclidean distances of normalised embeddings only. Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV
      2017.
    - `"explicit"`: the triplets that come with the data, for networks with three branches. `y_pred` is `[B, 3, D]`, the
      embeddings of anchor, positive and negative; `y_true` is not looked at, but Keras wants one: any `[B]`. Wang et al.,
      "Learning Fine-grained Image Similarity with Deep Ranking", CVPR 2014.

    What the papers used: Deep Ranking explicit triplets of normalised embeddings, `distance="squared_euclidean"`, and a penalty
    of 0.001 on squared weights (`kernel_regularizer=keras.regularizers.L2(0.001)`). FaceNet normalised embeddings,
    `distance="squared_euclidean"` and margin 0.2. Hermans et al. embeddings that are not normalised, `distance="euclidean"`,
    K = 4, and in their final models `mining="hard"` with `margin="soft"`; their batch all over non-zero terms is
    `mining="all", average="active"`, the default for `"all"`, and `average="valid"` their plain batch all. The defaults here
    are for normalised embeddings.

    A loss that stays at the margin (at ln 2 with `"soft"`) means that all embeddings have collapsed into one point.

    Memory is O(B^2) for every mining and margin. Time is O(B^2) for `"hard"`, and O(B^2) for each positive that an anchor has
    for the others.

    Args:
        margin: a number >= 0, in units of `distance`, or `"soft"`.
        mining: `"semi_hard"`, `"hard"`, `"all"`, `"random"`, `"distance_weighted"`, `"explicit"`, or a
            `tfdml.mining.TripletMiner`, for example `tfdml.mining.SemiHard(fallback="none")`.
        distance: `"euclidean"`, `"squared_euclidean"` or `"cosine"`.
        average: `"valid"`: the mean over the chosen triplets. `"active"`: over those with a loss above zero. `None`: `"active"`
            for `mining="all"`, else `"valid"`.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        ValueError: an argument that is not known, a distance that the mining is not for, or shapes that do not fit.
        TypeError: `mining` is neither a string nor a miner.

    >>> import keras, tensorflow as tf
    >>> loss = TripletLoss(margin=0.5, mining="hard")
    >>> print(f"{loss([7, 7, 8], tf.constant([[0.0, 0.0], [0.0, 0.6], [0.6, 0.0]])).numpy():.4f}")
    0.3757
    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4), keras.layers.UnitNormalization()])
    >>> model.compile("adam", loss=TripletLoss(margin=0.2, mining="semi_hard"))

    Explicit triplets:

    >>> ranking = TripletLoss(margin=1.0, mining="explicit", distance="squared_euclidean")
    >>> triplets = tf.constant([[[0.0, 0.0], [0.0, 0.6], [0.6, 0.8]], [[0.0, 0.0], [0.0, 0.6], [2.0, 0.0]]])
    >>> print(f"{ranking([0, 0], triplets).numpy():.4f}")
    0.1800
    """

    def __init__(
        self,
        margin: float | str = 0.2,
        mining: Any = "semi_hard",
        distance: str = "euclidean",
        average: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "triplet_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        if margin != "soft":
            if not isinstance(margin, numbers.Real):
                raise ValueError(f"margin={margin!r}: expected a number >= 0, or 'soft'.")
            check_positive("margin", margin, allow_zero=True)
            margin = float(margin)
        self.margin = margin
        if isinstance(mining, dict):
            mining = keras.saving.deserialize_keras_object(mining)
        if isinstance(mining, str):
            check_choice("mining", mining, (*TRIPLET_MINERS, "explicit"))
        self.mining: TripletMiner | None = None if mining == "explicit" else triplet_miner(mining)
        self.distance = check_choice("distance", distance, _distances.METRICS)
        if isinstance(self.mining, DistanceWeighted) and self.distance != "euclidean":
            raise ValueError(
                f"distance={distance!r} with distance-weighted mining, which is for plain Euclidean distances of points on the "
                "unit sphere: expected distance='euclidean', or another mining."
            )
        self.average = None if average is None else check_choice("average", average, ("valid", "active"))

    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        return (self._explicit if self.mining is None else super().per_anchor)(labels, embeddings)

    def sums(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> list[AnchorSums]:
        if self.mining is None:
            raise ValueError(
                "mining='explicit' is for triplets that come with the data, and cannot compare anchors with references. "
                "Use another mining, for example TripletLoss(mining='semi_hard')."
            )
        if isinstance(self.mining, PerAnchorMiner):
            values, chosen, active = self._one_triplet_per_anchor(self.mining, pairs, anchors, references)
        else:
            distances = _distances.pairwise_distances(anchors, references, self.distance)
            values, slopes, chosen, active = self.mining.sums(tf.stop_gradient(distances), pairs, self._term)
            values = attach_slopes(distances, values, slopes)
        return [AnchorSums(values, active if self.counts_active else chosen)]

    @property
    def counts_active(self) -> bool:
        """Whether the mean is over the triplets with a loss above zero."""
        return self.average == "active" or (self.average is None and isinstance(self.mining, All))

    @property
    def tied_by(self) -> str:
        return "mining='explicit' has triplets that come with the data, which take no blocks" if self.mining is None else ""

    def get_config(self) -> dict[str, Any]:
        return {
            "margin": self.margin,
            "mining": self._mining_config(),
            "distance": self.distance,
            "average": self.average,
            **super().get_config(),
        }

    def _mining_config(self) -> Any:
        if self.mining is None:
            return "explicit"
        return miner_name(self.mining) or keras.saving.serialize_keras_object(self.mining)

    def _prepare(self, y_true: Any, y_pred: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if self.mining is not None:
            return super()._prepare(y_true, y_pred)
        embeddings = as_float(y_pred)
        if embeddings.shape.rank != 3 or embeddings.shape[1] not in (3, None):
            raise ValueError(
                f"y_pred has shape {tuple(embeddings.shape)}: mining='explicit' expects the embeddings of anchor, positive and "
                "negative, [B, 3, D], for example tf.stack([anchors, positives, negatives], axis=1)."
            )
        labels = tf.convert_to_tensor(y_true)
        if labels.shape.rank == 0:
            raise ValueError("y_true is one number: expected one of any kind for each triplet, for example tf.zeros([B]).")
        # Only how many there are is looked at.
        return tf.zeros(tf.shape(labels)[:1]) if labels.shape[0] is None else tf.zeros(labels.shape[:1]), embeddings

    def _explicit(self, _: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        anchors, positives, negatives = tf.unstack(embeddings, 3, axis=1)
        to_positive = _distances.paired_distances(anchors, positives, self.distance)
        values = self._value(to_positive - _distances.paired_distances(anchors, negatives, self.distance))
        if self.average == "active":
            return mean_over(values, tf.math.count_nonzero(values, dtype=values.dtype))
        return values

    def _one_triplet_per_anchor(
        self, miner: PerAnchorMiner, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        fixed = None if references is None else tf.stop_gradient(references)
        choice = miner.choose(_distances.pairwise_distances(tf.stop_gradient(anchors), fixed, self.distance), pairs)
        others = anchors if references is None else references
        to_positive = _distances.paired_distances(anchors, tf.gather(others, choice.positives), self.distance)
        to_negative = _distances.paired_distances(anchors, tf.gather(others, choice.negatives), self.distance)
        kept = tf.cast(choice.valid, anchors.dtype)
        values = kept * self._value(to_positive - to_negative)
        return values, kept, tf.cast(values > 0, values.dtype)

    def _value(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(x) if self.margin == "soft" else tf.nn.relu(x + self.margin)

    def _term(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        value = self._value(x)
        return value, tf.sigmoid(x) if self.margin == "soft" else tf.cast(value > 0, x.dtype)
