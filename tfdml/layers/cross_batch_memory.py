"""Embeddings of the latest batches, kept as more positives and negatives than a batch can hold."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_count, check_positive
from tfdml.layers.head import Head, add_state, as_classes
from tfdml.losses.two_tower import as_pair_loss
from tfdml.mining.pairs import is_multi_hot
from tfdml.replicas import gather


@keras.saving.register_keras_serializable(package="tfdml")
class CrossBatchMemory(Head):
    """Compares every batch with itself and with the latest batches, by any loss on pairs (XBM).

    loss(batch) + weight * loss(batch, memory)

    Wang, Zhang, Huang, Scott, "Cross-Batch Memory for Embedding Learning", CVPR 2020: after a first while of training
    embeddings drift slowly, so those of earlier batches are positives and negatives, too, at the price of one matrix product.

    The memory holds the latest `size` embeddings, first in first out, the batch itself among them; no anchor is its own
    positive there. What is kept is a constant: the gradient goes to the batch only. The memory is filled and used from step
    `start` on, as in the published code, and in training only; in evaluation the loss is that of the batch. An item may stand
    in memory several times, from several epochs: these are positive pairs.

    It is a `Head`, though it has no weights to train, only state. The state is saved with the model, so that training goes on
    where it was. An embedding that is not finite (as in a step that a loss-scale optimizer skips) is never kept. Under a
    distribution strategy all replicas hold the same memory, of the batches of all of them.

    Args:
        loss: a `tfdml.losses.PairLoss`, such as `ContrastiveLoss()` or `TripletLoss()`. Its own reduction does not matter.
            Where batch times memory do not fit: `RowBlocks(loss, rows)`.
        size: number of embeddings kept. The paper goes up to the whole training set.
        weight: of the memory's part, > 0.
        start: the training step from which the memory is used; earlier, embeddings change too fast.
        num_classes: only for items with several labels each: the number L of columns of the boolean labels `[B, L]`.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: embeddings `[B, D]`, labels `[B]` integers or `[B, L]` booleans; losses `[B]`, float32, whose mean is the loss.

    Raises:
        TypeError: `loss` is not a loss on pairs.
        ValueError: numbers that are not allowed, labels that are not integers, or shapes that do not fit.

    Example:
        >>> import tensorflow as tf, tfdml
        >>> memory = CrossBatchMemory(tfdml.losses.ContrastiveLoss(margin=1.0), size=4096, start=1000)
        >>> encoder = tfdml.models.conv_encoder((16, 16, 3), filters=(8, 8), dimension=4)
        >>> model = tfdml.EmbeddingModel(encoder, head=memory)
        >>> model.compile("adam")
        >>> images, labels = tf.zeros([6, 16, 16, 3], tf.uint8), tf.constant([0, 0, 1, 1, 2, 2])
        >>> history = model.fit(images, labels, batch_size=6, verbose=0)
    """

    def __init__(
        self,
        loss: Any,
        size: int,
        weight: float = 1.0,
        start: int = 0,
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        self.loss = as_pair_loss(loss)
        self.size = check_count("size", size, 1)
        check_positive("weight", weight)
        self.weight = weight
        self.start = check_count("start", start, 0)

    def build(self, input_shape: Any) -> None:
        labels = (self.size,) if self.num_classes is None else (self.size, self.num_classes)
        self.embeddings = add_state(self, "embeddings", (self.size, int(input_shape[-1])), self.compute_dtype)
        self.labels = add_state(self, "labels", labels, "int64" if self.num_classes is None else "bool")
        self.filled = add_state(self, "filled", (self.size,), "bool")
        self.step = add_state(self, "step", (), "int64")
        self.built = True

    def call(self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        embeddings, labels = self._checked(embeddings, labels)
        everything = gather(labels, embeddings)
        labels, embeddings = everything.tensors
        values = self.loss.of_batch(labels, embeddings)
        if not training:
            return everything.own(values)
        references, reference_labels, valid = after = self._with(embeddings, labels)
        itself = self.size - tf.shape(embeddings)[0] + tf.range(tf.shape(embeddings)[0])
        of_memory = self.loss.between(labels, embeddings, reference_labels, references, valid, tf.maximum(itself, -1))
        step = tf.convert_to_tensor(self.step)
        started = step >= self.start
        self._store(*(tf.where(started, new, old) for new, old in zip(after, self.read(), strict=True)))
        self.step.assign(step + 1)
        return everything.own(values + tf.where(started, self.weight * of_memory, tf.zeros([], of_memory.dtype)))

    def per_anchor(self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self(embeddings, labels, training=training)

    def push(self, embeddings: tf.Tensor, labels: tf.Tensor) -> None:
        """Stores a batch (of all replicas) in place of the oldest; for use by hand, as training does it by itself."""
        embeddings, labels = gather(*self._checked(embeddings, labels)).tensors
        self._store(*self._with(embeddings, labels))

    def read(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """References `[size, D]`, their labels `[size]` or `[size, L]`, and which places are filled `[size]`; oldest first.

        For use by hand: `references, reference_labels, valid = memory.read()`, then
        `loss.between(labels, embeddings, reference_labels, references, valid)`.
        """
        if not self.built:
            raise ValueError("The memory does not know the length of embeddings before it has seen one: call it or push first.")
        return (
            tf.convert_to_tensor(self.embeddings),
            tf.convert_to_tensor(self.labels),
            tf.convert_to_tensor(self.filled),
        )

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> Any:
        return (input_shape[0],)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "size": self.size,
            "weight": self.weight,
            "start": self.start,
        }

    def _checked(self, embeddings: Any, labels: Any) -> tuple[tf.Tensor, tf.Tensor]:
        embeddings = tf.cast(tf.convert_to_tensor(embeddings), self.compute_dtype)
        if embeddings.shape.rank != 2:
            raise ValueError(f"embeddings have shape {tuple(embeddings.shape)}: expected [B, D].")
        if not self.built:  # pushed by hand, before any step
            self.build(embeddings.shape)
        if not embeddings.shape[1:].is_compatible_with(self.embeddings.shape[1:]):
            raise ValueError(
                f"embeddings have shape {tuple(embeddings.shape)}: expected [B, {self.embeddings.shape[1]}], as the first had."
            )
        labels = self._labels(labels)
        check = tf.debugging.assert_equal(tf.shape(labels)[0], tf.shape(embeddings)[0], "labels: expected one per embedding.")
        with tf.control_dependencies([] if check is None else [check]):
            return embeddings, tf.identity(labels)

    def _labels(self, labels: Any) -> tf.Tensor:
        labels = tf.convert_to_tensor(labels)
        if self.num_classes is None:
            if is_multi_hot(labels) and labels.shape[1] != 1:
                raise ValueError(
                    f"labels are booleans of shape {tuple(labels.shape)}, several for each item: give the memory their number, "
                    f"CrossBatchMemory(..., num_classes={labels.shape[1]})."
                )
            return as_classes(labels, None)
        if not is_multi_hot(labels) or labels.shape[1] not in (self.num_classes, None):
            raise ValueError(
                f"labels are {labels.dtype.name} of shape {tuple(labels.shape)}: with num_classes={self.num_classes}, expected "
                f"booleans [B, {self.num_classes}]. For one label per item, leave num_classes out."
            )
        return labels

    def _with(self, embeddings: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What `read` would give if this batch had been stored."""
        embeddings = tf.stop_gradient(embeddings)
        good = tf.reduce_all(tf.math.is_finite(embeddings), 1)
        embeddings = tf.where(good[:, None], embeddings, tf.zeros([], embeddings.dtype))
        both = [
            tf.concat([old, new], 0)[-self.size :] for old, new in zip(self.read(), (embeddings, labels, good), strict=True)
        ]
        for part in both:
            part.set_shape([self.size, *part.shape[1:]])
        return both[0], both[1], both[2]

    def _store(self, embeddings: tf.Tensor, labels: tf.Tensor, filled: tf.Tensor) -> None:
        self.embeddings.assign(embeddings)
        self.labels.assign(labels)
        self.filled.assign(filled)
