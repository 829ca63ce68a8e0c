"""Limits on a real socket: what is too large, too slow or too much is refused, soon and with a reason."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
import threading
import time

import httpx
import pytest
from fakes import FakeHeld, FakeVersions
from image_files import encoded, good_files, picture
from service_runs import running, wait_until

JPEG = good_files()["colour.jpg"]
HEADERS = {"content-type": "image/jpeg"}


def exchange(port: int, *pieces: bytes, pause: float = 0.0, until_closed: bool = True) -> bytes:
    """Sends pieces and reads until the other side closes, or until it has answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for number, piece in enumerate(pieces):
            if number and pause:
                time.sleep(pause)
            try:
                connection.sendall(piece)
            except OSError:
                break
        received = b""
        # Closing with bytes unread is a reset, whose place in time is the kernel's own business.
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += part
                if not until_closed:
                    break
        return received


def split(answer: bytes) -> tuple[int, dict]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_an_image_over_the_limit_is_refused_whether_its_size_is_told_or_not():
    with running(max_image_bytes=1000) as service:
        for content in (bytes(1001), iter([bytes(600), bytes(600)])):
            response = service.http.post("/v1/search/image", content=content, headers=HEADERS)
            assert (response.status_code, response.json()["type"]) == (413, "urn:tfdml:problem:too-large")
        assert service.http.post("/v1/search/image", content=bytes(5_000_000), headers=HEADERS).status_code == 413
        big = {"image": ("x.jpg", JPEG + bytes(1000), "image/jpeg")}
        assert service.http.post("/v1/search/image", files=big).status_code == 413
        assert service.http.post("/v1/search/image", content=JPEG[:900], headers=HEADERS).status_code != 413
        assert not service.embedder.asked or max(service.embedder.asked[-1][1]) <= 1000


def test_json_over_the_limit_is_refused():
    with running(max_body_bytes=5000) as service:
        for path in ("item", "embedding", "batch"):
            content = b'{"id": "' + b"x" * 6000 + b'"}'
            response = service.http.post(f"/v1/search/{path}", content=content, headers={"content-type": "application/json"})
            assert response.status_code == 413


def test_pixels_are_counted_before_anything_is_decoded():
    with running(max_pixels=1000) as service:
        response = service.http.post("/v1/search/image", content=JPEG, headers=HEADERS)
        assert response.status_code == 413
        assert "40 x 30 pixels" in response.json()["detail"]
        frames = [picture(10, 10, seed=seed) for seed in range(9)]
        moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert service.http.post("/v1/search/image", content=moving, headers={"content-type": "image/gif"}).status_code == 200
        moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:] * 2)
        assert service.http.post("/v1/search/image", content=moving, headers={"content-type": "image/gif"}).status_code == 413
        assert len(service.embedder.asked) == 1


@pytest.mark.parametrize("kind", ["", "image/webp", "image/jpg", "text/plain", "application/json", "image/jpeg2"])
def test_only_the_types_that_are_taken(kind):
    with running() as service:
        response = service.http.post("/v1/search/image", content=JPEG, headers={"content-type": kind})
        assert response.status_code == 415
        assert "image/jpeg" in response.json()["detail"]


def ask(service) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/search/image", content=JPEG, headers=HEADERS, timeout=20)


def test_overload_is_refused_at_once_and_the_accepted_are_answered():
    with running(concurrency=2, queue=3) as service, concurrent.futures.ThreadPoolExecutor(5) as pool:
        admission = service.app.state.service.admission
        service.embedder.go_on.clear()
        accepted = [pool.submit(ask, service) for _ in range(5)]
        wait_until(lambda: (admission.active, admission.waiting) == (2, 3))
        for _ in range(15):
            refused = service.http.post("/v1/search/image", content=JPEG, headers=HEADERS)
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:tfdml:problem:overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        assert 'tfdml_refused_total{reason="overloaded"} 15.0' in service.http.get("/metrics").text
        assert "tfdml_waiting 3.0" in service.http.get("/metrics").text
        assert service.http.get("/readyz").status_code == 200
        service.embedder.go_on.set()
        assert [answer.result().status_code for answer in accepted] == [200] * 5
        assert ask(service).status_code == 200


def test_the_deadline_holds_and_the_place_is_kept_until_the_work_has_ended():
    with running(deadline=0.2, concurrency=1, queue=0) as service:
        service.embedder.go_on.clear()
        late = ask(service)
        assert (late.status_code, late.json()["type"]) == (503, "urn:tfdml:problem:deadline")
        assert service.app.state.service.admission.active == 1
        busy = service.http.post("/v1/search/item", json={"id": "item/1"})
        assert (busy.status_code, busy.json()["type"]) == (503, "urn:tfdml:problem:overloaded")
        service.embedder.go_on.set()
        wait_until(lambda: service.app.state.service.admission.active == 0)
        assert service.http.get("/healthz").status_code == 200


