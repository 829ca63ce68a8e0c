"""What every request passes through: its id, its key, its body's limits, its answer's headers, its lines in log and metrics."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Receive, Scope, Send

from tfdml_serving.api.bodies import BodyBudget, BodyRules, DisconnectedError, body_length, drain, read_body, replay
from tfdml_serving.api.calls import Call, keep_call, request_id
from tfdml_serving.api.direct import Answering, Direct
from tfdml_serving.api.headers import Headers, security_headers
from tfdml_serving.api.logs import log
from tfdml_serving.errors import BodyTimeout, Forbidden, ServingError, Unauthorized

if TYPE_CHECKING:
    from tfdml_serving.api.service import Service

PROBLEM = b"application/problem+json"
# These say of the service what a page or a probe must know before it has a key.
_OPEN = ("/v1/info",)
# Of a request, for a key's rate: a page of hits asks for as many pictures at once.
_THUMBNAIL = 0.02


class Gate:
    """An ASGI middleware around the application.

    Args:
        app: what is inside.
        service: its settings, keys and metrics are used.
        types: media types of images.
        direct: what answers POST requests at some paths in the application's place, if they are plainly right.
    """

    def __init__(self, app: ASGIApp, service: Service, types: tuple[str, ...], direct: Mapping[str, Direct]) -> None:
        self._app = app
        self._service = service
        self._direct = direct
        settings = service.settings
        self._deadline = settings.deadline
        self._rules = BodyRules(settings.max_image_bytes, settings.max_body_bytes, types)
        self._budget = BodyBudget(settings.max_bytes_in_flight)
        self._logs = log.isEnabledFor(logging.INFO)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Passage(self, scope, receive, send).pass_through()


class _Passage:
    """One request on its way through the gate."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate, self._scope, self._receive, self._send_out = gate, scope, receive, send
        self._service = gate._service
        self._headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            self._headers.setdefault(name, value)
        started = time.perf_counter()
        deadline = asyncio.get_running_loop().time() + gate._deadline
        kind, _, parameters = (self._header(b"content-type") or "").partition(";")
        self._call = Call(request_id(self._header(b"x-request-id")), started, deadline, kind.strip().lower(), parameters)
        keep_call(scope, self._call)
        # Whatever can be got can be asked for its headers alone, as many probes do: the server leaves the body out.
        self._inside: Scope = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        self._status = 0
        self._reserved = 0
        self._route: str | None = None

    async def pass_through(self) -> None:
        try:
            await self._enter()
        except DisconnectedError:
            self._status = 499  # what the web calls a caller who did not wait
        except ServingError as error:
            await self._refuse(error)
        except Exception:
            log.exception("a request failed", extra={"fields": {"request_id": self._call.request_id}})
            if self._status:
                raise  # half an answer is out: the connection has to break
            await self._answer_problem(ServingError("Something went wrong here; the log knows more under this request's id."))
        finally:
            self._gate._budget.release(self._reserved)
            # Not now: what was written leaves for the network only when the event loop comes round.
            asyncio.get_running_loop().call_soon(self._note)

    async def _enter(self) -> None:
        path = self._scope["path"]
        if self._service.keys is not None and path.startswith("/v1/") and path not in _OPEN:
            cost = _THUMBNAIL if path.startswith("/v1/thumbnails/") else 1.0
            self._call.key = self._service.keys.admit(self._key(), cost)
        if self._scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            self._check_origin()
        limit = self._gate._rules.limit(self._scope, self._call)
        receive = self._receive
        if limit is not None:
            length = body_length(self._header(b"content-length"))
            body = await read_body(receive, limit, length, self._call, self._gate._budget)
            self._reserved = len(body)
            self._call.body = body
            receive = replay(body, receive)
            self._service.metrics.stages["read"].observe(time.perf_counter() - self._call.started)
        answering = self._directly()
        app: ASGIApp = self._gate._app if answering is None else await answering
        await app(self._inside, receive, self._send)

    def _directly(self) -> Answering | None:
        """The answer that is made without the router, if there is a short way to it."""
        path = self._scope["path"]
        direct = self._gate._direct.get(path) if self._scope["method"] == "POST" else None
        if direct is None or self._scope.get("root_path"):
            return None
        answering = direct(self._call, self._scope["query_string"])
        if answering is not None:
            self._route = path
        return answering

    def _check_origin(self) -> None:
        """A page of another site must not write, or search at this machine's expense, through the browser of somebody who may.

        Browsers say where a request comes from; other callers say nothing and are judged by their key alone.
        """
        site, origin = self._header(b"sec-fetch-site"), self._header(b"origin")
        if site is None and origin is None:
            return
        host = self._header(b"x-forwarded-host") or self._header(b"host") or ""
        foreign = (
            origin is not None and origin.partition("://")[2] != host if site is None else site not in ("same-origin", "none")
        )
        if foreign:
            raise Forbidden("Pages of other sites may not ask this service. Ask it from a server, or from its own page.")
        searches = self._scope["path"].startswith("/v1/search/")
        if self._service.keys is None and not searches and not is_own_name(host):
            # Somebody else's name may have been pointed at this machine after a browser loaded their page.
            raise Forbidden(
                "Without API keys, browsers may change things by an IP address or localhost only. Start with --api-keys."
            )

    def _key(self) -> str | None:
        scheme, _, bearer = (self._header(b"authorization") or "").partition(" ")
        if scheme.lower() == "bearer" and bearer.strip():
            return bearer.strip()
        return self._header(b"x-api-key")

    def _header(self, name: bytes) -> str | None:
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers: Headers = [
                *message.get("headers", ()),
                (b"x-request-id", self._call.request_id.encode()),
                *security_headers(self._scope["path"]),
            ]
            if self._scope["path"].startswith("/v1/") and not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers}
        await self._send_out(message)

    async def _refuse(self, error: ServingError) -> None:
        """Answers before the application was asked. The body may still be on its way."""
        unread = not self._call.arrived and (
            self._headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self._headers
        )
        if unread and b"expect" not in self._headers and not isinstance(error, (Unauthorized, BodyTimeout)):
            await drain(self._receive)
        await self._answer_problem(error, close=unread)

    async def _answer_problem(self, error: ServingError, close: bool = False) -> None:
        status, headers, body = problem_answer(error, self._call.request_id)
        if close:
            headers.append((b"connection", b"close"))
        self._service.metrics.refused(error.kind)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _note(self) -> None:
        seconds = time.perf_counter() - self._call.started
        route = self._route or getattr(self._inside.get("route"), "path", None) or "unknown"
        method = self._scope["method"] if self._scope["method"] in _METHODS else "OTHER"
        self._service.metrics.answered(route, method, self._status, seconds)
        if self._gate._logs and route not in _QUIET:
            fields: dict[str, Any] = {
                "request_id": self._call.request_id,
                "method": method,
                "route": route,
                "status": self._status,
                "ms": round(1000 * seconds, 2),
                "bytes": len(self._call.body),
            }
            if self._call.key is not None:
                fields["key"] = self._call.key.name
            log.info("request", extra={"fields": fields})


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Asked every few seconds by probes; metrics count them.
_QUIET = frozenset(("/healthz", "/readyz", "/metrics"))


def is_own_name(host: str) -> bool:
    """Whether a Host header is localhost or an IP address: names that nobody else can give to this machine.

    >>> [is_own_name(host) for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "evil.example", "")]
    [True, True, True, False, False]
    """
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def problem_answer(error: ServingError, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the answer that an error is."""
    body = json.dumps(error.problem(request_id)).encode()
    headers: Headers = [(b"content-type", PROBLEM), (b"content-length", str(len(body)).encode())]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(math.ceil(error.retry_after)).encode()))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b'Bearer realm="tfdml"'))
    return error.status, headers, body
