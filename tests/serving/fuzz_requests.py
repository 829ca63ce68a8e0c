"""Sends a service requests that no sane caller sends, and looks at every answer.

    python tests/serving/fuzz_requests.py http://127.0.0.1:8000 --requests 100000 [--pid PID]

With the process's id its memory is watched as well. See also `schemathesis run URL/openapi.json`, which invents requests by the
service's own document.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz_files import fuzzed_file

Rng = np.random.Generator
_TEXTS = (
    "",
    "a",
    "item/1",
    "milk' or 1=1 --",
    "\0",
    "\u202e",
    "ä" * 50,
    "%00",
    "../../etc/passwd",
    "x" * 2000,
    "price < 3",
    "(" * 500,
)
_NUMBERS = (0, -1, 1, 10, 2**31, 2**63, 2**64, 1e308, 1.5, float("nan"), float("inf"), True, None)


@dataclasses.dataclass
class Report:
    """What came of it."""

    statuses: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    made: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)
    memory: list[int] = dataclasses.field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.statuses.values())


async def fuzz(url: str, requests: int, seed: int = 0, connections: int = 8, pid: int | None = None) -> Report:
    """Sends `requests` requests over several connections and reports what was answered."""
    report = Report()
    parts = urlsplit(url)
    left = iter(range(requests))

    async def caller(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for count in left:
            name, raw = fuzzed_request(rng)
            report.made[name] += 1
            if connection is None:
                connection = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                stays = await asyncio.wait_for(_exchange(*connection, raw, name, report), 60)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError) as error:
                report.wrong.append(f"{name}: no answer: {error!r}: {raw[:300]!r}")
                stays = False
            if not stays:
                connection[1].close()
                connection = None
            if pid is not None and count % 500 == 0:
                report.memory.append(resident_kilobytes(pid))
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(caller(number) for number in range(connections)))
    return report


def fuzzed_request(rng: Rng) -> tuple[str, bytes]:
    """(its kind, the bytes on the wire)."""
    chance = rng.random()
    if chance < 0.68:
        name, data, kind = fuzzed_file(rng)
        query = _query(rng) if rng.random() < 0.2 else ""
        if rng.random() < 0.15:
            data, kind = _form(rng, data, kind)
            name = f"form, {name}"
        return name, _raw("POST", f"/v1/search/image{query}", data, kind)
    if chance < 0.9:
        return _json_request(rng)
    method = str(rng.choice(["GET", "GET", "GET", "DELETE", "HEAD", "OPTIONS", "POST", "PUT", "TRACE", "PATCH"]))
    places = ("/v1/items", "/v1/items/", "/v1/thumbnails/", "/v1/versions", "/v1/versions/1/activate", "/static/", "/", "/docs")
    path = str(rng.choice(places))
    if path.endswith("/") and rng.random() < 0.8:
        path += quote(str(rng.choice(_TEXTS)), safe="/" if rng.random() < 0.5 else "")
    return "path", _raw(method, path + _query(rng), b"", "")


def _json_request(rng: Rng) -> tuple[str, bytes]:
    _, file, _ = fuzzed_file(rng)
    image = base64.b64encode(file).decode() if len(file) < 300_000 else "AAAA"
    good: list[tuple[str, str, Any]] = [
        ("POST", "/v1/search/item", {"id": "item/1", "k": 3}),
        ("POST", "/v1/search/embedding", {"embedding": rng.normal(size=int(rng.choice([1, 4, 6]))).tolist(), "k": 3}),
        ("POST", "/v1/search/batch", {"queries": [{"id": "item/2"}, {"image": image}, {"image": "AAAA"}], "k": 2}),
        ("PUT", "/v1/items/fuzz-" + str(rng.integers(20)), {"image": image, "fields": {"title": "x", "price": 1}}),
        ("PATCH", "/v1/items/item/" + str(rng.integers(20)), {"fields": {"price": 2.5}}),
    ]
    method, path, content = good[rng.integers(len(good))]
    if rng.random() < 0.7:
        content = _changed(rng, content)
    body = json.dumps(content).encode()
    if rng.random() < 0.15:
        body = body[: rng.integers(0, len(body) + 1)]
    if rng.random() < 0.1:
        body = bytes(rng.integers(0, 256, 40, dtype=np.uint8)) + body
    kind = "application/json" if rng.random() < 0.95 else "text/plain"
    return "json", _raw(method, path, body, kind)


def _changed(rng: Rng, content: Any) -> Any:
    """The same with something else somewhere in it."""
    if isinstance(content, dict) and content and rng.random() < 0.85:
        key = str(rng.choice(list(content)))
        if rng.random() < 0.1:
            return {**content, str(rng.choice(_TEXTS)): _anything(rng)}
        if rng.random() < 0.1:
            return {name: value for name, value in content.items() if name != key}
        return {**content, key: _changed(rng, content[key])}
    if isinstance(content, list) and content and rng.random() < 0.8:
        place = int(rng.integers(len(content)))
        return [*content[:place], _changed(rng, content[place]), *content[place + 1 :]]
    return _anything(rng)


def _anything(rng: Rng) -> Any:
    kind = rng.integers(6)
    if kind == 0:
        return _NUMBERS[rng.integers(len(_NUMBERS))]
    if kind == 1:
        return _TEXTS[rng.integers(len(_TEXTS))]
    if kind == 2:
        return {}
    if kind == 3:
        return [_NUMBERS[place] for place in rng.integers(0, len(_NUMBERS), int(rng.choice([0, 1, 6, 300])))]
    if kind == 4:
        nested: Any = 1
        for _ in range(int(rng.choice([3, 600]))):
            nested = [nested]
        return nested
    return int(rng.integers(0, 5))


def _query(rng: Rng) -> str:
    pairs = []
    for name in rng.choice(["k", "filter", "version", "limit", "after", "nothing"], int(rng.integers(0, 4))):
        value = _TEXTS[rng.integers(len(_TEXTS))] if rng.random() < 0.5 else str(_NUMBERS[rng.integers(len(_NUMBERS))])
        pairs.append(f"{name}={quote(value)}")
    return "?" + "&".join(pairs) if pairs else ""


def _form(rng: Rng, data: bytes, kind: str) -> tuple[bytes, str]:
    name = str(rng.choice(["image", "image", "image", "file", 'im"age']))
    head = f'--b0und\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\nContent-Type: {kind}\r\n\r\n'
    body = head.encode("latin-1", "replace") + data + b"\r\n--b0und--\r\n"
    if rng.random() < 0.2:
        body = body[: rng.integers(0, len(body))]
    return body, str(
        rng.choice(["multipart/form-data; boundary=b0und", "multipart/form-data", "multipart/form-data; boundary="])
    )


def _raw(method: str, path: str, body: bytes, kind: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: fuzz", f"Content-Length: {len(body)}"]
    if kind:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes, name: str, report: Report) -> bool:
    """Sends a request and reads its answer; whether the connection stays open."""
    writer.write(raw)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:] if line)}
    status = int(lines[0].split()[1])
    length = 0 if raw.startswith(b"HEAD ") or status in (204, 304) else int(headers["content-length"])
    body = await reader.readexactly(length)
    report.statuses[status] += 1
    problem = wrong_with(status, headers, body)
    if problem:
        report.wrong.append(f"{name}: {problem}: {status} {body[:300]!r} to {raw[:300]!r}")
    return headers.get("connection") != "close"


def wrong_with(status: int, headers: dict[str, str], body: bytes) -> str | None:
    """What an answer has that no answer may have."""
    if status >= 500 and (status != 503 or "retry-after" not in headers):
        return "not a deliberate refusal"
    if "x-request-id" not in headers or headers.get("x-content-type-options") != "nosniff":
        return "headers are missing"
    kind = headers.get("content-type", "")
    if status >= 400 and body:
        if kind != "application/problem+json" or json.loads(body)["status"] != status:
            return "not a problem document"
    elif kind == "application/json" and body:
        json.loads(body, parse_constant=_not_json)
    return None


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def resident_kilobytes(pid: int) -> int:
    """Memory of a process that no file stands behind."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pid", type=int)
    arguments = parser.parse_args()
    report = asyncio.run(fuzz(arguments.url, arguments.requests, arguments.seed, arguments.connections, arguments.pid))
    print(json.dumps({"requests": report.total, "statuses": dict(sorted(report.statuses.items())), "made": dict(report.made)}))
    if report.memory:
        print(json.dumps({"resident_megabytes": [kilobytes >> 10 for kilobytes in report.memory]}))
    print(f"{len(report.wrong)} answers were wrong")
    for text in report.wrong[:20]:
        print(text)
    raise SystemExit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
