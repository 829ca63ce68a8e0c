"""Two versions of a bundle behind a model server: the stand-in, and the real one where there is one."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from bundle_helpers import encoded, gallery_images
from model_servers import KINDS, call, model_server, refusal, wait_for_versions
from serving_runs import run
from tfdml_serving.embedding import ModelVersion, TFServingGRPC, TFServingREST, messages

from tfdml.bundle import Embedder
from tfdml.bundle.layout import WARMUP
from tfdml.bundle.warmup import read_warmup

# Two bundles of one model, of which the second also searches by itself.
GOLDEN = [Path(__file__).resolve().parents[1] / "bundle" / name / "1" for name in ("golden", "golden_2")]


@pytest.fixture(scope="module")
def truth():
    """The embeddings of all images, by a process that no model server has a part in."""
    with np.load(GOLDEN[1].parent / "expected.npz") as expected:
        known = expected["embeddings"]
    embeddings = Embedder(GOLDEN[0]).embed([encoded(image) for image in gallery_images()])
    np.testing.assert_allclose(embeddings[[0, 7, 20]], known, atol=1e-5)
    return embeddings


@pytest.fixture(scope="module", params=KINDS)
def server(request, tmp_path_factory):
    """The address of a server that has loaded two versions."""
    folder = tmp_path_factory.mktemp("server")
    directory = folder / "products"
    for version, bundle in enumerate(GOLDEN, 1):
        shutil.copytree(bundle, directory / str(version))
    with model_server(request.param, directory, folder / "log") as address:
        yield address


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def test_bytes(server, truth):
    images = gallery_images()[:5]
    instances = [{"image_bytes": b64(encoded(image))} for image in images]
    instances.insert(2, {"image_bytes": b64(b"not an image")})
    for version in ("", "/versions/1", "/versions/2", "/labels/stable", "/labels/canary"):
        for rows in (instances, [row["image_bytes"] for row in instances]):
            predictions = call(f"{server.model}{version}:predict", {"instances": rows})["predictions"]
            valid = [prediction["valid"] for prediction in predictions]
            assert valid == [True, True, False, True, True, True]
            embeddings = np.array([prediction["embedding"] for prediction in predictions])[valid]
            np.testing.assert_allclose(embeddings, truth[:5], atol=1e-5)


def test_images(server, truth):
    images = gallery_images()[:5]
    request = {"signature_name": "embed_images", "inputs": {"images": images.tolist()}}
    outputs = call(f"{server.model}:predict", request)["outputs"]
    np.testing.assert_allclose(outputs["embedding"], truth[:5], atol=1e-5)
    assert all(outputs["valid"])


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_search(server, form):
    data = (encoded(gallery_images()[3]), b"no image", encoded(gallery_images()[5]))
    k = [2, 3, 4]
    if form == "instances":
        request = {form: [{"image_bytes": b64(file), "k": n} for file, n in zip(data, k, strict=True)]}
        rows = call(f"{server.model}:predict", {"signature_name": "search", **request})["predictions"]
    else:
        request = {form: {"image_bytes": [b64(file) for file in data], "k": k}}
        outputs = call(f"{server.model}:predict", {"signature_name": "search", **request})["outputs"]
        rows = [{name: values[row] for name, values in outputs.items()} for row in range(3)]
    assert [row["count"] for row in rows] == [2, 0, 4]
    assert [row["valid"] for row in rows] == [True, False, True]
    assert [row["ids"][0] for row in rows] == ["item/3", "", "item/5"]
    assert [row["label"][0] for row in rows] == ["class-1", "", "class-2"]
    assert {len(row["distances"]) for row in rows} == {4}


def test_search_by_embedding_and_by_image(server, truth):
    images = gallery_images()[:3]
    embeddings = truth[:3].tolist()
    for signature, name, given in (("search_embedding", "embedding", embeddings), ("search_images", "images", images.tolist())):
        request = {"signature_name": signature, "instances": [{name: row, "k": 1} for row in given]}
        rows = call(f"{server.model}:predict", request)["predictions"]
        assert [row["ids"] for row in rows] == [["item/0"], ["item/1"], ["item/2"]]


ROW = {"image_bytes": {"b64": base64.b64encode(b"x").decode()}}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("others:predict", {"instances": [ROW]}, 404),
        ("products/versions/9:predict", {"instances": [ROW]}, 404),
        ("products/labels/unknown:predict", {"instances": [ROW]}, 400),
        ("products:predict", {"signature_name": "unknown", "instances": [ROW]}, 400),
        ("products:predict", {"signature_name": 3, "instances": [ROW]}, 400),
        ("products:predict", {"instances": []}, 400),
        ("products:predict", {"instances": [ROW], "inputs": {}}, 400),
        ("products:predict", {}, 400),
        ("products:predict", b"", 400),
        ("products:predict", b"{", 400),
        ("products:predict", b"[]", 400),
        ("products:predict", {"instances": [{"other": "x"}]}, 400),
        ("products:predict", {"instances": [{"b64": "%%%"}]}, 400),
        ("products:predict", {"instances": [7]}, 400),
        ("products:predict", {"instances": [ROW, "x"]}, 400),
        ("products:predict", {"instances": [ROW] * 9}, 400),  # more than max_batch_size
        (
            "products:predict",
            {"signature_name": "embed_images", "inputs": {"images": [[[[1, 2, 3]], [[1, 2]]]]}},
            400,
        ),
        ("products:predict", {"signature_name": "embed_images", "inputs": {"images": np.ones([1, 13, 12, 3]).tolist()}}, 400),
        ("products:predict", {"signature_name": "embed_images", "inputs": {"images": [[[["a"]]]]}}, 400),
        ("products:predict", {"signature_name": "search_embedding", "inputs": {"embedding": [[1.0] * 6] * 2, "k": [3]}}, 400),
        ("products:predict", {"signature_name": "search_embedding", "inputs": {"embedding": [[1.0] * 6]}}, 400),
        ("products:nothing", {"instances": [ROW]}, 400),
        ("products", {"instances": [ROW]}, 400),
    ],
)
def test_refused(server, path, body, status):
    assert refusal(f"{server.rest}/v1/models/{path}", body)[0] == status


def test_uint8_wraps(server):
    """What the service relies on nowhere, but a client may trip over."""
    images = gallery_images()[:1].astype(int)
    request = {"signature_name": "embed_images", "inputs": {"images": (images + 256).tolist()}}
    wrapped = call(f"{server.model}:predict", request)["outputs"]["embedding"]
    plain = call(f"{server.model}:predict", {**request, "inputs": {"images": images.tolist()}})["outputs"]["embedding"]
    assert wrapped == plain


def test_states_and_metadata(server):
    states = call(server.model)["model_version_status"]
    assert [(entry["version"], entry["state"]) for entry in states] == [("2", "AVAILABLE"), ("1", "AVAILABLE")]
    assert states[0]["status"] == {"error_code": "OK", "error_message": ""}
    assert call(f"{server.model}/versions/1")["model_version_status"] == states[1:]
    assert call(f"{server.model}/labels/stable")["model_version_status"]
    assert refusal(f"{server.model}/versions/9")[0] == 404
    assert refusal(f"{server.rest}/v1/models/others")[0] == 404
    metadata = call(f"{server.model}/versions/1/metadata")
    assert metadata["model_spec"]["version"] == "1"
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    assert [dim["size"] for dim in signatures["serving_default"]["outputs"]["embedding"]["tensor_shape"]["dim"]] == ["-1", "6"]


@pytest.mark.parametrize("language", [TFServingREST, TFServingGRPC], ids=["rest", "grpc"])
def test_the_embedders(server, truth, language):
    images = gallery_images()[:12]  # more than the server's batch: asked one by one
    files = [encoded(image) for image in images]
    files[4] = b"not an image"
    address = server.rest if language is TFServingREST else server.grpc

    async def test():
        embedder = language(address, "products")
        for version in (1, 2):
            await embedder.prepare(ModelVersion(version, GOLDEN[0], 6))
            await embedder.check(version)
            embeddings, valid = await embedder.embed(files, version)
            assert valid.tolist() == [number != 4 for number in range(12)]
            np.testing.assert_allclose(embeddings[valid], truth[:12][valid], atol=1e-5)
        assert await embedder.loaded() == {1, 2}
        await embedder.aclose()

    run(test)


@pytest.mark.parametrize(
    ("model", "version", "signature", "code"),
    [
        ("others", 1, "", grpc.StatusCode.NOT_FOUND),
        ("products", 9, "", grpc.StatusCode.NOT_FOUND),
        ("products", 1, "unknown", grpc.StatusCode.FAILED_PRECONDITION),
        ("products", 2, "search", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_refused_by_grpc(server, model, version, signature, code):
    request = messages.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.model_spec.version.value = version
    tensor = request.inputs["image_bytes"]
    tensor.dtype = messages.STRING
    tensor.tensor_shape.dim.add(size=1)
    tensor.string_val.append(b"x")
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(messages.PREDICT)(request.SerializeToString(), timeout=60)
    assert error.value.code() == code


def test_messages_are_those_of_the_warm_up_file():
    """Two encoders that know nothing of each other: TensorFlow and a few lines by hand there, protobuf at run time here."""
    path = GOLDEN[1] / WARMUP
    log = {"PredictionLog": {"predict_log": (6, "PredictLog")}, "PredictLog": {"request": (1, "bytes")}}
    read = messages.build_messages(log, "example")["PredictionLog"].FromString
    for record, (signature, inputs) in zip(tf.data.TFRecordDataset(str(path)), read_warmup(path), strict=True):
        request = messages.PredictRequest.FromString(read(record.numpy()).predict_log.request)
        assert request.model_spec.signature_name == signature
        assert set(request.inputs) == set(inputs)
        for name, value in inputs.items():
            proto = tf.make_tensor_proto(value)
            assert request.inputs[name] == messages.TensorProto.FromString(proto.SerializeToString())
            assert [dim.size for dim in request.inputs[name].tensor_shape.dim] == list(value.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_versions_come_and_go(kind, tmp_path):
    directory = tmp_path / "products"
    shutil.copytree(GOLDEN[0], directory / "1")
    with model_server(kind, directory, tmp_path / "log") as address:
        wait_for_versions(address, {1})
        for version, expected in ((2, {1, 2}), (3, {2, 3})):
            shutil.copytree(GOLDEN[0], directory / f".{version}")  # not a version
            (directory / f".{version}").rename(directory / str(version))
            wait_for_versions(address, expected)
        assert refusal(f"{address.model}/versions/1:predict", {"instances": [ROW]})[0] == 404
        states = {entry["version"]: entry["state"] for entry in call(address.model)["model_version_status"]}
        assert states["1"] in ("UNLOADING", "END")
        shutil.rmtree(directory / "3")
        wait_for_versions(address, {1, 2})
