"""Figures during `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdml.evaluation._during_fit import DuringFit
from tfdml.evaluation._labels import check_answers, check_ks
from tfdml.evaluation.ranking import retrieval
from tfdml.evaluation.retrieval_result import RetrievalResult
from tfdml.index.base import METRICS

if TYPE_CHECKING:
    from tfdml.datasets import Dataset


class RetrievalCallback(DuringFit):
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
        ks: int | Sequence[int] = (1,),
        metric: str | None = None,
        prefix: str = "val_",
        batch_size: int = 64,
        verbose: int = 1,
        embedder: Any = None,
    ) -> None:
        super().__init__(dataset, every, metric, METRICS, prefix, batch_size, verbose, embedder)
        check_answers(self._classes, self._classes, np.arange(len(self._classes)))
        self.ks = tuple(check_ks(ks, len(self._classes) - 1))
        self.result: RetrievalResult | None = None

    def measured(self, embeddings: np.ndarray, metric: str) -> tuple[dict[str, float], str]:
        self.result = retrieval(embeddings, self._labels, metric=metric, ks=self.ks)
        return self.result.figures(), _line(self.result)


def _line(result: RetrievalResult) -> str:
    figures = [f"Recall@{k} {value:.2%}" for k, value in result.recall_at.items()]
    figures += [f"R-Precision {result.r_precision:.2%}", f"MAP@R {result.map_at_r:.2%}"]
    queries = f"{result.queries - result.queries_without_answer:,} queries"
    left_out = f", {result.queries_without_answer:,} more without an answer" if result.queries_without_answer else ""
    return f"{', '.join(figures)} ({queries}{left_out})"
