"""The API over a real bundle and a living catalogue: filters, changes that are found at once, and what survives the end."""

from __future__ import annotations

from urllib.parse import quote

import numpy as np
import pytest
from bundle_helpers import pack_fake_model
from fakes import FakeVersions
from service_runs import running
from tfdml_serving.engine.held import HeldVersion
from tfdml_serving.living import LivingCatalogue

VECTORS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    path = tmp_path_factory.mktemp("products") / "3"
    path.mkdir()
    pack_fake_model(path, VECTORS)
    return path


@pytest.fixture
def service(version, tmp_path):
    living = LivingCatalogue.open(tmp_path / "living.sqlite")
    held = HeldVersion.open(version, living)
    with held, running(FakeVersions(held), living=living, writable=True) as running_service:
        yield running_service


def near(numbers, query, k):
    return sorted(numbers, key=lambda i: float(np.linalg.norm(VECTORS[i] - query)))[:k]


def test_filters_narrow_searches_and_lists(service):
    query = [0.1, 0.2, -0.3, 0.4]
    body = {"embedding": query, "k": 5, "filter": "price >= 10 and title != 'Thing 25'"}
    answer = service.http.post("/v1/search/embedding", json=body).json()
    wanted = near([i for i in range(20, 40) if i != 25], query, 5)
    assert [hit["id"] for hit in answer["hits"]] == [f"item/{i}" for i in wanted]
    assert answer["version"] == 3
    listed = service.http.get("/v1/items", params={"filter": "title in ('Thing 3', 'Thing 7')"}).json()
    assert [item["fields"]["title"] for item in listed["items"]] == ["Thing 3", "Thing 7"]
    batch = {"queries": [{"id": "item/7"}, {"embedding": query}], "filter": "price < 2", "k": 3}
    rows = service.http.post("/v1/search/batch", json=batch).json()["results"]
    assert [hit["id"] for hit in rows[0]["hits"]] == [f"item/{i}" for i in near(range(4), VECTORS[7], 3)]
    assert [hit["id"] for hit in rows[1]["hits"]] == [f"item/{i}" for i in near(range(4), query, 3)]


@pytest.mark.parametrize(("text", "position"), [("colour = red", 0), ("price >", 7), ("price ? 3", 6), ("price = 'x", 8)])
def test_a_filter_that_cannot_be_read_says_where(service, text, position):
    refused = service.http.post("/v1/search/embedding", json={"embedding": [1, 2, 3, 4], "filter": text})
    assert (refused.status_code, refused.json()["type"]) == (400, "urn:tfdml:problem:filter")
    assert refused.json()["position"] == position
    assert service.http.get("/v1/items", params={"filter": text}).json()["position"] == position


def test_changes_are_found_at_once_and_survive(service, version, tmp_path):
    http = service.http
    where = {"embedding": [9.0, 9.0, 9.0, 9.0], "k": 1}
    assert http.put("/v1/items/new/one", json={"embedding": [9, 9, 9, 9], "fields": {"title": "New"}}).status_code == 201
    hit = http.post("/v1/search/embedding", json=where).json()["hits"][0]
    assert (hit["id"], hit["distance"], hit["fields"]) == ("new/one", 0.0, {"title": "New", "price": None})
    assert http.patch("/v1/items/item/3", json={"fields": {"title": "Sold"}}).json()["fields"] == {
        "title": "Sold",
        "price": 1.5,
    }
    assert http.get("/v1/items", params={"filter": "title = Sold"}).json()["items"][0]["id"] == "item/3"
    assert http.delete("/v1/items/item/5").status_code == 204
    assert http.get("/v1/items/item/5").status_code == 404
    assert http.post("/v1/search/item", json={"id": "item/5"}).status_code == 404
    near_gone = http.post("/v1/search/embedding", json={"embedding": VECTORS[5].tolist(), "k": 40}).json()["hits"]
    assert "item/5" not in {hit["id"] for hit in near_gone}
    assert len(near_gone) == 40
    assert http.get("/v1/info").json()["items"] == 40
    service.living.close()
    with LivingCatalogue.open(tmp_path / "living.sqlite") as again, HeldVersion.open(version, again) as held:
        assert held.item("new/one")["fields"]["title"] == "New"
        assert held.item("item/3")["fields"]["title"] == "Sold"
        assert held.items == 40


def test_two_ids_that_look_alike_in_a_path(service):
    for name in ("a/b", "a%2Fb", "a b", "ä/ö", "a?b=c", "a//b", "#"):
        path = f"/v1/items/{quote(name, safe='')}"
        assert service.http.put(path, json={"embedding": [1, 2, 3, 4]}).status_code == 201, name
        assert service.http.get(path).json()["id"] == name
        assert service.http.delete(path).status_code == 204
