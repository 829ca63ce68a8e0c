"""The service on a real socket, in a thread, with stand-ins for its parts unless real ones are given."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from fakes import FakeEmbedder, FakeHeld, FakeLiving, FakeVersions
from tfdml_serving.api.app import create_app
from tfdml_serving.api.server import Server, make_server
from tfdml_serving.settings import Settings


@dataclasses.dataclass
class Running:
    url: str
    http: httpx.Client
    server: Server
    app: Any
    versions: Any
    embedder: Any
    living: Any

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextlib.contextmanager
def running(versions: Any = None, embedder: Any = None, living: Any = None, **changes: Any):
    """Serves until the block ends."""
    settings = Settings(**{"bundle": Path("exports/products"), "port": 0, **changes})
    versions = versions or FakeVersions(FakeHeld(1), FakeHeld(2))
    embedder = embedder or FakeEmbedder()
    if living is None and settings.writable and isinstance(versions, FakeVersions):
        living = FakeLiving(versions._held[max(versions._held)])
    app = create_app(settings, versions, embedder, living)
    with serving(settings, app) as server, httpx.Client(base_url=server.url, timeout=20) as http:
        yield Running(server.url, http, server, app, versions, embedder, living)


@contextlib.contextmanager
def serving(settings: Settings, app: Any):
    server = make_server(settings, app)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while server.url is None and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.005)
    assert server.url is not None, "the service did not start"
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the service did not stop"


def wait_until(true, seconds: float = 20.0, what: str = "it") -> None:
    """Waits for something that another thread or process does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} seconds"
        time.sleep(0.005)
