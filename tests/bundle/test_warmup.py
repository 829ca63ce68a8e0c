"""Warm-up requests: what TF-Serving's own definitions read."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

from tfdml.bundle import BundleError
from tfdml.bundle.warmup import read_warmup, write_warmup

REQUESTS = [
    ("serving_default", {"image_bytes": np.array([b"\x00one", b"", b"\xff" * 5000], object)}),
    ("embed_images", {"images": np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3), "scale": np.float32(2.5)}),
]


def prediction_log():
    """The part of TF-Serving's prediction_log.proto, predict.proto and model.proto that a predict request uses."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="warmup.proto", package="warmup", syntax="proto3")
    file.dependency.append("tensorflow/core/framework/tensor.proto")

    def message(name, *fields):
        result = file.message_type.add(name=name)
        for number, label, kind, field_name in fields:
            scalar = field.TYPE_STRING if kind == "string" else field.TYPE_MESSAGE
            type_name = None if kind == "string" else kind
            result.field.add(name=field_name, number=number, label=label, type=scalar, type_name=type_name)
        return result

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("ModelSpec", (1, one, "string", "name"), (3, one, "string", "signature_name"))
    request = message(
        "PredictRequest",
        (1, one, ".warmup.ModelSpec", "model_spec"),
        (2, many, ".warmup.PredictRequest.InputsEntry", "inputs"),
    )
    entry = request.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=one, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=one, type=field.TYPE_MESSAGE, type_name=".tensorflow.TensorProto")
    message("PredictLog", (1, one, ".warmup.PredictRequest", "request"))
    message("PredictionLog", (6, one, ".warmup.PredictLog", "predict_log"))
    pool = descriptor_pool.Default()
    assert tensor_pb2.DESCRIPTOR.name == "tensorflow/core/framework/tensor.proto"
    pool.Add(file) if not hasattr(pool, "AddSerializedFile") else pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("warmup.PredictionLog"))


def test_protobuf_reads_what_was_written_by_hand(tmp_path):
    write_warmup(tmp_path / "assets.extra" / "requests", "products", REQUESTS)
    message = prediction_log()
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "assets.extra" / "requests"))]
    assert len(records) == 2
    for record, (signature, inputs) in zip(records, REQUESTS, strict=True):
        log = message()
        log.ParseFromString(record)
        request = log.predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == ("products", signature)
        assert set(request.inputs) == set(inputs)
        for name, value in inputs.items():
            np.testing.assert_array_equal(tf.make_ndarray(request.inputs[name]), value)
        assert log.SerializeToString(deterministic=True) == record


def test_it_reads_its_own(tmp_path):
    write_warmup(tmp_path / "requests", "products", REQUESTS)
    for (signature, inputs), (expected_signature, expected) in zip(read_warmup(tmp_path / "requests"), REQUESTS, strict=True):
        assert signature == expected_signature
        assert set(inputs) == set(expected)
        for name in inputs:
            np.testing.assert_array_equal(inputs[name], expected[name])


def test_more_than_serving_takes(tmp_path):
    with pytest.raises(BundleError, match="1001 warm-up requests; TF-Serving takes at most 1000"):
        write_warmup(tmp_path / "requests", "products", [("f", {})] * 1001)
    assert not (tmp_path / "requests").exists()


def test_damage_is_told(tmp_path):
    path = tmp_path / "requests"
    write_warmup(path, "products", REQUESTS)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for length in (100, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(BundleError, match="requests: damaged"):
            read_warmup(path)
    for _ in range(20):
        with tf.io.TFRecordWriter(str(path)) as writer:  # whole records with broken messages
            writer.write(rng.bytes(rng.integers(1, 40)))
        with pytest.raises(BundleError, match="requests: damaged"):
            read_warmup(path)
