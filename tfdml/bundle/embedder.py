"""Running the model of a bundle in this process, as TF-Serving runs it in its own."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_positive
from tfdml.bundle.layout import resolve
from tfdml.bundle.runner import Booleans, Floats, SignatureRunner
from tfdml.bundle.verification import check_files, read_manifest, refusing


class Embedder:
    """Embeds image files with the SavedModel of a bundle.

    Args:
        path: a version directory, or a model directory, whose latest version is taken.
        verify: compute the checksum of every file first.
        batch_size: images per step.

    Raises:
        BundleError: if the bundle is damaged, or its model needs an operation or a version that this TensorFlow lacks.

    Example:
        embedder = Embedder("exports/products")
        embeddings = embedder.embed([open("photo.jpg", "rb").read()])      # float32 [1, D]
    """

    def __init__(self, path: str | os.PathLike[str], verify: bool = True, batch_size: int = 32) -> None:
        check_positive("batch_size", batch_size)
        self.path = resolve(path)
        with refusing(self.path):
            self.manifest = read_manifest(self.path)
            if verify:
                check_files(self.path, self.manifest)
            self._model = SignatureRunner(self.path, self.manifest.model)
        self._batch_size = batch_size

    @property
    def dimension(self) -> int:
        """The length of an embedding."""
        return self.manifest.model.dimension

    def embed(self, files: Sequence[bytes]) -> Floats:
        """The embeddings of image files.

        Args:
            files: their bytes: JPEG, PNG, BMP or GIF.

        Returns:
            float32 `[N, D]`.

        Raises:
            ValueError: if a file cannot be decoded; it gives the positions. `try_embed` reports them instead.
        """
        embeddings, valid = self.try_embed(files)
        check_decoded(valid, self.manifest.model.max_pixels)
        return embeddings

    def try_embed(self, files: Sequence[bytes]) -> tuple[Floats, Booleans]:
        """Embeddings `[N, D]` and valid `[N]`: a file that cannot be decoded has a zero embedding and False."""
        check_files_are_bytes(files)
        parts = [
            self._model.from_bytes(list(files[start : start + self._batch_size]))
            for start in range(0, len(files), self._batch_size)
        ]
        return self._joined(parts)

    def embed_images(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Embeddings of decoded images, uint8 `[N, h, w, C]` of the model's own size."""
        check_images(images, self.manifest.model.input_shape)
        parts = [
            self._model.from_images(images[start : start + self._batch_size])
            for start in range(0, len(images), self._batch_size)
        ]
        return self._joined(parts)[0]

    def _joined(self, parts: list[tuple[Floats, Booleans]]) -> tuple[Floats, Booleans]:
        empty = (np.zeros([0, self.dimension], np.float32), np.zeros([0], np.bool_))
        embeddings, valid = zip(*(parts or [empty]), strict=True)
        return np.concatenate(embeddings), np.concatenate(valid)


def check_files_are_bytes(files: Sequence[bytes]) -> None:
    """Raises a `TypeError` unless every file is a bytes object."""
    if isinstance(files, (bytes, str)):
        raise TypeError("files: expected a sequence of bytes objects; for one file write [data].")
    for number, file in enumerate(files):
        if not isinstance(file, bytes):
            raise TypeError(f"files[{number}]: expected bytes, not {type(file).__name__}; read the file in mode 'rb'.")


def check_decoded(valid: Booleans, max_pixels: int) -> None:
    """Raises a `ValueError` that names the files which could not be decoded."""
    if not valid.all():
        bad = ", ".join(str(row) for row in np.flatnonzero(~valid)[:10])
        raise ValueError(
            f"files: {int((~valid).sum())} of {len(valid)} cannot be read as images, at positions {bad}. Expected whole "
            f"JPEG, PNG, BMP or GIF files of at most {max_pixels:,} pixels."
        )


def check_images(images: npt.NDArray[np.uint8], shape: tuple[int, int, int]) -> None:
    """Raises a `ValueError` unless `images` are decoded images of the given shape."""
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise ValueError(f"images: {images.dtype} {images.shape}; expected uint8 [{', '.join(map(str, ('N', *shape)))}].")
