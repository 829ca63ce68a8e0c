"""Searching over a real socket: every kind of query, its answer, and what is said of what cannot be answered."""

from __future__ import annotations

import base64
import concurrent.futures
import json

import numpy as np
import pytest
from fakes import DIMENSION, FakeEmbedder, FakeHeld, FakeVersions, fake_embedding, fake_vectors
from image_files import good_files
from service_runs import running

from tfdml.bundle import MatchProbability

GOOD = good_files()
KINDS = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png", b"GI": "image/gif", b"BM": "image/bmp"}


@pytest.fixture(scope="module")
def service():
    with running() as running_service:
        yield running_service


def expected_ids(query: np.ndarray, version: int, k: int) -> list[str]:
    distances = [
        np.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(query, row, strict=True))) for row in fake_vectors(version)
    ]
    return [f"item/{i}" for i in np.argsort(distances)[:k]]


def problem(response, status: int, kind: str) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == f"urn:tfdml:problem:{kind}"
    assert document["status"] == status
    assert document["request_id"] == response.headers["x-request-id"]
    return document


@pytest.mark.parametrize("name", sorted(GOOD))
def test_an_image_of_every_kind_is_searched_by(service, name):
    data = GOOD[name]
    response = service.http.post("/v1/search/image?k=5", content=data, headers={"content-type": KINDS[data[:2]]})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert [hit["id"] for hit in answer["hits"]] == expected_ids(fake_embedding(data, 2), 2, 5)
    assert service.embedder.asked[-1] == (2, [len(data)])
    assert answer["request_id"] == response.headers["x-request-id"]
    assert (answer["model"], answer["version"], answer["metric"], answer["threshold"]) == ("products", 2, "euclidean", 1.5)
    first = answer["hits"][0]
    assert first["match"] is answer["match"] is (first["distance"] <= 1.5)
    assert first["thumbnail"] == f"/v1/thumbnails/{first['id']}"
    assert first["fields"]["title"].startswith("Thing ")


def test_a_form_is_as_good_as_the_bytes(service):
    data = GOOD["colour.jpg"]
    plain = service.http.post("/v1/search/image", content=data, headers={"content-type": "image/jpeg"}).json()
    form = service.http.post("/v1/search/image", files={"image": ("x.jpg", data, "image/jpeg")}, data={"note": "x"}).json()
    assert form["hits"] == plain["hits"]
    refused = service.http.post("/v1/search/image", files={"image": ("x.png", data, "image/png")})
    assert "begins like image/jpeg" in problem(refused, 415, "unsupported-type")["detail"]
    for files in ({"file": data}, [("image", data), ("image", data)]):
        assert (
            "expected exactly one" in problem(service.http.post("/v1/search/image", files=files), 400, "bad-request")["detail"]
        )
    for body, kind in ((b"--b\r\n\r\nx", "multipart/form-data; boundary=b"), (b"x", "multipart/form-data")):
        problem(service.http.post("/v1/search/image", content=body, headers={"content-type": kind}), 400, "bad-request")
    cut = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + data
    refused = service.http.post("/v1/search/image", content=cut, headers={"content-type": "multipart/form-data; boundary=b"})
    assert "cut short" in problem(refused, 400, "bad-request")["detail"]


def test_a_version_is_asked_for_by_number_and_the_embedder_as_well(service):
    data = GOOD["colour.png"]
    response = service.http.post("/v1/search/image?version=1&k=3", content=data, headers={"content-type": "image/png"})
    assert [hit["id"] for hit in response.json()["hits"]] == expected_ids(fake_embedding(data, 1), 1, 3)
    assert response.json()["version"] == 1
    assert response.json()["hits"][0]["thumbnail"].endswith("?version=1")
    assert service.embedder.asked[-1][0] == 1
    refused = service.http.post("/v1/search/image?version=7", content=data, headers={"content-type": "image/png"})
    problem(refused, 404, "unknown-version")


def test_an_image_that_cannot_be_decoded(service):
    bad = GOOD["colour.png"] + b"bad"
    problem(service.http.post("/v1/search/image", content=bad, headers={"content-type": "image/png"}), 422, "undecodable")


def test_more_like_an_item_leaves_the_item_out_unless_asked(service):
    vector = fake_vectors(2)[3]
    answer = service.http.post("/v1/search/item", json={"id": "item/3", "k": 4}).json()
    assert [hit["id"] for hit in answer["hits"]] == expected_ids(vector, 2, 5)[1:]
    answer = service.http.post("/v1/search/item", json={"id": "item/3", "k": 4, "include_self": True}).json()
    assert [hit["id"] for hit in answer["hits"]] == expected_ids(vector, 2, 4)
    assert answer["hits"][0] == {**answer["hits"][0], "id": "item/3", "distance": 0.0, "match": True}
    for unknown in ("item/99", "nul\0"):
        problem(service.http.post("/v1/search/item", json={"id": unknown}), 404, "unknown-item")


