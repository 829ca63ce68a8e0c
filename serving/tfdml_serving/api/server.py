"""The service in a process of its own: uvicorn, set up."""

from __future__ import annotations

import errno
import math
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from tfdml_serving.api.app import create_app
from tfdml_serving.api.protocol import guarded_protocol
from tfdml_serving.settings import Settings

_SWITCH_SECONDS = 0.0005


class Server(uvicorn.Server):
    """A uvicorn server that says where it listens.

    Args:
        config: uvicorn's.
        listening: is told the URL as soon as connections are taken.
    """

    def __init__(self, config: uvicorn.Config, listening: Callable[[str], None] | None = None) -> None:
        super().__init__(config)
        self._listening = listening
        self.url: str | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            bound = self.servers[0].sockets[0].getsockname()
            host = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            self.url = f"http://{host}:{bound[1]}"
            if self._listening is not None:
                self._listening(self.url)


def make_server(settings: Settings, app: FastAPI | None = None, listening: Callable[[str], None] | None = None) -> Server:
    """The server of an application, which is made from the settings if it is left out."""
    options: dict[str, Any] = {
        "http": guarded_protocol(settings),
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": math.ceil(settings.keep_alive),
        "timeout_graceful_shutdown": math.ceil(settings.shutdown_seconds),
    }
    config = uvicorn.Config(app or create_app(settings), host=settings.host, port=settings.port, **options)
    return Server(config, listening)


def check_address(host: str, port: int) -> None:
    """Raises a ValueError that says what to do if nothing can listen there: told at once, and not when a model is loaded.

    Example:
        >>> with socket.create_server(("127.0.0.1", 0)) as other:
        ...     check_address("127.0.0.1", other.getsockname()[1])
        Traceback (most recent call last):
        ValueError: port=...: another program listens on 127.0.0.1:... already. Stop it, or give another --port.
    """
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = f"port={port}: another program listens on {host}:{port} already. Stop it, or give another --port."
        elif error.errno == errno.EACCES:
            problem = f"port={port}: only the system's administrator may listen there. Give a --port of 1024 or more."
        else:
            problem = f"host={host!r}: is no address of this machine ({error.strerror or error}). Give another --host."
        raise ValueError(problem) from error


def run(settings: Settings, listening: Callable[[str], None] | None = None) -> None:
    """Serves until the process is told to stop (SIGINT or SIGTERM); running requests are finished first."""
    # A search changes threads four times, and each time may wait so long for a thread that computes, such as one that adds.
    sys.setswitchinterval(_SWITCH_SECONDS)
    make_server(settings, listening=listening).run()
