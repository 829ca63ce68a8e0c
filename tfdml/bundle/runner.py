"""The signatures of a SavedModel, run in this process as TF-Serving runs them in its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdml.bundle.errors import BundleError
from tfdml.bundle.graph_search import COUNT, DISTANCES, IDS, VALID
from tfdml.bundle.manifest import ModelRecord
from tfdml.bundle.operations import check_operations
from tfdml.bundle.saved_model import (
    BYTES_INPUT,
    EMBEDDING,
    EMBEDDING_SIGNATURES,
    FROM_BYTES,
    FROM_IMAGES,
    IMAGES_INPUT,
    K_INPUT,
    SEARCH_BYTES,
    SEARCH_EMBEDDING,
    SEARCH_IMAGES,
    SEARCH_SIGNATURES,
)

Floats = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class SearchAnswers:
    """What a search signature answers to N queries, as it is: K places a row, of which the first `count` are hits.

    Attributes:
        ids: object array of `str`, `[N, K]`, nearest first; "" past `count`.
        distances: float32 `[N, K]`, in the metric of the bundle; the largest float32 past `count`.
        fields: the fields chosen at export, `[N, K]` each; "" or 0 past `count`.
        count: int32 `[N]`.
        valid: bool `[N]`; False for a query that could not be decoded, or whose embedding cannot be searched for.
    """

    ids: npt.NDArray[np.object_]
    distances: Floats
    fields: Mapping[str, npt.NDArray[Any]]
    count: npt.NDArray[np.int32]
    valid: Booleans

    def __len__(self) -> int:
        return len(self.ids)


class SignatureRunner:
    """The signatures of a SavedModel, checked against what its bundle says of it.

    Args:
        directory: of the SavedModel.
        expected: what the bundle says of the model.
        fields: the fields that its search signatures return; None if it has none.
    """

    def __init__(self, directory: Path, expected: ModelRecord, fields: Sequence[str] | None = None) -> None:
        check_operations(directory)
        try:
            self._loaded = tf.saved_model.load(str(directory))
        except Exception as error:
            raise BundleError(
                f"the model cannot be loaded by TensorFlow {tf.__version__}: {type(error).__name__}: {error}"
            ) from error
        self._signatures = self._loaded.signatures
        self._fields = fields
        for name, given in EMBEDDING_SIGNATURES.items():
            self._check(name, {given}, {EMBEDDING, VALID})
            self._check_embedding(name, self._signatures[name].structured_outputs[EMBEDDING], expected.dimension)
        for name, given in SEARCH_SIGNATURES.items() if fields is not None else ():
            self._check(name, {given, K_INPUT}, {IDS, DISTANCES, COUNT, VALID, *(fields or ())})

    def from_bytes(self, files: Sequence[bytes]) -> tuple[Floats, Booleans]:
        """`serving_default` on the bytes of image files."""
        result = self._signatures[FROM_BYTES](**{BYTES_INPUT: _strings(files)})
        return result[EMBEDDING].numpy(), result[VALID].numpy()

    def from_images(self, images: npt.NDArray[np.uint8]) -> tuple[Floats, Booleans]:
        """`embed_images` on decoded images."""
        result = self._signatures[FROM_IMAGES](**{IMAGES_INPUT: tf.convert_to_tensor(images, tf.uint8)})
        return result[EMBEDDING].numpy(), result[VALID].numpy()

    def search_bytes(self, files: Sequence[bytes], k: npt.ArrayLike) -> SearchAnswers:
        """`search` on the bytes of image files; `k` is one number, or one for each file."""
        return self._search(SEARCH_BYTES, _strings(files), len(files), k)

    def search_images(self, images: npt.NDArray[np.uint8], k: npt.ArrayLike) -> SearchAnswers:
        """`search_images` on decoded images."""
        return self._search(SEARCH_IMAGES, tf.convert_to_tensor(images, tf.uint8), len(images), k)

    def search_embeddings(self, embeddings: npt.NDArray[np.float32], k: npt.ArrayLike) -> SearchAnswers:
        """`search_embedding` on embeddings `[N, D]`."""
        return self._search(SEARCH_EMBEDDING, tf.convert_to_tensor(embeddings, tf.float32), len(embeddings), k)

    def _search(self, name: str, given: tf.Tensor, rows: int, k: npt.ArrayLike) -> SearchAnswers:
        if self._fields is None:
            raise BundleError(f"the model has no signature {name!r}. Export it with search='auto'.")
        signature = self._signatures[name]
        if rows:
            each = tf.convert_to_tensor(np.broadcast_to(np.asarray(k, np.int32), [rows]))
            result = {key: value.numpy() for key, value in signature(**{SEARCH_SIGNATURES[name]: given, K_INPUT: each}).items()}
        else:  # not every model takes an empty batch
            outputs = signature.structured_outputs.items()
            result = {key: np.zeros([0, 1][: out.shape.rank], out.dtype.as_numpy_dtype) for key, out in outputs}
        return SearchAnswers(
            ids=_texts(result[IDS]),
            distances=result[DISTANCES],
            fields={field: _texts(result[field]) for field in self._fields},
            count=result[COUNT],
            valid=result[VALID],
        )

    def _check(self, name: str, inputs: set[str], outputs: set[str]) -> None:
        signature = self._signatures.get(name)
        if signature is None:
            raise BundleError(f"the model has no signature {name!r}; it has {sorted(self._signatures)}.")
        if set(signature.structured_input_signature[1]) != inputs or set(signature.structured_outputs) != outputs:
            raise BundleError(
                f"the model's signature {name!r} has other inputs or outputs than "
                f"{', '.join(sorted(inputs))} -> {', '.join(sorted(outputs))}."
            )

    def _check_embedding(self, name: str, output: Any, dimension: int) -> None:
        if output.shape[-1] != dimension or output.dtype != tf.float32:
            raise BundleError(
                f"the model's signature {name!r} returns {output.dtype.name} {output.shape}; "
                f"the bundle says float32 [N, {dimension}]."
            )


def _strings(files: Sequence[bytes]) -> tf.Tensor:
    return tf.constant(list(files), tf.string, shape=[len(files)])


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bytes as `str`; numbers as they are."""
    if values.dtype != object:
        return values
    texts = np.empty(values.shape, object)
    texts.ravel()[:] = [value.decode() for value in values.ravel()]
    return texts
