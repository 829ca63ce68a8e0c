"""The SavedModel of a bundle: what TF-Serving loads."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfdml.bundle.decoding import decode_batch
from tfdml.bundle.errors import BundleError, is_disk_full
from tfdml.bundle.graph_search import VALID, GallerySearch
from tfdml.bundle.operations import check_operations
from tfdml.preprocessing import ImagePreprocessing

FROM_BYTES = "serving_default"
FROM_IMAGES = "embed_images"
SEARCH_BYTES = "search"
SEARCH_IMAGES = "search_images"
SEARCH_EMBEDDING = "search_embedding"
BYTES_INPUT = "image_bytes"
IMAGES_INPUT = "images"
K_INPUT = "k"
EMBEDDING = "embedding"

EMBEDDING_SIGNATURES = {FROM_BYTES: BYTES_INPUT, FROM_IMAGES: IMAGES_INPUT}
SEARCH_SIGNATURES = {SEARCH_BYTES: BYTES_INPUT, SEARCH_IMAGES: IMAGES_INPUT, SEARCH_EMBEDDING: EMBEDDING}
"""The signatures' names, and what each is given; those of the second kind are given `k` as well."""


@dataclasses.dataclass(frozen=True)
class SavedModelInfo:
    """What was written: the length of an embedding, the shape of a decoded image, and the signatures' names."""

    dimension: int
    input_shape: tuple[int, int, int]
    signatures: tuple[str, ...]


def write_saved_model(
    model: keras.Model,
    directory: Path,
    preprocessing: ImagePreprocessing,
    max_pixels: int = 50_000_000,
    gallery: GallerySearch | None = None,
) -> SavedModelInfo:
    """Writes `model` as a SavedModel that TF-Serving loads, with its preprocessing inside.

    Two signatures, both in inference mode and with a free batch size N:

    - `serving_default`: `image_bytes`, string `[N]`, encoded image files;
    - `embed_images`: `images`, uint8 `[N, h, w, C]`, decoded and of the model's size (others are refused).

    Both return `embedding`, float32 `[N, D]`, and `valid`, bool `[N]`: false, with a zero embedding, for a file that could
    not be decoded and for an embedding that would not be finite. A request never fails because of one of its images.

    With a gallery three more, which also take `k`, int32 `[N]`, how many neighbours each row asks for (more than the gallery's
    `max_k` counts as `max_k`, less than 1 as 0):

    - `search`: `image_bytes`, `k`;
    - `search_images`: `images`, `k`;
    - `search_embedding`: `embedding`, float32 `[N, D]`, `k`.

    They return, nearest first, `ids`, string `[N, K]`, `distances`, float32 `[N, K]`, and each of the gallery's fields
    `[N, K]`; `count`, int32 `[N]`, says how many of a row's K places are hits, and `valid` is as above. K is the largest k of
    all rows, also of those that a batching server merged into the call. The places past `count` hold "", the largest float32
    (a distance beyond every threshold, which JSON can hold), or 0.

    Only the variables that the embedding needs are written, each once: optimizers, heads and Keras's own copy stay out.

    Args:
        model: a `tfdml.EmbeddingModel`, or any Keras model from images, 0 to 255, to one output `[N, D]`.
        directory: where to write; made if it does not exist.
        preprocessing: how image files become the model's input.
        max_pixels: larger images are not decoded.
        gallery: what the search signatures search; None for a model that only embeds.

    Raises:
        BundleError: if the model takes another input, has another output, uses an operation that a stock TensorFlow cannot
            serve, or if the disk is full.
    """
    return ServedModel(model, preprocessing, max_pixels).write(directory, gallery)


