"""A SavedModel that is written anew around another gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from tfdml.bundle.errors import BundleError
from tfdml.bundle.manifest import ModelRecord
from tfdml.bundle.saved_model import (
    BYTES_INPUT,
    EMBEDDING,
    FROM_BYTES,
    FROM_IMAGES,
    IMAGES_INPUT,
    ServedModel,
    explained,
)


class LoadedModel(ServedModel):
    """The embedding functions of a bundle's SavedModel, to be written without a gallery and with one.

    Its search signatures, and the variables of the gallery that they search, are left behind: what `write` writes is as large
    as what `ServedModel` wrote.

    Args:
        directory: of the SavedModel.
        record: what the bundle says of it.
    """

    def __init__(self, directory: Path, record: ModelRecord) -> None:
        self._name, self._shape, self.dimension = f"the model in {str(directory)!r}", record.input_shape, record.dimension
        try:
            self._loaded = tf.saved_model.load(str(directory))
        except Exception as error:
            raise BundleError(f"{self._name} cannot be loaded: {type(error).__name__}: {error}") from error
        known: Any = self._loaded.signatures
        shape = self._shape

        def output(found: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            # What the shape of a row is does not survive loading.
            return {**found, EMBEDDING: tf.ensure_shape(found[EMBEDDING], [None, record.dimension])}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=BYTES_INPUT)], autograph=False)
        def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            return output(known[FROM_BYTES](**{BYTES_INPUT: tf.ensure_shape(image_bytes, [None])}))

        @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.uint8, name=IMAGES_INPUT)], autograph=False)
        def embed_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return output(known[FROM_IMAGES](**{IMAGES_INPUT: tf.ensure_shape(images, [None, *shape])}))

        self._functions = {FROM_BYTES: serving_default, FROM_IMAGES: embed_images}
        with explained(self._name):
            self._signatures = {name: function.get_concrete_function() for name, function in self._functions.items()}
        self._resources = list(getattr(self._loaded, "resources", ()))
        # A function that was loaded says which resources it needs, not which variables they are.
        self._by_handle = {id(variable.handle): variable for variable in getattr(self._loaded, "weights", ())}

    def _variables(self, function: Any) -> list[tf.Variable]:
        captured = (self._by_handle.get(id(outer)) for outer, _ in function.graph.captures)
        return [*function.graph.variables, *(variable for variable in captured if variable is not None)]