def test_an_embedding_is_searched_by(service):
    query = [0.5, -1.0, 0.25, 2.0]
    answer = service.http.post("/v1/search/embedding", json={"embedding": query, "k": 6}).json()
    assert [hit["id"] for hit in answer["hits"]] == expected_ids(np.array(query), 2, 6)


WRONG_BODIES = [
    '{"embedding": [1, 2, 3]}',
    '{"embedding": [1, 2, 3, NaN]}',
    '{"embedding": [1, 2, 3, 1e300]}',
    '{"embedding": [1, 2, 3, "4x"]}',
    '{"embedding": []}',
    '{"embedding": [1, 2, 3, Infinity]}',
    '{"embedding": 7}',
    '{"embedding": [1,2,3,' + "9" * 5000 + "]}",
    '{"embedding": [1,2,3,4], "k": 0}',
    '{"embedding": [1,2,3,4], "k": 101}',
    '{"embedding": [1,2,3,4], "k": 2.5}',
    '{"embedding": [1,2,3,4], "more": 1}',
    '{"embedding": [1,2,3,4], "version": -1}',
    '{"embedding": [1,2,3,4], "filter": 7}',
    "{}",
    "",
    "[]",
    "[" * 100_000,
    "\xff",
]


@pytest.mark.parametrize("body", WRONG_BODIES, ids=range(len(WRONG_BODIES)))
def test_an_embedding_that_makes_no_sense_is_refused_in_words(service, body):
    response = service.http.post(
        "/v1/search/embedding", content=body.encode("latin-1"), headers={"content-type": "application/json"}
    )
    detail = problem(response, 400, "bad-request")["detail"]
    assert detail
    assert "9999" not in detail


def test_a_batch_answers_every_row_for_itself(service):
    image = GOOD["colour.jpg"]
    queries = [
        {"image": base64.b64encode(image).decode()},
        {"id": "item/5"},
        {"embedding": [0.5, -1.0, 0.25, 2.0]},
        {"id": "nobody"},
        {"image": base64.b64encode(GOOD["colour.png"] + b"bad").decode()},
        {"image": "!!!!"},
        {"image": base64.b64encode(b"no image at all").decode()},
        {"embedding": [1.0]},
    ]
    before = len(service.embedder.asked)
    response = service.http.post("/v1/search/batch", json={"queries": queries, "k": 3})
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    vectors = [fake_embedding(image, 2), fake_vectors(2)[5], np.array(queries[2]["embedding"])]
    wanted = [expected_ids(vectors[0], 2, 3), expected_ids(vectors[1], 2, 4)[1:], expected_ids(vectors[2], 2, 3)]
    assert [[hit["id"] for hit in result["hits"]] for result in results[:3]] == wanted
    kinds = [result["error"]["type"].rpartition(":")[2] for result in results[3:]]
    assert kinds == ["unknown-item", "undecodable", "bad-request", "unsupported-type", "bad-request"]
    assert len(service.embedder.asked) == before + 1  # all images at once
    for wrong in ([], [{}], [{"id": "a", "embedding": [1]}], [{"id": "item/1"}] * 65):
        problem(service.http.post("/v1/search/batch", json={"queries": wrong}), 400, "bad-request")


def test_no_threshold_no_verdict_and_a_far_one_no_match():
    with running(FakeVersions(FakeHeld(1, threshold=None))) as service:
        answer = service.http.post("/v1/search/item", json={"id": "item/1"}).json()
        assert (answer["match"], answer["threshold"], answer["hits"][0]["match"]) == (None, None, None)
    with running(FakeVersions(FakeHeld(1, threshold=1e-3))) as service:
        answer = service.http.post("/v1/search/item", json={"id": "item/1"}).json()
        assert (answer["match"], answer["hits"][0]["match"]) == (False, False)
        assert service.http.post("/v1/search/item", json={"id": "item/1", "include_self": True}).json()["match"] is True


def test_hits_tell_how_likely_they_are_right_where_the_bundle_does():
    held = FakeHeld(1)
    held.match_probability = MatchProbability("logistic", (), (), 1.0, 2.0, 100)
    with running(FakeVersions(held)) as service:
        hits = service.http.post("/v1/search/item", json={"id": "item/1", "k": 3}).json()["hits"]
    assert [hit["probability"] for hit in hits] == held.match_probability([hit["distance"] for hit in hits]).tolist()


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/v1/search/image", 405, "method-not-allowed"),
        ("GET", "/static/..%2f..%2fsettings.py", 404, "not-found"),
        ("GET", "/static/../settings.py", 404, "not-found"),
        ("GET", "/v1/items/", 404, "unknown-item"),
        ("GET", "/v1/items?limit=0", 400, "bad-request"),
        ("GET", "/v1/items?limit=99999", 400, "bad-request"),
        ("GET", "/v1/items/item/1?version=x", 400, "bad-request"),
        ("GET", "/v1/thumbnails/../../etc/passwd", 404, "not-found"),
        ("GET", "/v1/thumbnails/..%2f..%2fetc%2fpasswd", 404, "unknown-item"),
        ("PUT", "/v1/items/a", 415, "unsupported-type"),
        ("DELETE", "/v1/items/item/1", 403, "not-writable"),
        ("POST", "/v1/versions/1/activate", 403, "not-writable"),
        ("DELETE", "/v1/versions/pin", 403, "not-writable"),
    ],
)
def test_what_is_not_there_or_not_allowed(service, method, path, status, kind):
    response = service.http.request(method, path)
    if path == "/v1/items/":
        assert response.status_code in (400, 404)
        return
    problem(response, status, kind)
    if status == 405:
        assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/healthz", "/readyz", "/metrics", "/v1/info", "/v1/items?limit=2"])