class ServedModel:
    """The signatures of `write_saved_model`, traced once, to be written without a gallery and with one."""

    def __init__(self, model: keras.Model, preprocessing: ImagePreprocessing, max_pixels: int = 50_000_000) -> None:
        self._name, self._shape, self._resources = f"model={model.name!r}", preprocessing.shape, _tables(model)
        shape = self._shape
        _check_input(model, shape)

        def embed(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            output = _embedding(model(tf.cast(images, tf.float32), training=False), model)
            finite = tf.reduce_all(tf.math.is_finite(output), axis=-1)
            return tf.where(finite[:, None], output, 0.0), finite

        @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.uint8, name=IMAGES_INPUT)])
        def embed_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
            # TF-Serving does not enforce static shapes: without this, images of another size get wrong vectors.
            embedding, valid = embed(tf.ensure_shape(images, [None, *shape]))
            return {EMBEDDING: embedding, VALID: valid}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=BYTES_INPUT)])
        def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            images, decoded = decode_batch(tf.ensure_shape(image_bytes, [None]), preprocessing, max_pixels)
            embedding, finite = embed(images)
            valid = tf.logical_and(decoded, finite)
            return {EMBEDDING: tf.where(valid[:, None], embedding, 0.0), VALID: valid}

        self._functions = {FROM_BYTES: serving_default, FROM_IMAGES: embed_images}
        with explained(self._name):
            self._signatures = {name: function.get_concrete_function() for name, function in self._functions.items()}
        self.dimension = int(self._signatures[FROM_IMAGES].structured_outputs[EMBEDDING].shape[-1])

    def write(self, directory: Path, gallery: GallerySearch | None = None) -> SavedModelInfo:
        """Writes the SavedModel, in place of one that is there; see `write_saved_model`."""
        signatures = dict(self._signatures)
        if gallery is not None:
            signatures |= self._search_signatures(gallery)
        module = tf.Module()
        # Tracking the model itself would write every weight twice under Keras 3, and the optimizer and heads with them.
        module.weights = list({id(v): v for f in signatures.values() for v in self._variables(f)}.values())
        module.resources = self._resources
        with explained(self._name):
            tf.saved_model.save(module, str(directory), signatures=signatures)
        check_operations(directory)
        return SavedModelInfo(self.dimension, self._shape, tuple(signatures))

    def _variables(self, function: Any) -> list[tf.Variable]:
        """The variables that a signature needs."""
        return list(function.graph.variables)

    def _search_signatures(self, gallery: GallerySearch) -> dict[str, Any]:
        shape, dimension = self._shape, self.dimension
        many = tf.TensorSpec([None], tf.int32, name=K_INPUT)

        def search(given: str, inputs: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
            found = self._functions[given](inputs)
            return gallery.search(found[EMBEDDING], found[VALID], tf.ensure_shape(k, [None]))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=BYTES_INPUT), many], autograph=False)
        def search_bytes(image_bytes: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
            return search(FROM_BYTES, image_bytes, k)

        @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.uint8, name=IMAGES_INPUT), many], autograph=False)
        def search_images(images: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
            return search(FROM_IMAGES, images, k)

        @tf.function(input_signature=[tf.TensorSpec([None, dimension], tf.float32, name=EMBEDDING), many], autograph=False)
        def search_embedding(embedding: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
            embedding = tf.ensure_shape(embedding, [None, dimension])
            k = tf.ensure_shape(k, [None])
            return gallery.search(embedding, tf.ones_like(k, tf.bool), k)

        functions = {SEARCH_BYTES: search_bytes, SEARCH_IMAGES: search_images, SEARCH_EMBEDDING: search_embedding}
        return {name: function.get_concrete_function() for name, function in functions.items()}


def _check_input(model: keras.Model, shape: tuple[int, int, int]) -> None:
    expected = getattr(model, "input_shape", None)
    if expected is None:
        return
    fits = (
        isinstance(expected, tuple)
        and len(expected) == 4
        and all(e in (None, s) for e, s in zip(expected[1:], shape, strict=True))
    )
    if not fits:
        raise BundleError(
            f"model={model.name!r} takes {expected}, but preprocessing makes images of shape {shape}. "
            "Give the preprocessing of the training images (tfdml.preprocessing.ImagePreprocessing), or a model with one image "
            "input."
        )


def _embedding(output: Any, model: keras.Model) -> tf.Tensor:
    """The model's output as float32 `[N, D]`."""
    if not tf.is_tensor(output):
        kind = f"{len(output)} outputs" if isinstance(output, (list, tuple, dict)) else type(output).__name__
        raise BundleError(
            f"model={model.name!r} returns {kind}; expected one tensor [N, D]. Export the part that embeds: "
            "keras.Model(model.inputs, the_embedding)."
        )
    if output.shape.rank != 2 or output.shape[-1] is None or not output.dtype.is_floating:
        raise BundleError(
            f"model={model.name!r} returns {output.dtype.name} {output.shape}; expected floating-point [N, D] with a fixed D. "
            "Pool or flatten its feature maps."
        )
    return tf.cast(output, tf.float32)


def _tables(model: keras.Model) -> list[Any]:
    """Lookup tables and other resources of the model that are not variables, but must be saved with it."""
    descendants = tf.train.TrackableView(model).descendants()
    return [t for t in descendants if hasattr(t, "resource_handle") and not isinstance(t, tf.Variable)]


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Says of which model an error was, and passes on what is no fault of the model's."""
    try:
        yield
    except BundleError:
        raise
    except Exception as error:
        if is_disk_full(error) or isinstance(error, OSError):
            raise
        raise BundleError(
            f"{name} cannot be exported: {type(error).__name__}: {error}\nIt must be built from stock TensorFlow "
            "operations, and keep its variables and tables as attributes of its layers."
        ) from error
