"""What browsers are told, and what pages of other sites can make them do: nothing."""

from __future__ import annotations

import pytest
from service_runs import running


@pytest.fixture(scope="module")
def service():
    with running(writable=True) as running_service:
        yield running_service


@pytest.mark.parametrize("path", ["/", "/docs", "/static/app.js", "/static/reference.css"])
def test_the_page_may_run_its_own_files_and_nothing_else(service, path):
    answer = service.http.get(path)
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "camera=(self)" in answer.headers["permissions-policy"]


@pytest.mark.parametrize("path", ["/", "/v1/info", "/healthz", "/nowhere", "/v1/items/nobody", "/openapi.json", "/metrics"])
def test_every_answer_is_marked(service, path):
    headers = service.http.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "content-security-policy" in headers
    assert headers["x-request-id"]
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers
    if path.startswith("/v1/"):
        assert headers["cache-control"] == "no-store"


def test_the_page_has_nothing_inline_and_asks_nobody_else(service):
    page = service.http.get("/").text
    for line in page.splitlines():
        assert "<script>" not in line
        assert "<style" not in line
        assert " style=" not in line
        assert not any(f" on{event}=" in line for event in ("click", "load", "error", "submit", "input"))
        assert "http://" not in line.replace("http://www.w3.org/", "")
        assert "https://" not in line


def test_files_of_the_page_are_sent_once(service):
    first = service.http.get("/static/app.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    again = service.http.get("/static/app.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert service.http.get("/static/icon.svg").headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://HOST"}, True),
        ({"origin": "http://evil.example", "host": "evil.example"}, False),  # a name that was pointed here afterwards
        ({"sec-fetch-site": "same-origin", "host": "evil.example:80"}, False),
    ],
)
def test_pages_of_other_sites_do_not_write(service, headers, allowed):
    own = f"127.0.0.1:{service.port}"
    headers = {name: value.replace("HOST", own) for name, value in headers.items()}
    answer = service.http.post("/v1/versions/1/activate", headers=headers)
    assert answer.status_code == (200 if allowed else 403)
    if not allowed:
        assert answer.json()["type"] == "urn:tfdml:problem:forbidden"


def test_the_service_can_go_without_its_page():
    with running(page=False) as service:
        assert service.http.get("/").status_code == 404
        assert service.http.get("/v1/info").status_code == 200
