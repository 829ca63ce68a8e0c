"""N-pair batches, and hard negative class mining."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tfdml.samplers._arguments import check_integer
from tfdml.samplers.draws import uniform
from tfdml.samplers.permutation import hashed, permuted_positions
from tfdml.samplers.pk import PKSampler

LOOKAHEAD = 16
_NEVER = 2**63 - 1


class NPairSampler(PKSampler):
    """Batches of N classes with two items each, an anchor and its positive, from any classes or from hard ones.

    K. Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, NIPS 2016. Rows read `a a b b c c ...`, as
    `tfdml.losses.NPairLoss` wants them: the first of each two is the anchor.

    Without `candidates` this is `PKSampler(examples=2)`. With `candidates`, **hard negative class mining**: of that many
    classes two items each are embedded now and then; a batch starts with one of the classes and takes in, one by one, the class
    that most violates the triplet constraint with regard to those it has,

    max over chosen classes s of max(a_s . p_c - a_s . p_s,  a_c . p_s - a_c . p_c),

    with a and p the embeddings of a class's two items; equal ones at random. The two items of a chosen class that come into the
    batch are drawn anew. What is mined are classes, not images: single outliers do less harm.

    `HardClassMining`, a Keras callback, keeps the embeddings up to date; `refresh` does it in a loop of your own. Each refresh
    takes other candidates, all of them in turn, and each candidate is in turn the class that a batch starts with. A refresh
    counts from 16 steps later on, since batches are prepared ahead: so batches depend on (labels, seed, step, refreshes) and
    not on timing. Until the first one counts, classes are drawn as without mining. A batch costs O(N candidates D) and the
    state O(candidates D), whatever the number of classes.

    To resume, save `sampler.state` with the model (`tf.train.Checkpoint(model=model, state=sampler.state)`) and give
    `start_step`.

    Args:
        labels: one label per item, `[M]`, as in `PKSampler`.
        classes: N, classes in a batch.
        candidates: from how many classes the hard ones are chosen, N to the number of classes; `None`: no mining.
        seed: from 0 to 2^64 - 1.
        small_classes: what to do about classes with one item: `"drop"`, `"repeat"` or `"error"`.

    Raises:
        TypeError, ValueError: as `PKSampler`; `candidates` fewer than `classes` or more than there are.

    Example:

    >>> labels = np.arange(40) // 4
    >>> sampler = NPairSampler(labels, classes=3, candidates=10)
    >>> vectors = np.random.default_rng(0).normal(size=[40, 8]).astype("float32")
    >>> sampler.refresh(lambda indices: vectors[indices], step=0)
    >>> indices, drawn = sampler.batch_at(16)
    >>> bool((labels[indices] == drawn).all()), bool((drawn[::2] == drawn[1::2]).all()), len(set(drawn))
    (True, True, 3)
    """

    def __init__(
        self,
        labels: Any,
        classes: int = 60,
        candidates: int | None = None,
        seed: int = 0,
        small_classes: str = "drop",
    ) -> None:
        super().__init__(labels, classes, 2, seed, small_classes)
        self.candidates: int | None = None
        self.state: ClassEmbeddings | None = None
        if candidates is not None:
            self.candidates = check_integer("candidates", candidates, self.classes, self.num_classes)
            self.state = ClassEmbeddings(self.candidates)
            self._lookahead = LOOKAHEAD

    def __repr__(self) -> str:
        return (
            f"NPairSampler(items={self.num_items}, classes={self.classes} of {self.num_classes}, candidates={self.candidates}, "
            f"seed={self.seed}, small_classes={self.small_classes!r}, steps_per_epoch={self.steps_per_epoch})"
        )

    def refresh(self, embed: Callable[[NDArray[np.int64]], Any], step: int) -> None:
        """Embeds the next candidates; batches from `step + 16` on are mined with them.

        Args:
            embed: item indices, int64 `[2 * candidates]`, to their embeddings, `[2 * candidates, D]`.
            step: how many steps are done. At least 16 more than at the refresh before.

        Raises:
            ValueError: without `candidates`; refreshes too close; embeddings of another shape, or NaN.
        """
        if self.state is None:
            raise ValueError("candidates=None: this sampler mines no classes. Make it with candidates=..., say 500.")
        step = check_integer("step", step, 0)
        if not (newest := self.state.newest) <= step:
            raise ValueError(
                f"step={step}: the refresh before counts from step {newest} on, and there are two at most at a time. Refresh "
                f"every {LOOKAHEAD} steps or more."
            )
        numbers, items = self._candidates(self.state.refreshes)
        embeddings = np.asarray(embed(items.numpy().ravel()), np.float32)
        if embeddings.ndim != 2 or len(embeddings) != items.shape[0] * 2 or not np.isfinite(embeddings).all():
            raise ValueError(
                f"embed returned {'NaN or infinity in ' if embeddings.ndim == 2 else ''}shape {embeddings.shape} for "
                f"{items.shape[0] * 2} items: expected a finite vector for each, [{items.shape[0] * 2}, D]."
            )
        self.state.put(numbers, embeddings.reshape(items.shape[0], 2, -1), step + LOOKAHEAD)

    def _draw(self, steps: Any, shard_index: int, num_shards: int) -> tuple[Any, Any]:
        if self.state is None:
            return super()._draw(steps, shard_index, num_shards)
        there, numbers, embeddings = self.state.at(steps[0])
        return tf.cond(
            there,
            lambda: self._mined(steps[0], numbers, embeddings, shard_index, num_shards),
            lambda: super(NPairSampler, self)._draw(steps, shard_index, num_shards),
        )

    def _steps_at_once(self, num_shards: int) -> int:
        # Drawn one by one, mined batches follow a refresh without delay.
        return super()._steps_at_once(num_shards) if self.state is None else 1

    def _mined(self, step: Any, numbers: Any, embeddings: Any, shard_index: int, num_shards: int) -> tuple[Any, Any]:
        seed, count = hashed(tf.constant(self.seed, tf.uint64)), tf.size(numbers, out_type=tf.int64)
        start = permuted_positions(step % count, count, hashed(seed, 3, step // count))
        chosen = hardest_classes(embeddings[:, 0], embeddings[:, 1], start, self.classes, hashed(seed, 4, step))
        width = self.classes // num_shards
        chosen = tf.gather(numbers, chosen[shard_index * width : (shard_index + 1) * width])
        items = self._two_items(chosen, hashed(seed, 5, step, chosen))
        labels = tf.repeat(tf.gather(self._tables.labels, chosen), 2)
        return tf.reshape(items, [1, 2 * width]), labels[None]

    def _candidates(self, refresh: int) -> tuple[Any, Any]:
        """The classes whose turn it is, int64 `[C]`, and two items of each, `[C, 2]`."""
        seed, count = hashed(tf.constant(self.seed, tf.uint64)), self.candidates or 0
        in_round = -(-self.num_classes // count)
        begin = min(refresh % in_round * count, self.num_classes - count)
        positions = tf.range(begin, begin + count, dtype=tf.int64)
        numbers = permuted_positions(positions, self.num_classes, hashed(seed, 6, refresh // in_round))
        return numbers, self._two_items(numbers, hashed(seed, 7, refresh, numbers))

    def _two_items(self, numbers: Any, keys: Any) -> Any:
        sizes = tf.cast(tf.gather(self._tables.sizes, numbers), tf.int64)[:, None]
        places = permuted_positions(tf.range(2, dtype=tf.int64) % sizes, sizes, keys[:, None])
        starts = tf.cast(tf.gather(self._tables.starts, numbers), tf.int64)
        return tf.cast(tf.gather(self._tables.items, starts[:, None] + places), tf.int64)


class ClassEmbeddings(tf.Module):
    """What hard negative class mining knows: the candidates and their embeddings, the newest and the ones before.

    In variables, so that `tf.data` reads them and `tf.train.Checkpoint` saves them.
    """

    def __init__(self, candidates: int) -> None:
        super().__init__()
        with tf.device("CPU:0"):
            self._slots = [_Slot(candidates) for _ in range(2)]
            self._refreshes = tf.Variable(0, trainable=False, dtype=tf.int64)

    @property
    def refreshes(self) -> int:
        """How many there have been."""
        return int(self._refreshes.numpy())

    @property
    def newest(self) -> int:
        """From which step on the newest refresh counts; -1 if there has been none."""
        return max((int(slot.since.numpy()) for slot in self._slots if slot.since.numpy() != _NEVER), default=-1)

    def put(self, numbers: Any, embeddings: Any, since: int) -> None:
        """In the place of the older refresh."""
        slot = self._slots[self.refreshes % 2]
        slot.since.assign(_NEVER)  # nobody must see half of it
        slot.numbers.assign(numbers)
        slot.embeddings.assign(embeddings)
        slot.since.assign(since)
        self._refreshes.assign_add(1)

    def at(self, step: Any) -> tuple[Any, Any, Any]:
        """Whether there is a refresh that counts at `step`; the newest such: class numbers `[C]`, embeddings `[C, 2, D]`."""
        first, second = self._slots
        since = [tf.where(slot.since <= step, slot.since, -1) for slot in self._slots]
        numbers, embeddings = tf.cond(
            since[0] > since[1],
            lambda: (first.numbers.read_value(), first.embeddings.read_value()),
            lambda: (second.numbers.read_value(), second.embeddings.read_value()),
        )
        return tf.maximum(*since) >= 0, numbers, embeddings


class _Slot(tf.Module):
    def __init__(self, candidates: int) -> None:
        super().__init__()
        self.since = tf.Variable(_NEVER, trainable=False, dtype=tf.int64)
        self.numbers = tf.Variable(tf.zeros([candidates], tf.int64), trainable=False)
        shape = tf.TensorShape([candidates, 2, None])
        self.embeddings = tf.Variable(tf.zeros([candidates, 2, 1]), trainable=False, shape=shape)


def hardest_classes(anchors: Any, positives: Any, start: Any, count: int, key: Any) -> Any:
    """Greedily chooses `count` of C classes that violate the triplet constraint among each other.

    Args:
        anchors: `[C, D]`, an embedding of each class.
        positives: `[C, D]`, another of each.
        start: int64, the class to begin with.
        count: how many, at most C.
        key: uint64, decides between classes that violate it equally.

    Returns:
        int64 `[count]`, class positions in the order in which they were chosen.
    """
    own = tf.reduce_sum(anchors * positives, axis=1)
    classes = tf.size(own, out_type=tf.int64)
    none = tf.fill(tf.shape(own), tf.constant(-np.inf, own.dtype))

    def add(place: Any, chosen: Any, worst: Any, free: Any) -> tuple[Any, Any, Any, Any]:
        last = chosen[place - 1]
        as_negative = tf.linalg.matvec(positives, anchors[last]) - own[last]
        as_anchor = tf.linalg.matvec(anchors, positives[last]) - own
        worst = tf.maximum(worst, tf.maximum(as_negative, as_anchor))
        free = free & (tf.range(classes) != last)
        highest = tf.reduce_max(tf.where(free, worst, none))
        luck = uniform(key, place, tf.range(classes))
        following = tf.argmax(tf.where(free & (worst >= highest), luck, tf.constant(-1.0, tf.float64)))
        return place + 1, tf.tensor_scatter_nd_update(chosen, [[place]], [following]), worst, free

    chosen = tf.concat([[start], tf.zeros([count - 1], tf.int64)], 0)
    start_state = (tf.constant(1, tf.int64), chosen, none, tf.fill(tf.shape(own), True))
    return tf.while_loop(lambda place, *_: place < count, add, start_state)[1]
