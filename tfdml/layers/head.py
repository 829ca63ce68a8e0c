"""What all heads share: exact class numbers, float32 inside, one value per anchor."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_count, check_positive
from tfdml._compat import FIRST_REPLICA, rows_of
from tfdml.layers._class_sample import draw_classes
from tfdml.mining.draws import check_seed
from tfdml.replicas import gather, weighed


class Head(keras.layers.Layer, abc.ABC):
    """Base class of the heads: layers with class weights that train an encoder, and stay behind when it is exported.

    A head is called with `(embeddings, labels)`. There are two kinds: a `ClassifierHead` returns logits `[B, C]`, for Keras's
    `SparseCategoricalCrossentropy(from_logits=True)`; the others return the loss of each anchor, `[B]`, whose mean is the loss
    of the batch. Either is used in one of two ways:

    - as the objective of an `EmbeddingModel`, which then needs no other loss:
      `tfdml.EmbeddingModel(encoder, head=tfdml.layers.ArcFace(num_classes))`. Its output stays the embedding;
    - as a layer of a functional model with two inputs, images and labels. A head that returns its loss is compiled with
      `loss=lambda _, values: values`. For the export, take `keras.Model(images, embedding)`.

    Under a distribution strategy, what compares items with each other sees the batch of all replicas (`tfdml.replicas.gather`):
    loss, gradients and state are those of one replica with the same batch.

    Labels are integers, 0 to `num_classes - 1`. Others raise; where assertions are not compiled (XLA, `jit_compile=True`) they
    make the loss NaN.

    Heads compute in float32, whatever the global policy: half precision is too coarse for the differences between the logits
    of a scaled softmax. `dtype="float64"` stays.

    Class weights begin short, at `initial_length`. All heads but `IdentificationVerification` bring them to length 1 before
    use, so that the length changes no value, only how far one step of the optimiser turns them: with Adam by about
    rate * sqrt(D) / length. An encoder's rate, 0.001, turns weights of length 1 too slowly for a short
    training. Other libraries give class weights an optimiser of their own with a larger rate; beginning short does the same
    under Keras's one optimiser. Each step makes them a little longer, so that they settle by themselves. Smaller rates want
    shorter beginnings; SGD, whose steps turn weights in proportion to 1 / length^2, wants longer ones: 0.2 to 1 at a rate of
    0.1.

    Args:
        num_classes: number of classes C, at least 2.
        initial_length: about how long each class's weights are before training.
        **kwargs: those of `keras.layers.Layer`.
    """

    uses_length = False
    """Whether the lengths of the embeddings matter, so that a model must not normalise them."""

    def __init__(self, num_classes: int | None, initial_length: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": full_precision(kwargs.get("dtype"))})
        check_positive("initial_length", initial_length)
        self.initial_length = initial_length
        # None is for a subclass that can do without class weights.
        hint = "e.g. a tfdml Dataset's .num_classes"
        self.num_classes: Any = None if num_classes is None else check_count("num_classes", num_classes, 2, hint)

    @abc.abstractmethod
    def per_anchor(self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """`[B, D]` embeddings and `[B]` labels to `[B]` values, whose mean is the loss of the batch."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes, "initial_length": self.initial_length}

    def add_class_weights(self, dimension: int, rows: int | None = None, name: str = "kernel") -> Any:
        """`[C, D]` (or `[rows, D]`) trainable weights. Rows begin at `initial_length`, however many there are."""
        scale = self.initial_length**2
        initializer = keras.initializers.VarianceScaling(scale, mode="fan_out", distribution="untruncated_normal")
        return self.add_weight(name=name, shape=(rows or self.num_classes, dimension), initializer=initializer)

    def classes(self, labels: Any) -> tf.Tensor:
        """The labels as `[B]` class numbers, checked."""
        return as_classes(labels, self.num_classes)


