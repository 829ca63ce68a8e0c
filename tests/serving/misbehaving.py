"""A server that does what a test tells it, request by request: refuses, is slow, cuts connections, answers nonsense."""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping

Behaviour = Callable[[socket.socket], bool]
"""What is done with a connection that has sent a request; True keeps it open for the next one."""


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Misbehaving:
    """Behaves for each request as the next of `behaviours` says, and as the last one from then on.

    Attributes:
        requests: what was asked so far.
        url: where.
    """

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = list(behaviours)
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Misbehaving:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # closing alone does not wake the thread that accepts
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while (request := _read(stream)) is not None:
                    with self._lock:
                        self.requests.append(request)
                        behave = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
                    if not behave(connection):
                        return
        except OSError:
            pass  # the client has gone


def answers(status: int, document: object = None, raw: bytes | None = None, **headers: str) -> Behaviour:
    body = json.dumps(document).encode() if raw is None else raw
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    data = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body

    def behave(connection: socket.socket) -> bool:
        connection.sendall(data)
        return True

    return behave


def after(seconds: float, then: Behaviour) -> Behaviour:
    def behave(connection: socket.socket) -> bool:
        time.sleep(seconds)
        return then(connection)

    return behave


def cuts(connection: socket.socket) -> bool:
    """Closes without a word."""
    return False


def resets(connection: socket.socket) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def cuts_midway(connection: socket.socket) -> bool:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"model": "pro')
    return False


def speaks_no_http(connection: socket.socket) -> bool:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    return False


def drips(body: bytes, pause: float = 0.05) -> Behaviour:
    """A right answer, one byte at a time."""

    def behave(connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for byte in body:
            connection.sendall(bytes([byte]))
            time.sleep(pause)
        return True

    return behave


def _read(stream) -> Request | None:
    line = stream.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = {}
    while (header := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    return Request(line[0], line[1], headers, stream.read(int(headers.get("content-length", 0))))