def test_a_search_that_takes_too_long_keeps_its_version_open_until_it_has_ended():
    held = FakeHeld(1)
    ended = []
    search = held.search

    def slow(*arguments):
        time.sleep(0.6)
        ended.append(versions.leases)
        return search(*arguments)

    held.search = slow

    class Counting(FakeVersions):
        leases = 0

        @contextlib.contextmanager
        def lease(self, version=None):
            with super().lease(version) as one:
                self.leases += 1
                try:
                    yield one
                finally:
                    self.leases -= 1

    versions = Counting(held)
    with running(versions, deadline=0.1) as service:
        assert service.http.post("/v1/search/embedding", json={"embedding": [1, 2, 3, 4]}).status_code == 503
        wait_until(lambda: ended)
        assert ended[0] >= 1
        wait_until(lambda: versions.leases == 0)


def test_bodies_together_stay_under_their_budget():
    with running(max_bytes_in_flight=2 * len(JPEG) + 10) as service, concurrent.futures.ThreadPoolExecutor(2) as pool:
        service.embedder.go_on.clear()
        accepted = [pool.submit(ask, service) for _ in range(2)]
        wait_until(lambda: len(service.embedder.asked) == 2)
        for _ in range(3):
            assert service.http.post("/v1/search/image", content=JPEG, headers=HEADERS).status_code == 503
        service.embedder.go_on.set()
        assert [answer.result().status_code for answer in accepted] == [200, 200]
        assert ask(service).status_code == 200


class TestSlowCallers:
    def test_headers_that_never_end_are_cut_off(self):
        with running(header_seconds=0.3) as service:
            for pieces in ([], [b"GET /healthz HTTP/1.1\r\nHost: x\r\n"], [b"\r\n", b"\r\n", b"G"]):
                status, body = split(exchange(service.port, *pieces, pause=0.05))
                assert (status, body["type"]) == (408, "urn:tfdml:problem:header-timeout")

    def test_a_trickle_does_not_reset_the_clock(self):
        with running(header_seconds=0.3) as service:
            pieces = [b"GET /healthz HTTP/1.1\r\n", *[f"X-{i}: y\r\n".encode() for i in range(40)], b"\r\n"]
            status, _ = split(exchange(service.port, *pieces, pause=0.05))
            assert status == 408

    def test_a_body_that_does_not_come_is_given_up(self):
        with running(deadline=0.3) as service:
            head = b"POST /v1/search/image HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 900\r\n\r\n"
            status, body = split(exchange(service.port, head, JPEG[:100]))
            assert (status, body["type"]) == (408, "urn:tfdml:problem:body-timeout")
            assert service.http.get("/healthz").status_code == 200

    def test_an_idle_connection_is_closed(self):
        with running(keep_alive=1, header_seconds=5) as service:
            answer = exchange(service.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200")

    def test_a_body_that_nobody_asked_for_ends_the_connection(self):
        with running() as service:
            answer = exchange(service.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"x" * 10)
            assert answer.startswith(b"HTTP/1.1 200")

    def test_connections_are_counted(self):
        with running(connections=4) as service:
            service.http.close()
            wait_until(lambda: not service.server.server_state.connections)
            open_ones = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(4)]
            wait_until(lambda: len(service.server.server_state.connections) == 4)
            status, body = split(exchange(service.port))
            assert (status, body["type"]) == (503, "urn:tfdml:problem:overloaded")
            for connection in open_ones:
                connection.close()
            wait_until(lambda: not service.server.server_state.connections)
            assert httpx.get(f"{service.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"POST /v1/search/item HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/search/item HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_a_problem_and_the_end(raw):
    with running(deadline=1.0) as service:
        status, body = split(exchange(service.port, raw))
        assert 400 <= status < 500
        assert body["type"].startswith("urn:tfdml:problem:")
        assert service.http.get("/healthz").status_code == 200


def test_headers_have_a_limit():
    with running() as service:
        for pieces in (
            [b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n"],
            [b"GET /" + b"y" * 20_000, b"y" * 20_000, b"y" * 20_000],
        ):
            status, body = split(exchange(service.port, *pieces, pause=0.02))
            assert (status, body["type"]) == (431, "urn:tfdml:problem:headers-too-large")
        assert service.http.get("/healthz", headers={"x": "y" * 20_000}).status_code == 200


def test_pipelined_requests_are_answered_in_turn():
    with running(keep_alive=1) as service:
        one = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-ID: r%d\r\n\r\n"
        answer = exchange(service.port, b"".join(one % number for number in range(5)))
        places = [answer.index(b"x-request-id: r%d" % number) for number in range(5)]
        assert places == sorted(places)


def test_stopping_finishes_what_was_begun():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with running() as service:
            service.embedder.go_on.clear()
            answer = pool.submit(ask, service)
            wait_until(lambda: service.embedder.asked)
            threading.Timer(0.2, service.embedder.go_on.set).start()
        assert answer.result().status_code == 200
