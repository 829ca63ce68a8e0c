"""The bundle behind the real `tensorflow_model_server`, where there is one."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from bundle_helpers import encoded, gallery_images

SERVER = os.environ.get("TF_MODEL_SERVER") or shutil.which("tensorflow_model_server")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(url: str, body: object = None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    """The REST address of a server that has loaded the bundle."""
    if SERVER is None:
        pytest.skip("tensorflow_model_server is not on the PATH, and TF_MODEL_SERVER does not name one")
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    command = [SERVER, "--model_name=products", f"--model_base_path={exported.path.parent}"]
    command += [f"--rest_api_port={port}", f"--port={free_port()}"]
    url = f"http://127.0.0.1:{port}/v1/models/products"
    with open(log, "wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            for _ in range(300):
                if process.poll() is not None:
                    pytest.fail(f"the server ended by itself:\n{log.read_text()[-3000:]}")
                try:
                    if call(url)["model_version_status"][0]["state"] == "AVAILABLE":
                        break
                except (urllib.error.URLError, ConnectionError):
                    pass
                time.sleep(0.2)
            else:
                pytest.fail(f"the model did not become available:\n{log.read_text()[-3000:]}")
            yield url
        finally:
            process.terminate()
            process.wait(30)


def test_bytes(server, exported):
    images = gallery_images()[:5]
    instances = [{"image_bytes": {"b64": base64.b64encode(encoded(image)).decode()}} for image in images]
    instances.insert(2, {"image_bytes": {"b64": base64.b64encode(b"not an image").decode()}})
    predictions = call(f"{server}/versions/1:predict", {"instances": instances})["predictions"]
    valid = [prediction["valid"] for prediction in predictions]
    assert valid == [True, True, False, True, True, True]
    embeddings = np.array([prediction["embedding"] for prediction in predictions])[valid]
    np.testing.assert_allclose(embeddings, exported.model.embed(images), atol=1e-5)


def test_images(server, exported):
    images = gallery_images()[:5]
    request = {"signature_name": "embed_images", "inputs": {"images": images.tolist()}}
    outputs = call(f"{server}:predict", request)["outputs"]
    np.testing.assert_allclose(outputs["embedding"], exported.model.embed(images), atol=1e-5)
    assert all(outputs["valid"])


def test_another_size_is_refused(server):
    request = {"signature_name": "embed_images", "inputs": {"images": np.zeros([1, 13, 12, 3], int).tolist()}}
    with pytest.raises(urllib.error.HTTPError) as error:
        call(f"{server}:predict", request)
    assert error.value.code == 400


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_search(server, exported, form):
    data = (encoded(gallery_images()[3]), b"no image", encoded(gallery_images()[5]))
    files = [base64.b64encode(file).decode() for file in data]
    k = [2, 3, 4]
    if form == "instances":
        request = {form: [{"image_bytes": {"b64": file}, "k": n} for file, n in zip(files, k, strict=True)]}
        rows = call(f"{server}:predict", {"signature_name": "search", **request})["predictions"]
    else:
        request = {form: {"image_bytes": [{"b64": file} for file in files], "k": k}}
        outputs = call(f"{server}:predict", {"signature_name": "search", **request})["outputs"]
        rows = [{name: values[row] for name, values in outputs.items()} for row in range(3)]
    assert [row["count"] for row in rows] == [2, 0, 4]
    assert [row["valid"] for row in rows] == [True, False, True]
    assert [row["ids"][0] for row in rows] == ["item/3", "", "item/5"]
    assert [row["label"][0] for row in rows] == ["class-1", "", "class-2"]
    assert {len(row["distances"]) for row in rows} == {4}


def test_search_by_embedding_and_by_image(server, exported):
    images = gallery_images()[:3]
    embeddings = np.asarray(exported.model.embed(images)).tolist()
    for signature, name, given in (("search_embedding", "embedding", embeddings), ("search_images", "images", images.tolist())):
        request = {"signature_name": signature, "instances": [{name: row, "k": 1} for row in given]}
        rows = call(f"{server}:predict", request)["predictions"]
        assert [row["ids"] for row in rows] == [["item/0"], ["item/1"], ["item/2"]]


def test_one_k_for_two_queries_is_refused(server):
    request = {"signature_name": "search_embedding", "inputs": {"embedding": [[1.0] * 6] * 2, "k": [3]}}
    with pytest.raises(urllib.error.HTTPError) as error:
        call(f"{server}:predict", request)
    assert error.value.code == 400
