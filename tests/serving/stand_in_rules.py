"""TF-Serving's rules of JSON: requests to tensors, and tensors to answers (tensorflow/serving `util/json_tensor.cc`)."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from stand_in_models import INVALID_ARGUMENT, Signature, StatusError, TensorInfo

_WHOLE = {"uint8": np.uint8, "int32": np.int32, "int64": np.int64}
NUMPY = {**_WHOLE, "float": np.float32, "double": np.float64, "bool": np.bool_, "string": object}


def invalid(message: str) -> StatusError:
    return StatusError(INVALID_ARGUMENT, message)


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object that a request starts with; whatever follows it is ignored, as there."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document, _ = json.JSONDecoder().raw_decode(body.decode().lstrip())
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: Invalid value. at offset: {getattr(error, 'pos', 0)}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {json.dumps(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {json.dumps(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name or "serving_default"


def find_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    if name not in signatures:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    return signatures[name]


def read_tensors(document: Mapping[str, Any], inputs: Mapping[str, TensorInfo]) -> tuple[dict[str, np.ndarray], bool]:
    """The tensors of a request, and whether it is in row form."""
    if "instances" in document:
        if "inputs" in document:
            raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
        rows = document["instances"]
        if not isinstance(rows, list):
            raise invalid("Expecting 'instances' to be an list/array")
        if not rows:
            raise invalid("No values in 'instances' array")
        return _rows(rows, inputs), True
    if "inputs" in document:
        return _columns(document["inputs"], inputs), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _rows(rows: list[Any], inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    if not isinstance(rows[0], dict) and len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
        )
    objects = _is_object(rows[0])
    found: dict[str, list[np.ndarray]] = {}
    for number, row in enumerate(rows):
        if objects != _is_object(row):
            expected = "object but got list" if objects else "value/list but got object"
            raise invalid(f"Expecting {expected} at item {number} of input list")
        named = row if objects else {next(iter(inputs)): row}
        for name, value in named.items():
            if name not in inputs:
                raise invalid(f"Failed to process element: {number} key: {name} of 'instances' list. Error: no such input")
            tensor = _tensor(value, inputs[name].dtype)
            first = found.setdefault(name, [])
            if first and first[0].shape != tensor.shape:
                text = f"Expecting shape {list(first[0].shape)} but got: {list(tensor.shape)}"
                raise invalid(f"Failed to process element: {number} of 'instances' list. Error: {text}")
            first.append(tensor)
        if objects and set(row) != set(inputs):
            raise invalid(f"Failed to process element: {number} keys must be equal to: {','.join(sorted(inputs))}")
    return {name: np.stack(values) for name, values in found.items()}


def _columns(content: Any, inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    if not _is_object(content):
        if len(inputs) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object as multiple input tensors required")
        name, info = next(iter(inputs.items()))
        return {name: _tensor(content, info.dtype)}
    for name in inputs:
        if name not in content:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(content[name], info.dtype) for name, info in inputs.items()}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not (set(value) == {"b64"} and isinstance(value["b64"], str))


def _tensor(value: Any, dtype: str) -> np.ndarray:
    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    flat: list[Any] = []
    _flatten(value, 0, shape, dtype, flat)
    if dtype == "uint8":  # seen on the real one: 300 is 44
        return (np.array(flat, np.int64) & 255).astype(np.uint8).reshape(shape)
    array = np.empty(len(flat), NUMPY[dtype])
    array[:] = flat
    return array.reshape(shape)


def _flatten(value: Any, level: int, shape: list[int], dtype: str, flat: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(f"JSON Value found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}")
        flat.append(_scalar(value, dtype))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}")
    for inner in value:
        _flatten(inner, level + 1, shape, dtype, flat)


def _scalar(value: Any, dtype: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if dtype == "string" and isinstance(value, str):
        return value.encode()
    if dtype == "string" and isinstance(value, dict):
        if _is_object(value):
            raise invalid(f"JSON Value: {json.dumps(value)} not formatted correctly for base64 data")
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise invalid("Unable to base64 decode") from None
    if dtype == "float" and number:
        if math.isfinite(value) and abs(value) > np.finfo(np.float32).max:
            raise invalid(f"Cannot convert JSON value: {value} to float without loss of precision.")
        return value
    if dtype in _WHOLE and number and isinstance(value, int):
        limit = np.iinfo(np.int64 if dtype == "int64" else np.int32)
        if limit.min <= value <= limit.max:
            return value
    if dtype == "bool" and isinstance(value, bool):
        return value
    raise invalid(f"JSON Value: {json.dumps(value)} Type: {type(value).__name__} is not of expected type: {dtype}")


def check_inputs(tensors: Mapping[str, np.ndarray], signature: Signature) -> None:
    """What is checked of a request in either language: names, not shapes."""
    if len(tensors) != len(signature.inputs):
        extra, missing = set(tensors) - set(signature.inputs), set(signature.inputs) - set(tensors)
        raise invalid(
            f"input size does not match signature: {len(tensors)}!={len(signature.inputs)}. "
            f"Sent extra: {{{','.join(sorted(extra))}}}. Missing but required: {{{','.join(sorted(missing))}}}."
        )
    for name in tensors:
        if name not in signature.inputs:
            raise invalid(f"input tensor alias not found in signature: {name}.")


def write_tensors(outputs: Mapping[str, np.ndarray], rows: bool) -> bytes:
    """The JSON of an answer, in the form of its request."""
    ready = {name: _jsonable(value, name) for name, value in sorted(outputs.items())}
    single = len(ready) == 1
    if not rows:
        return json.dumps({"outputs": next(iter(ready.values())) if single else ready}).encode()
    sizes = {name: len(value) if isinstance(value, list) else None for name, value in ready.items()}
    if None in sizes.values():
        raise invalid(f"Tensor name: {next(name for name in sizes if sizes[name] is None)} has no shape information ")
    if len(set(sizes.values())) > 1:
        raise invalid(f"Tensor has inconsistent batch size: {sorted(sizes.values())}")
    count = next(iter(sizes.values()))
    parts = [{name: value[row] for name, value in ready.items()} for row in range(count)]
    return json.dumps({"predictions": [next(iter(part.values())) if single else part for part in parts]}).encode()


def _jsonable(value: np.ndarray, name: str) -> Any:
    if value.dtype == object:
        if name.endswith("_bytes"):
            return _mapped(value.tolist(), lambda each: {"b64": base64.b64encode(each).decode()})
        return _mapped(value.tolist(), lambda each: each.decode())
    if value.dtype.kind == "f":
        # Digits enough for a float32 and no more: 0.2, not 0.20000000298023224.
        return _mapped(value.tolist(), lambda each: float(f"{each:.9g}"))
    return value.tolist()


def _mapped(value: Any, change: Any) -> Any:
    return [_mapped(inner, change) for inner in value] if isinstance(value, list) else change(value)
