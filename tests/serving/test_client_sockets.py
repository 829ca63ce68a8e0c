"""Both clients on real sockets, against a server that misbehaves."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import subprocess
import sys
import threading

import httpx
import numpy as np
import pytest
from client_runs import BOTH
from misbehaving import Misbehaving, after, answers, cuts, cuts_midway, drips, resets, speaks_no_http
from tfdml_serving.client import (
    AsyncClient,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    EmbeddingQuery,
    Hit,
    ImageQuery,
    Item,
    ItemQuery,
    NotFound,
    Problem,
    Retry,
    SearchResult,
    Unavailable,
    UnexpectedAnswer,
)

QUICK = Retry(attempts=4, first=0.001, longest=0.002)
HIT = {
    "id": "mug/1",
    "distance": 0.25,
    "match": True,
    "probability": 0.75,
    "fields": {"price": 2},
    "thumbnail": "/v1/thumbnails/mug/1",
}
FOUND = {
    "model": "products",
    "version": 3,
    "metric": "euclidean",
    "match": True,
    "threshold": 0.5,
    "hits": [HIT],
    "request_id": "7f3a",
    "took_ms": 1.5,
    "something_new": [1],
}
RESULT = SearchResult(
    "products", 3, "euclidean", True, 0.5, (Hit("mug/1", 0.25, {"price": 2}, True, HIT["thumbnail"], 0.75),), "7f3a", 1.5
)
PNG = b"\x89PNG\r\n\x1a\n....."


@pytest.fixture(params=BOTH, ids=["blocking", "awaiting"])
def both(request):
    return request.param


@pytest.fixture
def ask(both):
    def run(server: Misbehaving, method: str = "search_item", *args, **options):
        options.setdefault("retry", QUICK)
        return both.call(
            both.service, server.url, method=method, args=args or (["mug-1"] if method == "search_item" else ()), **options
        )

    return run


def test_an_image_travels_as_it_is(ask, tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    with Misbehaving(answers(200, FOUND)) as server:
        for image in (PNG, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").open("rb")):
            result = ask(
                server, "search_image", image, 5, kwargs={"filter": "a = 'x & y' and b > 1", "version": 3}, api_key="secret"
            )
            assert result == RESULT
    for request in server.requests:
        assert request.target == "/v1/search/image?k=5&filter=a+%3D+%27x+%26+y%27+and+b+%3E+1&version=3"
        assert (request.method, request.body) == ("POST", PNG)
        assert request.headers["content-type"] == "image/png"
        assert request.headers["authorization"] == "Bearer secret"


def test_ids_embeddings_and_batches_travel_as_json(ask):
    with Misbehaving(answers(200, FOUND)) as server:
        assert ask(server, "search_item", "mug-1", 4, kwargs={"include_self": True}) == RESULT
        assert ask(server, "search_embedding", np.float32([0.5, 2]), kwargs={"version": 2}) == RESULT
        assert ask(server, "search_embedding", [0.5, 2]) == RESULT
    sent = [request.json for request in server.requests]
    assert sent == [
        {"id": "mug-1", "include_self": True, "k": 4},
        {"embedding": [0.5, 2.0], "k": 10, "version": 2},
        {"embedding": [0.5, 2.0], "k": 10},
    ]
    problem = {
        "title": "No such item",
        "status": 404,
        "detail": "no item has the id 'x'",
        "type": "urn:tfdml:problem:unknown-item",
    }
    with Misbehaving(answers(200, {"results": [FOUND, {"error": problem}, FOUND]})) as server:
        rows = ask(server, "search_batch", [ImageQuery(PNG), ItemQuery("x"), EmbeddingQuery([1, 2])], 3)
    assert rows == [RESULT, Problem.of(problem, 404), RESULT]
    assert [list(query) for query in server.requests[0].json["queries"]] == [["image"], ["id"], ["embedding"]]


@pytest.mark.parametrize(
    ("item_id", "target"),
    [
        ("item/3", "/v1/items/item/3"),
        ("50% off? #1", "/v1/items/50%25%20off%3F%20%231"),
        ("a/../b", "/v1/items/a%2F%2E%2E%2Fb"),
        ("/etc/", "/v1/items/%2Fetc%2F"),
        ("日本", "/v1/items/%E6%97%A5%E6%9C%AC"),
        ("%2e", "/v1/items/%252e"),
    ],
)
def test_no_id_gets_out_of_its_place_in_the_path(ask, item_id, target):
    with Misbehaving(answers(200, {"id": item_id, "fields": {}})) as server:
        assert ask(server, "item", item_id) == Item(item_id, {})
    assert server.requests[0].target == target


def test_a_service_behind_a_path_of_a_proxy(both):
    with Misbehaving(answers(200, FOUND)) as server:
        both.call(both.service, f"{server.url}/shop/search/", method="search_item", args=["x"])
    assert server.requests[0].target == "/shop/search/v1/search/item"


@pytest.mark.parametrize("trouble", [cuts, resets, cuts_midway, speaks_no_http, *(answers(n) for n in (429, 502, 503, 504))])
def test_trouble_that_passes_is_not_seen(ask, trouble):
    with Misbehaving(trouble, trouble, answers(200, FOUND)) as server:
        assert ask(server) == RESULT
    assert len(server.requests) == 3
    assert len({request.headers["x-request-id"] for request in server.requests}) == 1


def test_trouble_that_stays_is_told(ask):
    with Misbehaving(cuts) as server, pytest.raises(ConnectionFailed, match=r"disconnected|ReadError"):
        ask(server)
    assert len(server.requests) == 4
    busy = answers(503, {"title": "busy", "detail": "all busy"}, Retry_After="600")
    with Misbehaving(busy) as server, pytest.raises(Unavailable, match="all busy") as error:
        ask(server)
    assert error.value.retry_after == 600
    assert len(server.requests) == 1  # the server asked for more time than there is
    with pytest.raises(ConnectionFailed, match="ConnectError"):
        ask(server)  # nobody listens any more


def test_retry_after_is_honoured(ask):
    with Misbehaving(answers(429, {}, Retry_After="1"), answers(200, FOUND)) as server:
        with pytest.raises(Exception, match="429"):
            ask(server, within=0.5)
        assert len(server.requests) == 1
        assert ask(server) == RESULT


def test_changes_are_repeated_only_when_that_is_safe(ask):
    item = answers(200, {"id": "x", "fields": {"price": 1}})
    with Misbehaving(cuts, item) as server:
        assert ask(server, "put_item", "x", {"price": 1}, kwargs={"embedding": [1.0]}) == Item("x", {"price": 1})
        assert [request.json for request in server.requests] == [{"fields": {"price": 1}, "embedding": [1.0]}] * 2
    with Misbehaving(cuts, item) as server, pytest.raises(ConnectionFailed):
        ask(server, "change_item", "x", {"price": 1})
    assert [request.method for request in server.requests] == ["PATCH"]
    with Misbehaving(answers(503), item) as server:
        assert ask(server, "change_item", "x", {"price": 1}) == Item("x", {"price": 1})
    with Misbehaving(cuts, answers(404)) as server:
        assert ask(server, "delete_item", "x") is None
    with Misbehaving(answers(404)) as server, pytest.raises(NotFound):
        ask(server, "delete_item", "x")


def test_a_slow_attempt_is_given_up_and_repeated(ask):
    with Misbehaving(after(3, answers(200, {})), answers(200, FOUND)) as server:
        assert ask(server, timeout=0.2) == RESULT


def test_the_deadline_ends_the_call(ask):
    with Misbehaving(after(20, answers(200, FOUND))) as server, pytest.raises(DeadlineExceeded, match=r"0\.3 s"):
        ask(server, within=0.3)
    # Each byte comes in time; the answer as a whole would come after 20 s.
    with Misbehaving(drips(json.dumps(FOUND).encode(), 0.1)) as server, pytest.raises(DeadlineExceeded):
        ask(server, deadline=0.4)


def test_an_async_call_can_be_cancelled_and_the_client_goes_on():
    async def run(server):
        async with AsyncClient(server.url, retry=QUICK) as client:
            task = asyncio.create_task(client.info())
            while not server.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await client.search_item("x")

    with Misbehaving(after(20, cuts), answers(200, FOUND)) as server:
        assert asyncio.run(run(server)) == RESULT


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[]", "expected an object"),
        (b"{}", "answer.model is missing"),
        (json.dumps({**FOUND, "version": "3"}).encode(), "answer.version is '3'"),
        (json.dumps({**FOUND, "version": True}).encode(), "answer.version is True"),
        (json.dumps({**FOUND, "threshold": "x"}).encode(), "answer.threshold is 'x'"),
        (json.dumps({**FOUND, "hits": [HIT, {}]}).encode(), r"answer.hits\[1\].id is missing"),
        (json.dumps({**FOUND, "took_ms": float("nan")}).encode(), "NaN"),
        (json.dumps(FOUND).encode().replace(b"1.5", b"1e999"), "answer.took_ms is inf"),
        (b"\xff\xff", "not JSON"),
        (b"[" * 100_000, "not JSON|nested"),
    ],
)
def test_nonsense_is_called_nonsense_and_not_repeated(ask, body, says):
    with Misbehaving(answers(200, raw=body)) as server, pytest.raises(UnexpectedAnswer, match=says):
        ask(server)
    assert len(server.requests) == 1


def test_an_answer_without_end_does_not_fill_the_memory(ask, monkeypatch):
    monkeypatch.setattr("tfdml_serving.client.running.MOST_BYTES", 100_000)
    bomb = gzip.compress(bytes(10_000_000))
    with (
        Misbehaving(answers(200, raw=bomb, Content_Encoding="gzip")) as server,
        pytest.raises(UnexpectedAnswer, match="longer"),
    ):
        ask(server)
    with Misbehaving(answers(200, raw=b"no gzip", Content_Encoding="gzip")) as server, pytest.raises(UnexpectedAnswer):
        ask(server)


def test_pages_follow_each_other_to_the_last(ask):
    pages = [{"items": [{"id": f"i{n}", "fields": {}}], "next": following} for n, following in enumerate(["i0", "i1", None])]
    with Misbehaving(*(answers(200, page) for page in pages)) as server:
        assert [item.id for item in ask(server, "iter_items", kwargs={"filter": "a = 1", "page": 1})] == ["i0", "i1", "i2"]
    assert [request.target.partition("after=")[2] for request in server.requests] == ["", "i0", "i1"]
    with Misbehaving(answers(200, pages[0])) as server, pytest.raises(UnexpectedAnswer, match="no end"):
        ask(server, "iter_items")


def test_not_being_ready_is_an_answer(ask):
    with Misbehaving(answers(503, {"ready": False, "version": None, "reasons": ["no version"]}, Retry_After="1")) as server:
        readiness = ask(server, "ready")
    assert not readiness
    assert readiness.reasons == ("no version",)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "says"),
    [
        ("search_image", [np.zeros([2, 2, 3])], {}, "image: ndarray"),
        ("search_image", [b""], {}, "empty"),
        ("search_embedding", [[1.0, float("nan")]], {}, "place 1 holds nan"),
        ("search_embedding", [["x"]], {}, "row of numbers"),
        ("search_embedding", [np.zeros([2, 2])], {}, "row of numbers"),
        ("search_batch", [["mug-1"]], {}, r"queries\[0\]: str"),
        ("item", [""], {}, "item_id=''"),
        ("put_item", ["x", {}], {}, "image or the embedding"),
        ("put_item", ["x", {}], {"image": PNG, "embedding": [1.0]}, "one of them"),
        ("put_item", ["x", {"price": float("inf")}], {"embedding": [1.0]}, "JSON"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_sent(ask, method, args, kwargs, says):
    with Misbehaving(answers(200, FOUND)) as server, pytest.raises(ValueError, match=says):
        ask(server, method, *args, kwargs=kwargs)
    assert server.requests == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"url": "localhost:8000"}, "url="),
        ({"url": "http://"}, "url="),
        ({"url": "http://host/?a=1"}, "url="),
        ({"api_key": "a\nb"}, "api_key"),
        ({"api_key": ""}, "api_key"),
        ({"timeout": 0}, "timeout=0"),
        ({"deadline": float("nan")}, "deadline=nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, says):
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=says) as error:
            kind(**{"url": "http://localhost", **wrong})
        assert "a\nb" not in str(error.value)


def test_one_client_serves_many_threads(tmp_path):
    with Misbehaving(answers(200, FOUND)) as server, Client(server.url) as client:
        found: list = []
        threads = [threading.Thread(target=lambda: found.extend(client.search_item("x") for _ in range(20))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [RESULT] * 160


def test_the_key_is_not_shown_and_does_not_travel_elsewhere(ask):
    assert "secret" not in repr(Client("http://localhost", api_key="secret"))
    with Misbehaving(answers(200, FOUND)) as elsewhere:
        moved = Misbehaving(answers(307, Location=elsewhere.url))
        with moved as server, pytest.raises(UnexpectedAnswer, match="307"):
            ask(server, api_key="secret")
    assert elsewhere.requests == []


def test_a_configured_httpx_client_is_used_and_stays_open():
    with Misbehaving(answers(200, FOUND)) as server, httpx.Client(headers={"X-Shop": "1"}) as http:
        with Client(server.url, http=http) as client:
            client.search_item("x")
        assert not http.is_closed
    assert server.requests[0].headers["x-shop"] == "1"


def test_the_two_clients_offer_the_same_methods_with_texts():
    methods = {name for name in dir(Client) if not name.startswith("_")} - {"run", "close"}
    assert methods == {name for name in dir(AsyncClient) if not name.startswith("_")} - {"run", "aclose"}
    for name in methods - {"within", "iter_items"}:
        blocking, awaiting = (inspect.signature(getattr(kind, name)) for kind in (Client, AsyncClient))
        assert blocking == awaiting
        assert "Call" not in str(blocking.return_annotation)
        assert getattr(Client, name).__doc__
    assert str(inspect.signature(Client("http://x").item)) == "(item_id: 'str', *, version: 'int | None' = None) -> 'Item'"


def test_trio_works_too(ask, both, monkeypatch):
    if both is BOTH[0]:
        pytest.skip("nothing to await")
    pytest.importorskip("trio")
    monkeypatch.setattr(both, "backend", "trio")
    with Misbehaving(cuts, answers(200, FOUND)) as server:
        assert ask(server) == RESULT
    with Misbehaving(drips(json.dumps(FOUND).encode(), 0.1)) as server, pytest.raises(DeadlineExceeded):
        ask(server, deadline=0.4)


def test_importing_the_client_loads_no_framework():
    code = "import sys, tfdml_serving.client; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"tensorflow", "keras", "fastapi", "starlette", "pydantic", "uvicorn", "numpy", "tfdml", "grpc"}
