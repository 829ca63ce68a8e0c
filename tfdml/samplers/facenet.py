"""FaceNet's large batches: many faces of some people, and random others."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdml.samplers._arguments import check_integer
from tfdml.samplers.permutation import hashed, permuted_positions
from tfdml.samplers.pk import PKSampler


class FaceNetSampler(PKSampler):
    """Large batches of P classes with up to K items each, filled up with items of any other classes.

    F. Schroff, D. Kalenichenko, J. Philbin, FaceNet, CVPR 2015: about 1,800 faces in a batch, about 40 of each person among
    them, and randomly drawn other faces as further negatives; the defaults make 36 x 40 + 360 = 1,800. How many of each kind
    the paper does not say. For semi-hard triplets: `TripletLoss(mining="semi_hard", distance="squared_euclidean")`.

    The P classes walk through all classes, and their items through all items, as in `PKSampler`. A class with fewer than K
    items shows each of them once; what is missing is filled with random negatives too. Random negatives are drawn evenly from
    all items of classes other than the P, distinct as far as there are enough. Rows: P x K, class by class, then the negatives.
    Shards get P / n of the classes and 1 / n of the negatives each; together they are the whole batch, in another order.

    Args:
        labels: one label per item, `[N]`, as in `PKSampler`.
        classes: P, of which there are up to K items in a batch; fewer than there are classes, unless nothing is to be filled.
        examples: K.
        negatives: random negatives in a batch.
        seed: from 0 to 2^64 - 1.

    Raises:
        TypeError, ValueError: as `PKSampler`; negatives where the P classes are all that there are.

    Example:

    >>> sampler = FaceNetSampler([0] * 9 + [1] * 2 + [2] * 5 + [3] * 30, classes=2, examples=4, negatives=4)
    >>> sampler
    FaceNetSampler(items=46, classes=2 of 4, examples=4, negatives=4, seed=0, steps_per_epoch=2)
    >>> sampler.batch_at(0)[0].shape
    (12,)
    """

    def __init__(self, labels: Any, classes: int = 36, examples: int = 40, negatives: int = 360, seed: int = 0) -> None:
        super().__init__(labels, classes, examples, seed, small_classes="repeat")
        self.negatives = check_integer("negatives", negatives, 0)
        smallest = int(tf.reduce_min(self._tables.sizes))
        if self.classes == self.num_classes and (self.negatives or smallest < self.examples):
            raise ValueError(
                f"classes={classes} are all classes that there are, so there are no others to draw "
                + (f"negatives={negatives} from." if self.negatives else f"from for classes of less than {examples} items.")
                + f" Pass classes={self.num_classes - 1} or less."
            )

    @property
    def batch_size(self) -> int:
        """P x K and the random negatives: the rows of a batch."""
        return self.classes * self.examples + self.negatives

    def __repr__(self) -> str:
        return (
            f"FaceNetSampler(items={self.num_items}, classes={self.classes} of {self.num_classes}, examples={self.examples}, "
            f"negatives={self.negatives}, seed={self.seed}, steps_per_epoch={self.steps_per_epoch})"
        )

    def _draw(self, steps: Any, shard_index: int, num_shards: int) -> tuple[Any, Any]:
        indices, labels = super()._draw(steps, 0, 1)
        numbers, _, _ = self._class_numbers(steps, 0, 1)
        sizes = tf.cast(tf.gather(self._tables.sizes, numbers), tf.int64)
        missing = tf.reshape(tf.range(self.examples, dtype=tf.int64) >= sizes[:, :, None], tf.shape(indices))
        indices, labels, missing = (tf.pad(part, [[0, 0], [0, self.negatives]]) for part in (indices, labels, missing))
        missing |= tf.range(self.batch_size) >= self.classes * self.examples

        others, other_labels = self._of_other_classes(steps, numbers, sizes, missing)
        indices, labels = tf.where(missing, others, indices), tf.where(missing, other_labels, labels)
        shard = self._shard(shard_index, num_shards)
        return tf.gather(indices, shard, axis=1), tf.gather(labels, shard, axis=1)

    def _of_other_classes(self, steps: Any, numbers: Any, sizes: Any, missing: Any) -> tuple[Any, Any]:
        """For every row (those that are not missing included) an item of a class not among `numbers`, and its label."""
        starts = tf.cast(tf.gather(self._tables.starts, numbers), tf.int64)
        order = tf.argsort(starts, axis=1)
        starts, sizes = tf.gather(starts, order, batch_dims=1), tf.gather(sizes, order, batch_dims=1)
        skipped = tf.cumsum(sizes, axis=1)
        count = tf.maximum(self.num_items - skipped[:, -1:], 1)

        number = tf.cumsum(tf.cast(missing, tf.int64), axis=1, exclusive=True)
        key = hashed(hashed(tf.constant(self.seed, tf.uint64)), 3, steps[:, None])
        place = permuted_positions(number % count, count, key)
        # Of the chosen classes' blocks, those that begin before a place push it on.
        passed = tf.searchsorted(starts - (skipped - sizes), place, side="right", out_type=tf.int64)
        place += tf.gather(tf.pad(skipped, [[0, 0], [1, 0]]), passed, batch_dims=1)
        place = tf.minimum(place, self.num_items - 1)

        all_starts = self._tables.starts
        flat = tf.cast(tf.reshape(place, [-1]), all_starts.dtype)
        classes = tf.reshape(tf.searchsorted(all_starts, flat, side="right", out_type=tf.int64) - 1, tf.shape(place))
        return tf.cast(tf.gather(self._tables.items, place), tf.int64), tf.gather(self._tables.labels, classes)

    def _shard(self, index: int, count: int) -> Any:
        rows, negatives = self.classes * self.examples, self.negatives // count
        own = tf.range(rows // count * index, rows // count * (index + 1))
        return tf.concat([own, rows + tf.range(negatives * index, negatives * (index + 1))], 0)

    def _check_split(self, num_shards: int) -> None:
        super()._check_split(num_shards)
        if self.negatives % num_shards:
            raise ValueError(
                f"num_shards={num_shards} does not divide negatives={self.negatives}: every shard holds as many. "
                f"Pass negatives={-(-self.negatives // num_shards) * num_shards}, say."
            )
