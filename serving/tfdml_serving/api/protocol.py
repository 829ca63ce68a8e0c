"""HTTP/1.1 by uvicorn and httptools, with limits that they do not have: on headers, on waiting for them, on connections."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tfdml_serving.api.calls import request_id
from tfdml_serving.api.gate import problem_answer
from tfdml_serving.api.headers import security_headers
from tfdml_serving.errors import BadRequest, HeadersTooLarge, HeaderTimeout, Overloaded, ServingError
from tfdml_serving.settings import Settings

LARGEST_HEADERS = 32 << 10


class GuardedProtocol(HttpToolsProtocol):
    """One connection. A caller who sends headers slowly, endlessly or not at all is told so and cut off.

    Bodies are the application's to limit, which knows what it takes; what it leaves unread ends the connection.
    """

    most_connections = 1000
    header_seconds = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._timer: asyncio.TimerHandle | None = None
        self._awaits_headers = True
        self._within_headers = self._awaits_body = False
        self._header_bytes = 0
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._refuse(Overloaded(f"{self.most_connections} connections are open, the most that are taken. Ask again soon."))
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        within = self._within_headers
        if self._awaits_headers:
            self._start_timer()
        super().data_received(data)
        # httptools hands headers on when they are complete; until then only their bytes can be counted.
        if within and self._within_headers and not self.transport.is_closing():
            self._header_bytes += len(data)
            if self._header_bytes > LARGEST_HEADERS:
                self._refuse(_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._within_headers = self._awaits_body = True
        self._header_bytes = 0

    def on_headers_complete(self) -> None:
        self._awaits_headers = self._within_headers = False
        self._stop_timer()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > LARGEST_HEADERS:
            self._refuse(_too_large())
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None and not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._awaits_headers, self._awaits_body = True, False
        if self.cycle is not None and not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._awaits_body and not self.pipeline and not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequest("This is not a request in HTTP/1.1."))

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._awaits_headers and not self.transport.is_closing():
            self._refuse(HeaderTimeout(f"The request's headers did not arrive within {self.header_seconds:g} seconds."))

    def _refuse(self, error: ServingError) -> None:
        """Answers without the application, and closes."""
        self._stop_timer()
        name = request_id(None)
        status, headers, body = problem_answer(error, name)
        headers = [*headers, (b"x-request-id", name.encode()), *security_headers("/v1/"), (b"connection", b"close")]
        lines = [f"HTTP/1.1 {status} {error.title}".encode(), *(key + b": " + value for key, value in headers), b"", body]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()


def guarded_protocol(settings: Settings) -> type[GuardedProtocol]:
    """The protocol with the limits of the settings."""
    limits: dict[str, Any] = {"most_connections": settings.connections, "header_seconds": settings.header_seconds}
    return type("GuardedProtocol", (GuardedProtocol,), limits)


def _too_large() -> ServingError:
    return HeadersTooLarge(f"The request's headers are larger than {LARGEST_HEADERS >> 10} KB.")
