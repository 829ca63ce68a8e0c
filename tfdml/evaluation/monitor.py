"""What an embedding looks like while it is trained: the first place to look when a loss stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice, check_positive
from tfdml.evaluation._comparison import METRICS, comparison
from tfdml.evaluation._labels import class_numbers
from tfdml.evaluation.of_models import embed, images_and_labels
from tfdml.index.base import Floats, Integers, check_vectors

if TYPE_CHECKING:
    from tfdml.datasets import Dataset

_PERCENTILES = (5, 50, 95)
_COLLAPSED = 0.05
"""An embedding has collapsed when 95% of its distances are below this share of the margin."""


class EmbeddingMonitor(keras.callbacks.Callback):
    """Watches a fixed sample of images during `fit`, and says in plain words when the embedding collapses.

    Into the epoch's logs go, each with the prefix:

    - `active_triplets`: the share of all triplets (a, p, n) of the sample with d(a, p) - d(a, n) + margin > 0. Near 0 there is
      nothing left to learn from but by mining; at 1 nothing is learned.
    - `norm_p5`, `norm_p50`, `norm_p95`: percentiles of the lengths of the vectors, before `EmbeddingModel` normalises them.
    - `distance_p5`, `distance_p50`, `distance_p95`: percentiles of the distances between all pairs.
    - `positives_per_anchor`: how many positives an anchor of the sample has on average.
    - `collapsed`: 1 if all vectors have come to lie in one point (95% of the distances are below 5% of the margin), else 0.
      Then a triplet loss stays at the margin, or at ln 2 with a soft margin. It is said in a sentence, once.

    These are what Hermans et al. watch, "In Defense of the Triplet Loss for Person Re-Identification", 2017.

    Args:
        dataset: a `tfdml.datasets.Dataset`, or a pair `(images, labels)` of arrays: of training classes, to see what the loss
            sees.
        margin: that of the loss, in units of `distance`; `"soft"` counts the triplets in the wrong order.
        distance: `"euclidean"`, `"squared_euclidean"` or `"cosine"`.
        items: images in the sample, up to `examples` of each class, drawn once from `seed`.
        examples: images of a class in the sample.
        every: also measure after every so many training steps, into `history`; 0 measures at the end of epochs only. With
            `steps_per_execution`, after the execution in which they are reached.
        prefix: of the names in the logs; None keeps the figures out of them, and of the lines that `fit` prints.
        batch_size: images per step.
        seed: of the sample.
        embedder: the Keras model that makes the embeddings, where that is not the fitted model itself but a part of it.

    Attributes:
        history: a list of dictionaries, one for each measurement: the figures without prefix, and `step`, the number of
            training steps before it.

    Raises:
        ValueError: if the sample has no two images of one class, or none of another; at a measurement, if the model returns
            several outputs, or NaN.

    Example:
        >>> import keras, numpy as np
        >>> from tfdml.evaluation import EmbeddingMonitor
        >>> images, labels = np.random.default_rng(0).normal(size=(12, 4)).astype("float32"), np.arange(12) // 3
        >>> model = keras.Sequential([keras.layers.Dense(2)])
        >>> model.compile("adam", loss="mse")
        >>> monitor = EmbeddingMonitor((images, labels), margin=0.5)
        >>> history = model.fit(images, images[:, :2], verbose=0, callbacks=[monitor])
        >>> 0 <= history.history["monitor_active_triplets"][0] <= 1
        True
    """

    def __init__(
        self,
        dataset: Dataset | tuple[Any, Any],
        margin: float | str = 0.2,
        distance: str = "euclidean",
        items: int = 256,
        examples: int = 8,
        every: int = 0,
        prefix: str | None = "monitor_",
        batch_size: int = 64,
        seed: int = 0,
        embedder: Any = None,
    ) -> None:
        super().__init__()
        if margin != "soft":
            if isinstance(margin, str):
                raise ValueError(f"margin={margin!r}: expected a number >= 0, or 'soft'.")
            check_positive("margin", margin, allow_zero=True)
        self.margin, self.distance = margin, check_choice("distance", distance, METRICS)
        check_positive("items", items)
        check_positive("examples", examples)
        check_positive("every", every, allow_zero=True)
        check_positive("batch_size", batch_size)
        self.every, self.prefix, self.batch_size, self.embedder = int(every), prefix, batch_size, embedder
        images, labels = images_and_labels(dataset)
        classes = class_numbers(labels, len(images), "labels")
        chosen = _sample(classes, int(items), int(examples), seed)
        self._classes = classes[chosen]
        sizes = np.bincount(self._classes)
        if sizes.max() < 2 or (sizes > 0).sum() < 2:
            raise ValueError(
                f"dataset: a sample of {len(chosen)} images, of {int((sizes > 0).sum())} classes, has no triplet. Expected two "
                "classes or more, and two images of one of them; or more items."
            )
        self._images = images.subset(chosen) if hasattr(images, "subset") else images[chosen]
        self.history: list[dict[str, float]] = []
        self._steps = self._epoch_start = 0
        self._told = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch_start = self._steps

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Not one more each time: an execution may be of several steps.
        before, self._steps = self._steps, self._epoch_start + batch + 1
        if self.every and before // self.every != self._steps // self.every:
            self._measure()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.history or self.history[-1]["step"] != self._steps:
            self._measure()
        if logs is not None and self.prefix is not None:
            logs.update({f"{self.prefix}{name}": value for name, value in self.history[-1].items() if name != "step"})

    def _measure(self) -> None:
        vectors, raw = self._vectors()
        figures = _figures(vectors, self._classes, self.distance, self.margin)
        norms = np.percentile(np.linalg.norm(raw.astype(np.float64), axis=1), _PERCENTILES)
        figures |= {f"norm_p{p}": float(value) for p, value in zip(_PERCENTILES, norms, strict=True)}
        figures |= self._extra(vectors)
        self.history.append({"step": self._steps, **figures})
        if figures["collapsed"] and not self._told:
            stays = "ln 2" if self.margin == "soft" else f"the margin, {self.margin:g}"
            print(
                f"\nAfter {self._steps:,} steps the embedding has collapsed: 95% of the distances between {len(vectors)} "
                f"images are below {figures['distance_p95']:.2g}, so a triplet loss stays at {stays}. Start anew with a lower "
                "learning rate or a warm-up; with semi-hard or random instead of the hardest negatives; or with a soft margin "
                "and plain distances.",
                flush=True,
            )
        self._told = bool(figures["collapsed"])

    def _extra(self, vectors: Floats) -> dict[str, float]:
        """Figures that a subclass adds."""
        return {}

    def _vectors(self) -> tuple[Floats, Floats]:
        """The embeddings as the loss sees them, and before they are normalised."""
        from tfdml.models import EmbeddingModel

        model = self.embedder or self.model
        if not (isinstance(model, EmbeddingModel) and model.normalize):
            vectors = check_vectors(embed(model, self._images, self.batch_size), "euclidean", "embeddings")
            return vectors, vectors
        raw = check_vectors(embed(model.encoder, self._images, self.batch_size), "euclidean", "embeddings")
        lengths = np.linalg.norm(raw, axis=1, keepdims=True)
        return (raw / np.where(lengths > 0, lengths, 1)).astype(np.float32), raw


def _figures(vectors: Floats, classes: Integers, distance: str, margin: float | str) -> dict[str, float]:
    count, items = len(vectors), np.arange(len(vectors))
    # A zero vector has no cosine: a collapsed model may well return some, and must not stop the training.
    if distance == "cosine":
        vectors = np.where((vectors == 0).all(1, keepdims=True), np.float32(1e-30), vectors)
    distances = comparison(vectors, distance).block(items, items)
    same = classes[:, None] == classes
    active = triplets = 0
    added = 0.0 if margin == "soft" else float(margin)
    for anchor in items:
        positives = distances[anchor, same[anchor] & (items != anchor)]
        negatives = np.sort(distances[anchor, ~same[anchor]])
        active += int(np.searchsorted(negatives, positives.astype(np.float64) + added, side="left").sum())
        triplets += len(positives) * len(negatives)
    percentiles = np.percentile(distances[np.triu_indices(count, 1)], _PERCENTILES)
    scale = added or 1.0
    figures = {"active_triplets": active / triplets}
    figures |= {f"distance_p{p}": float(value) for p, value in zip(_PERCENTILES, percentiles, strict=True)}
    figures["positives_per_anchor"] = float(same.sum() / count - 1)
    figures["collapsed"] = float(percentiles[-1] < _COLLAPSED * scale)
    return figures


def _sample(classes: Integers, items: int, examples: int, seed: int) -> npt.NDArray[np.int64]:
    """Up to `items` numbers: classes in a random order, up to `examples` of each."""
    bits = np.random.PCG64(seed)
    shuffled = np.argsort(bits.random_raw(len(classes)), kind="stable")
    ordered = shuffled[np.argsort(classes[shuffled], kind="stable")]
    sizes = np.bincount(classes)
    within = np.arange(len(classes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    ordered = ordered[within < examples]
    # Classes with a positive pair come first.
    rank = np.argsort(np.argsort(bits.random_raw(len(sizes)), kind="stable"), kind="stable") + len(sizes) * (sizes < 2)
    return np.sort(ordered[np.argsort(rank[classes[ordered]], kind="stable")][:items])
