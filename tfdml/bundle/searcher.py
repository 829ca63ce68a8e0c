"""Searching with the SavedModel alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_positive
from tfdml.bundle.embedder import check_decoded, check_files_are_bytes, check_images
from tfdml.bundle.errors import BundleError
from tfdml.bundle.graph_search import NO_DISTANCE
from tfdml.bundle.layout import resolve
from tfdml.bundle.runner import SearchAnswers, SignatureRunner
from tfdml.bundle.verification import check_files, read_manifest, refusing


class Searcher:
    """Searches with the `search` signatures of a bundle's SavedModel: what TF-Serving alone would answer.

    `tfdml.bundle.Bundle` searches the index beside the model, without TensorFlow; this is the same gallery inside the graph.

    Args:
        path: a version directory, or a model directory, whose latest version is taken.
        verify: compute the checksum of every file first.
        batch_size: queries per step.

    Raises:
        BundleError: if the bundle is damaged, has no search signatures, or its model needs an operation or a version that this
            TensorFlow lacks.

    Example:
        searcher = Searcher("exports/products")
        answers = searcher.search([open("photo.jpg", "rb").read()], k=5)
        print(answers.ids[0], answers.distances[0])
    """

    def __init__(self, path: str | os.PathLike[str], verify: bool = True, batch_size: int = 32) -> None:
        check_positive("batch_size", batch_size)
        self.path: Path = resolve(path)
        with refusing(self.path):
            self.manifest = read_manifest(self.path)
            if self.manifest.search is None:
                raise BundleError(
                    "its model has no search signatures. Export it with search='auto', or use tfdml.bundle.Bundle."
                )
            if verify:
                check_files(self.path, self.manifest)
            self._record = self.manifest.search
            self._model = SignatureRunner(self.path, self.manifest.model, self._record.fields)
        self._batch_size = batch_size

    @property
    def max_k(self) -> int:
        """The largest k that can be asked for."""
        return self._record.max_k

    def search(self, files: Sequence[bytes], k: int | Sequence[int] = 10) -> SearchAnswers:
        """The nearest items of image files.

        Args:
            files: their bytes: JPEG, PNG, BMP or GIF.
            k: how many, from 1 to `max_k`: one number, or one for each file. A gallery with fewer items returns them all.

        Raises:
            ValueError: for `k` out of range, or if a file cannot be decoded. `try_search` reports such files instead.
        """
        answers = self.try_search(files, k)
        check_decoded(answers.valid, self.manifest.model.max_pixels)
        return answers

    def try_search(self, files: Sequence[bytes], k: int | Sequence[int] = 10) -> SearchAnswers:
        """As `search`; a file that cannot be decoded has no hits, and False in `valid`."""
        check_files_are_bytes(files)
        return self._in_batches(self._model.search_bytes, list(files), k)

    def search_images(self, images: npt.NDArray[np.uint8], k: int | Sequence[int] = 10) -> SearchAnswers:
        """The nearest items of decoded images, uint8 `[N, h, w, C]` of the model's own size."""
        check_images(images, self.manifest.model.input_shape)
        return self._in_batches(self._model.search_images, images, k)

    def search_embeddings(self, embeddings: npt.ArrayLike, k: int | Sequence[int] = 10) -> SearchAnswers:
        """The nearest items of embeddings `[N, D]`; a row that is not finite, or zero under cosine, has no hits."""
        rows = np.asarray(embeddings, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.manifest.model.dimension:
            raise ValueError(f"embeddings: shape {rows.shape}; expected [N, {self.manifest.model.dimension}].")
        return self._in_batches(self._model.search_embeddings, rows, k)

    def _in_batches(self, search: Any, queries: Any, k: int | Sequence[int]) -> SearchAnswers:
        each = np.asarray(k) if np.size(k) else np.zeros([0], np.int32)
        if each.ndim > 1 or not np.issubdtype(each.dtype, np.integer) or (each.ndim == 1 and len(each) != len(queries)):
            raise ValueError(f"k={k!r}: expected a whole number, or one for each of the {len(queries)} queries.")
        if each.size and not (each.min() >= 1 and each.max() <= self.max_k):
            raise ValueError(f"k={k!r}: expected 1 to {self.max_k}, the max_k that the bundle was exported with.")
        each = np.broadcast_to(each, [len(queries)])
        starts = range(0, max(len(queries), 1), self._batch_size)
        parts = [search(queries[s : s + self._batch_size], each[s : s + self._batch_size]) for s in starts]
        width = max(part.ids.shape[1] for part in parts)
        fields = self._record.fields
        return SearchAnswers(
            ids=np.concatenate([_padded(part.ids, width, "") for part in parts]),
            distances=np.concatenate([_padded(part.distances, width, NO_DISTANCE) for part in parts]),
            fields={name: np.concatenate([_padded(part.fields[name], width) for part in parts]) for name in fields},
            count=np.concatenate([part.count for part in parts]),
            valid=np.concatenate([part.valid for part in parts]),
        )


def _padded(values: npt.NDArray[Any], width: int, padding: Any = None) -> npt.NDArray[Any]:
    if padding is None:
        padding = "" if values.dtype == object else 0
    return np.pad(values, [(0, 0), (0, width - values.shape[1])], constant_values=padding)