class ClassifierHead(Head):
    """Base class of the heads that return logits `[B, C]`; its objective is their cross-entropy.

    A subclass implements `logits_for`, and its weights are `kernel`, `sub_centers` rows for each class.

    **Very many classes.** With `sampled_classes=S`, a training step looks at S classes in place of all C: those of the batch,
    all of them, and others drawn at random, uniformly and without repetition. The loss is the cross-entropy over these S alone,
    without a correction for what was left out, as in An et al., "Partial FC: Training 10 Million Identities on a Single
    Machine", ICCV Workshops 2021, who find a tenth of the classes as good as all of them. The S rows of weights are read,
    brought to length 1 and given a gradient, a `tf.IndexedSlices`, and no others: time and memory of a step do not grow with C.
    But most optimizers of Keras would turn that into a matrix `[C, D]`, or let the moments of all rows decay: take
    `tfdml.optimizers.LazyAdam` or `LazySGD`.

    The classes are drawn from `seed` and a count of steps, which is saved with the weights: the same seed gives the same
    training, and one that goes on does not begin anew. S is at least the number of items in the batch. Under a distribution
    strategy the batch is that of all replicas, which all have the same sample.

    The sample is for the objective, `per_anchor(..., training=True)`, which is what an `EmbeddingModel` trains with. Without
    `training`, and in a call of the layer, logits are those of all classes.

    Args:
        num_classes: number of classes C.
        sampled_classes: S, from 2 to C. None: all classes, in every step.
        seed: an integer of 32 bits. Does nothing without `sampled_classes`.
        **kwargs: those of `Head`.

    Raises:
        ValueError: arguments or labels out of range; a call with labels and `training=True`, if classes are sampled.
    """

    sub_centers = 1
    kernel: Any

    def __init__(self, num_classes: int, sampled_classes: int | None = None, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.sampled_classes = _check_sampled(sampled_classes, self.num_classes)
        self.seed = check_seed(seed)

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_class_weights(input_shape[-1], rows=self.num_classes * self.sub_centers)
        if self.sampled_classes is not None:
            self.draws = add_state(self, "draws", (), "int64")
        self.built = True

    def call(self, embeddings: tf.Tensor, labels: tf.Tensor | None = None, training: bool | None = None) -> tf.Tensor:
        own = None if labels is None else self.classes(labels)
        if not training or own is None:
            return self.logits_for(embeddings, self.kernel, None)
        if self.sampled_classes is not None:
            raise ValueError(
                f"sampled_classes={self.sampled_classes}: in training this layer has no logits of all "
                f"{self.num_classes} classes. Train by its objective: EmbeddingModel(encoder, head=head), or "
                "head.per_anchor(embeddings, labels, training=True) in a loop of your own."
            )
        return self.logits_for(embeddings, self.kernel, own)

    @abc.abstractmethod
    def logits_for(self, embeddings: tf.Tensor, weights: Any, own: tf.Tensor | None) -> tf.Tensor:
        """Logits `[B, N]` of N classes.

        Args:
            embeddings: `[B, D]`.
            weights: `[N * sub_centers, D]`, those of the classes.
            own: `[B]`, which of the N is the class of each embedding, in training; else None.
        """

    def per_anchor(self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if training and self.sampled_classes is not None:
            return self._over_sample(tf.convert_to_tensor(embeddings), self.classes(labels), self.sampled_classes)
        logits = self(embeddings, labels, training=training)
        return weighed(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=self.classes(labels), logits=logits))

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> Any:
        return (input_shape[0], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sampled_classes": self.sampled_classes, "seed": self.seed}

    def _over_sample(self, embeddings: tf.Tensor, labels: tf.Tensor, size: int) -> tf.Tensor:
        if not self.built:
            self.build(embeddings.shape)
        # Where XLA has left the check of labels out, they must not lead anywhere.
        inside = tf.clip_by_value(labels, 0, self.num_classes - 1)
        step = tf.convert_to_tensor(self.draws)
        self.draws.assign(step + 1)
        everything = gather(inside)
        sample = draw_classes(everything.tensors[0], size, self.num_classes, self.seed, step)
        own = everything.rows(sample.own)
        rows = sample.classes
        if self.sub_centers > 1:
            rows = tf.reshape(rows[:, None] * self.sub_centers + tf.range(self.sub_centers, dtype=rows.dtype), [-1])
        logits = self.logits_for(tf.cast(embeddings, self.compute_dtype), rows_of(self.kernel, rows), own)
        values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=own, logits=logits)
        return everything.scaled(nan_outside(values, labels, self.num_classes))


def _check_sampled(sampled_classes: Any, num_classes: int) -> int | None:
    if sampled_classes is None:
        return None
    hint = f"at most num_classes={num_classes}, or None for all of them in every step"
    count = check_count("sampled_classes", sampled_classes, 2, hint)
    if count > num_classes:
        raise ValueError(f"sampled_classes={count}: expected an integer >= 2, {hint}.")
    return count


def full_precision(dtype: Any) -> str:
    """`"float64"` if a layer was asked for it, else `"float32"`."""
    if isinstance(dtype, Mapping):
        dtype = dtype.get("config", {}).get("name")
    return "float64" if getattr(dtype, "name", dtype) == "float64" else "float32"


def as_classes(labels: Any, num_classes: int | None, argument: str = "labels") -> tf.Tensor:
    """`[B]` int64 numbers below `num_classes`; `[B, 1]` is squeezed. Numbers out of range raise, except under XLA."""
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer:
        raise ValueError(
            f"{argument} are {labels.dtype.name}: a head needs class numbers, as integers. Number the classes first, for "
            "example with numpy.unique(names, return_inverse=True)[1], or take a tfdml Dataset's .labels; "
            "an input layer of labels is keras.Input((), dtype='int64')."
        )
    if labels.shape.rank not in (1, None) and not (labels.shape.rank == 2 and labels.shape[1] in (1, None)):
        raise ValueError(
            f"{argument} have shape {tuple(labels.shape)}: expected one number per embedding, [B] or [B, 1]. "
            "One-hot labels: pass tf.argmax(labels, -1)."
        )
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int64)
    if num_classes is None:
        return labels
    expected = (
        f"expected integers from 0 to {num_classes - 1}, one for each of the classes that the layer was made for. "
        "Classes that were never trained on have no weights: judge them by retrieval, e.g. with RetrievalCallback."
    )
    inside = in_range(labels, num_classes)
    if tf.executing_eagerly():
        if not tf.reduce_all(inside):
            wrong = tf.boolean_mask(labels, ~inside)[0].numpy()
            raise ValueError(f"{argument} contain {wrong}: {expected}")
        return labels
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(inside), [f"{argument}: {expected} Received:", labels])]):
        return tf.identity(labels)


def in_range(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    return (labels >= 0) & (labels < num_classes)


def nan_outside(values: tf.Tensor, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """`[B]` values, NaN where a label is out of range: what is left of the check under XLA."""
    return tf.where(in_range(labels, num_classes), values, tf.constant(float("nan"), values.dtype))


def add_state(layer: keras.layers.Layer, name: str, shape: tuple[int, ...], dtype: str, initializer: Any = "zeros") -> Any:
    """A weight that is saved and not trained. Replicas keep one value of it, that of the first."""
    return layer.add_weight(
        name=name, shape=shape, dtype=dtype, initializer=initializer, trainable=False, aggregation=FIRST_REPLICA
    )
