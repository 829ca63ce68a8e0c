"""The kinds of index on one gallery: recall, latency, throughput, build time, size and memory.

    python benchmarks/index_backends.py [--items 100000] [--dimension 128] [--recall 0.95] [--kinds ...] [--json FILE]

Vectors and queries are drawn from the same clusters; no query is in the gallery. Each kind is built by
`tfdml.index.build_index` for the asked recall, chosen on the first half of the queries and told here of the other half,
against exact search. A process of its own builds it (the time includes choosing and measuring the recall), another one opens
and searches it, so that the resident memory is that of one index: what it holds by itself, and what it has mapped of its file
and touched. One query at a time from one thread, then batches of 32. The last figures are what
`tfdml_serving.engine.base_search` weighs: what asking this index costs, each candidate, and a vector that is compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import MARK, high_water_mb, machine
from _serving_bundles import K, clustered

from tfdml.index import ExactIndex, build_index, load_index

KINDS = ("exact", "annoy", "flat", "hnsw", "ivf", "ivf_sq", "ivf_pq", "milvus_hnsw")
BATCH = 32
_SECONDS = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--task", nargs=3, metavar=("WHAT", "KIND", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        what, kind, folder = arguments.task
        figures = build(kind, Path(folder), arguments.recall) if what == "build" else search(kind, Path(folder))
        print(MARK + json.dumps(figures), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        rows, queries = clustered(arguments.items, arguments.dimension)
        half = len(queries) // 2
        truth = ExactIndex(rows, names(len(rows))).search(queries[half:], K)
        for name, array in {"rows": rows, "tuning": queries[:half], "queries": queries[half:], "truth": truth.numbers}.items():
            np.save(home / f"{name}.npy", array)
        found: dict[str, Any] = {}
        for kind in arguments.kinds:
            found[kind] = run("build", kind, home, arguments.recall) | run("search", kind, home, arguments.recall)
            print(f"{kind}: {found[kind]}", file=sys.stderr)
    figures = {
        "machine": machine(),
        "items": arguments.items,
        "dimension": arguments.dimension,
        "recall_asked": arguments.recall,
        "kinds": found,
    }
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def run(what: str, kind: str, home: Path, recall: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--recall", str(recall), "--task", what, kind, str(home)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith(MARK)).removeprefix(MARK))


def names(count: int) -> list[str]:
    return [f"item-{number}" for number in range(count)]


def build(kind: str, home: Path, recall: float) -> dict[str, Any]:
    rows, tuning = np.load(home / "rows.npy"), np.load(home / "tuning.npy")
    before = high_water_mb()
    started = time.perf_counter()
    index = build_index(rows, names(len(rows)), "cosine", kind, recall=recall, queries=tuning, folder=home)
    spec = index.save(home / f"{kind}.index")
    seconds = time.perf_counter() - started
    (home / f"{kind}.json").write_text(json.dumps(spec.as_dict()))
    return {"build_seconds": round(seconds, 1), "build_peak_mb": round(high_water_mb() - before), "file_mb": spec.bytes / 1e6}


def search(kind: str, home: Path) -> dict[str, Any]:
    queries, truth = np.load(home / "queries.npy"), np.load(home / "truth.npy")
    record = json.loads((home / f"{kind}.json").read_text())
    ids = names(record["count"])
    before = resident()
    started = time.perf_counter()
    index = load_index(home / f"{kind}.index", record, ids)
    opened = time.perf_counter() - started
    index.search(queries[:1], K)
    times, hits = [], []
    for number in rounds(len(queries)):
        started = time.perf_counter()
        found = index.search(queries[number], K)
        times.append(time.perf_counter() - started)
        hits.append(len(set(found.numbers[0].tolist()) & set(truth[number].tolist())) / K)
    done, started = 0, time.perf_counter()
    for number in rounds(len(queries) // BATCH):
        index.search(queries[number * BATCH : (number + 1) * BATCH], K)
        done += BATCH
    per_second = done / (time.perf_counter() - started)
    after = resident()
    return {
        "settings": {
            name: value for name, value in record.items() if name in ("trees", "lists", "links", "code_bytes") and value
        },
        "search_k": record["search_k"],
        "recall_at_10": round(float(np.mean(hits[: len(queries)])), 4),
        "queries": min(len(times), len(queries)),
        "p50_ms": round(1e3 * float(np.percentile(times, 50)), 3),
        "p99_ms": round(1e3 * float(np.percentile(times, 99)), 3),
        "batch_per_second": round(per_second),
        "open_seconds": round(opened, 2),
        "memory_mb": round(after[0] - before[0]),
        "mapped_mb": round(after[1] - before[1]),
        **costs(index, queries),
    }


def rounds(count: int) -> Iterator[int]:
    """All numbers once, and again and again until the time is up; a slow index stops in the first round, after 64."""
    end = time.perf_counter() + _SECONDS
    done = 0
    while time.perf_counter() < end or done < min(count, 64):
        yield done % count
        done += 1


def resident() -> tuple[float, float]:
    """Megabytes of this process's own, and of files that it has mapped."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, files = (int(status[name].split()[0]) / 1e3 for name in ("RssAnon", "RssFile"))
    return own, files


def costs(index: Any, queries: np.ndarray) -> dict[str, float]:
    """Microseconds for a vector that the service compares itself; for asking this index; and for each of its candidates."""
    from tfdml_serving.engine.base_search import BaseSearch

    base = BaseSearch(index)
    base._exactly(queries[:1], K, None)
    comparing = median_us(lambda query: base._exactly(query[None], K, None), queries)
    base.close()
    found = {"comparison_us": round(comparing / len(index), 4)}
    if index.kind in ("exact", "flat"):
        return found
    narrow = index.spec.search_k
    wide = min(max(16 * narrow, 4000), len(index) // 2)
    wanted = 31  # of the ten nearest, as the service asks
    few, many = (median_us(lambda q, w=w: index.candidates(q.tolist(), wanted, w), queries) for w in (narrow, wide))
    each = max(0.0, (many - few) / (wide - narrow))
    return found | {"call_us": round(few - each * narrow, 1), "candidate_us": round(each, 4)}


def median_us(call: Callable[[np.ndarray], object], queries: np.ndarray) -> float:
    times = []
    for query in queries[:24]:
        started = time.perf_counter()
        call(query)
        times.append(time.perf_counter() - started)
    return 1e6 * float(np.median(times))


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['items']:,} x {figures['dimension']}, cosine, asked recall {figures['recall_asked']}; "
        f"{figures['machine']['cpus']} cores of {figures['machine']['cpu']}.",
        "",
        "| index | settings | recall@10 | p50 | p99 | batches of 32, a second | build | file | memory, own + mapped |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, one in figures["kinds"].items():
        settings = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in one["settings"].items())
        cells = [
            f"`{kind}`",
            settings,
            f"{one['recall_at_10']:.3f}",
            f"{one['p50_ms']:.2f} ms",
            f"{one['p99_ms']:.2f} ms",
            f"{one['batch_per_second']:,}",
            f"{one['build_seconds']:.0f} s",
            f"{one['file_mb']:.0f} MB",
            f"{one['memory_mb']} + {one['mapped_mb']} MB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
