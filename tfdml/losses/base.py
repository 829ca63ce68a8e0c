"""What all losses on embeddings share: exact labels, float32 inside, one value per anchor, the same reductions everywhere."""

from __future__ import annotations

import abc
from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice
from tfdml.distances import as_float
from tfdml.mining.pairs import Pairs, is_multi_hot
from tfdml.replicas import gather

REDUCTIONS = ("sum_over_batch_size", "sum", "none")


class EmbeddingLoss(keras.losses.Loss, abc.ABC):
    """Base class of the losses that compare the embeddings of a batch with each other.

    A subclass implements `per_anchor(labels, embeddings) -> [B]`, whose mean is the loss of the batch: denominators that
    depend on the whole batch are folded into the values, so that sums over replicas come out right. A loss on pairs or triplets
    is better derived from `PairLoss`, whose anchors can also be compared with other items than the batch.

    Under a distribution strategy the batch is that of all replicas together (see `tfdml.replicas.gather`): the loss, its
    gradients and the step are those of one replica with the same batch, and `per_anchor` does not know of it.

    What it takes care of:

    - labels reach `per_anchor` as they are. `keras.losses.Loss` casts them to float32, where 16777216 equals 16777217.
      Float labels are accepted and compared as they are;
    - `[B, 1]` labels (Keras 2 makes them) become `[B]`;
    - items with several labels each: `[B, L]` **booleans**, true for each label that an item has. Two items are then a positive
      pair if they share a label; one without any label is a negative of all others;
    - float16 and bfloat16 embeddings are computed in float32; float64 stays;
    - reductions and sample weights mean the same on Keras 2.15 and Keras 3;
    - a NaN or infinite embedding makes every value, and every gradient, NaN: it is never hidden, and a loss-scale optimizer
      sees it and skips the step.

    Args:
        reduction: `"sum_over_batch_size"` (also `"auto"`, `"mean"`), `"sum"`, or `"none"` (also `None`).
        name: name of the loss.
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        aliases = {"auto": "sum_over_batch_size", "mean": "sum_over_batch_size", None: "none"}
        reduction = check_choice("reduction", aliases.get(reduction, reduction), REDUCTIONS)
        super().__init__(reduction=reduction, name=name)

    @abc.abstractmethod
    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        """`[B]` labels and `[B, D]` float32 or float64 embeddings to `[B]` values, whose mean is the loss of the batch."""

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value per anchor, compared with the batch of all replicas.

        Args:
            y_true: `[B]` or `[B, 1]` integer labels, or `[B, L]` booleans.
            y_pred: `[B, D]` embeddings.

        Returns:
            `[B]` float32 (float64 for float64 embeddings). Of several replicas, those of this one's anchors.

        Raises:
            ValueError: labels that are strings, or shapes that do not fit.
        """
        labels, embeddings = self._prepare(y_true, y_pred)
        with tf.control_dependencies(_same_length(labels, embeddings, "y_true", "y_pred")):
            everything = gather(labels, embeddings)
            values = self.of_batch(*everything.tensors)
        # Other reductions add up values over replicas as they are.
        return everything.own(values) if self.reduction == "sum_over_batch_size" else everything.rows(values)

    def of_batch(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        """`per_anchor` of a batch that may be empty, or hold numbers that are not finite; never looks at other replicas."""
        batch = tf.shape(embeddings)[0]
        values = self.per_anchor(not_empty(labels), not_empty(embeddings))[:batch]
        return nan_unless_finite(values, embeddings)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        values = self.call(y_true, y_pred)
        if sample_weight is not None:
            values *= _as_weights(sample_weight, values)
        reduce = _Reduce(self.reduction, values.dtype)
        # Keras 2 sets this on the losses that it was given to compile, and asks for it under a distribution strategy.
        reduce._allow_sum_over_batch_size = getattr(self, "_allow_sum_over_batch_size", False)
        return reduce(values, values)

    def get_config(self) -> dict[str, Any]:
        return {"reduction": self.reduction, "name": self.name}

    def _prepare(self, y_true: Any, y_pred: Any) -> tuple[tf.Tensor, tf.Tensor]:
        return as_labels(y_true), as_embeddings(y_pred)


class PairLoss(EmbeddingLoss):
    """Base class of the losses on pairs and triplets: anchors are compared with the batch, or with any references.

    A subclass implements `compare(pairs, anchors, references) -> [B]`.
    """

    @abc.abstractmethod
    def compare(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> tf.Tensor:
        """One value per anchor, whose mean is the loss.

        Args:
            pairs: which pairs of anchors and references are positive, and which negative.
            anchors: `[B, D]` float32 or float64.
            references: `[M, D]`, or None: the anchors themselves.
        """

    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        return self.compare(Pairs.within(labels, tf.stop_gradient(embeddings)), embeddings, None)

    def between(
        self,
        labels: Any,
        embeddings: Any,
        reference_labels: Any,
        references: Any,
        valid: Any = None,
        itself: Any = None,
    ) -> tf.Tensor:
        """One value per anchor, each anchor compared with references instead of the other items of its batch.

        The same definition, with positives and negatives taken from the references: a memory of earlier batches, class
        centres, or what another network made of other inputs. The gradient goes to both sides; put a `tf.stop_gradient` where
        it should not. Time and memory are O(B M).

        An anchor may be among the references, as its own copy: say where with `itself`, else it is its own positive.
        Compared with its own batch that way, a loss has the value that `call` has. Other replicas are not looked at: give it
        what `tfdml.replicas.gather` returns.

        Args:
            labels: `[B]` labels of the anchors, or `[B, L]` booleans.
            embeddings: `[B, D]`, the anchors.
            reference_labels: `[M]` or `[M, L]`.
            references: `[M, D]`.
            valid: `[M]` booleans; the other references do not count, whatever they hold. None: all count.
            itself: `[B]` integers: the number of the reference that is the anchor itself, -1 for none. None: none is.

        Returns:
            `[B]` float32 (float64 for float64 embeddings), whose mean is the loss.

        Raises:
            ValueError: labels that are strings, or shapes that do not fit.

        >>> from tfdml.losses import ContrastiveLoss
        >>> loss = ContrastiveLoss(margin=1.0)
        >>> values = loss.between([7, 8], [[0.0, 0.0], [0.6, 0.0]], [7, 8, 8], [[0.0, 0.6], [0.0, 0.0], [0.6, 0.8]])
        >>> print([f"{v:.4f}" for v in values.numpy()])
        ['0.2267', '0.1705']
        """
        anchors, references = as_embeddings(embeddings, "embeddings"), as_embeddings(references, "references")
        labels, others = as_labels(labels, "labels"), as_labels(reference_labels, "reference_labels")
        _check_comparable(labels, anchors, others, references)
        checks = _same_length(labels, anchors, "labels", "embeddings")
        checks += _same_length(others, references, "reference_labels", "references")
        with tf.control_dependencies(checks):
            references, batch = tf.cast(references, anchors.dtype), tf.shape(anchors)[0]
        if valid is not None:
            valid = _flags(valid, references)
            references = tf.where(valid[:, None], references, tf.zeros([], references.dtype))
        elif references.shape[0] in (None, 0):
            valid = tf.ones(tf.shape(references)[:1], tf.bool)
        place = None if itself is None else not_empty(_places(itself, anchors))
        labels, anchors_, others, references_ = (not_empty(x) for x in (labels, anchors, others, references))
        valid = None if valid is None else not_empty(valid)
        values = self._between(labels, anchors_, others, references_, valid, place)[:batch]
        return nan_unless_finite(values, anchors, references)

    def _between(
        self, labels: tf.Tensor, anchors: tf.Tensor, others: tf.Tensor, references: tf.Tensor, valid: Any, itself: Any
    ) -> tf.Tensor:
        pairs = Pairs.between(labels, others, valid, itself, tf.stop_gradient(anchors))
        return self.compare(pairs, anchors, references)


def as_labels(y_true: Any, argument: str = "y_true") -> tf.Tensor:
    """`[B]` labels of whatever type they have, `[B, 1]` is squeezed; or `[B, L]` booleans."""
    labels = tf.convert_to_tensor(y_true)
    if labels.dtype == tf.string:
        raise ValueError(
            f"{argument} holds strings: losses compare class numbers. Number the classes first, for example with "
            "numpy.unique(names, return_inverse=True)[1], keras.layers.StringLookup, or a tfdml Dataset's .labels."
        )
    rank = labels.shape.rank
    if rank == 1 or (is_multi_hot(labels) and labels.shape[1] != 1):
        return labels
    if rank is None or (rank == 2 and labels.shape[1] in (1, None)):
        return tf.reshape(labels, [-1])
    raise ValueError(
        f"{argument} has shape {tuple(labels.shape)}: expected one class number per embedding, [B] or [B, 1]. "
        f"One-hot labels: pass tf.argmax({argument}, -1). Several labels per item: pass booleans, tf.cast({argument}, tf.bool)."
    )


def as_embeddings(y_pred: Any, argument: str = "y_pred") -> tf.Tensor:
    """`[B, D]` embeddings, float32 or float64."""
    embeddings = as_float(y_pred)
    if embeddings.shape.rank not in (2, None):
        raise ValueError(
            f"{argument} has shape {tuple(embeddings.shape)}: expected embeddings [B, D]. "
            "End the model with a pooling, Flatten or Dense layer."
        )
    return embeddings


def attach_slopes(distances: tf.Tensor, values: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    """`values` `[B]`, with `slopes[a, j]` as the derivative of `values[a]` by `distances[a, j]`."""

    @tf.custom_gradient
    def attached(_: tf.Tensor) -> Any:
        return tf.identity(values), lambda g: g[:, None] * slopes

    return attached(distances)


def mean_over(values: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """`[B]` values whose mean is sum(values) / count, and 0 where the count is."""
    batch = tf.cast(tf.shape(values)[0], values.dtype)
    return values * tf.math.divide_no_nan(batch, count)


class _Reduce(keras.losses.Loss):
    """Keras's own reduction of the values it is given, whatever the version does for distribution strategies."""

    def __init__(self, reduction: str, dtype: Any) -> None:
        super().__init__(reduction=reduction, name="reduce")
        self._dtype = dtype.name

    @property
    def dtype(self) -> Any:
        return self._dtype

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


def nan_unless_finite(values: tf.Tensor, *embeddings: tf.Tensor) -> tf.Tensor:
    """`values`, or NaN if any embedding is not finite."""
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in embeddings])
    return values * tf.where(finite, tf.ones([], values.dtype), tf.constant(float("nan"), values.dtype))


def _same_length(labels: tf.Tensor, embeddings: tf.Tensor, name: str, of: str) -> list[Any]:
    known = labels.shape[0], embeddings.shape[0]
    if None in known:
        check = tf.debugging.assert_equal(
            tf.shape(labels)[0], tf.shape(embeddings)[0], f"{name} and {of}: expected one label per embedding."
        )
        return [] if check is None else [check]
    if known[0] != known[1]:
        raise ValueError(f"{name} has {known[0]} labels and {of} {known[1]} embeddings: expected one label per embedding.")
    return []


def _check_comparable(labels: tf.Tensor, anchors: tf.Tensor, others: tf.Tensor, references: tf.Tensor) -> None:
    if is_multi_hot(labels) != is_multi_hot(others):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and reference_labels {tuple(others.shape)}: expected class numbers for "
            "both, [B] and [M], or booleans for both, [B, L] and [M, L]."
        )
    if is_multi_hot(labels) and not labels.shape[1:].is_compatible_with(others.shape[1:]):
        raise ValueError(
            f"labels have {labels.shape[1]} columns and reference_labels {others.shape[1]}: expected one for each label."
        )
    if not anchors.shape[1:].is_compatible_with(references.shape[1:]):
        raise ValueError(
            f"references have {references.shape[1]} dimensions: expected those of the embeddings, {anchors.shape[1]}."
        )


def _flags(valid: Any, references: tf.Tensor) -> tf.Tensor:
    valid = tf.convert_to_tensor(valid)
    if valid.dtype != tf.bool or valid.shape.rank not in (1, None):
        raise ValueError(f"valid is {valid.dtype.name} of shape {tuple(valid.shape)}: expected one boolean per reference, [M].")
    if not valid.shape.is_compatible_with(references.shape[:1]):
        raise ValueError(f"valid has {valid.shape[0]} entries for {references.shape[0]} references: expected one for each.")
    return valid


def _places(itself: Any, anchors: tf.Tensor) -> tf.Tensor:
    places = tf.convert_to_tensor(itself)
    if not places.dtype.is_integer or places.shape.rank not in (1, None):
        raise ValueError(
            f"itself is {places.dtype.name} of shape {tuple(places.shape)}: expected the number of a reference for each "
            "anchor, [B] integers, or -1 for none."
        )
    if not places.shape.is_compatible_with(anchors.shape[:1]):
        raise ValueError(f"itself has {places.shape[0]} entries for {anchors.shape[0]} anchors: expected one for each.")
    return places


def not_empty(x: tf.Tensor) -> tf.Tensor:
    """One item of zeros in place of none: under a distribution strategy a replica can be left without any."""
    if x.shape[0] not in (None, 0):
        return x
    missing = tf.cast(tf.equal(tf.shape(x)[0], 0), tf.int32)
    return tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))


def _as_weights(sample_weight: Any, values: tf.Tensor) -> tf.Tensor:
    weights = tf.cast(tf.convert_to_tensor(sample_weight), values.dtype)
    if weights.shape.rank == 0:
        return weights
    if weights.shape.rank in (1, None) or (weights.shape.rank == 2 and weights.shape[1] in (1, None)):
        return tf.reshape(weights, [-1])
    raise ValueError(f"sample_weight has shape {tuple(weights.shape)}: expected one weight per anchor, [B] or [B, 1].")
