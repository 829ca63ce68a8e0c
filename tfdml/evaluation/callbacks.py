"""Figures during `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfdml._checks import check_choice, check_positive
from tfdml.evaluation._labels import check_answers, check_ks, class_numbers
from tfdml.evaluation.of_models import default_metric, embed, images_and_labels
from tfdml.evaluation.ranking import retrieval
from tfdml.evaluation.retrieval_result import RetrievalResult
from tfdml.index.base import METRICS

if TYPE_CHECKING:
    from tfdml.datasets import Dataset


class RetrievalCallback(keras.callbacks.Callback):
    """Measures retrieval on images of unseen classes at the end of epochs, every image a query against all others.

    The figures go into the epoch's logs as `val_recall_at_1`, `val_r_precision` and `val_map_at_r`, so `History`, TensorBoard
    and the progress bar show them, and callbacks *after* this one in the list can act on them. An epoch that is not measured
    (`every` above 1) has no figures, rather than old ones; give `EarlyStopping` an `every` of 1.

    Args:
        dataset: a `tfdml.datasets.Dataset`, or a pair `(images, labels)` of arrays. Take classes that are not trained on.
        every: measure after every so many epochs.
        ks: the k of Recall@k.
        metric: `"cosine"`, `"euclidean"`, or None: Euclidean for an `EmbeddingModel` with `normalize=False`, else cosine.
        prefix: of the names in the logs.
        batch_size: images per step.
        verbose: 1 prints a line with the figures and how many queries had no answer; 0 prints nothing.
        embedder: the Keras model that makes the embeddings, where that is not the fitted model itself but a part of it: the
            encoder below a classification head, for instance.

    Raises:
        ValueError: at once for a dataset on which no figure means anything (see `tfdml.evaluation.retrieval`); at the end of
            an epoch if the model returns several outputs, or NaN.

    Example:
        >>> import keras, numpy as np
        >>> from tfdml.evaluation import RetrievalCallback
        >>> images, labels = np.random.default_rng(0).normal(size=(12, 4)).astype("float32"), np.arange(12) // 3
        >>> model = keras.Sequential([keras.layers.Dense(2)])
        >>> model.compile("adam", loss="mse")
        >>> history = model.fit(images, images[:, :2], verbose=0, callbacks=[
        ...     RetrievalCallback((images, labels), verbose=0),
        ...     keras.callbacks.EarlyStopping("val_map_at_r", mode="max"),
        ... ])
        >>> 0 <= history.history["val_map_at_r"][0] <= 1
        True
    """

    def __init__(
        self,
        dataset: Dataset | tuple[Any, Any],
        every: int = 1,
        ks: Sequence[int] = (1,),
        metric: str | None = None,
        prefix: str = "val_",
        batch_size: int = 64,
        verbose: int = 1,
        embedder: Any = None,
    ) -> None:
        super().__init__()
        check_positive("every", every)
        check_positive("batch_size", batch_size)
        self.every, self.ks, self.prefix, self.batch_size, self.verbose = every, tuple(ks), prefix, batch_size, verbose
        self.metric = None if metric is None else check_choice("metric", metric, METRICS)
        self.embedder = embedder
        self._images, self._labels = images_and_labels(dataset)
        classes = class_numbers(self._labels, len(self._images), "labels")
        check_answers(classes, classes, np.arange(len(classes)))
        check_ks(self.ks, len(classes) - 1)
        self.result: RetrievalResult | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every:
            return
        embedder = self.embedder or self.model
        embeddings = embed(embedder, self._images, self.batch_size)
        self.result = retrieval(embeddings, self._labels, metric=self.metric or default_metric(embedder), ks=self.ks)
        if logs is not None:
            logs.update(self.result.figures(self.prefix))
        if self.verbose:
            print("\n" + _line(epoch, self.result), flush=True)


def _line(epoch: int, result: RetrievalResult) -> str:
    figures = [f"Recall@{k} {value:.2%}" for k, value in result.recall_at.items()]
    figures += [f"R-Precision {result.r_precision:.2%}", f"MAP@R {result.map_at_r:.2%}"]
    queries = f"{result.queries - result.queries_without_answer:,} queries"
    left_out = f", {result.queries_without_answer:,} more without an answer" if result.queries_without_answer else ""
    return f"Epoch {epoch + 1}: {', '.join(figures)} ({queries}{left_out})"
