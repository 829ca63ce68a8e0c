"""The same tests ask the stand-in and, where there is one, the real `tensorflow_model_server`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from stand_in import StandIn, free_port

SERVER = os.environ.get("TF_MODEL_SERVER") or shutil.which("tensorflow_model_server")
BATCHING = "max_batch_size { value: 8 } batch_timeout_micros { value: 1000 } num_batch_threads { value: 2 }\n"
LABELS = {"stable": 1, "canary": 2}
KINDS = ["stand-in", pytest.param("real", marks=pytest.mark.skipif(SERVER is None, reason="no tensorflow_model_server here"))]


class Address(NamedTuple):
    rest: str
    grpc: str
    kind: str

    @property
    def model(self) -> str:
        return f"{self.rest}/v1/models/products"


def call(url: str, body: object = None):
    """The JSON answer to a GET, or to a POST of JSON or of bytes."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
        return json.load(answer)


def refusal(url: str, body: object = None) -> tuple[int, str]:
    """Status and error text of a request that is refused."""
    with pytest.raises(urllib.error.HTTPError) as error:
        call(url, body)
    with error.value:
        return error.value.code, json.load(error.value).get("error", "")


@contextlib.contextmanager
def model_server(kind: str, directory: Path, log: Path) -> Iterator[Address]:
    """A server of the two newest versions in a directory, with labels and batching, that has loaded them."""
    if kind == "stand-in":
        with StandIn(directory, policy=("latest", 2), labels=LABELS, max_batch_size=8) as server:
            address = Address(server.url, server.grpc_address, kind)
            wait_for_versions(address, {version for version in LABELS.values() if (directory / str(version)).exists()})
            yield address
        return
    config, batching = log.with_name("models.config"), log.with_name("batching.config")
    labels = " ".join(f'version_labels {{ key: "{name}" value: {version} }}' for name, version in LABELS.items())
    config.write_text(
        f'model_config_list {{ config {{ name: "products" base_path: "{directory}" model_platform: "tensorflow" '
        f"model_version_policy {{ latest {{ num_versions: 2 }} }} {labels} }} }}"
    )
    batching.write_text(BATCHING)
    rest, grpc = free_port(), free_port()
    command = [str(SERVER), f"--model_config_file={config}", f"--rest_api_port={rest}", f"--port={grpc}"]
    command += ["--enable_batching", f"--batching_parameters_file={batching}"]
    command += ["--allow_version_labels_for_unavailable_models", "--file_system_poll_wait_seconds=1"]
    address = Address(f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}", kind)
    with open(log, "wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_for_versions(address, {version for version in LABELS.values() if (directory / str(version)).exists()}, process)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def wait_for_versions(address: Address, versions: set[int], process: subprocess.Popen[bytes] | None = None) -> None:
    """Until these versions, and no others, are available."""
    found: set[int] = set()
    for _ in range(600):
        if process is not None and process.poll() is not None:
            pytest.fail("the server ended by itself")
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            states = call(address.model)["model_version_status"]
            found = {int(entry["version"]) for entry in states if entry["state"] == "AVAILABLE"}
            if found == versions:
                return
        time.sleep(0.1)
    pytest.fail(f"available are {found}, not {versions}: {call(address.model)}")
