"""The half of the stand-in that holds models: it watches a directory, and loads and unloads versions as TF-Serving does."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50

# Codes of tensorflow.error.Code, which are gRPC's.
OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED = 0, 3, 4, 5, 8
FAILED_PRECONDITION, INTERNAL, UNAVAILABLE = 9, 13, 14


class StatusError(Exception):
    """An error of TF-Serving: its code and its message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class TensorInfo(NamedTuple):
    """What a signature says of a tensor: its type by TensorFlow's name for it, and its shape, -1 for any size."""

    dtype: str
    shape: tuple[int, ...]


class Signature(NamedTuple):
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


class Model(Protocol):
    signatures: Mapping[str, Signature]

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raises a `StatusError` where TensorFlow would."""


class FakeModel:
    """A model that is a Python function of the bytes of one file: a vector, or None for what it cannot decode."""

    def __init__(self, embed: Callable[[bytes], np.ndarray | None], dimension: int) -> None:
        self._embed, self._dimension = embed, dimension
        outputs = {"embedding": TensorInfo("float", (-1, dimension)), "valid": TensorInfo("bool", (-1,))}
        self.signatures = {"serving_default": Signature({"image_bytes": TensorInfo("string", (-1,))}, outputs)}

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        files = inputs["image_bytes"]
        if files.ndim != 1:
            raise StatusError(INVALID_ARGUMENT, f"input must be a vector, got shape: {list(files.shape)}")
        found = [self._embed(file) for file in files]
        rows = [np.zeros(self._dimension) if vector is None else vector for vector in found]
        embedding = np.array(rows, np.float32).reshape(len(rows), self._dimension)
        return {"embedding": embedding, "valid": np.array([vector is not None for vector in found])}


class RealModel:
    """The SavedModel itself, run by TensorFlow in this process."""

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        self._tf = tf
        self._loaded = tf.saved_model.load(str(path))  # keeps its variables
        self._functions = dict(self._loaded.signatures)
        self.signatures = {
            name: Signature(_infos(function.structured_input_signature[1]), _infos(function.structured_outputs))
            for name, function in self._functions.items()
        }

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        known = self.signatures[signature].inputs
        tensors = {
            name: self._tf.constant(
                value.tolist() if value.dtype == object else value, _TF_NAMES[known[name].dtype], value.shape
            )
            for name, value in inputs.items()
        }
        try:
            return {name: value.numpy() for name, value in self._functions[signature](**tensors).items()}
        except (self._tf.errors.OpError, ValueError, TypeError) as error:
            raise StatusError(INVALID_ARGUMENT, str(error)) from error


_TF_NAMES = {name: name for name in ("string", "uint8", "int32", "int64", "bool")} | {"float": "float32", "double": "float64"}


def _infos(specs: Mapping[str, Any]) -> dict[str, TensorInfo]:
    names = {there: here for here, there in _TF_NAMES.items()}
    return {
        name: TensorInfo(names[spec.dtype.name], tuple(-1 if size is None else size for size in spec.shape))
        for name, spec in specs.items()
    }


@dataclasses.dataclass
class Servable:
    """One version of the model in the server."""

    state: int = START
    code: int = OK
    message: str = ""
    model: Model | None = None


class Manager:
    """Loads the versions in a directory by a policy, a new one before the old one goes.

    Args:
        base_path: of the model.
        name: of the model.
        load: makes a model of a version directory; what it raises ends the version with an error.
        policy: ("latest", n), ("all",) or ("specific", (1, 2)).
        labels: of versions.
        load_seconds: how long loading takes.
        poll_seconds: between looks at the directory.
    """

    def __init__(
        self,
        base_path: Path,
        name: str,
        load: Callable[[Path], Model],
        policy: tuple[Any, ...] = ("latest", 1),
        labels: Mapping[str, int] | None = None,
        load_seconds: float = 0.0,
        poll_seconds: float = 0.05,
    ) -> None:
        self.base_path, self.name, self.load = base_path, name, load
        self.policy, self.labels, self.load_seconds, self.poll_seconds = policy, dict(labels or {}), load_seconds, poll_seconds
        self.servables: dict[int, Servable] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._look()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def states(self, version: int | None) -> dict[int, Servable]:
        """States by version, the newest first."""
        with self._lock:
            found = {number: dataclasses.replace(it) for number, it in sorted(self.servables.items(), reverse=True)}
        if version is None:
            if not found:
                raise StatusError(NOT_FOUND, f"Could not find any versions of model {self.name}")
            return found
        if version not in found:
            raise StatusError(NOT_FOUND, f"Could not find version {version} of model {self.name}")
        return {version: found[version]}

    def find(self, name: str, version: int | None, label: str | None = None) -> tuple[int, Model]:
        """The version that a request asks for."""
        if label is not None:
            if name != self.name or label not in self.labels:
                raise StatusError(INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        with self._lock:
            there = {number: it.model for number, it in self.servables.items() if it.state == AVAILABLE}
        number = max(there, default=None) if version is None else version
        if name != self.name or number not in there:
            raise StatusError(NOT_FOUND, f"Servable not found for request: {wanted}")
        return number, there[number]

    def _watch(self) -> None:
        while not self._ended.wait(self.poll_seconds):
            self._look()

    def _look(self) -> None:
        try:
            there = sorted(int(path.name) for path in self.base_path.iterdir() if path.name.isdigit() and path.is_dir())
        except OSError:
            there = []
        kind, *details = self.policy
        if kind == "latest":
            wanted = there[-details[0] :]
        else:
            wanted = there if kind == "all" else [number for number in there if number in details[0]]
        for number in wanted:
            known = self.servables.get(number)
            if known is None or (known.state == END and known.code == OK):
                self._load(number)
        for number, servable in list(self.servables.items()):
            if number not in wanted and servable.state == AVAILABLE:
                self._set(number, UNLOADING)
                self._set(number, END)

    def _load(self, number: int) -> None:
        self._set(number, START)
        self._set(number, LOADING)
        if self.load_seconds:
            time.sleep(self.load_seconds)
        path = self.base_path / str(number)
        try:
            if not (path / "saved_model.pb").is_file():
                text = f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}"
                raise StatusError(NOT_FOUND, text)
            # Seen on the real one: it is available, and every call fails.
            model = self.load(path) if (path / "variables").is_dir() else _Broken()
        except StatusError as error:
            self._set(number, END, error.code, error.message)
        except Exception as error:
            self._set(number, END, INTERNAL, f"{type(error).__name__}: {error}")
        else:
            self._set(number, AVAILABLE, model=model)

    def _set(self, number: int, state: int, code: int = OK, message: str = "", model: Model | None = None) -> None:
        with self._lock:
            self.servables[number] = Servable(state, code, message, model)


class _Broken:
    """A model whose variables were not there: its signature can be read, and no call succeeds."""

    def __init__(self) -> None:
        self.signatures = {"serving_default": Signature({"image_bytes": TensorInfo("string", (-1,))}, {})}

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise StatusError(
            FAILED_PRECONDITION, "Could not find variable dense/kernel. This could mean that it was not initialized"
        )
