"""The triplet loss."""

from __future__ import annotations

import numbers
from typing import Any

import keras
import tensorflow as tf

from tfdml import distances as _distances
from tfdml._checks import check_choice, check_positive
from tfdml.losses.base import EmbeddingLoss, attach_slopes, mean_over
from tfdml.mining import All, PerAnchorMiner, TripletMiner, miner_name, triplet_miner


@keras.saving.register_keras_serializable(package="tfdml")
class TripletLoss(EmbeddingLoss):
    """Pulls every anchor nearer to its positives than to its negatives, by a margin.

    [d(a, p) - d(a, n) + margin]_+          or, with margin="soft", ln(1 + e^(d(a, p) - d(a, n)))

    over the triplets (a, p, n) of a batch that the mining chooses. `call(labels [B], embeddings [B, D]) -> [B]`; use P x K
    batches (`tfdml.samplers.PKSampler`). Anchors without a positive or without a negative have no triplet and add nothing.

    - `"semi_hard"`: every ordered positive pair (a, p), with the nearest negative that is farther than the positive; if none
      is, with the farthest negative. Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015.
    - `"hard"`: every anchor, with its farthest positive and its nearest negative (batch hard). Hermans, Beyer, Leibe, "In
      Defense of the Triplet Loss for Person Re-Identification", 2017.
    - `"all"`: every ordered positive pair, with every negative (batch all). The same paper.

    What the papers used: FaceNet normalised embeddings, `distance="squared_euclidean"` and margin 0.2. Hermans et al.
    embeddings that are not normalised, `distance="euclidean"`, K = 4, and in their final models `mining="hard"` with
    `margin="soft"`; their batch all over non-zero terms is `mining="all", average="active"`, the default for `"all"`, and
    `average="valid"` their plain batch all. The defaults here are for normalised embeddings.

    A loss that stays at the margin (at ln 2 with `"soft"`) means that all embeddings have collapsed into one point.

    Memory is O(B^2) for every mining and margin. Time is O(B^2) for `"hard"`, and O(B^2) for each positive that an anchor has
    for the others.

    Args:
        margin: a number >= 0, in units of `distance`, or `"soft"`.
        mining: `"semi_hard"`, `"hard"`, `"all"`, or a `tfdml.mining.TripletMiner`, for example
            `tfdml.mining.SemiHard(fallback="none")`.
        distance: `"euclidean"`, `"squared_euclidean"` or `"cosine"`.
        average: `"valid"`: the mean over the chosen triplets. `"active"`: over those with a loss above zero. `None`: `"active"`
            for `mining="all"`, else `"valid"`.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Raises:
        ValueError: an argument that is not known, or shapes that do not fit.
        TypeError: `mining` is neither a string nor a miner.

    >>> import keras, tensorflow as tf
    >>> loss = TripletLoss(margin=0.5, mining="hard")
    >>> print(f"{loss([7, 7, 8], tf.constant([[0.0, 0.0], [0.0, 0.6], [0.6, 0.0]])).numpy():.4f}")
    0.3757
    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4), keras.layers.UnitNormalization()])
    >>> model.compile("adam", loss=TripletLoss(margin=0.2, mining="semi_hard"))
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
        self.mining: TripletMiner = triplet_miner(mining)
        self.distance = check_choice("distance", distance, _distances.METRICS)
        self.average = None if average is None else check_choice("average", average, ("valid", "active"))

    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        if isinstance(self.mining, PerAnchorMiner):
            values, chosen, active = self._one_triplet_per_anchor(self.mining, labels, embeddings)
        else:
            distances = _distances.pairwise_distances(embeddings, metric=self.distance)
            values, slopes, chosen, active = self.mining.sums(tf.stop_gradient(distances), labels, self._term)
            values = attach_slopes(distances, values, slopes)
        average = self.average or ("active" if isinstance(self.mining, All) else "valid")
        return mean_over(values, tf.reduce_sum(active if average == "active" else chosen))

    def get_config(self) -> dict[str, Any]:
        return {
            "margin": self.margin,
            "mining": miner_name(self.mining) or keras.saving.serialize_keras_object(self.mining),
            "distance": self.distance,
            "average": self.average,
            **super().get_config(),
        }

    def _one_triplet_per_anchor(self, miner: PerAnchorMiner, labels: Any, embeddings: Any) -> Any:
        fixed = tf.stop_gradient(embeddings)
        choice = miner.choose(_distances.pairwise_distances(fixed, metric=self.distance), labels)
        to_positive = _distances.paired_distances(embeddings, tf.gather(embeddings, choice.positives), self.distance)
        to_negative = _distances.paired_distances(embeddings, tf.gather(embeddings, choice.negatives), self.distance)
        kept = tf.cast(choice.valid, embeddings.dtype)
        values = kept * self._value(to_positive - to_negative)
        return values, kept, tf.cast(values > 0, values.dtype)

    def _value(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(x) if self.margin == "soft" else tf.nn.relu(x + self.margin)

    def _term(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        value = self._value(x)
        return value, tf.sigmoid(x) if self.margin == "soft" else tf.cast(value > 0, x.dtype)
