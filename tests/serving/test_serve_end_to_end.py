"""The whole service: a real bundle and its model behind a real socket, and the command that starts it."""

from __future__ import annotations

import base64
import contextlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from bundle_helpers import pack_fake_model
from image_files import bad_files, good_files
from service_runs import serving, wait_until
from tfdml_serving.api.app import create_app
from tfdml_serving.api.keys import KeyFile
from tfdml_serving.settings import Settings

from tfdml.cli import main

GOOD = good_files()
KINDS = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png", b"GI": "image/gif", b"BM": "image/bmp"}


@pytest.fixture(scope="module")
def service(exported, tmp_path_factory):
    """The service in embedded mode, as `tfdml serve` makes it."""
    living = tmp_path_factory.mktemp("living") / "living.sqlite"
    settings = Settings(exported.path.parent, port=0, living=living, writable=True)
    with serving(settings, create_app(settings)) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        wait_until(lambda: http.get("/readyz").status_code == 200, 120, "readiness")
        yield http


def test_an_uploaded_photograph_is_answered_as_the_bundle_answers_it(service, exported):
    from tfdml.bundle import Bundle, Embedder

    embedder = Embedder(exported.path, verify=False)
    with Bundle.open(exported.path, verify=False) as bundle:
        for name, data in GOOD.items():
            expected = bundle.search(embedder.embed([data]), k=5)[0]
            response = service.post("/v1/search/image?k=5", content=data, headers={"content-type": KINDS[data[:2]]})
            assert response.status_code == 200, (name, response.text)
            hits = response.json()["hits"]
            assert [hit["id"] for hit in hits] == [hit.id for hit in expected], name
            assert [hit["distance"] for hit in hits] == pytest.approx([hit.distance for hit in expected], abs=1e-6)
            assert hits[0]["fields"] == expected[0].fields
            assert response.json()["version"] == int(exported.path.name)


@pytest.mark.parametrize("name", sorted(bad_files()))
def test_a_file_that_is_no_image_is_refused(service, name):
    data = bad_files()[name][0]
    kind = KINDS.get(data[:2], "image/jpeg")
    response = service.post("/v1/search/image", content=data, headers={"content-type": kind})
    assert response.status_code in (415, 422), response.text


def test_pictures_of_hits_are_there(service):
    hit = service.post("/v1/search/item", json={"id": "item/3", "k": 1}).json()["hits"][0]
    picture = service.get(hit["thumbnail"])
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8")


def test_an_item_added_by_its_photograph_is_the_nearest_to_it(service):
    image = base64.b64encode(GOOD["colour.png"]).decode()
    added = service.put("/v1/items/added/1", json={"image": image, "fields": {"title": "Added"}})
    assert added.status_code == 201, added.text
    response = service.post("/v1/search/image?k=1", content=GOOD["colour.png"], headers={"content-type": "image/png"})
    hit = response.json()["hits"][0]
    assert (hit["id"], hit["fields"]["title"]) == ("added/1", "Added")
    assert hit["distance"] == pytest.approx(0, abs=1e-5)
    assert service.get(hit["thumbnail"]).status_code == 200
    assert service.delete("/v1/items/added/1").status_code == 204


def test_versions_and_a_filter(service):
    versions = service.get("/v1/versions").json()
    assert versions["versions"][0]["state"] == "current"
    found = service.get("/v1/items", params={"filter": "price >= 30 and label like 'class-1%'"}).json()["items"]
    assert [item["fields"]["price"] for item in found] == [30.0, 31.5, 33.0, 34.5]


def command(*options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tfdml.cli", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_command_prints_its_address_serves_without_tensorflow_and_stops_when_told(tmp_path):
    version = tmp_path / "products" / "1"
    version.mkdir(parents=True)
    pack_fake_model(version, np.random.default_rng(0).normal(size=(30, 4)))
    run = command("serve", str(version.parent), "--port", "0", "--tf-serving", "http://127.0.0.1:9", "--log-level", "info")
    try:
        line = run.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", line).group()
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(url).headers["content-type"].startswith("text/html")
        ready = httpx.get(f"{url}/readyz")
        assert ready.status_code == 503
        assert ready.json()["reasons"]
        refused = httpx.post(f"{url}/v1/search/embedding", json={"embedding": [1, 2, 3, 4]})
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        if sys.platform == "linux":
            assert "tensorflow" not in Path(f"/proc/{run.pid}/maps").read_text()
    finally:
        run.send_signal(signal.SIGTERM)
        _, errors = run.communicate(timeout=30)
    assert run.returncode in (0, -signal.SIGTERM)
    assert '"route": "/healthz"' not in errors
    assert '"event": "request"' in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nowhere"], "there is nothing here"),
        (["BUNDLE", "--port", "99999"], "port=99999"),
        (["BUNDLE", "--api-keys", "nowhere"], "nowhere"),
        (["BUNDLE", "--tf-serving", "localhost"], "expected a URL"),
    ],
)
def test_the_command_says_what_is_wrong_in_a_sentence(packed, options, said, monkeypatch, capsys):
    options = [str(packed) if option == "BUNDLE" else option for option in options]
    if "--tf-serving" not in options:
        options += ["--tf-serving", "http://127.0.0.1:9"]
    monkeypatch.setattr(sys, "argv", ["tfdml", "serve", *options])
    monkeypatch.setattr("tfdml_serving.api.logs.set_up_log", lambda level: None)
    with pytest.raises(SystemExit) as end:
        main()
    errors = capsys.readouterr().err
    assert end.value.code == 1
    assert said in errors
    assert errors.startswith("error:")


def test_a_key_made_by_the_command_opens_the_service(tmp_path, monkeypatch, capsys):
    file = tmp_path / "keys.txt"
    monkeypatch.setattr(sys, "argv", ["tfdml", "key", "shop", "--role", "write", "--file", str(file)])
    with contextlib.suppress(SystemExit):
        main()
    assert KeyFile(file).admit(capsys.readouterr().out.split()[-1]).role == "write"
