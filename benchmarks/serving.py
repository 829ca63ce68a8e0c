"""The service beside the bare engine, overload, cold start: load from a second process over loopback.

    python benchmarks/serving.py [--rounds 8] [--parts latency overload cold] [--items 100000] [--json FILE]

*Bare engine*: one process that embeds a photograph with the bundle's SavedModel and asks the Annoy index for 10 neighbours,
nothing else. *Service*: `tfdml serve` on the same bundle, in embedded mode, in a process of its own; this process is its
callers. Both run all the time and are measured in turn, round by round, so that other load on the machine touches both alike.

- latency: one caller, one request after the other; the difference of the medians and of the 99th percentiles is the overhead.
- throughput: the service with 16 callers that never pause, the bare engine with 1, 2 or 4 threads, whichever is best; the
  median of the rounds' ratios.
- overload: many more callers than may wait. How fast the refusals are, and how long the accepted take.
- cold: from the start of the process to the first answered search, with a bundle of 1,000,000 items whose every byte is
  checked, the model in a TF-Serving (here: a process that answers as it does); and the memory that no file stands behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.server
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SIDE, DIMENSION, K = 96, 128, 10
CALLERS = 16
Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--cold-items", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--parts", nargs="+", default=["latency", "overload", "cold"], choices=["latency", "overload", "cold"])
    parser.add_argument("--folder", type=Path, help="where bundles are made, and found again the next time")
    parser.add_argument("--json", type=Path, help="add the figures to this file")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare_engine(arguments.bare)
        return
    figures: Figures = {"cpus": os.cpu_count(), "dimension": DIMENSION, "image": f"JPEG, {len(photograph())} bytes"}
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if {"latency", "overload"} & set(arguments.parts):
            path = make_bundle(folder / "latency" / "products" / "1", arguments.items, real=True)
            figures["items"] = arguments.items
            with service(path.parent) as (url, _):
                if "latency" in arguments.parts:
                    figures |= measure(path, url, arguments.rounds)
                if "overload" in arguments.parts:
                    figures["overload"] = asyncio.run(overload(url))
        if "cold" in arguments.parts:
            path = make_bundle(folder / "cold" / "products" / "1", arguments.cold_items, real=False)
            figures["cold_start"] = cold_start(path, arguments.cold_items)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        arguments.json.write_text(json.dumps({**known, **figures}, indent=2) + "\n")


# The bare engine and the service, side by side


def measure(path: Path, url: str, rounds: int) -> Figures:
    """Latency and throughput of both, in turn."""
    alone: dict[str, list[float]] = {"bare": [], "service": []}
    rates: dict[str, list[float]] = {"bare": [], "service": []}
    with bare_process(path) as ask:
        ask("alone 20")
        asyncio.run(load(url, callers=1, requests=20))
        for _ in range(rounds):
            alone["bare"] += ask("alone 60")["seconds"]
            alone["service"] += asyncio.run(load(url, callers=1, requests=60)).seconds
        threads = max((1, 2, 4), key=lambda count: ask(f"together {count} 2")["rate"])
        asyncio.run(load(url, CALLERS, seconds=1.0))
        for _ in range(rounds):
            rates["bare"].append(ask(f"together {threads} 2")["rate"])
            rates["service"].append(asyncio.run(load(url, CALLERS, seconds=2.0)).rate)
    quantiles = {name: (milliseconds(values, 50), milliseconds(values, 99)) for name, values in alone.items()}
    return {
        "rounds": rounds,
        "latency_ms": {name: {"p50": p50, "p99": p99, "requests": len(alone[name])} for name, (p50, p99) in quantiles.items()},
        "overhead_ms": {
            "p50": round(quantiles["service"][0] - quantiles["bare"][0], 3),
            "p99": round(quantiles["service"][1] - quantiles["bare"][1], 3),
        },
        "throughput": {
            "bare_threads": threads,
            "callers": CALLERS,
            "bare_per_second": round(statistics.median(rates["bare"]), 1),
            "service_per_second": round(statistics.median(rates["service"]), 1),
            "ratio": round(statistics.median(s / b for s, b in zip(rates["service"], rates["bare"], strict=True)), 3),
        },
    }


def bare_engine(path: Path) -> None:
    """The other process: reads what to measure from standard input, and answers with JSON lines."""
    from tfdml.bundle import Bundle, Embedder

    embedder, bundle, photo = Embedder(path, verify=False), Bundle.open(path, verify=False), photograph()

    def answer() -> None:
        embeddings, _ = embedder.try_embed([photo])
        bundle.index.search(embeddings, K)

    for line in sys.stdin:
        what, *numbers = line.split()
        if what == "alone":
            seconds = []
            for _ in range(int(numbers[0])):
                began = time.perf_counter()
                answer()
                seconds.append(time.perf_counter() - began)
            print(json.dumps({"seconds": seconds}), flush=True)
        else:
            print(json.dumps({"rate": together(answer, int(numbers[0]), float(numbers[1]))}), flush=True)


def together(answer: Any, count: int, seconds: float) -> float:
    """Answers a second from several threads."""
    done, end = [0] * count, time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < end:
            answer()
            done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - began)


@contextlib.contextmanager
def bare_process(path: Path) -> Iterator[Any]:
    command = [sys.executable, __file__, "--bare", str(path)]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    assert run.stdin
    assert run.stdout

    def ask(question: str) -> Figures:
        run.stdin.write(question + "\n")
        run.stdin.flush()
        answer: Figures = json.loads(run.stdout.readline())
        return answer

    try:
        yield ask
    finally:
        run.stdin.close()
        run.wait()


# Callers


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


async def load(url: str, callers: int, requests: int = 0, seconds: float = 0.0, pause: float = 0.0, body: bytes = b"") -> Load:
    """Searches by a photograph, each caller one after the other, until `requests` are sent or `seconds` are over.

    Args:
        pause: how long a caller waits after a refusal.
        body: a JSON document to search an item by, in place of the photograph.
    """
    parts, found = urlsplit(url), Load()
    kind, path = ("application/json", "/v1/search/item") if body else ("image/jpeg", f"/v1/search/image?k={K}")
    content = body or photograph()
    head = f"POST {path} HTTP/1.1\r\nHost: b\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    raw = head.encode() + content
    left, began = iter(range(requests or 10**9)), time.perf_counter()
    end = began + (seconds or 3600.0)

    async def caller() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for _ in left:
            asked = time.perf_counter()
            if asked > end:
                break
            writer.write(raw)
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer[9:12])
            await reader.readexactly(int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            found.statuses[status] += 1
            (found.seconds if status == 200 else found.refused).append(time.perf_counter() - asked)
            if status != 200 and pause:
                await asyncio.sleep(pause)
        writer.close()

    await asyncio.gather(*(caller() for _ in range(callers)))
    found.elapsed = time.perf_counter() - began
    return found


async def overload(url: str, callers: int = 300, seconds: float = 10.0) -> Figures:
    """Three times as many callers as may be worked on and wait."""
    calm = await load(url, CALLERS, seconds=3.0)
    found = await load(url, callers, seconds=seconds, pause=0.2)
    return {
        "callers": callers,
        "statuses": dict(found.statuses),
        "accepted_per_second": round(found.rate, 1),
        "calm_per_second": round(calm.rate, 1),
        "accepted_ms": {"p50": milliseconds(found.seconds, 50), "p99": milliseconds(found.seconds, 99)},
        "refused_ms": {"p50": milliseconds(found.refused, 50), "p99": milliseconds(found.refused, 99)},
    }


# Cold start


def cold_start(path: Path, items: int) -> Figures:
    """Seconds from the start of the process to the first answer, and memory then and after a hundred searches more."""
    body = json.dumps({"id": "item/17", "k": K}).encode()
    version = path
    size = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    times: list[Figures] = []
    with model_server() as address:
        for _ in range(3):
            began = time.perf_counter()
            with service(path.parent, "--tf-serving", address, ready=False) as (url, pid):
                listening = time.perf_counter() - began
                wait_ready(url, 120)
                ready = time.perf_counter() - began
                first = asyncio.run(load(url, 1, requests=1, body=body))
                answered = time.perf_counter() - began
                asyncio.run(load(url, 4, requests=400, body=body))
                assert first.statuses[200] == 1
                times.append(
                    {
                        "listening_s": round(listening, 2),
                        "ready_s": round(ready, 2),
                        "first_answer_s": round(answered, 2),
                        "resident_mb_beyond_files": memory(pid, "RssAnon") + memory(pid, "RssShmem"),
                        "resident_mb_of_files": memory(pid, "RssFile"),
                    }
                )
    return {"items": items, "bundle_mb": size >> 20, "checksums": True, "runs": times}


def memory(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) >> 10


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


# Set-up


@contextlib.contextmanager
def service(model_directory: Path, *options: str, ready: bool = True) -> Iterator[tuple[str, int]]:
    """`tfdml serve` in a process of its own: its URL and process id."""
    command = [sys.executable, "-m", "tfdml.cli", "serve", str(model_directory), "--port", "0", *options]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
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
    import urllib.error
    import urllib.request

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


def make_bundle(path: Path, items: int, real: bool) -> Path:
    """A bundle of random items in clusters: with a real convolutional network, or with bytes in its place."""
    if (path / "assets.extra").exists():
        return path
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from tfdml.bundle.manifest import ModelRecord
    from tfdml.bundle.packing import Gallery, pack

    path.mkdir(parents=True)
    signatures = ("serving_default", "embed_images")
    config: dict[str, Any] = {"size": [SIDE, SIDE], "channels": 3, "fit": "crop", "resize": [SIDE, SIDE]}
    if real:
        write_model(path)
    else:
        (path / "variables").mkdir()
        (path / "saved_model.pb").write_bytes(b"no graph")
        (path / "variables" / "variables.index").write_bytes(b"index")
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, items // 50), DIMENSION), np.float32)
    rows = centres[rng.integers(0, len(centres), items)]
    rows += 0.6 * rng.standard_normal(rows.shape, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fields = {"title": [f"Thing {number}" for number in range(items)], "price": [number % 1000 / 10 for number in range(items)]}
    gallery = Gallery(rows, [f"item/{number}" for number in range(items)], fields, "cosine")
    record = ModelRecord("", DIMENSION, True, (SIDE, SIDE, 3), config, 50_000_000, signatures)
    pack(path, gallery, record, trees=20, recall=0.5)
    return path


def write_model(path: Path) -> None:
    """A small network of the kind that is used for products."""
    sys.path[:0] = [str(ROOT)]
    import keras

    import tfdml
    from tfdml.bundle.saved_model import write_saved_model
    from tfdml.preprocessing import ImagePreprocessing

    image = keras.Input((SIDE, SIDE, 3))
    backbone = keras.applications.MobileNetV2((SIDE, SIDE, 3), alpha=0.5, include_top=False, weights=None, pooling="avg")
    features = backbone(keras.layers.Rescaling(1 / 127.5, -1)(image))
    model = tfdml.EmbeddingModel(keras.Model(image, keras.layers.Dense(DIMENSION)(features)))
    write_saved_model(model, path, ImagePreprocessing(size=SIDE))


def photograph() -> bytes:
    """A JPEG file of the size that telephones send after shrinking: 640 x 480."""
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def milliseconds(seconds: list[float], percentile: float) -> float:
    return round(1000 * float(np.percentile(seconds, percentile)), 3) if seconds else 0.0


if __name__ == "__main__":
    main()
