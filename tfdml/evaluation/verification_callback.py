"""Verification figures during `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdml._checks import check_choice
from tfdml.evaluation._comparison import METRICS
from tfdml.evaluation._during_fit import DuringFit
from tfdml.evaluation.pairs import VerificationPairs, verification_pairs
from tfdml.evaluation.verification import verification
from tfdml.evaluation.verification_result import VerificationResult

if TYPE_CHECKING:
    from tfdml.datasets import Dataset


class VerificationCallback(DuringFit):
    """Measures verification on images of unseen classes at the end of epochs, on a fixed set of pairs.

    The figures go into the epoch's logs as `val_auc`, `val_eer`, `val_tar_at_far_1e-2`, `val_accuracy`, `val_val_at_far_1e-2`
    (see `tfdml.evaluation.VerificationResult`), for `History`, TensorBoard, the progress bar, and callbacks after this one in
    the list. An epoch that is not measured (`every` above 1) has no figures.

    Args:
        dataset: a `tfdml.datasets.Dataset`, or a pair `(images, labels)` of arrays. Take classes that are not trained on.
        pairs: the pairs to compare; None draws 3,000 positive and 3,000 negative pairs in 10 folds, as
            `verification_pairs(labels)` does; `"all"` compares all.
        every: measure after every so many epochs.
        metric: `"cosine"`, `"euclidean"`, `"squared_euclidean"`, or None: Euclidean for an `EmbeddingModel` with
            `normalize=False`, else cosine.
        fars: the false accept rates, see `tfdml.evaluation.verification`.
        prefix: of the names in the logs.
        batch_size: images per step.
        verbose: 1 prints a line with the figures; 0 prints nothing.
        embedder: the Keras model that makes the embeddings, where that is not the fitted model itself but a part of it.

    Raises:
        ValueError: at once for pairs on which no figure means anything; at the end of an epoch if the model returns several
            outputs, or NaN.

    Example:
        >>> import keras, numpy as np
        >>> from tfdml.evaluation import VerificationCallback
        >>> images, labels = np.random.default_rng(0).normal(size=(12, 4)).astype("float32"), np.arange(12) // 3
        >>> model = keras.Sequential([keras.layers.Dense(2)])
        >>> model.compile("adam", loss="mse")
        >>> callback = VerificationCallback((images, labels), pairs="all", verbose=0)
        >>> history = model.fit(images, images[:, :2], verbose=0, callbacks=[callback])
        >>> 0 <= history.history["val_eer"][0] <= 1
        True
    """

    def __init__(
        self,
        dataset: Dataset | tuple[Any, Any],
        pairs: VerificationPairs | str | None = None,
        every: int = 1,
        metric: str | None = None,
        fars: Sequence[float] | None = None,
        prefix: str = "val_",
        batch_size: int = 64,
        verbose: int = 1,
        embedder: Any = None,
    ) -> None:
        super().__init__(dataset, every, metric, METRICS, prefix, batch_size, verbose, embedder)
        self.fars = fars
        if isinstance(pairs, str):
            check_choice("pairs", pairs, ["all"])
        self._pairs = verification_pairs(self._labels) if pairs is None else pairs
        # The figures of nonsense, so that what cannot be measured is refused before training, not after an epoch of it.
        self._verify((self._classes[:, None] + [[1.0, 0.0]]), "euclidean")
        self.result: VerificationResult | None = None

    def measured(self, embeddings: np.ndarray, metric: str) -> tuple[dict[str, float], str]:
        self.result = self._verify(embeddings, metric)
        shown = ", ".join(f"{name} {value:.2%}" for name, value in self.result.figures().items())
        pairs = f"{self.result.positive_pairs:,} positive, {self.result.negative_pairs:,} negative pairs"
        return self.result.figures(), f"{shown} ({pairs})"

    def _verify(self, embeddings: Any, metric: str) -> VerificationResult:
        if isinstance(self._pairs, str):
            return verification(embeddings, self._labels, metric=metric, fars=self.fars)
        return verification(embeddings, pairs=self._pairs, metric=metric, fars=self.fars)
