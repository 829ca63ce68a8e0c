"""The service beside the bare engine, overload, cold start, changes while searching: load from a second process over loopback.

    python benchmarks/serving.py [--rounds 8] [--parts latency overload cold changes] [--folder DIR] [--json FILE]

*Bare engine*: one process that embeds a photograph with the bundle's SavedModel and asks the Annoy index for 10 neighbours,
nothing else. *Service*: `tfdml serve` on the same bundle, in embedded mode, in a process of its own; this process is its
callers. Both run all the time and are measured in turn, round by round, so that other load on the machine touches both alike.

- latency: one caller, one request after the other; the difference of the medians and of the 99th percentiles is the overhead.
- throughput: the service with 16 callers that never pause, the bare engine with 1, 2 or 4 threads, whichever is best; the
  median of the rounds' ratios.
- overload: many more callers than may wait. How fast the refusals are, and how long the accepted take.
- cold: from the start of the process to the first answered search, with a bundle of 1,000,000 items whose every byte is
  checked, the model in a TF-Serving (here: a process that answers as it does); and the memory that no file stands behind.
- changes: the same bundle and a living catalogue. One caller adds items by their embeddings and after each acknowledgement
  searches for what it added; another searches all the time, as it did before the adding began.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _bare_engine import bare_process
from _serving_bundles import DIMENSION, make_bundle
from _serving_processes import (
    Connection,
    by_embedding,
    by_item,
    by_photograph,
    load,
    megabytes,
    milliseconds,
    model_server,
    percentiles,
    photograph,
    request,
    service,
    wait_ready,
)
from uvloop import run

PARTS = ("latency", "overload", "cold", "changes")
CALLERS = 16
Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=100_000, help="of latency and overload")
    parser.add_argument("--large", type=int, default=1_000_000, help="items of cold and changes")
    parser.add_argument("--adds", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--folder", type=Path, help="where bundles are made, and found again the next time")
    parser.add_argument("--json", type=Path, help="add the figures to this file")
    arguments = parser.parse_args()
    figures: Figures = {"cpus": os.cpu_count(), "dimension": DIMENSION, "image": f"JPEG, {len(photograph())} bytes"}
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if {"latency", "overload"} & set(arguments.parts):
            path = make_bundle(folder / "network" / "products" / "1", arguments.items, network=True)
            figures["items"] = arguments.items
            with service(path.parent) as (url, _):
                if "latency" in arguments.parts:
                    figures |= measure(path, url, arguments.rounds)
                if "overload" in arguments.parts:
                    figures["overload"] = run(overload(url))
        if {"cold", "changes"} & set(arguments.parts):
            path = make_bundle(folder / "large" / "products" / "1", arguments.large)
            with model_server() as address:
                if "cold" in arguments.parts:
                    figures["cold_start"] = {"items": arguments.large, **cold_start(path, address)}
                if "changes" in arguments.parts:
                    living = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "living.sqlite"
                    options = ("--tf-serving", address, "--living", str(living), "--writable")
                    with service(path.parent, *options) as (url, _):
                        figures["changes"] = {"items": arguments.large, **run(changes(url, path, arguments.adds))}
    print(json.dumps(figures, indent=2))
    if arguments.json:
        known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        arguments.json.write_text(json.dumps({**known, **figures}, indent=2) + "\n")


# The bare engine and the service, side by side


def measure(path: Path, url: str, rounds: int) -> Figures:
    """Latency and throughput of both, in turn."""
    alone: dict[str, list[float]] = {"bare": [], "service": []}
    rates: dict[str, list[float]] = {"bare": [], "service": []}
    photographs = [by_photograph()]
    with bare_process(path) as ask:
        ask("alone 20")
        run(load(url, 1, photographs, requests=20))
        for _ in range(rounds):
            alone["bare"] += ask("alone 60")["seconds"]
            alone["service"] += run(load(url, 1, photographs, requests=60)).seconds
        threads = max((1, 2, 4), key=lambda count: ask(f"together {count} 2")["rate"])
        run(load(url, CALLERS, photographs, seconds=1.0))
        for _ in range(rounds):
            rates["bare"].append(ask(f"together {threads} 2")["rate"])
            rates["service"].append(run(load(url, CALLERS, photographs, seconds=2.0)).rate)
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


# The service alone


async def overload(url: str, callers: int = 300, seconds: float = 10.0) -> Figures:
    """Three times as many callers as may be worked on and wait."""
    photographs = [by_photograph()]
    calm = await load(url, CALLERS, photographs, seconds=3.0)
    found = await load(url, callers, photographs, seconds=seconds, pause=0.2)
    return {
        "callers": callers,
        "statuses": dict(found.statuses),
        "accepted_per_second": round(found.rate, 1),
        "calm_per_second": round(calm.rate, 1),
        "accepted_ms": percentiles(found.seconds),
        "refused_ms": percentiles(found.refused),
    }


def cold_start(path: Path, address: str) -> Figures:
    """Seconds from the start of the process to the first answer, and memory then and after hundreds of searches more."""
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    runs: list[Figures] = []
    for _ in range(3):
        began = time.perf_counter()
        with service(path.parent, "--tf-serving", address, ready=False) as (url, pid):
            listening = time.perf_counter() - began
            wait_ready(url, 120)
            ready = time.perf_counter() - began
            first = run(load(url, 1, [by_item("item-17")], requests=1))
            answered = time.perf_counter() - began
            assert first.statuses[200] == 1
            run(load(url, 4, [by_item(f"item-{number}") for number in range(400)], requests=400))
            runs.append(
                {
                    "listening_s": round(listening, 2),
                    "ready_s": round(ready, 2),
                    "first_answer_s": round(answered, 2),
                    "resident_mb_beyond_files": megabytes(pid, "RssAnon", "RssShmem"),
                    "resident_mb_of_files": megabytes(pid, "RssFile"),
                }
            )
    return {"bundle_mb": size >> 20, "checksums": True, "runs": runs}


async def changes(url: str, path: Path, adds: int) -> Figures:
    """Items added while another caller searches; each must be found by the first search after its acknowledgement."""
    searches = [by_embedding(query) for query in np.load(path.parent / f"{path.name}-queries.npy")]
    vectors = np.random.default_rng(5).standard_normal((adds, DIMENSION), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # Made before and read after: both callers are in this process, and neither is to wait for the other's JSON.
    asked = [(adding(number, vector), by_embedding(vector, 1)) for number, vector in enumerate(vectors)]
    acknowledged, found_after, answers = list[float](), list[float](), list[bytes]()
    await load(url, 1, searches, requests=200)
    idle = await load(url, 1, searches, requests=4000)
    # Not before: the service closes a connection on which nothing arrives for ten seconds.
    connection, done = await Connection.to(url), False
    searching = asyncio.create_task(load(url, 1, searches, until=lambda: done))
    began = time.perf_counter()
    for put, search in asked:
        started = time.perf_counter()
        status, answer = await connection.ask(put)
        assert status in (200, 201), answer
        answered = time.perf_counter()
        _, answer = await connection.ask(search)
        found_after.append(time.perf_counter() - answered)
        acknowledged.append(answered - started)
        answers.append(answer)
    seconds = time.perf_counter() - began
    done = True
    busy = await searching
    missed = sum(json.loads(answer)["hits"][0]["id"] != f"new-{number}" for number, answer in enumerate(answers))
    return {
        "added": adds,
        "adds_per_second": round(adds / seconds, 1),
        "not_found_at_once": missed,
        "found_after_ms": {**percentiles(found_after), "max": milliseconds(found_after, 100)},
        "acknowledged_ms": percentiles(acknowledged),
        "idle_search_ms": percentiles(idle.seconds),
        "search_while_adding_ms": percentiles(busy.seconds),
        "searches_while_adding": len(busy.seconds),
        "p99_times_idle": round(milliseconds(busy.seconds, 99) / milliseconds(idle.seconds, 99), 2),
    }


def adding(number: int, vector: np.ndarray) -> bytes:
    item = {"embedding": [round(float(x), 6) for x in vector], "fields": {"title": f"New {number}", "price": 1.0}}
    return request("PUT", f"/v1/items/new-{number}", item)


if __name__ == "__main__":
    main()
