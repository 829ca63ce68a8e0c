"""What all samplers share: steps, shards, and the way from item indices to loaded batches."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tfdml.samplers._arguments import check_integer
from tfdml.samplers.loading import load_batches

_DRAWS_AT_ONCE = 8192
"""Items whose indices are computed in one call, whatever the batch size, so that the cost of calling ops is shared."""
_LAST_STEP = 2**62
_ALIGNMENT = 64


class Sampler(abc.ABC):
    """Batches of item indices as a pure function of (data, seed, step), and their way into `fit`.

    A subclass implements `_draw`, in TensorFlow ops, and says how a batch can be split. From that follow `batch_at`, `indices`
    and `dataset`: in the order of the steps, from any step on, whole or in shards, loaded in parallel.

    Attributes:
        seed: from 0 to 2^64 - 1. The same seed gives the same batches; the tests hold both TensorFlow versions to it.
        steps_per_epoch: batches in a round; each sampler says what a round is.
    """

    seed: int
    _width = 1
    """Items in a row of the batch: 2 for pairs, 3 for triplets."""
    _split_by = "batch_size"
    """The argument that `num_shards` must divide."""
    _lookahead: int | None = None
    """Batches are never drawn this many steps before they are taken; `None` if it does not matter."""

    @property
    @abc.abstractmethod
    def batch_size(self) -> int:
        """Rows of a batch."""

    @property
    @abc.abstractmethod
    def steps_per_epoch(self) -> int:
        """Batches in a round."""

    @abc.abstractmethod
    def _draw(self, steps: Any, shard_index: int, num_shards: int) -> tuple[Any, Any]:
        """The batches of several `steps` (int64 `[S]`) as TensorFlow ops.

        Returns:
            Item indices and labels, both int64 `[S, batch_size / num_shards * width]`: the items of a row stand side by side.
        """

    def __len__(self) -> int:
        return self.steps_per_epoch

    def batch_at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The item indices and labels of one step, as NumPy arrays: what `indices` yields."""
        step = check_integer("step", step, 0, _LAST_STEP)
        if not hasattr(self, "_batch_at"):
            self._batch_at = tf.function(lambda steps: self._draw(steps, 0, 1))
        indices, labels = self._arranged(*(part[0] for part in self._batch_at(tf.constant([step], tf.int64))))
        return indices.numpy(), labels.numpy()

    def indices(self, start_step: int = 0, *, shard_index: int = 0, num_shards: int = 1) -> Any:
        """An endless `tf.data.Dataset` of (item indices, labels), both int64. Arguments as in `dataset`."""
        batches = self._chunks(start_step, shard_index, num_shards).unbatch()
        return batches if self._width == 1 else batches.map(self._arranged)

    def dataset(
        self,
        load: Callable[[Any], Any],
        augment: Callable[..., Any] | None = None,
        start_step: int = 0,
        *,
        shard_index: int = 0,
        num_shards: int = 1,
        batched: bool = False,
        parallel_calls: int | None = None,
        prefetch: int | None = None,
    ) -> Any:
        """An endless `tf.data.Dataset` of (images, labels), ready for `fit`.

        Batches come in the order of their steps, however many are loaded in parallel.

        Args:
            load: index (scalar int64 tensor) -> image, or any structure of tensors that have the same shapes for every item. It
                runs inside `tf.data`: TensorFlow ops only.
            augment: works on loaded batches and gets what its signature names: `augment(images)` returns images;
                `augment(images, labels)` returns both. Any Keras or KerasCV layer will do. An argument named `seed` gets an
                int32 `[2]` tensor made of the sampler's seed and the step, meant for `tf.image.stateless_random_*`:
                with it augmentation too is the same in every run and after a resume. Layers that hold a random state are not.
                Samplers of pairs and triplets hand it all images of the batch at once, and no labels.
            start_step: the first step. An endless dataset from step s is the one from step 0 without its first s batches, but
                costs nothing to start.
            shard_index: which part of each batch: part i of n holds the i-th n-th of the whole batch. Parts do not
                overlap, and together, in order, they are the unsharded batch. For the workers and replicas of a distribution
                strategy: `tfdml.replicas.distribute(strategy, functools.partial(sampler.dataset, load))`.
            num_shards: into how many parts batches are split. Must divide the number of classes, pairs or triplets of a batch.
            batched: `load` takes all the indices of a batch at once, in one axis. Quicker where that is one `tf.gather`.
            parallel_calls: items loaded at a time; `None` lets `tf.data` decide.
            prefetch: batches made ready in advance; `None` lets `tf.data` decide, 0 is none.
        """
        chunks = self._chunks(start_step, shard_index, num_shards)
        return load_batches(
            chunks,
            rows=self.batch_size // num_shards,
            width=self._width,
            row_labels=self._row_labels,
            load=load,
            augment=augment,
            seed=self.seed,
            start_step=start_step,
            shard_index=shard_index,
            batched=batched,
            parallel_calls=parallel_calls,
            prefetch=prefetch,
            lookahead=self._lookahead,
        )

    def _arranged(self, indices: Any, labels: Any) -> tuple[Any, Any]:
        """A flat batch as `indices` yields it."""
        if self._width == 1:
            return indices, labels
        return tf.reshape(indices, [-1, self._width]), self._row_labels(labels)

    def _row_labels(self, labels: Any) -> Any:
        """The labels of rows, out of those of all their items."""
        return labels

    def _steps_at_once(self, num_shards: int) -> int:
        """How many batches are drawn in one call."""
        return max(1, _DRAWS_AT_ONCE * num_shards // (self.batch_size * self._width))

    def _chunks(self, start_step: int, shard_index: int, num_shards: int) -> Any:
        """Several flat batches at once, as `_draw` returns them, from `start_step` on."""
        start_step = check_integer("start_step", start_step, 0, _LAST_STEP)
        num_shards = check_integer("num_shards", num_shards, 1)
        shard_index = check_integer("shard_index", shard_index, 0, num_shards - 1)
        self._check_split(num_shards)
        steps = tf.data.Dataset.counter(start_step).batch(self._steps_at_once(num_shards), drop_remainder=True)
        batches = steps.map(lambda some: self._draw(some, shard_index, num_shards))
        # tf.data's graph rewriting would copy the labels' tables into the graph of every iterator, where 2 GB is the end.
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False
        if self._lookahead is not None:
            # Iterators can be saved although batches read variables: whoever saves them saves these too.
            options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
        return batches.with_options(options)

    def _check_split(self, num_shards: int) -> None:
        count = getattr(self, self._split_by)
        if count % num_shards:
            raise ValueError(
                f"num_shards={num_shards} does not divide {self._split_by}={count}: every shard holds the same number of whole "
                f"{_WHOLE[self._split_by]}. Pass {self._split_by}={-(-count // num_shards) * num_shards}, say."
            )


_WHOLE = {"classes": "classes", "batch_size": "rows"}


def host_tensor(array: NDArray[Any]) -> Any:
    """An eager tensor on the host, after one copy; `tf.convert_to_tensor` holds two for a while.

    DLPack shares memory, and TensorFlow wants its memory aligned.
    """
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    aligned = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    aligned[:] = array
    with tf.device("CPU:0"):
        return tf.experimental.dlpack.from_dlpack(aligned.__dlpack__())
