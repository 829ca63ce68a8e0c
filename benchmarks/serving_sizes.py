"""What the service needs for so many items: disk, memory, time to start, time to answer.

    python benchmarks/serving_sizes.py [--items 10000 100000 1000000] [--dimension 128] [--searches 2000]
        [--folder DIR] [--build] [--json FILE]

For each number of items a bundle is made of vectors around random directions (no query is in it), with a title and a price for
each item. Then the service is started in a process of its own, with this bundle's index, checksums included, and asked over
loopback by `tfdml_serving.client`, one search by embedding after the other. Memory is read from /proc: what the process has of
its own (anonymous), and how much of the memory-mapped files is in use, each page counted once (Pss). TF-Serving's part is the
model's own and is not measured here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _serving_bundles import K, clustered

from tfdml.bundle.layout import CATALOGUE, INDEX
from tfdml.bundle.manifest import ModelRecord
from tfdml.bundle.packing import Gallery, pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--searches", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="keep the bundles here, and use those that are there")
    parser.add_argument("--build", action="store_true", help="only make the bundles")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    with tempfile.TemporaryDirectory() as own:
        folder = arguments.folder or Path(own)
        bundles = [make_bundle(folder, items, arguments.dimension, arguments.searches) for items in arguments.items]
        figures = [] if arguments.build else [measure(bundle) for bundle in bundles]
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(bundle: Path) -> dict[str, Any]:
    version, made = bundle / "products" / "1", json.loads((bundle / "made.json").read_text())
    queries = np.load(bundle / "queries.npy")
    disk = {name: (version / name).stat().st_size / 1e6 for name in (INDEX, CATALOGUE)}
    began = time.perf_counter()
    with service(version) as (url, process):
        start_seconds = time.perf_counter() - began
        idle = memory(process.pid)
        warm = timed(url, queries)
        used = memory(process.pid)
    return {
        **made,
        "index_megabytes": round(disk[INDEX], 1),
        "catalogue_megabytes": round(disk[CATALOGUE], 1),
        "start_seconds": round(start_seconds, 2),
        "anonymous_megabytes_idle": round(idle["Anonymous"], 1),
        "anonymous_megabytes": round(used["Anonymous"], 1),
        "mapped_megabytes": round(used["Pss_File"], 1),
        "milliseconds_p50": round(statistics.median(warm), 2),
        "milliseconds_p99": round(statistics.quantiles(warm, n=100)[98], 2),
    }


def make_bundle(folder: Path, items: int, dimension: int, searches: int) -> Path:
    """The folder of a model directory with one version, queries, and what it took to make it."""
    bundle = folder / f"{items}x{dimension}"
    if (bundle / "made.json").exists():
        return bundle
    version = bundle / "products" / "1"
    rows, queries = clustered(items, dimension, searches)
    (version / "variables").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"no model: searches are by embedding")
    fields = {"title": [f"Product number {n}" for n in range(items)], "price": [0.01 * (n % 10_000) for n in range(items)]}
    gallery = Gallery(rows, [f"shop/products/{number}" for number in range(items)], fields, "cosine")
    model = ModelRecord("", dimension, True, (64, 64, 3), {"size": [64, 64]}, 50_000_000, ("serving_default", "embed_images"))
    began = time.perf_counter()
    manifest = pack(version, gallery, model)
    made = {
        "items": items,
        "dimension": dimension,
        "recall_at_10": manifest.index.get("measured_recall", manifest.index.get("recall")),
        "build_seconds": round(time.perf_counter() - began, 1),
    }
    np.save(bundle / "queries.npy", queries)
    (bundle / "made.json").write_text(json.dumps(made))
    return bundle


@contextlib.contextmanager
def service(version: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, __file__, "--serve", str(version)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.terminate()


def serve(version: Path) -> None:
    """The service with one version and nobody to embed: what `tfdml serve --tf-serving URL` is but for the watching."""
    from tfdml_serving.api.app import create_app
    from tfdml_serving.api.server import make_server
    from tfdml_serving.engine.held import HeldVersion
    from tfdml_serving.settings import Settings

    class OneVersion:
        pinned = None

        async def start(self) -> None:
            self._held = HeldVersion.open(version)

        async def stop(self) -> None:
            self._held.close()

        @contextlib.contextmanager
        def lease(self, number: int | None = None) -> Iterator[HeldVersion]:
            yield self._held

        def list(self) -> list[Any]:
            return []

    class Nobody:
        async def aclose(self) -> None:
            pass

    settings = Settings(version.parent, port=0, tf_serving="http://127.0.0.1:1")
    app = create_app(settings, OneVersion(), Nobody())  # type: ignore[arg-type]
    make_server(settings, app, listening=lambda url: print(url, flush=True)).run()


def timed(url: str, queries: np.ndarray) -> list[float]:
    from tfdml_serving.client import Client

    found = []
    with Client(url) as client:
        client.info()  # the connection is there, and the interpreter has seen the code
        for query in queries:
            began = time.perf_counter()
            assert len(client.search_embedding(query, K)) == K
            found.append(1000 * (time.perf_counter() - began))
    return found


def memory(pid: int) -> dict[str, float]:
    """Megabytes of /proc/PID/smaps_rollup."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) * 1024 / 1e6 for words in lines}


def table(figures: list[dict[str, Any]]) -> str:
    lines = ["| items | index | catalogue | own memory | mapped, in use | start | p50 | p99 |", "|---:|" + "---:|" * 7]
    for one in figures:
        lines.append(
            f"| {one['items']:,} | {one['index_megabytes']:,.0f} MB | {one['catalogue_megabytes']:,.0f} MB "
            f"| {one['anonymous_megabytes']:,.0f} MB | {one['mapped_megabytes']:,.0f} MB | {one['start_seconds']:.1f} s "
            f"| {one['milliseconds_p50']:.1f} ms | {one['milliseconds_p99']:.1f} ms |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
