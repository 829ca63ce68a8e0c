"""Embeddings of the latest batches, kept as more negatives than a batch can hold."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml.layers.head import add_state, as_classes, check_count, full_precision


@keras.saving.register_keras_serializable(package="tfdml")
class CrossBatchMemory(keras.layers.Layer):
    """Keeps the embeddings and labels of the latest batches, first in first out, to compare the next batch with.

    Wang et al., "Cross-Batch Memory for Embedding Learning" (XBM), CVPR 2020: embeddings drift slowly after a first while of
    training, so those of earlier batches serve as further positives and negatives at the price of one matrix product.

    What is kept is a constant: no gradient flows into it. It is saved with the model. Under a distribution strategy every
    replica reads the same memory, which takes the first replica's batches.

    Args:
        size: number of embeddings kept. The paper keeps up to the whole training set.
        dimension: D, the length of an embedding.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: embeddings `[B, D]`, labels `[B]` integers; called with both, it returns `(references [size, D], labels [size],
    valid [size])`, the oldest first. `valid` is false in places that no embedding has taken yet. With `training=True` the batch
    is stored first, as in the paper, so the last B references are the batch itself.

    Raises:
        ValueError: a size or dimension that is not a positive integer, embeddings of another dimension, labels that are not
            integers, or another number of labels than of embeddings.

    Example:
        >>> import tensorflow as tf
        >>> memory = CrossBatchMemory(size=4, dimension=2)
        >>> references, labels, valid = memory(tf.ones([3, 2]), tf.constant([5, 6, 7]), training=True)
        >>> labels.numpy().tolist(), valid.numpy().tolist()
        ([0, 5, 6, 7], [False, True, True, True])
    """

    def __init__(self, size: int, dimension: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": full_precision(kwargs.get("dtype"))})
        self.size, self.dimension = check_count("size", size, 1), check_count("dimension", dimension, 1)
        self.build((None, self.dimension))

    def build(self, input_shape: Any) -> None:
        if input_shape[-1] != self.dimension:
            raise ValueError(f"embeddings have {input_shape[-1]} dimensions: expected dimension={self.dimension}, as given.")
        if getattr(self, "count", None) is None:
            self.embeddings = add_state(self, "embeddings", (self.size, self.dimension), self.compute_dtype)
            self.labels = add_state(self, "labels", (self.size,), "int64")
            self.count = add_state(self, "count", (), "int64")
        self.built = True

    def call(
        self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if training:
            self.push(embeddings, labels)
        return self.read()

    def push(self, embeddings: tf.Tensor, labels: tf.Tensor) -> None:
        """Stores a batch, in place of the oldest."""
        kept = tf.convert_to_tensor(self.embeddings)
        embeddings = tf.cast(tf.stop_gradient(tf.convert_to_tensor(embeddings)), kept.dtype)
        if embeddings.shape.rank != 2 or embeddings.shape[-1] != self.dimension:
            raise ValueError(f"embeddings have shape {tuple(embeddings.shape)}: expected [B, {self.dimension}].")
        classes = as_classes(labels, None)
        batch = tf.shape(embeddings)[0]
        check = tf.debugging.assert_equal(tf.shape(classes)[0], batch, "labels: expected one per embedding.")
        with tf.control_dependencies([] if check is None else [check]):
            both = tf.concat([kept, embeddings], 0)[-self.size :]
        self.embeddings.assign(tf.ensure_shape(both, [self.size, self.dimension]))
        both = tf.concat([tf.convert_to_tensor(self.labels), classes], 0)[-self.size :]
        self.labels.assign(tf.ensure_shape(both, [self.size]))
        count = tf.convert_to_tensor(self.count) + tf.cast(batch, tf.int64)
        self.count.assign(tf.minimum(count, self.size))

    def read(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """`(references [size, D], labels [size], valid [size])`, the oldest first."""
        valid = tf.range(self.size, dtype=tf.int64) >= self.size - tf.convert_to_tensor(self.count)
        return tf.convert_to_tensor(self.embeddings), tf.convert_to_tensor(self.labels), valid

    def compute_output_shape(self, *_: Any, **__: Any) -> Any:
        return (self.size, self.dimension), (self.size,), (self.size,)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "dimension": self.dimension}
