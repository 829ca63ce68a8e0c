"""The head of DeepID2: who is it, and are these two the same?"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice, check_count, check_positive
from tfdml.distances import paired_distances, pairwise_distances
from tfdml.layers._thresholds import best_threshold
from tfdml.layers.head import Head, add_state
from tfdml.losses.base import mean_over, not_empty
from tfdml.replicas import gather

FORMS = ("l2", "l2+", "l2-", "l1", "cosine")
PAIRS = ("all", "consecutive")


@keras.saving.register_keras_serializable(package="tfdml")
class IdentificationVerification(Head):
    """DeepID2: a softmax over the classes, and a contrastive signal on pairs, together.

    per pair: Ident(i) + Ident(j) + weight * Verif(i, j),   Ident = cross-entropy of a dense layer with bias

    | verification | positive pair | negative pair |
    |---|---|---|
    | `"l2"` | 1/2 d^2 | 1/2 [m - d]_+^2 |
    | `"l2+"`, `"l2-"` | its positive half only | its negative half only |
    | `"l1"` | d_1 | [m - d_1]_+ |
    | `"cosine"` | 1/2 (1 - s)^2 | 1/2 s^2 |

    d is the Euclidean distance of f_i and f_j, d_1 the sum of their absolute differences, and s = sigmoid(w cos(f_i, f_j) + b)
    with trained w and b.

    Sun et al., "Deep Learning Face Representation by Joint Identification-Verification", NIPS 2014. The embedding receives both
    gradients, the softmax's weights only that of identification. Embeddings are not normalised:
    `EmbeddingModel(..., normalize=False)`.

    m is not trained by gradient: it is held fixed, and every `reset_every` training steps set anew to the threshold that
    errs least in telling the latest `window` pairs apart, where positive pairs and negative pairs weigh one half each. Margin,
    pairs and step are saved with the weights. While no threshold is better than none, m stays what it was.

    Args:
        num_classes: number of classes C.
        verification: the form of Verif, see above.
        weight: lambda. The paper's best is 0.05.
        pairs: `"all"`: every pair of the batch, where positive and negative pairs weigh one half each, for P x K batches;
            `"consecutive"`: items 0 and 1, 2 and 3, ..., as in the paper, for batches drawn as pairs.
        margin: m of the first steps.
        reset_every: training steps between two settings of m; 0 keeps `margin` for good.
        window: number of latest pairs that m is set by; `pairs="all"` sees each from both of its ends.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: embeddings `[B, D]`, labels `[B]`; losses `[B]`, float32, whose mean is half of the formula's mean over pairs.
    `logits(embeddings)` is the softmax's input `[B, C]`.

    Raises:
        ValueError: arguments or labels out of range.

    Example:
        >>> import tensorflow as tf
        >>> head = IdentificationVerification(num_classes=3)
        >>> head(tf.constant([[1.0, 0.0], [0.0, 1.0]]), tf.constant([0, 2]), training=True).shape
        TensorShape([2])
        >>> float(head.margin)
        1.0
    """

    uses_length = True

    def __init__(
        self,
        num_classes: int,
        verification: str = "l2",
        weight: float = 0.05,
        pairs: str = "all",
        margin: float = 1.0,
        reset_every: int = 200,
        window: int = 50_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        self.verification = check_choice("verification", verification, FORMS)
        self.pairs = check_choice("pairs", pairs, PAIRS)
        check_positive("weight", weight, allow_zero=True)
        check_positive("margin", margin)
        self.weight, self.first_margin = weight, margin
        self.reset_every = check_count("reset_every", reset_every, 0)
        self.window = check_count("window", window, 1)

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.num_classes), initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=(self.num_classes,), initializer="zeros")
        if self.verification == "cosine":
            self.slope = self.add_weight(name="slope", shape=(), initializer="ones")
            self.offset = self.add_weight(name="offset", shape=(), initializer="zeros")
        else:
            first = keras.initializers.Constant(self.first_margin)
            self.margin = add_state(self, "margin", (), self.compute_dtype, first)
            if self.reset_every:
                self.step = add_state(self, "step", (), "int64")
                self.pair_distances = add_state(self, "pair_distances", (self.window,), self.compute_dtype)
                # 1 = positive, -1 = negative, 0 = not taken yet, or an item beside itself.
                self.pair_kinds = add_state(self, "pair_kinds", (self.window,), "int32")
        self.built = True

    def call(self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        classes = self.classes(labels)
        identification = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=self.logits(embeddings))
        measured = self._all_pairs if self.pairs == "all" else self._consecutive_pairs
        everything = gather(classes, embeddings)
        classes, embeddings = everything.tensors
        values = measured(not_empty(embeddings), not_empty(classes), bool(training))[: tf.shape(classes)[0]]
        return everything.scaled(identification) + everything.own(0.5 * self.weight * values)

    def logits(self, embeddings: tf.Tensor) -> tf.Tensor:
        """`[B, C]`: the softmax's input."""
        return tf.matmul(embeddings, tf.convert_to_tensor(self.kernel)) + tf.convert_to_tensor(self.bias)

    def per_anchor(self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self(embeddings, labels, training=training)

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> Any:
        return (input_shape[0],)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "verification": self.verification,
            "weight": self.weight,
            "pairs": self.pairs,
            "margin": self.first_margin,
            "reset_every": self.reset_every,
            "window": self.window,
        }

    def _all_pairs(self, embeddings: tf.Tensor, classes: tf.Tensor, training: bool) -> tf.Tensor:
        """`[B]` values whose mean is half the mean over positive pairs plus half that over negative pairs."""
        if self.verification == "l1":
            distances = _city_block(embeddings)
        else:
            distances = pairwise_distances(embeddings, metric="cosine" if self.verification == "cosine" else "euclidean")
        dtype, batch = distances.dtype, tf.shape(classes)[0]
        same = tf.equal(classes[:, None], classes[None, :])
        others = ~tf.eye(batch, dtype=tf.bool)
        terms = self._terms(distances, same)
        values = tf.zeros_like(terms[:, 0])
        for kind in (same & others, ~same):
            kind_terms = tf.reduce_sum(tf.where(kind, terms, 0.0), 1)
            values += 0.5 * mean_over(kind_terms, tf.reduce_sum(tf.cast(kind, dtype)))
        if training:
            self._remember(distances, same, others)
        return values

    def _consecutive_pairs(self, embeddings: tf.Tensor, classes: tf.Tensor, training: bool) -> tf.Tensor:
        """`[B]` values whose mean is the mean over pairs. A last item without a partner has the value 0."""
        batch = tf.shape(classes)[0]
        even = batch - batch % 2
        a, b = embeddings[0:even:2], embeddings[1:even:2]
        if self.verification == "l1":
            distances = tf.reduce_sum(tf.abs(a - b), -1)
        else:
            distances = paired_distances(a, b, "cosine" if self.verification == "cosine" else "euclidean")
        same = tf.equal(classes[0:even:2], classes[1:even:2])
        # Each end holds the pair's term: half of it for each of two ends, times two since there are B / 2 pairs.
        values = tf.pad(tf.repeat(self._terms(distances, same), 2), [[0, batch - even]])
        if training:
            self._remember(distances, same, tf.ones_like(same))
        return mean_over(values, tf.cast(even, values.dtype))

    def _terms(self, distances: tf.Tensor, same: tf.Tensor) -> tf.Tensor:
        if self.verification == "cosine":
            slope, offset = tf.convert_to_tensor(self.slope), tf.convert_to_tensor(self.offset)
            target = tf.cast(same, distances.dtype)
            return 0.5 * tf.square(target - tf.sigmoid(slope * (1.0 - distances) + offset))
        gap = tf.nn.relu(tf.convert_to_tensor(self.margin) - distances)
        if self.verification == "l1":
            return tf.where(same, distances, gap)
        zeros = tf.zeros_like(distances)
        pull = zeros if self.verification == "l2-" else 0.5 * tf.square(distances)
        push = zeros if self.verification == "l2+" else 0.5 * tf.square(gap)
        return tf.where(same, pull, push)

    def _remember(self, distances: tf.Tensor, same: tf.Tensor, counted: tf.Tensor) -> None:
        """Stores the batch's pairs in place of the oldest, and from time to time sets the margin by all that are stored."""
        if self.verification == "cosine" or not self.reset_every:
            return
        kinds = tf.reshape(tf.where(counted, tf.where(same, 1, -1), 0), [-1])
        distances = tf.reshape(tf.stop_gradient(distances), [-1])
        kinds = tf.concat([tf.convert_to_tensor(self.pair_kinds), kinds], 0)[-self.window :]
        distances = tf.concat([tf.convert_to_tensor(self.pair_distances), distances], 0)[-self.window :]
        self.pair_kinds.assign(tf.ensure_shape(kinds, [self.window]))
        self.pair_distances.assign(tf.ensure_shape(distances, [self.window]))
        step = tf.convert_to_tensor(self.step) + 1
        self.step.assign(step)
        margin = tf.convert_to_tensor(self.margin)
        due = tf.equal(step % self.reset_every, 0)
        self.margin.assign(tf.cond(due, lambda: best_threshold(distances, kinds, margin), lambda: margin))


def _city_block(x: tf.Tensor) -> tf.Tensor:
    """`[B, B]` sums of absolute differences, row by row, so that B x B x D numbers never stand side by side."""

    @tf.custom_gradient
    def distances(x: tf.Tensor) -> Any:
        rows = tf.map_fn(lambda row: tf.reduce_sum(tf.abs(row - x), -1), x)

        def gradient(g: tf.Tensor) -> tf.Tensor:
            both = g + tf.transpose(g)
            return tf.map_fn(
                lambda row: tf.reduce_sum(row[1][:, None] * tf.sign(row[0] - x), 0), (x, both), fn_output_signature=x.dtype
            )

        return rows, gradient

    return distances(x)
