"""The service in a process of its own, something that answers as TF-Serving does, and callers that measure."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from _serving_bundles import DIMENSION, ROOT, K
from PIL import Image

# Processes


@contextlib.contextmanager
def service(model_directory: Path, *options: str, ready: bool = True) -> Iterator[tuple[str, int]]:
    """`tfdml serve` in a process of its own: its URL and process id."""
    command = [sys.executable, "-m", "tfdml.cli", "serve", str(model_directory), "--port", "0", *options]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment())
    assert run.stdout
    try:
        url = run.stdout.readline().split("http://")[1].split()[0]
        if ready:
            wait_ready(f"http://{url}", 120)
        yield f"http://{url}", run.pid
    finally:
        run.terminate()
        run.wait()


def wait_ready(url: str, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{url}/readyz", timeout=10)
            return
        if time.perf_counter() > end:
            raise TimeoutError(f"{url} is not ready after {seconds} s")
        time.sleep(0.02)


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "serving")])
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}


def megabytes(pid: int, *names: str) -> int:
    """Memory of a process, such as "RssAnon" and "RssShmem"."""
    text = Path(f"/proc/{pid}/status").read_text()
    return sum(int(text.split(f"{name}:")[1].split()[0]) for name in names) >> 10


@contextlib.contextmanager
def model_server() -> Iterator[str]:
    """Answers as a TF-Serving does that has loaded every version; it embeds nothing but ones."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            version = self.path.rpartition("/")[2] if "versions" in self.path else "1"
            self.answer({"model_version_status": [{"version": version, "state": "AVAILABLE", "status": {"error_code": "OK"}}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            rows = len(asked.get("instances", asked.get("inputs", [0])))
            row = {"embedding": [DIMENSION**-0.5] * DIMENSION, "valid": True}
            outputs = {"embedding": [row["embedding"]] * rows, "valid": [True] * rows}
            self.answer({"predictions": [row] * rows} if "instances" in asked else {"outputs": outputs})

        def answer(self, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


# Requests and callers


def photograph() -> bytes:
    """A JPEG file of the size that telephones send after shrinking: 640 x 480."""
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def request(method: str, path: str, content: Any) -> bytes:
    """What goes over the wire: bytes as a JPEG file, everything else as JSON."""
    kind = "image/jpeg" if isinstance(content, bytes) else "application/json"
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: b\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def by_photograph() -> bytes:
    return request("POST", f"/v1/search/image?k={K}", photograph())


def by_item(name: str) -> bytes:
    return request("POST", "/v1/search/item", {"id": name, "k": K})


def by_embedding(vector: np.ndarray, k: int = K) -> bytes:
    return request("POST", "/v1/search/embedding", {"embedding": [round(float(x), 6) for x in vector], "k": k})


class Connection:
    """One connection that stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, url: str) -> Connection:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def ask(self, raw: bytes) -> tuple[int, bytes]:
        self.writer.write(raw)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head[9:12]), await self.reader.readexactly(length)


class Load:
    """What callers saw."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.refused: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.elapsed = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.elapsed


async def load(
    url: str,
    callers: int,
    raws: list[bytes],
    requests: int = 0,
    seconds: float = 0.0,
    pause: float = 0.0,
    until: Callable[[], bool] = lambda: False,
) -> Load:
    """Each caller asks one request after the other, until `requests` are sent, `seconds` are over or `until` is true.

    Args:
        raws: the requests, which take turns.
        pause: how long a caller waits after a refusal.
    """
    found, left, began = Load(), iter(range(requests or 10**9)), time.perf_counter()
    end = began + (seconds or 3600.0)

    async def caller() -> None:
        connection = await Connection.to(url)
        for number in left:
            asked = time.perf_counter()
            if asked > end or until():
                break
            status, _ = await connection.ask(raws[number % len(raws)])
            found.statuses[status] += 1
            (found.seconds if status == 200 else found.refused).append(time.perf_counter() - asked)
            if status != 200 and pause:
                await asyncio.sleep(pause)
        connection.writer.close()

    await asyncio.gather(*(caller() for _ in range(callers)))
    found.elapsed = time.perf_counter() - began
    return found


def milliseconds(seconds: list[float], percentile: float) -> float:
    return round(1000 * float(np.percentile(seconds, percentile)), 3) if seconds else 0.0


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{percentile}": milliseconds(seconds, percentile) for percentile in (50, 99)}
