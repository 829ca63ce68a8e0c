"""Requests while versions roll out, one of them damaged, and people roll back: none fails, none is of a mixed pair."""

from __future__ import annotations

import base64
import collections
import contextlib
import http.client
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from service_runs import running, wait_until
from serving_runs import DIMENSION, load_fake, picture, publish, vectors
from stand_in import StandIn
from tfdml_serving.embedding import Limits, TFServingGRPC, TFServingREST
from tfdml_serving.rollout.versions import Versions
from tfdml_serving.settings import Settings

K, PICTURES, CALLERS = 3, 40, 6


class Load:
    """Callers that ask without a pause, and judge each answer by the truth of the version that it names.

    Args:
        port: of the service.
        requests: how many to send in all.
        truth: for every version and picture the `K` nearest ids and their distances.
    """

    def __init__(self, port: int, requests: int, truth: dict[int, list[tuple[list[str], np.ndarray]]]) -> None:
        self.port, self.requests, self.truth = port, requests, truth
        self.begun = self.ended = 0
        self.answers: collections.Counter[int] = collections.Counter()
        self.order: list[int] = []
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(caller,), daemon=True) for caller in range(CALLERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(3600)
            assert not thread.is_alive()

    def _ask(self, caller: int) -> None:
        rng = np.random.default_rng(caller)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while True:
            with self._lock:
                if self.begun == self.requests or len(self.problems) > 20:
                    return
                self.begun += 1
            numbers = rng.integers(0, PICTURES, 4).tolist()
            kind = rng.choice(["image", "image", "image", "item", "batch"])
            try:
                status, answer = self._send(connection, kind, numbers)
                problem = f"{status}: {answer}" if status != 200 else self._judged(kind, numbers, answer)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                problem = f"{kind}: {type(error).__name__}: {error}"
                connection.close()
            with self._lock:
                self.ended += 1
                if problem:
                    self.problems.append(problem)
                else:
                    version = (answer["results"][0] if kind == "batch" else answer)["version"]
                    self.answers[version] += 1
                    if not self.order or self.order[-1] != version:
                        self.order.append(version)

    def _send(self, connection: http.client.HTTPConnection, kind: str, numbers: list[int]) -> tuple[int, dict]:
        if kind == "image":
            body, path, media = picture(numbers[0]), f"/v1/search/image?k={K}", "image/png"
        elif kind == "item":
            request = {"id": f"item/{numbers[0]}", "k": K, "include_self": True}
            body, path, media = json.dumps(request).encode(), "/v1/search/item", "application/json"
        else:
            queries = [{"image": base64.b64encode(picture(number)).decode()} for number in numbers]
            body, path, media = json.dumps({"queries": queries, "k": K}).encode(), "/v1/search/batch", "application/json"
        connection.request("POST", path, body, {"Content-Type": media})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def _judged(self, kind: str, numbers: list[int], answer: dict) -> str:
        rows = answer["results"] if kind == "batch" else [answer]
        if len({row["version"] for row in rows}) > 1:
            return f"batch: answered by several versions: {[row['version'] for row in rows]}"
        for number, row in zip(numbers if kind == "batch" else numbers[:1], rows, strict=True):
            ids, distances = self.truth[row["version"]][number]
            found = [hit["id"] for hit in row["hits"]]
            if found != ids or not np.allclose([hit["distance"] for hit in row["hits"]], distances, atol=1e-5):
                return f"{kind}: version {row['version']} cannot have answered {row['hits']} to {number}; it has {ids}"
        return ""


def truth_of(version: int) -> list[tuple[list[str], np.ndarray]]:
    """The nearest neighbours of each picture, by a loop over all."""
    gallery = vectors(version).astype(np.float64)
    rows = []
    for query in gallery:
        distances = np.sqrt(((gallery - query) ** 2).sum(axis=1))
        nearest = np.argsort(distances, kind="stable")[:K]
        rows.append(([f"item/{number}" for number in nearest], distances[nearest]))
    return rows


def soak(directory: Path, requests: int, language=TFServingREST) -> Load:
    """Five roll-outs, one of them to a damaged version, and a roll-back, spread over the requests."""
    publish(directory, 1)
    settings = Settings(directory, poll_seconds=0.05, keep_versions=1, concurrency=32, deadline=30.0)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(StandIn(directory, load_fake, policy=("latest", 2), load_seconds=0.05))
        address = server.url if language is TFServingREST else server.grpc_address
        embedder = language(address, "products", Limits(deadline=20.0))
        versions = Versions(settings, embedder)
        changes = {name: getattr(settings, name) for name in ("bundle", "poll_seconds", "concurrency", "deadline")}
        service = stack.enter_context(running(versions, embedder, writable=True, **changes))
        listed = lambda: service.http.get("/v1/versions").json()  # noqa: E731
        wait_until(lambda: listed()["current"] == 1, 60)
        load = Load(service.port, requests, {version: truth_of(version) for version in (1, 2, 4, 5, 6)})
        load.start()

        def when(share: float) -> None:
            wait_until(lambda: load.ended >= share * requests or load.problems, 3600)

        def serves(version: int) -> None:
            wait_until(lambda: listed()["current"] == version or load.problems, 120)

        when(1 / 8)
        publish(directory, 2)
        serves(2)
        when(2 / 8)
        damaged = publish(directory, 3, hidden=True) / "assets.extra/retrieval/index.ann"
        damaged.write_bytes(damaged.read_bytes()[::-1])
        os.rename(directory / ".3", directory / "3")
        wait_until(lambda: {v["version"]: v["state"] for v in listed()["versions"]}.get(3) == "refused" or load.problems, 120)
        when(3 / 8)
        publish(directory, 4)
        serves(4)
        when(4 / 8)
        publish(directory, 5)
        serves(5)
        when(5 / 8)
        assert service.http.post("/v1/versions/4/activate").status_code == 200
        serves(4)
        when(6 / 8)
        assert service.http.delete("/v1/versions/pin").status_code == 200
        serves(5)
        when(7 / 8)
        publish(directory, 6)
        serves(6)
        load.join()
        if load.problems:
            return load
        assert {v["version"]: v["state"] for v in listed()["versions"]}[6] == "current"
    return load


def check(load: Load, requests: int) -> None:
    assert not load.problems, load.problems[:5]
    assert sum(load.answers.values()) == requests
    assert set(load.answers) == {1, 2, 4, 5, 6}
    # Callers overlap at each change; but every version had its time, and the roll-back as well.
    firsts = list(dict.fromkeys(load.order))
    assert firsts == [1, 2, 4, 5, 6]
    assert any(load.order[place - 1 : place + 1] == [5, 4] for place in range(1, len(load.order)))


@pytest.mark.parametrize("language", [TFServingREST, TFServingGRPC], ids=["rest", "grpc"])
def test_roll_outs_under_load(tmp_path, language):
    check(soak(tmp_path / "products", 1_000, language), 1_000)


@pytest.mark.slow
def test_many_requests(tmp_path):
    """3,000; `TFDML_SOAK_REQUESTS=50000 python -m pytest tests/serving/test_roll_out_soak.py -m slow -s` for the long run."""
    requests = int(os.environ.get("TFDML_SOAK_REQUESTS", "3000"))
    load = soak(tmp_path / "products", requests)
    print(f"answers by version: {dict(load.answers)}; problems: {len(load.problems)}")
    check(load, requests)


def test_the_judge_sees_mixed_pairs():
    load = Load(0, 0, {1: truth_of(1), 2: truth_of(2)})
    ids, distances = truth_of(1)[5]
    answer = {"version": 1, "hits": [{"id": i, "distance": d} for i, d in zip(ids, distances, strict=True)]}
    assert load._judged("image", [5], answer) == ""
    assert "cannot have answered" in load._judged("image", [5], {**answer, "version": 2})
    assert vectors(1).shape == (PICTURES, DIMENSION)
    query, gallery = vectors(2)[5], vectors(1)  # the new model's embedding in the old index
    distances = np.linalg.norm(gallery - query, axis=1)
    hits = [{"id": f"item/{number}", "distance": distances[number]} for number in np.argsort(distances)[:K]]
    assert "cannot have answered" in load._judged("image", [5], {"version": 1, "hits": hits})
