"""The page about the client: its Python blocks run as written, in order, against the service and a model server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import tfdml_serving.client as client_package
from fakes import FakeHeld, FakeVersions
from image_files import good_files
from service_runs import running
from serving_runs import make_model_directory
from stand_in import StandIn
from stand_in_models import Signature, TensorInfo

PAGE = (Path(__file__).resolve().parents[2] / "serving" / "client.md").read_text(encoding="utf-8")


class Searching:
    """A model that finds one item for every image."""

    signatures: ClassVar = {
        "search": Signature(
            {"image_bytes": TensorInfo("string", (-1,)), "k": TensorInfo("int32", (-1,))},
            {
                "ids": TensorInfo("string", (-1, -1)),
                "distances": TensorInfo("float", (-1, -1)),
                "count": TensorInfo("int32", (-1,)),
                "valid": TensorInfo("bool", (-1,)),
            },
        )
    }

    def run(self, signature, inputs):
        rows = len(inputs["k"])
        found = {"ids": np.array([[b"mug"]] * rows, object), "distances": np.full([rows, 1], 0.5, np.float32)}
        return {**found, "count": np.ones(rows, np.int32), "valid": np.ones(rows, bool)}


def test_the_page_runs_as_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "photo.jpg").write_bytes(good_files()["colour.jpg"])
    (tmp_path / "products").mkdir()
    make_model_directory(tmp_path / "products" / "1")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 6
    names: dict = {"__name__": "__page__"}
    versions = FakeVersions(FakeHeld(2))
    with running(versions, writable=True) as service, StandIn(tmp_path / "products", lambda path: Searching()) as model:
        addresses = {"http://localhost:8000": service.url, "http://localhost:8501": model.url}
        for number, block in enumerate(blocks):
            for address, instead in addresses.items():
                block = block.replace(address, instead)
            exec(compile(block, f"client.md, block {number}", "exec"), names)
    said = capsys.readouterr().out
    assert said.count("found:") == 2
    assert said.count("refused: 404 No such item") == 1
    assert len(names["results"]) == 2
    assert names["found"][0].id == "mug"


def test_the_page_names_every_error_and_they_exist():
    named = set(re.findall(r"`([A-Z]\w+)`", PAGE.partition("## When")[2].partition("## Async")[0])) - {"Retry-After"}
    errors = {name for name in client_package.__all__ if isinstance(getattr(client_package, name), type)}
    errors = {name for name in errors if issubclass(getattr(client_package, name), Exception)}
    assert errors - {"ClientError", "ProblemError"} <= named
    assert all(hasattr(client_package, name) for name in named - {"Retry"})
