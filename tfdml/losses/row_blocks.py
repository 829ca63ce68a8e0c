"""Losses on pairs for batches and memories whose matrix of pairs does not fit: some anchors at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfdml.losses.base import PairLoss
from tfdml.losses.sums import SumLoss
from tfdml.losses.two_tower import as_pair_loss
from tfdml.mining.pairs import Pairs


@keras.saving.register_keras_serializable(package="tfdml")
class RowBlocks(PairLoss):
    """Any loss on pairs whose anchors can be taken one after the other, computed for `rows` anchors at a time.

    Value and gradient are those of `loss`, but matrices are `[rows, B]` in place of `[B, B]`, and only one block's stand in
    memory at a time: what a block needs for its gradient is computed again when the gradient is taken. For very large batches,
    and, inside `CrossBatchMemory` or `TwoTowerLoss` or as `between`, for very many references.

    Anchors may be tied together by nothing but what their sum is divided by, which is added up over the blocks first. That
    holds for all losses on pairs of `tfdml.losses`, with these exceptions, which raise: `LiftedStructureLoss` in its original
    variant, where a pair weighs as much as the negatives of both items make it; N-pair with `positives="one"`; and explicit
    pairs and triplets, whose memory is O(B) anyway. Mining that draws (`"random"`, `DistanceWeighted`) draws other negatives
    than without blocks, from the same distribution. Gradients of the gradient cannot be taken.

    Args:
        loss: a `tfdml.losses.SumLoss`, such as `TripletLoss()` or `NTXentLoss()`. Its own reduction does not matter.
        rows: anchors in a block. A block takes some ten to twenty matrices `[rows, B]` of 4 bytes an entry.
        reduction: see `EmbeddingLoss`.
        name: name of the loss.

    Shapes: as those of `loss`.

    Raises:
        TypeError: `loss` is not a loss on pairs.
        ValueError: a loss that cannot be taken apart, or a number that is not allowed.

    >>> import tensorflow as tf
    >>> from tfdml.losses import NTXentLoss
    >>> x = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> print(f"{RowBlocks(NTXentLoss(temperature=0.1), rows=2)([7, 7, 8, 8], x).numpy():.4f}")
    0.9668
    """

    def __init__(
        self,
        loss: Any,
        rows: int = 1024,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "row_blocks",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        self.loss: Any = as_pair_loss(loss)
        tie = self.loss.tied_by if isinstance(self.loss, SumLoss) else "it is not a tfdml.losses.SumLoss; derive it from that"
        if tie:
            raise ValueError(f"loss={type(self.loss).__name__}(...): its anchors cannot be taken one after the other: {tie}.")
        if isinstance(rows, bool) or not hasattr(rows, "__index__") or rows < 1:
            raise ValueError(f"rows={rows!r}: expected an integer >= 1, how many anchors to handle at a time.")
        self.rows = int(rows)

    def per_anchor(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        itself = tf.range(tf.shape(embeddings)[0])
        return self._between(labels, embeddings, labels, embeddings, None, itself)

    def compare(self, pairs: Pairs, anchors: tf.Tensor, references: tf.Tensor | None) -> tf.Tensor:
        # Whoever has all pairs at hand has no need of blocks.
        return self.loss.compare(pairs, anchors, references)

    def get_config(self) -> dict[str, Any]:
        return {"loss": keras.saving.serialize_keras_object(self.loss), "rows": self.rows, **super().get_config()}

    def _between(
        self, labels: tf.Tensor, anchors: tf.Tensor, others: tf.Tensor, references: tf.Tensor, valid: Any, itself: Any
    ) -> tf.Tensor:
        cut = _Blocks(anchors, self.rows)
        labels, itself = cut.pad(labels), None if itself is None else cut.pad(tf.cast(itself, tf.int32), -1)

        def sums(block: tf.Tensor, anchors: tf.Tensor, references: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """`[parts, rows]` values and counts, 0 where a block goes beyond the batch."""
            place = None if itself is None else cut.take(itself, block)
            pairs = Pairs.between(cut.take(labels, block), others, valid, place, tf.stop_gradient(anchors))
            parts = self.loss.sums(pairs, anchors, references)
            inside = cut.inside(block)
            kept = [[tf.where(inside, x, tf.zeros_like(x)) for x in part] for part in parts]
            return tf.stack([values for values, _ in kept]), tf.stack([tf.stop_gradient(counts) for _, counts in kept])

        return _in_blocks(sums, cut, anchors, references)


Sums = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class _Blocks:
    """`[B, ...]` in blocks of equally many rows, the last of which may go beyond the end."""

    def __init__(self, x: tf.Tensor, rows: int) -> None:
        known = x.shape[0]
        self.batch: Any = tf.shape(x)[0] if known is None else known
        self.rows: Any = tf.minimum(rows, self.batch) if known is None else min(rows, known)
        self.count: Any = -(-self.batch // self.rows)

    def pad(self, x: tf.Tensor, value: int = 0) -> tf.Tensor:
        missing = [[0, self.count * self.rows - self.batch]] + [[0, 0]] * (x.shape.rank - 1)
        return tf.pad(x, missing, constant_values=tf.cast(value, x.dtype))

    def take(self, x: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
        rest = x.shape.rank - 1
        taken = tf.slice(x, tf.stack([block * self.rows] + [0] * rest), tf.stack([self.rows] + [-1] * rest))
        return tf.ensure_shape(taken, self.shape_of(x))

    def shape_of(self, x: tf.Tensor) -> list[Any]:
        """That of a block of x, as far as it is known."""
        return [self.rows if isinstance(self.rows, int) else None, *x.shape[1:]]

    def inside(self, block: tf.Tensor) -> tf.Tensor:
        return block * self.rows + tf.range(self.rows) < self.batch


def _in_blocks(sums: Sums, cut: _Blocks, anchors: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """`[B]` values. The gradient computes every block again: a loop that is differentiated would keep all of them."""
    dtype = anchors.dtype

    @tf.custom_gradient
    def blocked(anchors: tf.Tensor, references: tf.Tensor) -> Any:
        padded = cut.pad(anchors)

        def forward(block: tf.Tensor) -> tf.Tensor:
            return tf.stack(sums(block, cut.take(padded, block), references))

        # [blocks, 2, parts, rows]
        each = tf.map_fn(forward, tf.range(cut.count), fn_output_signature=dtype, parallel_iterations=1)
        values, counts = tf.unstack(tf.transpose(each, [1, 2, 0, 3]), 2)
        factors = tf.math.divide_no_nan(tf.cast(cut.batch, dtype), tf.reduce_sum(counts, [1, 2]))
        result = tf.reshape(tf.reduce_sum(factors[:, None, None] * values, 0), [-1])[: cut.batch]

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            weights = cut.pad(g)

            def backward(block: tf.Tensor, of_anchors: Any, of_references: tf.Tensor) -> Any:
                own = cut.take(padded, block)
                with tf.GradientTape() as tape:
                    tape.watch([own, references])
                    values, _ = sums(block, own, references)
                slopes = factors[:, None] * cut.take(weights, block)
                to_own, to_references = tape.gradient(values, [own, references], slopes, tf.UnconnectedGradients.ZERO)
                return block + 1, of_anchors.write(block, to_own), of_references + tf.convert_to_tensor(to_references)

            start = (0, tf.TensorArray(dtype, cut.count, element_shape=cut.shape_of(padded)), tf.zeros_like(references))
            _, of_anchors, of_references = tf.while_loop(
                lambda block, *_: block < cut.count, backward, start, parallel_iterations=1, maximum_iterations=cut.count
            )
            return tf.reshape(of_anchors.stack(), tf.shape(padded))[: cut.batch], of_references

        return result, gradient

    return blocked(anchors, references)
