"""TF-Serving's warm-up requests, so that the first caller does not wait for the graph to be prepared.

The file is a TFRecord of `PredictionLog` messages. They are encoded by hand: the package with their definitions drags in a
second TensorFlow, and there are five fields to write:

    PredictionLog.predict_log = 6, PredictLog.request = 1,
    PredictRequest.model_spec = 1, .inputs = 2 (map<string, TensorProto>), ModelSpec.name = 1, .signature_name = 3
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfdml.bundle.errors import BundleError

MOST_REQUESTS = 1000

Request = tuple[str, Mapping[str, np.ndarray]]


def write_warmup(path: Path, model_name: str, requests: Iterable[Request]) -> None:
    """Writes the warm-up file.

    Args:
        path: `assets.extra/tf_serving_warmup_requests` of a SavedModel.
        model_name: put into every request; TF-Serving does not look at it.
        requests: pairs of a signature's name and its inputs by name.

    Raises:
        BundleError: for more than 1000 requests, which TF-Serving refuses to load.
    """
    records = [_prediction_log(model_name, signature, inputs) for signature, inputs in requests]
    if len(records) > MOST_REQUESTS:
        raise BundleError(f"{len(records)} warm-up requests; TF-Serving takes at most {MOST_REQUESTS}. Ask for fewer.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def read_warmup(path: Path) -> list[Request]:
    """The requests in a warm-up file.

    Raises:
        BundleError: if the file is damaged.
    """
    try:
        return [_request(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    except (tf.errors.OpError, IndexError, KeyError, ValueError) as error:
        raise BundleError(f"{path.name}: damaged: {error}.") from error


def _prediction_log(model_name: str, signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    model_spec = _field(1, model_name.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for name, value in sorted(inputs.items()):
        tensor = tf.make_tensor_proto(value).SerializeToString(deterministic=True)
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _request(record: bytes) -> Request:
    request = _only(_only(record, 6), 1)
    signature = _only(_only(request, 1), 3).decode()
    inputs: dict[str, Any] = {}
    for number, entry in _fields(request):
        if number == 2:
            proto = tf.make_tensor_proto(0)
            proto.ParseFromString(_only(entry, 2))
            inputs[_only(entry, 1).decode()] = tf.make_ndarray(proto)
    return signature, inputs


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message; there are no others here."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        if key & 7 != 2:
            raise ValueError(f"wire type {key & 7}; expected 2")
        size, position = _read_varint(message, position)
        if position + size > len(message):
            raise ValueError("a field is cut off")
        yield key >> 3, message[position : position + size]
        position += size


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7


def _only(message: bytes, number: int) -> bytes:
    found = [value for field, value in _fields(message) if field == number]
    if len(found) != 1:
        raise ValueError(f"field {number} comes {len(found)} times; expected once")
    return found[0]
