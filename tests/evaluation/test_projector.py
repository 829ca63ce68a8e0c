"""The files for TensorBoard's Projector, read back by hand and by TensorBoard's own plugin."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tfdml.evaluation import write_projector

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(11, 5)).astype(np.float32)
IMAGES = RANDOM.integers(0, 255, (11, 20, 30, 3), dtype=np.uint8)
METADATA = {"label": ["a\tb", *"cdefghijkl"], "id": range(11)}


def test_the_files_hold_what_was_given(tmp_path) -> None:
    path = write_projector(tmp_path / "logs", VECTORS, METADATA, lambda number: IMAGES[number], side=32)
    assert np.loadtxt(path.parent / "vectors.tsv", delimiter="\t") == pytest.approx(VECTORS, rel=1e-6)
    lines = (path.parent / "metadata.tsv").read_text().splitlines()
    assert lines[:2] == ["label\tid", "a b\t0"]
    assert len(lines) == 12
    sheet = Image.open(path.parent / "sprite.png")
    assert sheet.size == (4 * 32, 4 * 32)
    small = Image.fromarray(IMAGES[5])
    small.thumbnail((32, 32))
    left, top = 1 * 32 + (32 - small.width) // 2, 1 * 32 + (32 - small.height) // 2
    assert sheet.crop((left, top, left + small.width, top + small.height)).tobytes() == small.tobytes()


def test_a_single_column_has_no_heading_and_large_sheets_shrink(tmp_path) -> None:
    path = write_projector(tmp_path, VECTORS, {"label": range(11)}, IMAGES, side=5000)
    assert (tmp_path / "metadata.tsv").read_text().splitlines() == [str(number) for number in range(11)]
    assert max(Image.open(tmp_path / "sprite.png").size) <= 8192
    assert "single_image_dim: 2048" in path.read_text()
    assert "sprite" not in write_projector(tmp_path / "plain", VECTORS, {"label": range(11)}).read_text()


def test_a_name_may_have_any_letters(tmp_path) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    from google.protobuf.wrappers_pb2 import StringValue

    for name in ("Läden", "店", 'an "A"', "a\\b\n"):
        written = write_projector(tmp_path, VECTORS, METADATA, name=name).read_text(encoding="utf-8")
        (line,) = [line for line in written.splitlines() if "tensor_name" in line]
        assert text_format.Parse(line.replace("tensor_name", "value"), StringValue()).value == name


def test_tensorboards_own_plugin_serves_them(tmp_path) -> None:
    pytest.importorskip("tensorboard.plugins.projector")
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.projector import projector_plugin
    from werkzeug.test import Client
    from werkzeug.wrappers import Response

    name = 'Läden "A" \\ B'
    write_projector(tmp_path, VECTORS, METADATA, IMAGES, name=name)
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(tmp_path))
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = base_plugin.TBContext(logdir=str(tmp_path), data_provider=provider)
    routes = projector_plugin.ProjectorPlugin(context).get_plugin_apps()

    def get(route: str, **arguments: str) -> Response:
        response = Client(routes[route], Response).get(route, query_string=arguments)
        assert response.status_code == 200, response.get_data()
        return response

    (run,) = json.loads(get("/runs").get_data())
    (embedding,) = json.loads(get("/info", run=run).get_data())["embeddings"]
    assert embedding["tensorName"] == name
    assert embedding["tensorShape"] == [11, 5]
    served = np.frombuffer(get("/tensor", run=run, name=name).get_data(), np.float32).reshape(11, 5)
    assert served == pytest.approx(VECTORS, rel=1e-6)
    assert get("/metadata", run=run, name=name).get_data(as_text=True).splitlines()[1] == "a b\t0"
    assert get("/sprite_image", run=run, name=name).get_data() == (tmp_path / "sprite.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": np.full((2, 2), np.nan)}, "NaN"),
        ({"metadata": {}}, "received no column"),
        ({"metadata": {"label": [1]}}, "1 values for 11"),
        ({"images": IMAGES.astype(float)}, r"images\[0\]: expected uint8"),
        ({"side": 0}, "side=0"),
    ],
)
def test_bad_input(arguments, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        write_projector(tmp_path, **{"embeddings": VECTORS, "metadata": METADATA, **arguments})
