"""Whether a SavedModel can be served: the operations of its graph and of every function in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfdml.bundle.errors import BundleError

# They call back into the Python process that made them: a server loads them without complaint and fails every request.
_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def check_operations(directory: Path) -> None:
    """Raises a `BundleError` unless this TensorFlow, as it comes, can run every operation of the SavedModel.

    `tf.raw_ops` lists the operations of TensorFlow itself; those of libraries that happen to be loaded into this process,
    which a server would not have, are not among them.
    """
    for where, name, operation in _nodes(read_saved_model(directory)):
        if operation in _PYTHON:
            raise BundleError(
                f"the model calls Python ({operation} {name!r} in {where}): no server can run that. Replace tf.py_function and "
                "tf.numpy_function by TensorFlow operations."
            )
        if not hasattr(tf.raw_ops, operation):
            raise BundleError(
                f"the model needs the operation {operation} ({name!r} in {where}), which TensorFlow {tf.__version__} does not "
                "have. If a custom-operation library brings it, replace it; if a newer TensorFlow does, upgrade."
            )


def read_saved_model(directory: Path) -> saved_model_pb2.SavedModel:
    """The parsed `saved_model.pb`."""
    saved_model = saved_model_pb2.SavedModel()
    try:
        saved_model.ParseFromString((directory / "saved_model.pb").read_bytes())
    except OSError as error:
        raise BundleError(f"saved_model.pb cannot be read: {error}.") from error
    except Exception as error:  # protobuf's DecodeError has no public home that all its versions share
        raise BundleError(f"saved_model.pb is damaged: {error}.") from error
    return saved_model


def _nodes(saved_model: saved_model_pb2.SavedModel) -> Iterator[tuple[str, str, str]]:
    """(where, node name, operation) of every node that is not a call of a function in the library."""
    for graph in saved_model.meta_graphs:
        library = graph.graph_def.library.function
        own = {function.signature.name for function in library}
        for node in graph.graph_def.node:
            if node.op not in own:
                yield "the main graph", node.name, node.op
        for function in library:
            for node in function.node_def:
                if node.op not in own:
                    yield f"function {function.signature.name!r}", node.name, node.op
