"""Keys: who may ask, what, and how often; and that no key is ever seen again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat

import pytest
from service_runs import running
from tfdml_serving.api.keys import KeyFile, TokenBucket, add_key, new_key
from tfdml_serving.api.logs import set_up_log
from tfdml_serving.errors import RateLimited, Unauthorized

READ, WRITE = "read-key-0123456789", "write-key-0123456789"


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text(f"# ours\n\nshop read {READ}\nimporter write sha256:{hashlib.sha256(WRITE.encode()).hexdigest()}\n")
    return path


def test_a_key_is_needed_and_either_header_carries_it(key_file):
    with running(api_keys=key_file, writable=True) as service:
        for headers in (
            {},
            {"x-api-key": "wrong-key-0123456789"},
            {"authorization": "Bearer"},
            {"authorization": f"Basic {READ}"},
        ):
            refused = service.http.get("/v1/items", headers=headers)
            assert (refused.status_code, refused.json()["type"]) == (401, "urn:tfdml:problem:unauthorized")
            assert refused.headers["www-authenticate"].startswith("Bearer")
        for headers in ({"x-api-key": READ}, {"authorization": f"Bearer {READ}"}, {"authorization": f"bearer {WRITE}"}):
            assert service.http.get("/v1/items", headers=headers).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics", "/v1/info", "/openapi.json", "/docs"):
            assert service.http.get(path).status_code == 200
        assert service.http.get("/v1/info").json()["auth"] is True


def test_a_reading_key_does_not_write(key_file):
    with running(api_keys=key_file, writable=True) as service:
        for role, status in ((READ, 403), (WRITE, 200)):
            headers = {"x-api-key": role}
            changed = service.http.patch("/v1/items/item/1", json={"fields": {"price": 9}}, headers=headers)
            assert changed.status_code == status
            assert service.http.post("/v1/versions/1/activate", headers=headers).status_code == status
            assert service.http.delete("/v1/versions/pin", headers=headers).status_code == status


def test_every_key_has_its_own_rate(key_file):
    with running(api_keys=key_file, requests_per_second=0.001, burst=3) as service:
        statuses = [service.http.get("/v1/items", headers={"x-api-key": READ}) for _ in range(5)]
        assert [answer.status_code for answer in statuses] == [200, 200, 200, 429, 429]
        assert int(statuses[-1].headers["retry-after"]) >= 900
        assert statuses[-1].json()["type"] == "urn:tfdml:problem:rate-limited"
        # Pictures cost little: a page of hits asks for all of them at once.
        pictures = [service.http.get("/v1/thumbnails/item/1", headers={"x-api-key": WRITE}).status_code for _ in range(50)]
        assert pictures == [200] * 50
        # A batch counts as many as it asks.
        batch = {"queries": [{"id": "item/1"}] * 5}
        headers = {"x-api-key": WRITE}
        assert service.http.post("/v1/search/batch", json=batch, headers=headers).status_code == 200
        assert service.http.get("/v1/items", headers=headers).status_code == 429


def test_a_bucket_fills_again():
    now = [0.0]
    bucket = TokenBucket(rate=2.0, size=2, clock=lambda: now[0])
    assert [bucket.take(), bucket.take(), bucket.take()] == [None, None, 0.5]
    now[0] = 0.5
    assert [bucket.take(), bucket.take()] == [None, 0.5]
    now[0] = 100.0
    assert bucket.take(5) is None  # more than there are: a debt
    assert bucket.take() == pytest.approx(2.0)


def test_the_file_is_read_anew_when_it_changes_and_mistakes_leave_the_old_keys(key_file, monkeypatch):
    told = []
    keys = KeyFile(key_file, rate=0.001, burst=1, report=told.append)
    monkeypatch.setattr("tfdml_serving.api.keys._LOOK_AGAIN", -1.0)
    assert keys.admit(READ).name == "shop"
    with pytest.raises(RateLimited):
        keys.admit(READ)
    key_file.write_text(f"shop read {READ}\nnew write another-key-0123456789\n")
    os.utime(key_file, ns=(1, 1))
    assert keys.admit("another-key-0123456789").role == "write"
    with pytest.raises(Unauthorized):
        keys.admit(WRITE)
    with pytest.raises(RateLimited):  # the key that stayed has no new tokens
        keys.admit(READ)
    key_file.write_text("nonsense")
    os.utime(key_file, ns=(2, 2))
    with pytest.raises(RateLimited):
        keys.admit(READ)
    assert "line 1" in told[0]
    assert "nonsense" not in told[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("only two", "line 1: 2 words"),
        ("na/me read 0123456789abcdef", "a name has"),
        ("name owner 0123456789abcdef", "expected read or write"),
        ("name 0123456789abcdef read", "expected read or write"),
        ("name read short", "shorter than 16"),
        ("name read sha256:abc", "64 hexadecimal digits"),
        ("a read 0123456789abcdef\na read 0123456789abcdef0", "line 2: a second key named 'a'"),
        ("# nothing", "holds no key"),
    ],
)
def test_mistakes_in_the_file_are_named_without_the_key(tmp_path, line, said):
    path = tmp_path / "keys"
    path.write_text(line)
    with pytest.raises(ValueError, match=said) as error:
        KeyFile(path)
    assert "0123456789abcdef" not in str(error.value)


def test_a_new_key_works_and_the_file_has_only_its_hash(tmp_path):
    path = tmp_path / "keys"
    key, line = new_key("shop", "write")
    add_key(path, line)
    other, line = new_key("mill")
    add_key(path, line)
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = KeyFile(path)
    assert [keys.admit(key).name, keys.admit(other).role] == ["shop", "read"]
    with pytest.raises(ValueError, match="a key named 'mill' already"):
        add_key(path, line)


def test_the_log_names_requests_and_keys_owners_and_nothing_else(key_file):
    stream = io.StringIO()
    set_up_log("info", stream)
    embedding = [0.123456789, 1.5, 2.5, 3.5]
    try:
        with running(api_keys=key_file) as service:
            headers = {"x-api-key": READ, "x-request-id": "order-17"}
            service.http.post("/v1/search/embedding", json={"embedding": embedding, "filter": ""}, headers=headers)
            service.http.post("/v1/search/embedding", json={"embedding": embedding}, headers={"x-api-key": WRITE + "x"})
            service.http.get("/v1/items/item/1?filter=secret", headers=headers)
    finally:
        set_up_log("warning")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    asked = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in asked] == [200, 401, 200]
    assert asked[0] == {**asked[0], "request_id": "order-17", "key": "shop", "route": "/v1/search/embedding", "method": "POST"}
    for secret in (READ, WRITE, "0.123456789", "secret"):
        assert secret not in stream.getvalue()
