"""What the callbacks share that embed images at the end of epochs, and measure."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfdml._checks import check_choice, check_positive
from tfdml.evaluation._labels import class_numbers
from tfdml.evaluation.of_models import default_metric, embed, images_and_labels

if TYPE_CHECKING:
    from tfdml.datasets import Dataset


class DuringFit(keras.callbacks.Callback, abc.ABC):
    """Embeds a fixed set of images after every so many epochs, and puts what `measured` finds into the logs.

    A subclass calls this first, checks its own arguments against `self._classes`, and leaves out whatever it does not need.

    Args:
        dataset, every, metric, prefix, batch_size, verbose, embedder: as in the subclasses.
        metrics: the metrics that `metric` may name.
    """

    def __init__(
        self,
        dataset: Dataset | tuple[Any, Any],
        every: int,
        metric: str | None,
        metrics: Iterable[str],
        prefix: str,
        batch_size: int,
        verbose: int,
        embedder: Any,
    ) -> None:
        super().__init__()
        check_positive("every", every)
        check_positive("batch_size", batch_size)
        self.every, self.prefix, self.batch_size, self.verbose = every, prefix, batch_size, verbose
        self.metric = None if metric is None else check_choice("metric", metric, metrics)
        self.embedder = embedder
        self._images, self._labels = images_and_labels(dataset)
        self._classes = class_numbers(self._labels, len(self._images), "labels")

    @abc.abstractmethod
    def measured(self, embeddings: np.ndarray, metric: str) -> tuple[dict[str, float], str]:
        """The figures by name, without the prefix, and a line that tells them."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every:
            return
        embedder = self.embedder or self.model
        embeddings = embed(embedder, self._images, self.batch_size)
        figures, line = self.measured(embeddings, self.metric or default_metric(embedder))
        if logs is not None:
            logs.update({self.prefix + name: value for name, value in figures.items()})
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: {line}", flush=True)
