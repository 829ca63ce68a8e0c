"""TF-Serving's gRPC messages, as far as they are used here, built at run time.

The package with their definitions, `tensorflow-serving-api`, drags in the whole of TensorFlow. Names do not travel: what is on
the wire are field numbers and types, and those are below, as in tensorflow/serving `apis/*.proto` and tensorflow/core
`framework/tensor.proto`. They live in a descriptor pool of their own, so that they never meet TensorFlow's copies of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = tuple[int, str]
Messages = Mapping[str, Mapping[str, Field]]

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"

FLOAT, STRING, BOOL = 1, 7, 10
"""Numbers of `tensorflow.DataType`."""

TF_SERVING: Messages = {
    "Int64Value": {"value": (1, "int64")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "oneof version_choice Int64Value"),
        "version_label": (4, "oneof version_choice string"),
        "signature_name": (3, "string"),
    },
    "Dim": {"size": (1, "int64"), "name": (2, "string")},
    "TensorShapeProto": {"dim": (2, "repeated Dim"), "unknown_rank": (3, "bool")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "int_val": (7, "repeated int32"),
        "string_val": (8, "repeated bytes"),
        "int64_val": (10, "repeated int64"),
        "bool_val": (11, "repeated bool"),
    },
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "map TensorProto"),
        "output_filter": (3, "repeated string"),
    },
    "PredictResponse": {"outputs": (1, "map TensorProto"), "model_spec": (2, "ModelSpec")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "StatusProto": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "int32"), "status": (3, "StatusProto")},
    "GetModelStatusResponse": {"model_version_status": (1, "repeated ModelVersionStatus")},
}


def build_messages(definitions: Messages, package: str) -> dict[str, Any]:
    """Message classes by name.

    Args:
        definitions: for every message its fields: name -> (number, type). A type is a scalar of protobuf, the name of another
            message, one of both after "repeated " or "oneof NAME ", or "map TYPE" with strings as keys.
        package: put before the names.

    Example:
        >>> Pair = build_messages({"Pair": {"left": (1, "string"), "right": (2, "repeated int32")}}, "example")["Pair"]
        >>> Pair.FromString(Pair(left="a", right=[3, 4]).SerializeToString()).right[1]
        4
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in definitions.items():
        message = file.message_type.add(name=name)
        for field, (number, spelled) in fields.items():
            if spelled.startswith("map "):
                spelled = f"repeated {_add_map_entry(message, field, spelled.removeprefix('map '), package)}"
            _add_field(message, field, number, spelled, package)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in definitions}


_SCALARS = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
}


def _add_field(message: Any, name: str, number: int, spelled: str, package: str) -> None:
    kind = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number)
    field.label = kind.LABEL_REPEATED if spelled.startswith("repeated ") else kind.LABEL_OPTIONAL
    bare = spelled.removeprefix("repeated ")
    if bare.startswith("oneof "):
        _, choice, bare = bare.split(" ")
        known = [declared.name for declared in message.oneof_decl]
        if choice not in known:
            message.oneof_decl.add(name=choice)
        field.oneof_index = [*known, choice].index(choice)
    if bare in _SCALARS:
        field.type = _SCALARS[bare]
    else:
        field.type, field.type_name = kind.TYPE_MESSAGE, f".{package}.{bare}"


def _add_map_entry(message: Any, field: str, value: str, package: str) -> str:
    name = "".join(part.capitalize() for part in field.split("_")) + "Entry"
    entry = message.nested_type.add(name=name)
    entry.options.map_entry = True
    _add_field(entry, "key", 1, "string", package)
    _add_field(entry, "value", 2, value, package)
    return f"{message.name}.{name}"


_built = build_messages(TF_SERVING, "tfdml.serving.wire")
GetModelStatusRequest = _built["GetModelStatusRequest"]
GetModelStatusResponse = _built["GetModelStatusResponse"]
PredictRequest = _built["PredictRequest"]
PredictResponse = _built["PredictResponse"]
TensorProto = _built["TensorProto"]
