"""P x K batches: P classes, K examples of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdml._checks import check_choice
from tfdml.samplers._arguments import check_integer
from tfdml.samplers.base import Sampler, host_tensor
from tfdml.samplers.grouping import ClassGroups
from tfdml.samplers.permutation import hashed, permuted_positions


class _Tables(NamedTuple):
    """`ClassGroups` as eager tensors."""

    items: Any
    labels: Any
    starts: Any
    sizes: Any


class PKSampler(Sampler):
    """Batches of `classes` (P) classes with `examples` (K) items each, for every loss that compares within the batch.

    Every item then has K - 1 positives and (P - 1) K negatives in its batch: A. Hermans, L. Beyer, B. Leibe, In Defense of the
    Triplet Loss for Person Re-Identification, 2017.

    Batches are a pure function of (labels, seed, step), made of stock TensorFlow ops. Labels are sorted once; after that
    neither the cost of a batch nor the size of the graph depends on the number of classes. With C classes:

    - The P classes of a batch are distinct, and so are the K items of a class that has at least K.
    - A **round** is `steps_per_epoch` = ceil(C / P) batches, in a new random order of the classes each. It visits every class
      once; if P does not divide C, the last batch is filled up with classes of the batch before, drawn a second time.
    - A class of n items shows all of them within ceil(n / K) rounds, then starts again in a new order. Each visit takes the
      next K; the last visit of such an item round reaches back if K does not divide n. What fills up the last batch draws from
      elsewhere in the order, so that it brings other items than the same round's own visit (all it can, if n < 2 K).
    - Rows are ordered by class: labels read `a a a a b b b b ...`.

    Args:
        labels: one label per item, `[N]`: integers of any kind (negative, beyond 2^24, not dense) or strings. Integer labels
            come back as they were, as int64; strings as their position in `class_names`.
        classes: P, classes in a batch.
        examples: K, items of each class in a batch.
        seed: from 0 to 2^64 - 1. The same seed gives the same batches; the tests hold both TensorFlow versions to it.
        small_classes: what to do about classes with fewer than K items. `"repeat"`: all their items, then again from the start
            until there are K (as Hermans et al. do). `"drop"`: leave these classes out. `"error"`: refuse.

    Raises:
        TypeError: a wrong type, e.g. float labels.
        ValueError: labels are empty or not one-dimensional; fewer than P classes; small classes with `"error"`.

    Example:

    >>> sampler = PKSampler(["tea", "milk", "tea", "rye", "milk", "milk"], classes=2, examples=2, seed=1)
    >>> sampler
    PKSampler(items=6, classes=2 of 3, examples=2, seed=1, small_classes='repeat', steps_per_epoch=2)
    >>> indices, labels = sampler.batch_at(0)
    >>> indices.shape, labels.shape
    ((4,), (4,))
    >>> photographs = tf.random.uniform([6, 8, 8, 3])
    >>> images, labels = next(iter(sampler.dataset(lambda index: photographs[index])))
    >>> images.shape, labels.dtype
    (TensorShape([4, 8, 8, 3]), tf.int64)

    Train, and go on later where training stopped, with the very batches that an uninterrupted run would have seen:

    ```python
    steps = sampler.steps_per_epoch
    model.fit(sampler.dataset(load), steps_per_epoch=steps, epochs=5)
    model.fit(sampler.dataset(load, start_step=5 * steps), steps_per_epoch=steps, initial_epoch=5, epochs=10)
    ```
    In a loop of your own, `tf.train.Checkpoint(iterator=iterator, ...)` saves the position together with the model.
    """

    _split_by = "classes"

    def __init__(
        self,
        labels: Any,
        classes: int = 16,
        examples: int = 4,
        seed: int = 0,
        small_classes: str = "repeat",
    ) -> None:
        self.classes = check_integer("classes", classes, 1)
        self.examples = check_integer("examples", examples, 1)
        self.seed = check_integer("seed", seed, 0, 2**64 - 1)
        self.small_classes = check_choice("small_classes", small_classes, ["repeat", "drop", "error"])

        groups = _apply_policy(ClassGroups.from_labels(labels), self.examples, self.small_classes)
        if self.classes > groups.num_classes:
            with_enough = f" with at least examples={self.examples} items" if self.small_classes == "drop" else ""
            raise ValueError(
                f"classes={self.classes}: there are only {groups.num_classes} classes{with_enough}, and those of a batch are "
                f"distinct. Pass classes={groups.num_classes} or less"
                + (", fewer examples, or small_classes='repeat'." if with_enough else ".")
            )
        self.num_classes: int = groups.num_classes
        self.num_items: int = groups.num_items
        self.class_names: tuple[str, ...] | None = groups.class_names

        arrays = [groups.items, groups.labels, groups.starts, groups.sizes]
        del groups  # so that each array can go as soon as it is a tensor
        self._tables = _Tables(*[host_tensor(arrays.pop(0)) for _ in range(4)])

    @property
    def batch_size(self) -> int:
        """P x K, the rows of a batch."""
        return self.classes * self.examples

    @property
    def steps_per_epoch(self) -> int:
        """Batches in a round: ceil(number of classes / P). Within them every class is visited."""
        return -(-self.num_classes // self.classes)

    def __repr__(self) -> str:
        return (
            f"PKSampler(items={self.num_items}, classes={self.classes} of {self.num_classes}, examples={self.examples}, "
            f"seed={self.seed}, small_classes={self.small_classes!r}, steps_per_epoch={self.steps_per_epoch})"
        )

    def _draw(self, steps: Any, shard_index: int, num_shards: int) -> tuple[Any, Any]:
        """The batches of several `steps` (int64 `[S]`) as TensorFlow ops: indices and labels, int64 `[S, P*K / num_shards]`."""
        seed = hashed(tf.constant(self.seed, tf.uint64))
        numbers, rounds, extra = self._class_numbers(steps, shard_index, num_shards)
        sizes = tf.cast(tf.gather(self._tables.sizes, numbers), tf.int64)
        places = self._places(hashed(seed, 1, numbers), rounds, sizes, extra)
        starts = tf.cast(tf.gather(self._tables.starts, numbers), tf.int64)
        indices = tf.cast(tf.gather(self._tables.items, starts[:, :, None] + places), tf.int64)
        labels = tf.repeat(tf.gather(self._tables.labels, numbers), self.examples, axis=1)
        rows = self.classes // num_shards * self.examples
        return tf.reshape(indices, [-1, rows]), tf.reshape(labels, [-1, rows])

    def _class_numbers(self, steps: Any, shard_index: int, num_shards: int) -> tuple[Any, Any, Any]:
        """The classes of each batch, in which round they come, and whether that is a second time: `[S, P / num_shards]`."""
        width = self.classes // num_shards
        step_in_round = steps % self.steps_per_epoch
        rounds = tf.broadcast_to((steps // self.steps_per_epoch)[:, None], [tf.size(steps), width])

        # The last batch of a round ends with the order of the classes; what it shares with the batch before is extra.
        begin = tf.minimum(step_in_round * self.classes, self.num_classes - self.classes)
        positions = begin[:, None] + tf.range(shard_index * width, (shard_index + 1) * width, dtype=tf.int64)
        extra = positions < (step_in_round * self.classes)[:, None]
        key = hashed(hashed(tf.constant(self.seed, tf.uint64)), 0, rounds)
        return permuted_positions(positions, self.num_classes, key), rounds, extra

    def _places(self, class_keys: Any, rounds: Any, sizes: Any, extra: Any) -> Any:
        """Which of its items each class shows: places within the class, `[S, P, K]`, for rounds, sizes, extra `[S, P]`."""
        visits = (sizes + self.examples - 1) // self.examples
        item_round, visit = rounds // visits, rounds % visits
        visit = tf.where(extra, (visit + visits // 2) % visits, visit)
        first = tf.minimum(visit * self.examples, tf.maximum(sizes - self.examples, 0))
        sizes = sizes[:, :, None]
        ordered = (first[:, :, None] + tf.range(self.examples, dtype=tf.int64)) % sizes
        return permuted_positions(ordered, sizes, hashed(class_keys, item_round)[:, :, None])


def _apply_policy(groups: ClassGroups, examples: int, small_classes: str) -> ClassGroups:
    enough = groups if small_classes == "repeat" else groups.at_least(examples)
    if small_classes == "error" and enough is not groups:
        number = int(np.argmax(groups.sizes < examples))
        label = int(groups.labels[number])
        name = repr(groups.class_names[label]) if groups.class_names else str(label)
        raise ValueError(
            f"{groups.num_classes - enough.num_classes} classes have fewer than examples={examples} items, class {name} for "
            f"one: it has {groups.sizes[number]}. Pass small_classes='repeat' to show their items again, 'drop' to leave such "
            "classes out, or fewer examples."
        )
    return enough
