"""The engine of the retrieval service on a large bundle: filtered search, changes while searching, cold start.

    python benchmarks/serving_engine.py --items 1000000 --json benchmarks/results/serving_engine.json

Clustered unit vectors (50 to a cluster), in a packed bundle whose SavedModel is random bytes of the size that the gallery
would have in its search signatures. Recall is measured against exact search over the items that a filter selects. `--bundle`
keeps the bundle, or uses the one that is there: building it takes minutes, and is no part of what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _serving_bundles import K, make_bundle
from tfdml_serving.engine.filters import parse_filter
from tfdml_serving.engine.held import HeldVersion
from tfdml_serving.living import LivingCatalogue

from tfdml.index._nearest import NearestRows

FILTERS = {
    "none": None,
    "1%": "category = category-5",
    "10%": "brand = brand-3",
    "50%": "in_stock = 1",
    "0.5%": "category = category-5 and in_stock = 1",
    "20%": "brand in (brand-1, brand-2)",
    "90%": "not brand = brand-3",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--adds", type=int, default=10_000)
    parser.add_argument("--bundle", type=Path, help="where the bundle is, or is made and kept")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cold:
        print(json.dumps(open_once(arguments.bundle)))
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle or Path(folder) / "1"
        make_bundle(bundle, arguments.items, arguments.dimension)
        figures = measure(bundle, Path(folder), arguments.adds)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(bundle: Path, folder: Path, adds: int) -> dict[str, Any]:
    cold = [cold_start(bundle) for _ in range(3)]
    queries = np.load(bundle.parent / f"{bundle.name}-queries.npy")[:256]
    with LivingCatalogue.open(folder / "living.sqlite") as living, HeldVersion.open(bundle, living, verify=False) as held:
        return {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "cores": os.cpu_count(),
            "load_at_start": round(os.getloadavg()[0], 1),
            "items": held.items,
            "dimension": held.dimension,
            "index": {name: held.manifest.index[name] for name in ("trees", "search_k", "recall")},
            "cold_start": min(cold, key=lambda one: one["seconds"]),
            "cold_starts_seconds": [one["seconds"] for one in cold],
            "search": {name: searching(held, queries, text) for name, text in FILTERS.items()},
            "changes": changing(held, living, queries, adds),
        }


def searching(held: HeldVersion, queries: np.ndarray, text: str | None) -> dict[str, Any]:
    where = None if text is None else parse_filter(text, held.fields)
    result: dict[str, Any] = {"filter": text}
    numbers = None
    if where is not None:
        started = time.perf_counter()
        held.search(queries[0], K, where)
        result["first_search_ms"] = round(1e3 * (time.perf_counter() - started), 1)
        numbers = held._selections.select(where).numbers
        result["selected"] = len(numbers)
    held.search(queries[:4], K, where)
    times = [timed(lambda query=query: held.search(query, K, where)) for query in queries]
    vectors = held._bundle.index.vectors()
    rows = np.ascontiguousarray(vectors if numbers is None else vectors[numbers])
    truth = np.concatenate([block.numbers for block in NearestRows(rows).search(queries, K)])
    truth = truth if numbers is None else numbers[truth]
    found = [{hit.id for hit in row} for row in held.search(queries, K, where)]
    recall = np.mean([len(ids & {f"item-{n}" for n in row}) / K for ids, row in zip(found, truth.tolist(), strict=True)])
    return {**result, "recall_at_10": round(float(recall), 4), **percentiles(times)}


def changing(held: HeldVersion, living: LivingCatalogue, queries: np.ndarray, adds: int) -> dict[str, Any]:
    """Adds items from one thread while another searches; each must be found after its acknowledgement."""
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((adds, held.dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    idle = [timed(lambda query=query: held.search(query, K)) for _ in range(4) for query in queries]
    busy: list[float] = []
    found_after: list[float] = []
    put: list[float] = []
    missed: list[int] = []
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            for query in queries:
                busy.append(timed(lambda query=query: held.search(query, K)))
                if done.is_set():
                    return

    thread = threading.Thread(target=search)
    thread.start()
    started = time.perf_counter()
    for number, vector in enumerate(vectors):
        put.append(timed(lambda n=number, v=vector: living.put(f"new-{n}", {"price": 1.0}, space=held.space, embedding=v)))
        acknowledged = time.perf_counter()
        if held.search(vector, 1)[0][0].id != f"new-{number}":
            missed.append(number)
        found_after.append(time.perf_counter() - acknowledged)
    seconds = time.perf_counter() - started
    done.set()
    thread.join()
    after = [timed(lambda query=query: held.search(query, K)) for query in queries]
    return {
        "added": adds,
        "adds_per_second": round(adds / seconds, 1),
        "not_found_at_once": len(missed),
        "found_after_ms": {"p50": ms(found_after, 50), "p99": ms(found_after, 99), "max": ms(found_after, 100)},
        "put_ms": {"p50": ms(put, 50), "p99": ms(put, 99)},
        "idle_search": percentiles(idle),
        "search_while_adding": percentiles(busy),
        "p99_times_idle": round(ms(busy, 99) / ms(idle, 99), 2),
        "search_afterwards": percentiles(after),
    }


def cold_start(bundle: Path) -> dict[str, Any]:
    """A new process, from its start until it has answered one search, checksums included."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--cold", "--bundle", str(bundle)]
    figures = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {"seconds": round(time.perf_counter() - started, 2), **figures}


def open_once(bundle: Path) -> dict[str, Any]:
    started = time.perf_counter()
    with HeldVersion.open(bundle) as held:
        opened = time.perf_counter() - started
        held.search(np.ones(held.dimension), K)
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return {
            "open_seconds": round(opened, 2),
            "anonymous_megabytes": round(int(status["RssAnon"].split()[0]) / 1024),
            "mapped_file_megabytes": round(held.manifest.index["bytes"] / 2**20),
            "bytes_checked": sum(file.bytes for file in held.manifest.files.values()),
        }


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": ms(seconds, q) for q in (50, 90, 99)} | {"mean_ms": round(1e3 * statistics.fmean(seconds), 2)}


def ms(seconds: list[float], percentile: float) -> float:
    return round(1e3 * float(np.percentile(seconds, percentile)), 2)


if __name__ == "__main__":
    main()
