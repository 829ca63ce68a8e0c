"""Both clients against the service itself, on real sockets."""

from __future__ import annotations

import re

import numpy as np
import pytest
from client_runs import BOTH
from fakes import FakeHeld, FakeVersions, fake_vectors
from image_files import good_files
from service_runs import running
from tfdml_serving.client import (
    BadRequest,
    EmbeddingQuery,
    Forbidden,
    ImageQuery,
    Item,
    ItemQuery,
    NotFound,
    Problem,
    Retry,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    VersionInfo,
)
from tfdml_serving.client.endpoints import Endpoints

JPEG = good_files()["colour.jpg"]
READ, WRITE = "read-key-0123456789", "write-key-0123456789"


@pytest.fixture(params=BOTH, ids=["blocking", "awaiting"])
def ask(request):
    def run(service, method, *args, **options):
        options.setdefault("retry", Retry(attempts=3, first=0.001))
        kwargs = {name: options.pop(name) for name in tuple(options) if name not in ("retry", "within", "api_key", "deadline")}
        return request.param.call(request.param.service, service.url, method=method, args=args, kwargs=kwargs, **options)

    return run


@pytest.fixture(scope="module")
def service():
    with running() as one:
        yield one


@pytest.fixture
def writable():
    with running(FakeVersions(FakeHeld(2)), writable=True) as one:
        yield one


def nearest(version: int, query: np.ndarray, k: int) -> list[str]:
    distances = np.linalg.norm(fake_vectors(version).astype(np.float64) - query, axis=1)
    return [f"item/{number}" for number in np.argsort(distances)[:k]]


def test_search_in_every_way(ask, service):
    found = ask(service, "search_image", JPEG, 3)
    assert (found.model, found.version, found.metric, found.threshold) == ("products", 2, "euclidean", 1.5)
    assert len(found) == 3
    assert found.match == found[0].match == (found[0].distance <= 1.5)
    assert found.request_id
    assert found.took_ms >= 0
    assert found[0].thumbnail == f"/v1/thumbnails/{found[0].id}"

    query = fake_vectors(1)[7]
    assert [hit.id for hit in ask(service, "search_embedding", query, 4, version=1)] == nearest(1, query, 4)
    alike = ask(service, "search_item", "item/7", 4)
    assert [hit.id for hit in alike] == nearest(2, fake_vectors(2)[7], 5)[1:]
    with_itself = ask(service, "search_item", "item/7", 4, include_self=True)
    assert (with_itself[0].id, with_itself[0].distance) == ("item/7", 0.0)

    queries = [ImageQuery(JPEG), ItemQuery("nobody"), EmbeddingQuery(query), ImageQuery(b"no picture")]
    rows = ask(service, "search_batch", queries, 2, version=1)
    assert [type(row) is Problem for row in rows] == [False, True, False, True]
    assert (rows[1].status, rows[1].type) == (404, "urn:tfdml:problem:unknown-item")
    assert [hit.id for hit in rows[2]] == nearest(1, query, 2)
    assert {row.version for row in rows if not isinstance(row, Problem)} == {1}


def test_what_is_served(ask, service):
    info = ask(service, "info")
    assert (info.model, info.version, info.items, info.dimension) == ("products", 2, 30, 4)
    assert info.fields == {"title": "text", "price": "real"}
    assert not info.writable
    assert "image/jpeg" in info.image.types
    versions = ask(service, "versions")
    assert (versions.current, versions.pinned) == (2, None)
    assert versions.versions == (VersionInfo(1, "held", None, 30), VersionInfo(2, "current", None, 30))
    assert ask(service, "ready")


def test_the_catalogue_is_read_page_by_page(ask, service):
    found = ask(service, "iter_items", page=7)
    assert sorted(item.id for item in found) == sorted(f"item/{number}" for number in range(30))
    page = ask(service, "items", limit=4)
    assert len(page.items) == 4
    assert page.next == page.items[-1].id
    assert ask(service, "item", "item/3") == Item("item/3", {"title": "Thing 3", "price": 1.5}, "/v1/thumbnails/item/3")
    assert ask(service, "thumbnail", "item/3").endswith(b"item/3")
    assert ask(service, "thumbnail", "item/3", version=1).startswith(b"\xff\xd8\xff")


IDS = ("new/mug", "50% off? #1 & more", "日本/ü", "a+b", "%2e%2e", "a;b=c", "x" * 500, "..", "a/../b", "a//b")


def test_items_of_any_name_are_added_found_changed_and_removed(ask, writable):
    for item_id in IDS:
        live(ask, writable, item_id)