def test_head_is_get_without_the_body(service, path):
    got, asked = service.http.get(path), service.http.head(path)
    assert (got.status_code, asked.status_code, asked.content) == (200, 200, b"")
    assert asked.headers["content-type"] == got.headers["content-type"]
    if path != "/metrics":
        assert asked.headers["content-length"] == str(len(got.content))


def test_the_caller_names_its_request_if_the_name_is_plain(service):
    assert service.http.get("/healthz", headers={"x-request-id": "order-17"}).headers["x-request-id"] == "order-17"
    for name in ("a b", "x" * 65, "é", 'a"b'):
        given = service.http.get("/healthz", headers={"x-request-id": name.encode()}).headers["x-request-id"]
        assert given != name
        assert len(given) == 16


def test_readiness_follows_the_embedder_and_heals():
    with running() as service:
        assert service.http.get("/readyz").json() == {"ready": True, "version": 2, "reasons": []}
        service.embedder.away = True
        service.app.state.service._looked = -1
        response = service.http.get("/readyz")
        assert (response.status_code, response.json()["ready"]) == (503, False)
        assert response.json()["reasons"] == ["It does not answer."]
        assert int(response.headers["retry-after"]) >= 1
        assert service.http.get("/healthz").status_code == 200
        refused = service.http.post("/v1/search/image", content=GOOD["colour.jpg"], headers={"content-type": "image/jpeg"})
        problem(refused, 503, "embedder-unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert "tfdml_embedder_failures_total 1.0" in service.http.get("/metrics").text
        assert service.http.post("/v1/search/item", json={"id": "item/1"}).status_code == 200
        service.embedder.away = False
        service.app.state.service._looked = -1
        assert service.http.get("/readyz").status_code == 200


def test_a_version_that_goes_while_it_is_asked_gives_way_to_its_successor():
    class Leaving(FakeEmbedder):
        async def embed(self, files, version):
            if version == 2:
                versions._held[3] = FakeHeld(3)
                self.away = True
                try:
                    return await super().embed(files, version)
                finally:
                    self.away = False
            return await super().embed(files, version)

    versions = FakeVersions(FakeHeld(2))
    with running(versions, Leaving()) as service:
        data = GOOD["colour.jpg"]
        answer = service.http.post("/v1/search/image", content=data, headers={"content-type": "image/jpeg"}).json()
        assert answer["version"] == 3
        assert [hit["id"] for hit in answer["hits"]] == expected_ids(fake_embedding(data, 3), 3, 10)


def test_metrics_count_what_happened(service):
    def value(name: str) -> float:
        lines = service.http.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)

    answered = 'tfdml_requests_total{method="POST",route="/v1/search/item",status="200"}'
    refused = 'tfdml_refused_total{reason="unknown-item"}'
    before = value(answered), value(refused)
    service.http.post("/v1/search/item", json={"id": "item/1"})
    service.http.post("/v1/search/item", json={"id": "nobody"})
    assert (value(answered), value(refused)) == (before[0] + 1, before[1] + 1)
    assert value("tfdml_index_version") == 2
    assert value("tfdml_index_items") == 30
    assert value('tfdml_stage_seconds_count{stage="search"}') > 0
    routes = {
        line.split('route="')[1].split('"')[0] for line in service.http.get("/metrics").text.splitlines() if 'route="' in line
    }
    assert not any("item/" in route for route in routes)  # no id becomes a label


def test_many_callers_at_once_get_their_own_answers(service):
    vectors = fake_vectors(2)

    def ask(number: int) -> bool:
        body = {"embedding": [float(value) for value in vectors[number % 30]], "k": 1}
        answer = service.http.post("/v1/search/embedding", json=body, headers={"x-request-id": f"r{number}"})
        return answer.json()["hits"][0]["id"] == f"item/{number % 30}" and answer.headers["x-request-id"] == f"r{number}"

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(200)))


def test_info_says_what_is_served(service):
    info = service.http.get("/v1/info").json()
    assert (info["dimension"], info["items"], info["version"], info["auth"], info["writable"]) == (
        DIMENSION,
        30,
        2,
        False,
        False,
    )
    assert info["fields"] == {"title": "text", "price": "real"}
    assert json.dumps(info["image"]["types"]) == '["image/jpeg", "image/png", "image/gif", "image/bmp"]'
