"""The callback that keeps hard negative class mining up to date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tfdml.samplers._arguments import check_integer
from tfdml.samplers.n_pair import LOOKAHEAD, ClassEmbeddings, NPairSampler


class HardClassMining(keras.callbacks.Callback):
    """Embeds candidate classes during `fit`, for an `NPairSampler` that mines hard negative classes.

    At the start and after every so many steps, two items of each candidate class go through the model (in inference), and the
    sampler chooses classes by their embeddings from then on.

    Args:
        sampler: an `NPairSampler` with `candidates`.
        load: index (scalar int64 tensor) -> image, as for the sampler's `dataset`; without augmentation.
        every: steps between two refreshes, at least 16. A refresh costs the inference of `2 * candidates` images.
        start_step: the `start_step` of the dataset that is fitted.
        batch_size: images per step of inference.
        embedder: the Keras model that makes the embeddings, where that is not the fitted model itself.

    Raises:
        ValueError: a sampler without candidates, or `every` below 16.

    Example:

    >>> import tfdml
    >>> images, labels = np.zeros([40, 16, 16, 3], np.uint8), np.arange(40) // 2
    >>> sampler = tfdml.samplers.NPairSampler(labels, classes=4, candidates=10)
    >>> load = lambda index: tf.gather(images, index)
    >>> encoder = tfdml.models.conv_encoder((16, 16, 3), filters=(4,), dimension=8)
    >>> model = tfdml.EmbeddingModel(encoder, normalize=False)
    >>> model.compile("adam", loss=tfdml.losses.NPairLoss())
    >>> mining = HardClassMining(sampler, load, every=20)
    >>> history = model.fit(sampler.dataset(load), steps_per_epoch=2, callbacks=[mining], verbose=0)
    >>> sampler.state.refreshes
    1
    """

    def __init__(
        self,
        sampler: NPairSampler,
        load: Callable[[Any], Any],
        every: int = 100,
        start_step: int = 0,
        batch_size: int = 64,
        embedder: Any = None,
    ) -> None:
        super().__init__()
        state = getattr(sampler, "state", None)
        if state is None:
            raise ValueError(f"sampler={sampler!r}: expected an NPairSampler with candidates, e.g. candidates=500.")
        self._state: ClassEmbeddings = state
        self.sampler, self.load, self.embedder = sampler, load, embedder
        self.every = check_integer("every", every, LOOKAHEAD)
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self._step = self._epoch_start = check_integer("start_step", start_step, 0)
        self._infer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.embedder or self.model
        self._infer = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
        if self._state.newest < 0:  # after a resume, the refreshes of before go on to count
            self.sampler.refresh(self._embed, self._step)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch_start = self._step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        before, self._step = self._step, self._epoch_start + batch + 1
        due = before // self.every != self._step // self.every
        if due and self._state.newest <= self._step:  # the first one may have been a moment ago
            self.sampler.refresh(self._embed, self._step)

    def _embed(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        images = tf.data.Dataset.from_tensor_slices(indices).map(self.load, num_parallel_calls=tf.data.AUTOTUNE)
        return np.concatenate([self._infer(batch).numpy() for batch in images.batch(self.batch_size)])
