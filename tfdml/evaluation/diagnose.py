"""What is wrong with a training, in plain sentences, while it runs."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdml._checks import check_positive
from tfdml.evaluation._comparison import comparison
from tfdml.evaluation.monitor import EmbeddingMonitor
from tfdml.index.base import Floats

if TYPE_CHECKING:
    from tfdml.datasets import Dataset

WAITING, IDLE, ALONE, UNEVEN = 0.3, 0.01, 0.2, 20.0
"""Shares of waiting, of active triplets, of anchors without a positive, and of norms' percentiles, that call for a sentence."""

FEWEST, LEAST = 5, 0.005
"""Of how many steps the times count, and the seconds of waiting that are worth a sentence."""


class Diagnose(EmbeddingMonitor):
    """An `EmbeddingMonitor` that also watches the batches and the clock, and says what is wrong and what to do about it.

    Beside the monitor's figures, these go into the epoch's logs (with the prefix) and into `history`:

    - `active_pairs`: the share of negative pairs of the sample that are nearer than the margin: what a contrastive loss still
      pushes apart. Not with a soft margin.
    - `batch_positives`: how many positives an anchor has in a training batch, and `batch_alone`, the share of anchors that have
      none: they teach a triplet loss nothing.
    - `seconds_input`: how long a step waits for its batch, and `seconds_step`, how long it takes from there on: means since the
      last measurement, where that was five steps ago or more.

    The last two need `watch`. A sentence is printed once for each thing that is wrong: a loss that is not a number, a collapse
    (as `EmbeddingMonitor` tells it), triplets of which almost none is active, embeddings of very different lengths, anchors
    without positives, a step that waits for its input. `sentences` keeps them.

    Args:
        dataset: see `EmbeddingMonitor`, like all that follow.
        margin: likewise.
        distance: likewise.
        items: likewise.
        examples: likewise.
        every: likewise.
        prefix: likewise.
        batch_size: likewise.
        seed: likewise.
        embedder: likewise.
        loss_every: the mean loss of every so many training steps goes into `losses`.
        verbose: 0 prints no sentence.

    Attributes:
        history: see `EmbeddingMonitor`.
        losses: `(step, mean loss of the steps since the one before)`.
        sentences: what was found wrong.

    Example:
        >>> import keras, numpy as np, tensorflow as tf
        >>> from tfdml.evaluation import Diagnose
        >>> images, labels = np.random.default_rng(0).normal(size=(12, 4)).astype("float32"), np.arange(12) // 3
        >>> model = keras.Sequential([keras.layers.Dense(2)])
        >>> model.compile("adam", loss="sparse_categorical_crossentropy")
        >>> diagnose = Diagnose((images, labels), margin=0.5)
        >>> batches = tf.data.Dataset.from_tensor_slices((images, labels % 2)).batch(6)
        >>> history = model.fit(diagnose.watch(batches), verbose=0, callbacks=[diagnose])
        >>> history.history["diagnose_batch_positives"]
        [2.0]
    """

    def __init__(
        self,
        dataset: Dataset | tuple[Any, Any],
        margin: float | str = 0.2,
        distance: str = "euclidean",
        items: int = 256,
        examples: int = 8,
        every: int = 0,
        prefix: str | None = "diagnose_",
        batch_size: int = 64,
        seed: int = 0,
        embedder: Any = None,
        loss_every: int = 20,
        verbose: int = 1,
    ) -> None:
        super().__init__(dataset, margin, distance, items, examples, every, prefix, batch_size, seed, embedder)
        check_positive("loss_every", loss_every)
        self.loss_every, self.verbose = int(loss_every), verbose
        self.losses: list[tuple[int, float]] = []
        self.sentences: list[str] = []
        self._said: set[str] = set()
        self._arrived: list[float] = []
        self._waits: list[tuple[float, float]] = []
        self._positives: list[tuple[float, float]] = []
        self._began = 0.0
        self._mean = (0, 0.0)
        self._watched = False

    def watch(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches, seen on their way to `fit`: when each arrives, and how many positives its anchors have.

        It costs one Python call for each batch. Under a distribution strategy batches arrive ahead of their step, so nothing is
        known of waiting.

        Args:
            batches: `(images, labels)`, or any other structure, of which then only the time is taken.
        """
        self._watched = True

        def seen(*batch: Any) -> Any:
            labels = _labels(batch)
            noted = tf.numpy_function(self._note, [labels], tf.int64, stateful=True)
            with tf.control_dependencies([noted]):
                passed = tf.nest.map_structure(tf.identity, batch)
            return passed if len(batch) > 1 else passed[0]

        return batches.map(seen)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._mean = (0, 0.0)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._arrived.clear()
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        # With several steps in one execution, or batches fetched ahead, nothing can be said of one step's waiting.
        if len(self._arrived) == 1 and self._arrived[0] >= self._began:
            self._waits.append((self._arrived[0] - self._began, now - self._arrived[0]))
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            self._say("loss", f"The loss is {float(loss)}. Lower the learning rate, or clip the gradients.")
        steps = self._epoch_start + batch + 1
        if loss is not None and self._steps // self.loss_every != steps // self.loss_every:
            self._note_loss(batch + 1, float(loss))
        super().on_train_batch_end(batch, logs)

    def _note_loss(self, steps: int, mean: float) -> None:
        """Keras tells the mean of the epoch so far; the mean since the last note follows from two of them."""
        before, old = self._mean if self._mean[0] < steps else (0, 0.0)
        self._mean = (steps, mean)
        self.losses.append((self._epoch_start + steps, (mean * steps - old * before) / (steps - before)))

    def _note(self, labels: npt.NDArray[Any]) -> np.int64:
        self._arrived.append(time.perf_counter())
        if labels.size > 1:
            counts = np.unique(labels, return_counts=True)[1]
            self._positives.append(
                (float((counts * (counts - 1)).sum() / labels.size), float((counts == 1).sum() / labels.size))
            )
        return np.int64(0)

    def _measure(self) -> None:
        told = self._told
        super()._measure()
        figures = self.history[-1]
        if figures["collapsed"] and not told:
            self.sentences.append(f"After {self._steps:,} steps the embedding has collapsed.")
        for names, values in (
            (("batch_positives", "batch_alone"), self._positives),
            # The first steps of a process build the graph.
            (("seconds_input", "seconds_step"), self._waits[1 if len(self.history) == 1 else 0 :]),
        ):
            enough = names[0] != "seconds_input" or len(values) >= FEWEST
            if values and enough:
                figures |= {name: float(value) for name, value in zip(names, np.mean(values, axis=0), strict=True)}
        self._positives.clear()
        self._waits.clear()
        self._judge(figures)

    def _extra(self, vectors: Floats) -> dict[str, float]:
        if self.margin == "soft":
            return {}
        if self.distance == "cosine":
            vectors = np.where((vectors == 0).all(1, keepdims=True), np.float32(1e-30), vectors)
        items = np.arange(len(vectors))
        distances = comparison(vectors, self.distance).block(items, items)
        negatives = distances[self._classes[:, None] != self._classes]
        return {"active_pairs": float((negatives < float(self.margin)).mean())}

    def _judge(self, figures: dict[str, float]) -> None:
        share = figures["active_triplets"]
        if share < IDLE:
            self._say(
                "idle",
                f"Only {share:.2%} of the triplets break the margin, so random ones teach next to nothing. If the figures on "
                "unseen classes no longer rise, it is done; else mine semi-hard or hard negatives, or raise the margin.",
            )
        if figures["norm_p95"] > UNEVEN * max(figures["norm_p5"], 1e-12) and not figures["collapsed"]:
            self._say(
                "norms",
                f"The vectors differ in length by more than {UNEVEN:g} times ({figures['norm_p5']:.2g} to "
                f"{figures['norm_p95']:.2g} before normalisation): short ones get large gradients. Add batch normalisation "
                "before the last layer, or lower the learning rate.",
            )
        if figures.get("batch_alone", 0.0) > ALONE:
            self._say(
                "alone",
                f"{figures['batch_alone']:.0%} of the anchors have no positive in their batch and teach a pair or triplet loss "
                "nothing. Sample batches of P classes x K images: tfdml.samplers.PKSampler(labels, classes=16, examples=4).",
            )
        wait, step = figures.get("seconds_input", 0.0), figures.get("seconds_step", 0.0)
        if wait > max(WAITING * (wait + step), LEAST):
            self._say(
                "input",
                f"A step waits {wait * 1000:.0f} ms for its batch and works {step * 1000:.0f} ms: the input pipeline is the "
                "bottleneck. Keep the images in memory (Dataset.in_memory()), shrink them beforehand, or take more cores.",
            )

    def _say(self, kind: str, sentence: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self.sentences.append(sentence)
            if self.verbose:
                print(f"\nAfter {self._steps:,} steps: {sentence}", flush=True)


def _labels(batch: tuple[Any, ...]) -> tf.Tensor:
    """The labels of a batch, or nothing where there are no integer labels `[B]`."""
    if len(batch) > 1 and hasattr(batch[1], "dtype") and batch[1].dtype.is_integer and batch[1].shape.rank == 1:
        return tf.cast(batch[1], tf.int64)
    return tf.zeros([0], tf.int64)
