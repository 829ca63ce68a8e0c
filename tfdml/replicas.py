"""Training on several replicas: losses that compare items with each other see the batch of all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class GlobalBatch:
    """What all replicas hold in this step, one after the other, and where this replica's part is.

    Attributes:
        tensors: those given to `gather`, `[N, ...]`, the same on every replica.
        start: the first row of this replica.
        size: how many rows it has, B.
        total: how many all have, N.
        replicas: how many replicas there are.
    """

    tensors: tuple[tf.Tensor, ...]
    start: Any
    size: Any
    total: Any
    replicas: int

    def own(self, values: tf.Tensor) -> tf.Tensor:
        """`[N]` values of all anchors to the `[B]` of this replica, whose means have the global mean as their mean.

        Where replicas hold unlike numbers of rows, values are scaled by B * replicas / N for that: Keras takes the mean on each
        replica, and then the mean of those.
        """
        return self.scaled(self.rows(values))

    def rows(self, values: tf.Tensor) -> tf.Tensor:
        """`[N, ...]` to the rows of this replica, `[B, ...]`."""
        return values if self.replicas == 1 else values[self.start : self.start + self.size]

    def scaled(self, values: tf.Tensor) -> tf.Tensor:
        """`[B]` values times B * replicas / N: 1 unless replicas hold unlike numbers of rows."""
        if self.replicas == 1:
            return values
        share = tf.math.divide_no_nan(tf.cast(self.size * self.replicas, tf.float64), tf.cast(self.total, tf.float64))
        return values * tf.cast(share, values.dtype)


def gather(*tensors: tf.Tensor) -> GlobalBatch:
    """The rows of all replicas, in the order of the replicas; the gradient of each row goes back to the replica it came from.

    Losses and heads of `tfdml` call it by themselves; it is for losses of your own. Where there is one replica, or no
    distribution strategy, it returns its arguments and adds nothing to the graph. All replicas must call it, and not under a
    condition of their own: each waits for the others.

    A replica computes the values of all anchors of the global batch; `GlobalBatch.own` leaves those of its own rows. Gradients
    are summed over replicas, here and by the optimizer, so that each embedding gets the gradient of all anchors' values, and
    the weights get that of one replica with the global batch.

    Args:
        *tensors: `[B, ...]` each, of numbers or booleans. B may differ from replica to replica, and be 0.

    Returns:
        A `GlobalBatch`, whose tensors are `[N, ...]`.

    Raises:
        ValueError: no tensor, or one without rows.

    Example:
        >>> import tensorflow as tf
        >>> labels, embeddings = tf.constant([3, 5]), tf.ones([2, 4])
        >>> everything = gather(labels, embeddings)  # of one replica
        >>> everything.tensors[1].shape, everything.replicas
        (TensorShape([2, 4]), 1)
    """
    tensors = tuple(tf.convert_to_tensor(tensor) for tensor in tensors)
    if not tensors or any(tensor.shape.rank == 0 for tensor in tensors):
        raise ValueError(f"tensors={tensors!r}: expected at least one, of rows [B, ...] each.")
    context = tf.distribute.get_replica_context()
    size = tensors[0].shape[0]
    if size is None:
        size = tf.shape(tensors[0])[0]
    if context is None or context.num_replicas_in_sync == 1:
        return GlobalBatch(tensors, 0, size, size, 1)
    start, total = _place(context, size)

    def spread(tensor: tf.Tensor) -> tf.Tensor:
        """This replica's rows among zeros. A sum with the others' is then the global batch, exactly."""
        around = [[start, total - start - size]] + [[0, 0]] * (tensor.shape.rank - 1)
        return tf.pad(_summable(tensor), around)

    # One by one: some collectives take only tensors of one type together.
    gathered = tuple(_like(tensor, context.all_reduce("sum", spread(tensor))) for tensor in tensors)
    return GlobalBatch(gathered, start, size, total, context.num_replicas_in_sync)


def weighed(values: tf.Tensor) -> tf.Tensor:
    """`[B]` values of this replica's rows, scaled so that the mean over replicas of their means is that of all rows.

    For what looks at each row alone, and needs nothing of the other replicas but how many rows they have.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    size = tf.shape(values)[0]
    _, total = _place(context, size)
    return GlobalBatch((), 0, size, total, context.num_replicas_in_sync).scaled(values)


def distribute(strategy: Any, batches: Callable[..., Any], start_step: int = 0) -> Any:
    """Batches split over all replicas of all workers: together, in the order of the replicas, they are the unsplit batch.

    Each worker process makes its own part, of which no other loads anything, and splits it among its own replicas. The batches
    are those of one replica with the same seed, so a run can move to another number of machines. Since losses see the global
    batch, it does not matter that a class is split too.

    Args:
        strategy: a `tf.distribute` strategy whose replicas run in step.
        batches: called as `batches(start_step=..., shard_index=..., num_shards=...)`; returns an endless `tf.data.Dataset` of
            the batches from that step on, of each of them that part. For a sampler: `functools.partial(sampler.dataset, load)`.
        start_step: the first step: the number of those already taken.

    Returns:
        A distributed dataset, for `fit` (of Keras 2 also with several workers) or for a loop of your own.

    Raises:
        ValueError: a batch that cannot be split into parts of one size.

    Example:
        >>> import functools, tensorflow as tf, tfdml
        >>> sampler = tfdml.samplers.PKSampler([0, 0, 1, 1, 2, 2], classes=2, examples=2)
        >>> photographs = tf.zeros([6, 16, 16, 3])
        >>> load = lambda index: photographs[index]
        >>> data = distribute(tf.distribute.get_strategy(), functools.partial(sampler.dataset, load))
        >>> next(iter(data))[0].shape
        TensorShape([4, 16, 16, 3])
    """

    def of_worker(context: Any) -> Any:
        workers = context.num_input_pipelines
        data = batches(start_step=start_step, shard_index=context.input_pipeline_id, num_shards=workers)
        parts = context.num_replicas_in_sync // workers
        return data if parts == 1 else data.map(lambda *batch: tf.nest.map_structure(split(parts), batch)).unbatch()

    def split(parts: int) -> Callable[[tf.Tensor], tf.Tensor]:
        def apart(rows: tf.Tensor) -> tf.Tensor:
            if rows.shape[0] is not None and rows.shape[0] % parts:
                raise ValueError(
                    f"batches: {rows.shape[0]} rows for {parts} replicas of a worker: expected a multiple, so that all hold "
                    "equally many. Change the batch size or the number of devices."
                )
            return tf.reshape(rows, tf.concat([[parts, -1], tf.shape(rows)[1:]], 0))

        return apart

    return strategy.distribute_datasets_from_function(of_worker)


def _place(context: Any, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The number of rows before those of this replica, and of all."""
    count, number = context.num_replicas_in_sync, context.replica_id_in_sync_group
    sizes = context.all_reduce("sum", tf.one_hot(number, count, dtype=tf.int32) * size)
    return tf.reduce_sum(sizes[:number]), tf.reduce_sum(sizes)


def _summable(tensor: tf.Tensor) -> tf.Tensor:
    """Of a type that every collective can add: small integers would not do on all of them."""
    if tensor.dtype.is_floating:
        return tensor
    return tf.cast(tensor, tf.int64)


def _like(tensor: tf.Tensor, summed: tf.Tensor) -> tf.Tensor:
    # The reshape makes gradients dense: those of tf.gather are slices, which collectives handle differently.
    summed = tf.reshape(summed, tf.shape(summed))
    summed.set_shape([None, *tensor.shape[1:]])
    return tf.cast(summed, tensor.dtype)
