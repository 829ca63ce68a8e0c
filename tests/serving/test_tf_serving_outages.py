"""The service on a real socket while TF-Serving is stopped, slow, or talks nonsense: it says so, and heals by itself."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from service_runs import running, wait_until
from serving_runs import load_fake, picture, publish
from stand_in import BROKEN, BUSY, StandIn
from tfdml_serving.embedding import Limits, TFServingGRPC, TFServingREST
from tfdml_serving.rollout.versions import Versions
from tfdml_serving.settings import Settings


@pytest.fixture(scope="module", params=[TFServingREST, TFServingGRPC], ids=["rest", "grpc"])
def both(request, tmp_path_factory):
    """A model server that can be made to fail, and the service that asks it."""
    directory = tmp_path_factory.mktemp("outages") / "products"
    publish(directory, 1)
    with StandIn(directory, load_fake) as server:
        address = server.url if request.param is TFServingREST else server.grpc_address
        embedder = request.param(address, "products", Limits(deadline=1.0, pause=0.2, check_every=0.1))
        changes = {"poll_seconds": 0.05, "deadline": 30.0}
        versions = Versions(Settings(directory, **changes), embedder)
        with running(versions, embedder, bundle=directory, **changes) as service:
            wait_until(lambda: service.http.get("/readyz").status_code == 200, 60, "readiness")
            yield server, service


@contextlib.contextmanager
def stopped(server):
    server.stop()
    yield
    server.start()


def knob(**values):
    @contextlib.contextmanager
    def turned(server):
        before = {name: getattr(server, name) for name in values}
        vars(server).update(values)
        yield
        vars(server).update(before)

    return turned


def nan(outputs):
    return {**outputs, "embedding": outputs["embedding"] * np.nan}


def narrow(outputs):
    return {**outputs, "embedding": outputs["embedding"][:, 1:]}


OUTAGES = {
    "stopped": stopped,
    "slow": knob(delay=3.0),  # three times what the service waits
    "NaN": knob(spoil_outputs=nan),
    "another dimension": knob(spoil_outputs=narrow),
    "broken": knob(fail=BROKEN),
    "busy": knob(fail=BUSY),
    "HTML": knob(spoil=lambda status, body: (200, b"<html>It works!</html>")),
    "truncated": knob(spoil=lambda status, body: (200, body[: len(body) // 2])),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_and_after(both, name):
    server, service = both
    if name in ("HTML", "truncated") and isinstance(service.embedder, TFServingGRPC):
        pytest.skip("a body of REST")
    search = lambda: service.http.post("/v1/search/image?k=1", content=picture(7), headers={"Content-Type": "image/png"})  # noqa: E731
    with OUTAGES[name](server):
        for _ in range(8):  # past the five after which the circuit breaker opens
            answer = search()
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["type"] == "urn:tfdml:problem:embedder-unavailable"
        wait_until(lambda: service.http.get("/readyz").status_code == 503, 20, "unreadiness")
        ready = service.http.get("/readyz").json()
        assert ready["ready"] is False
        assert ready["reasons"]
        # What needs no embedding is answered all the while; and the process is well.
        assert service.http.post("/v1/search/item", json={"id": "item/3", "k": 1}).status_code == 200
        assert service.http.get("/healthz").status_code == 200
    wait_until(lambda: service.http.get("/readyz").status_code == 200, 60, "readiness")
    assert search().json()["hits"][0]["id"] == "item/7"
