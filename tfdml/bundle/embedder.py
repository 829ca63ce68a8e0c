"""Running the model of a bundle in this process, as TF-Serving runs it in its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdml._checks import check_positive
from tfdml.bundle.errors import BundleError
from tfdml.bundle.layout import resolve
from tfdml.bundle.manifest import ModelRecord
from tfdml.bundle.operations import check_operations
from tfdml.bundle.saved_model import BYTES_INPUT, EMBEDDING, FROM_BYTES, FROM_IMAGES, IMAGES_INPUT, VALID
from tfdml.bundle.verification import check_files, read_manifest, refusing

Floats = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]


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
        if not valid.all():
            bad = ", ".join(str(row) for row in np.flatnonzero(~valid)[:10])
            raise ValueError(
                f"files: {int((~valid).sum())} of {len(valid)} cannot be read as images, at positions {bad}. Expected whole "
                f"JPEG, PNG, BMP or GIF files of at most {self.manifest.model.max_pixels:,} pixels."
            )
        return embeddings

    def try_embed(self, files: Sequence[bytes]) -> tuple[Floats, Booleans]:
        """Embeddings `[N, D]` and valid `[N]`: a file that cannot be decoded has a zero embedding and False."""
        if isinstance(files, (bytes, str)):
            raise TypeError("files: expected a sequence of bytes objects; for one file write [data].")
        for number, file in enumerate(files):
            if not isinstance(file, bytes):
                raise TypeError(f"files[{number}]: expected bytes, not {type(file).__name__}; read the file in mode 'rb'.")
        parts = [
            self._model.from_bytes(list(files[start : start + self._batch_size]))
            for start in range(0, len(files), self._batch_size)
        ]
        return self._joined(parts)

    def embed_images(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Embeddings of decoded images, uint8 `[N, h, w, C]` of the model's own size."""
        if images.dtype != np.uint8 or images.shape[1:] != self.manifest.model.input_shape:
            expected = ("N", *self.manifest.model.input_shape)
            raise ValueError(f"images: {images.dtype} {images.shape}; expected uint8 [{', '.join(map(str, expected))}].")
        parts = [
            self._model.from_images(images[start : start + self._batch_size])
            for start in range(0, len(images), self._batch_size)
        ]
        return self._joined(parts)[0]

    def _joined(self, parts: list[tuple[Floats, Booleans]]) -> tuple[Floats, Booleans]:
        empty = (np.zeros([0, self.dimension], np.float32), np.zeros([0], np.bool_))
        embeddings, valid = zip(*(parts or [empty]), strict=True)
        return np.concatenate(embeddings), np.concatenate(valid)


class SignatureRunner:
    """The signatures of a SavedModel, checked against what its bundle says of it."""

    def __init__(self, directory: Path, expected: ModelRecord) -> None:
        check_operations(directory)
        try:
            self._loaded = tf.saved_model.load(str(directory))
        except Exception as error:
            raise BundleError(
                f"the model cannot be loaded by TensorFlow {tf.__version__}: {type(error).__name__}: {error}"
            ) from error
        for name, given in {FROM_BYTES: BYTES_INPUT, FROM_IMAGES: IMAGES_INPUT}.items():
            self._check(name, given, expected)
        self._from_bytes = self._loaded.signatures[FROM_BYTES]
        self._from_images = self._loaded.signatures[FROM_IMAGES]

    def from_bytes(self, files: Sequence[bytes]) -> tuple[Floats, Booleans]:
        """`serving_default` on the bytes of image files."""
        result = self._from_bytes(**{BYTES_INPUT: tf.constant(list(files), tf.string, shape=[len(files)])})
        return result[EMBEDDING].numpy(), result[VALID].numpy()

    def from_images(self, images: npt.NDArray[np.uint8]) -> tuple[Floats, Booleans]:
        """`embed_images` on decoded images."""
        result = self._from_images(**{IMAGES_INPUT: tf.convert_to_tensor(images, tf.uint8)})
        return result[EMBEDDING].numpy(), result[VALID].numpy()

    def _check(self, name: str, given: str, expected: ModelRecord) -> None:
        signature = self._loaded.signatures.get(name)
        if signature is None:
            raise BundleError(f"the model has no signature {name!r}; it has {sorted(self._loaded.signatures)}.")
        outputs = signature.structured_outputs
        if set(signature.structured_input_signature[1]) != {given} or set(outputs) != {EMBEDDING, VALID}:
            raise BundleError(
                f"the model's signature {name!r} has other inputs or outputs than {given} -> {EMBEDDING}, {VALID}."
            )
        if outputs[EMBEDDING].shape[-1] != expected.dimension or outputs[EMBEDDING].dtype != tf.float32:
            raise BundleError(
                f"the model's signature {name!r} returns {outputs[EMBEDDING].dtype.name} {outputs[EMBEDDING].shape}; "
                f"the bundle says float32 [N, {expected.dimension}]."
            )
