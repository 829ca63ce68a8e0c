"""The short way to a search and the router's: the same answers, and the same refusals."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fakes import FakeEmbedder, FakeVersions
from image_files import good_files
from tfdml_serving.api.app import create_app
from tfdml_serving.settings import Settings

PHOTO = good_files()["colour.jpg"]
IMAGE64 = base64.b64encode(PHOTO).decode()
FORM = b'--b\r\nContent-Disposition: form-data; name="image"\r\nContent-Type: image/jpeg\r\n\r\n' + PHOTO + b"\r\n--b--\r\n"
GOOD = [
    ("image", "", "image/jpeg", PHOTO),
    ("image", "?k=3&version=1&filter=", "image/jpeg", PHOTO),
    ("image", "?k=2&nothing=1&nothing_else=", "image/jpeg", PHOTO),
    ("image", "?k=5", "multipart/form-data; boundary=b", FORM),
    ("item", "?k=7", "application/json", b'{"id": "item/1", "k": 3.0, "include_self": true}'),
    ("item", "", "application/json; charset=utf-8", '{"id": "item/1", "version": 1, "filter": " "}'.encode("utf-16")),
    ("embedding", "", "application/json", b'{"embedding": [1, 2.5, -3, 4e0], "k": 2, "k": 1}'),
    ("batch", "", "application/json", json.dumps({"queries": [{"id": "x"}, {"image": IMAGE64}], "k": 2}).encode()),
]
REFUSED_BY_TYPE = [
    ("image", "?k=0", "image/jpeg", PHOTO),
    ("image", "?k=&version=-1&filter=" + "x" * 4097, "image/jpeg", PHOTO),
    *(
        ("image", f"?k={k}", "image/jpeg", PHOTO)
        for k in ("true", "%2B4", "5.0", "%205", "1_0", "05", "%D9%A3", "3%0A", "1&k=1")
    ),
    *(
        ("batch", "", "application/json", b'{"queries": [{"id": "a"}], "k": %b}' % k)
        for k in (b"true", b'"2"', b"null", b"2.5")
    ),
    ("batch", "", "application/json", b'{"queries": [{"id": "a"}], "version": "1"}'),
    ("item", "", "application/json", b'{"id": "item/1", "include_self": "yes"}'),
    ("embedding", "", "application/json", b'{"embedding": [1, 2, 3, "4"]}'),
    ("embedding", "", "application/json", b'{"embedding": [1, 2, 3, true]}'),
    ("item", "", "application/json", b'{"id": ""}'),
    ("item", "", "application/json", b'{"id": "item/1", "more": 1}'),
    ("item", "", "application/json", b'{"id": "item/1"'),
    ("item", "", "application/json", b""),
    ("item", "", "application/json", b"[" * 100_000),
    ("item", "", "application/json", b'{"id": "\xff"}'),
    ("embedding", "", "application/json", b'{"embedding": [NaN, 1, 2, 3]}'),
    ("batch", "", "application/json", b'{"queries": [{"id": "a", "image": "AAAA"}]}'),
]
REFUSED_LATER = [
    ("image", "?k=501", "image/jpeg", PHOTO),
    ("image", "?version=9", "image/jpeg", PHOTO),
    ("image", "", "image/png", PHOTO),
    ("image", "", "multipart/form-data; boundary=b", FORM[:-20]),
    ("image", "", "image/jpeg", PHOTO + b"bad"),
    ("item", "", "application/json", b'{"id": "nobody"}'),
    ("embedding", "", "application/json", b'{"embedding": [1, 2]}'),
]


async def answers(app, requests):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        for place, query, kind, body in requests:
            headers = {"content-type": kind, "x-request-id": "one"}
            answer = await http.post(f"/v1/search/{place}{query}", content=body, headers=headers)
            await asyncio.sleep(0)  # a request is counted when its answer has left
            content = answer.json()
            content.pop("took_ms", None)
            told = {name: value for name, value in answer.headers.items() if name != "content-length"}
            yield answer.status_code, told, content


def counted(app) -> set[str]:
    lines = app.state.service.metrics.text().decode().splitlines()
    return {line for line in lines if line.startswith(("tfdml_requests_total", "tfdml_refused_total", "tfdml_searches_total"))}


@pytest.fixture
def apps():
    made = []
    for _ in range(2):
        made.append(create_app(Settings(bundle=Path("products"), port=0, max_k=500), FakeVersions(), FakeEmbedder(), None))
    routed = made[1].user_middleware[0]
    assert set(routed.kwargs["direct"]) == {f"/v1/search/{place}" for place in ("image", "item", "embedding", "batch")}
    routed.kwargs["direct"] = {}
    return SimpleNamespace(direct=made[0], routed=made[1])


def test_both_ways_answer_the_same(apps):
    async def both():
        requests = [*GOOD, *REFUSED_BY_TYPE, *REFUSED_LATER]
        routed = [answer async for answer in answers(apps.routed, requests)]
        direct = [answer async for answer in answers(apps.direct, requests)]
        for request, expected, found in zip(requests, routed, direct, strict=True):
            assert found == expected, request
        assert [status for status, _, _ in direct[: len(GOOD)]] == [200] * len(GOOD)
        assert all(400 <= status < 500 for status, _, _ in direct[len(GOOD) :])
        assert counted(apps.direct) == counted(apps.routed)

    asyncio.run(both())


def test_only_what_the_types_refuse_reaches_the_router(apps, monkeypatch):
    asked = []
    router = type(apps.direct.router).__call__

    async def watched(self, scope, receive, send):
        asked.append(scope["path"])
        await router(self, scope, receive, send)

    monkeypatch.setattr(type(apps.direct.router), "__call__", watched)

    async def run():
        [_ async for _ in answers(apps.direct, [*GOOD, *REFUSED_LATER])]
        assert asked == []
        [_ async for _ in answers(apps.direct, REFUSED_BY_TYPE)]
        assert len(asked) == len(REFUSED_BY_TYPE)

    asyncio.run(run())