def live(ask, writable, item_id):
    assert ask(writable, "put_item", item_id, {"title": "New", "price": 3}, image=JPEG).fields == {"title": "New", "price": 3.0}
    assert ask(writable, "search_image", JPEG, 1)[0].id == item_id
    assert ask(writable, "change_item", item_id, {"price": None}).fields == {"title": "New", "price": None}
    assert ask(writable, "put_item", item_id, {}, embedding=np.float32([9, 9, 9, 9])).id == item_id
    assert ask(writable, "search_embedding", [9, 9, 9, 9], 1)[0].id == item_id
    assert ask(writable, "item", item_id).id == item_id
    assert ask(writable, "delete_item", item_id) is None
    with pytest.raises(NotFound, match="no item has this id"):
        ask(writable, "item", item_id)


def test_going_back_to_a_version_and_forward_again(ask):
    with running(writable=True) as service:
        went = ask(service, "activate", 1)
        assert (went.current, went.pinned) == (1, 1)
        assert ask(service, "search_image", JPEG).version == 1
        assert ask(service, "unpin").current == 2
        with pytest.raises(NotFound, match="version=9"):
            ask(service, "activate", 9)


def test_what_the_service_refuses_says_why(ask, service):
    with pytest.raises(BadRequest) as error:
        ask(service, "search_image", JPEG, filter="price < cheap and")
    assert error.value.problem.type == "urn:tfdml:problem:filter"
    assert isinstance(error.value.problem.more["position"], int)
    assert error.value.problem.request_id
    for method, args, options, status in (
        ("search_image", (b"%PDF-1.7 ...",), {}, 415),
        ("search_image", (JPEG, 100_000), {}, 400),
        ("search_image", (JPEG[:60],), {}, None),
        ("search_embedding", ([1.0, 2.0],), {}, 400),
    ):
        with pytest.raises(BadRequest) as error:
            ask(service, method, *args, **options)
        assert status in (None, error.value.status)
    with pytest.raises(NotFound, match="nobody"):
        ask(service, "search_item", "nobody")
    with pytest.raises(NotFound, match="version=7"):
        ask(service, "search_image", JPEG, version=7)
    with pytest.raises(Forbidden):
        ask(service, "delete_item", "item/1")


def test_keys(ask, tmp_path):
    (tmp_path / "keys.txt").write_text(f"shop read {READ}\nimporter write {WRITE}\n")
    with running(FakeVersions(FakeHeld(2)), writable=True, api_keys=tmp_path / "keys.txt") as service:
        for key in (None, "wrong-key-0123456789"):
            with pytest.raises(Unauthorized):
                ask(service, "search_image", JPEG, api_key=key)
        assert ask(service, "search_image", JPEG, api_key=READ)
        with pytest.raises(Forbidden):
            ask(service, "change_item", "item/1", {"price": 1}, api_key=READ)
        assert ask(service, "change_item", "item/1", {"price": 1}, api_key=WRITE).fields["price"] == 1.0
    with running(api_keys=tmp_path / "keys.txt", requests_per_second=2.0, burst=1) as service:
        # The limit is met, and waited for.
        assert all(ask(service, "versions", api_key=READ, retry=Retry(attempts=5)) for _ in range(2))
    with running(api_keys=tmp_path / "keys.txt", requests_per_second=0.001, burst=1) as service:
        ask(service, "versions", api_key=READ)
        with pytest.raises(TooManyRequests) as error:
            ask(service, "versions", api_key=READ)
        assert error.value.retry_after >= 900


def test_an_embedder_that_is_away(ask):
    with running() as service:
        service.embedder.away = True
        readiness = ask(service, "ready")
        assert not readiness
        assert readiness.reasons
        with pytest.raises(Unavailable) as error:
            ask(service, "search_image", JPEG, within=1.0)
        assert error.value.problem.type == "urn:tfdml:problem:embedder-unavailable"
        assert error.value.retry_after > 0
        assert len(ask(service, "search_item", "item/1", 3)) == 3  # needs no embedding


def test_every_operation_of_the_service_has_a_method(service):
    """Whatever the OpenAPI document describes, the client can ask."""
    endpoints = Endpoints()
    calls = [
        endpoints.search_image(JPEG),
        endpoints.search_item("ID"),
        endpoints.search_embedding([1.0]),
        endpoints.search_batch([ItemQuery("ID")]),
        endpoints.items(),
        endpoints.item("ID"),
        endpoints.thumbnail("ID"),
        endpoints.put_item("ID", {}, embedding=[1.0]),
        endpoints.change_item("ID", {}),
        endpoints.delete_item("ID"),
        endpoints.info(),
        endpoints.versions(),
        endpoints.activate(3),
        endpoints.unpin(),
        endpoints.ready(),
    ]
    assert len(calls) == len([name for name in vars(Endpoints) if not name.startswith("_")])
    asked = {(call.method, re.sub(r"ID|(?<=/)3(?=/)", "*", call.path)) for call in calls}
    paths = service.http.get("/openapi.json").json()["paths"]
    described = {(method.upper(), re.sub(r"\{[^}]*\}", "*", path)) for path, methods in paths.items() for method in methods}
    without = {("GET", path) for path in ("/", "/healthz", "/metrics")}
    assert described - without == asked
