"""Any figure during `fit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.evaluation._during_fit import DuringFit
from tfdml.evaluation.clustering import clustering
from tfdml.evaluation.identification import identification, open_set_split
from tfdml.evaluation.ranking import retrieval
from tfdml.evaluation.verification import verification
from tfdml.index.base import METRICS

if TYPE_CHECKING:
    from tfdml.datasets import Dataset

Measure = Callable[..., Any]


class EvaluationCallback(DuringFit):
    """Measures any figures on images of unseen classes at the end of epochs: retrieval, clustering, verification, your own.

    All measures share one embedding of the images. The figures go into the epoch's logs, each with the prefix, so `History`,
    TensorBoard and the progress bar show them, and callbacks *after* this one in the list can act on them: `EarlyStopping(
    "val_map_at_r", mode="max", restore_best_weights=True)` and `ModelCheckpoint("best.keras", "val_map_at_r", mode="max",
    save_best_only=True)` keep the best epoch by MAP@R. Judge the final model on classes that chose nothing.

    `RetrievalCallback` and `VerificationCallback` measure one kind with options of their own.

    Args:
        dataset: a `tfdml.datasets.Dataset`, or a pair `(images, labels)` of arrays. Take classes that are not trained on.
        measures: names (`"retrieval"`, `"clustering"`, `"verification"`, `"identification"`) and functions, which are called
            with embeddings, labels and `metric=`, and return a result with `figures()`, or a mapping of names to numbers; e.g.
            `functools.partial(retrieval, also=["mrr"])`.
        every: measure after every so many epochs; an epoch in between has no figures.
        metric: `"cosine"`, `"euclidean"`, or None: Euclidean for an `EmbeddingModel` with `normalize=False`, else cosine.
        prefix: of the names in the logs.
        batch_size: images per step.
        verbose: 1 prints a line with the figures; 0 prints nothing.
        embedder: the Keras model that makes the embeddings, where that is not the fitted model itself but a part of it.

    Raises:
        ValueError: at once if a measure refuses the labels, or two of them have a figure of one name; at the end of an epoch if
            the model returns several outputs, or NaN.

    Example:
        >>> import keras, numpy as np
        >>> from tfdml.evaluation import EvaluationCallback
        >>> images, labels = np.random.default_rng(0).normal(size=(24, 4)).astype("float32"), np.arange(24) // 3
        >>> model = keras.Sequential([keras.layers.Dense(2)])
        >>> model.compile("adam", loss="mse")
        >>> history = model.fit(images, images[:, :2], verbose=0, callbacks=[
        ...     EvaluationCallback((images, labels), ["retrieval", "identification"], verbose=0),
        ...     keras.callbacks.EarlyStopping("val_map_at_r", mode="max"),
        ... ])
        >>> sorted(name for name in history.history if name.startswith("val_"))[:2]
        ['val_dir_rank_1_at_fir_1e-1', 'val_known_auc']
    """

    def __init__(
        self,
        dataset: Dataset | tuple[Any, Any],
        measures: Sequence[str | Measure] = ("retrieval",),
        every: int = 1,
        metric: str | None = None,
        prefix: str = "val_",
        batch_size: int = 64,
        verbose: int = 1,
        embedder: Any = None,
    ) -> None:
        super().__init__(dataset, every, metric, METRICS, prefix, batch_size, verbose, embedder)
        self.measures = [_measure(one) for one in ([measures] if isinstance(measures, str) else measures)]
        if not self.measures:
            raise ValueError("measures: received none. Expected names such as 'retrieval', or functions.")
        # The figures of nonsense, so that what cannot be measured is refused before training, not after an epoch of it.
        self._figures(np.random.default_rng(0).normal(size=(len(self._classes), 2)), "euclidean")
        self.results: list[Any] = []

    def measured(self, embeddings: np.ndarray, metric: str) -> tuple[dict[str, float], str]:
        figures = self._figures(embeddings, metric)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        return figures, f"{shown} ({len(embeddings):,} images)"

    def _figures(self, embeddings: npt.ArrayLike, metric: str) -> dict[str, float]:
        self.results = [measure(embeddings, self._labels, metric=metric) for measure in self.measures]
        figures: dict[str, float] = {}
        for result in self.results:
            own = result.figures() if hasattr(result, "figures") else result
            twice = sorted(set(own) & set(figures))
            if twice:
                raise ValueError(f"measures: two of them return a figure named {twice[0]!r}. Rename one, or leave it out.")
            figures |= {str(name): float(value) for name, value in own.items()}
        return figures


def _identification(embeddings: npt.ArrayLike, labels: npt.ArrayLike, *, metric: str) -> Any:
    """Half of the classes known, by one image each."""
    rows, names = np.asarray(embeddings), np.asarray(labels)
    queries, gallery = open_set_split(names)
    return identification(rows[queries], names[queries], rows[gallery], names[gallery], metric=metric)


_KNOWN: dict[str, Measure] = {
    "retrieval": retrieval,
    "clustering": clustering,
    "verification": verification,
    "identification": _identification,
}


def _measure(measure: str | Measure) -> Measure:
    return measure if callable(measure) else _KNOWN[check_choice("measures", measure, _KNOWN)]
