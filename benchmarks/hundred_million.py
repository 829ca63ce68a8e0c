"""One, ten and a hundred million clustered vectors through `FaissIndex`: built, searched, and compared with exact search.

    python benchmarks/hundred_million.py --folder BIG_DISK --json benchmarks/results/hundred_million.json
    python benchmarks/hundred_million.py --counts 1000000                           # minutes, in a temporary folder
    python benchmarks/hundred_million.py --folder BIG_DISK --measure-only --json ...            # an index that was kept
    python benchmarks/hundred_million.py --draw benchmarks/results/hundred_million.json docs/hundred_million.png

The vectors (D = 64, cosine) are drawn in blocks from a seed: a thousand groups, in them classes of about a hundred items each,
around a class's centre noise of equal strength in all directions. The classes grow with the items, as products do. Queries are
further items of these classes. Each size is built in one process and searched in another, since only that shows what a search
needs; the folder keeps the index (16 GB for a hundred million, 3 GB more while it grows) until `--remove`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from _common import machine
from _page_cache import cached_bytes, drop_from_cache, memory_mb

DIMENSION, GROUPS, PER_CLASS, SEED = 64, 1000, 100, 6
BLOCK = 65_536
ASKED = 0.92
LISTS = {1_000_000: 4096, 10_000_000: 16_384, 30_000_000: 32_768, 100_000_000: 65_536}


class Items:
    """The items of a gallery of this size, in blocks; and queries of the same kind."""

    def __init__(self, count: int) -> None:
        self.count = count
        random = np.random.default_rng([SEED, count])
        classes = max(GROUPS, count // PER_CLASS)
        groups = random.standard_normal((GROUPS, DIMENSION), np.float32)
        self._centres = groups[random.integers(0, GROUPS, classes)]
        self._centres += np.float32(0.7) * random.standard_normal((classes, DIMENSION), np.float32)

    def block(self, number: int) -> Any:
        return self._drawn(min(BLOCK, self.count - number * BLOCK), number)

    def blocks(self) -> Iterator[Any]:
        """In order, drawn on all cores."""
        with ThreadPoolExecutor() as pool:
            ahead: deque[Any] = deque()
            for number in range(-(-self.count // BLOCK)):
                ahead.append(pool.submit(self.block, number))
                if len(ahead) > 3:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def queries(self, count: int, part: int) -> Any:
        return self._drawn(count, 10**6 + part)

    def _drawn(self, count: int, number: int) -> Any:
        random = np.random.Generator(np.random.SFC64([SEED, self.count, number]))
        rows = self._centres[random.integers(0, len(self._centres), count)]
        rows += np.float32(0.5) * random.standard_normal((count, DIMENSION), np.float32)
        return rows


class Stages:
    """Seconds, processor seconds and private memory of each stage of a build."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}
        self._since = (time.perf_counter(), time.process_time())

    def __call__(self, stage: str, done: int, count: int) -> None:
        now, before = (time.perf_counter(), time.process_time()), self._since
        self._since = now
        row = self.rows.setdefault(stage, {"s": 0.0, "cpu_s": 0.0, "private_mb": 0.0})
        row["s"] += now[0] - before[0]
        row["cpu_s"] += now[1] - before[1]
        row["private_mb"] = max(row["private_mb"], memory_mb()["private"])
        if now[0] - before[0] > 5 or done == count:
            print(f"{stage} {done:,} of {count:,}", {name: round(value, 1) for name, value in row.items()}, file=sys.stderr)


def build(count: int, args: argparse.Namespace) -> dict[str, Any]:
    from tfdml.index import FaissIndex

    items = Items(count)
    stages = Stages()
    stages("clusters of the data", 1, 1)
    begin, cpu = time.perf_counter(), time.process_time()
    index = FaissIndex.build(
        items.blocks(),
        (f"item-{number:09d}" for number in range(count)),
        "cosine",
        kind=args.kind,
        lists=LISTS.get(count, "auto"),
        stored=args.stored,
        recall=ASKED,
        queries=items.queries(512, 0),
        folder=args.folder,
        progress=stages,
    )
    path = args.folder / f"{count}-{args.kind}-{args.stored}.faiss"
    spec = index.save(path, move=True)
    row = {
        "build_s": round(time.perf_counter() - begin, 1),
        "build_cpu_s": round(time.process_time() - cpu, 1),
        "build_peak_private_mb": round(max(row["private_mb"] for row in stages.rows.values())),
        "stages": {name: {key: round(value, 1) for key, value in row.items()} for name, row in stages.rows.items()},
        "spec": spec.as_dict(),
        "file_gb": round(path.stat().st_blocks * 512 / 1e9, 3),
    }
    path.with_suffix(".json").write_text(json.dumps(row, indent=1))
    return row


def truth(vectors: Any, queries: Any, k: int) -> Any:
    """Numbers of the k nearest of all stored vectors (of about length 1), by float32 products and nothing of tfdml's."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    numbers = np.full((len(queries), k), -1, np.int64)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float32)
        scores = queries @ block.T
        scores -= np.einsum("nd,nd->n", block, block) / 2
        for query in np.flatnonzero(scores.max(axis=1) > best[:, -1]):
            near = np.flatnonzero(scores[query] > best[query, -1])
            if len(near) > k:
                near = near[np.argpartition(-scores[query, near], k - 1)[:k]]
            both = np.concatenate([best[query], scores[query, near]])
            order = np.argsort(-both, kind="stable")[:k]
            best[query], numbers[query] = both[order], np.concatenate([numbers[query], start + near])[order]
    return numbers


def measure(count: int, args: argparse.Namespace) -> dict[str, Any]:
    from tfdml.index import FaissIndex

    path = args.folder / f"{count}-{args.kind}-{args.stored}.faiss"
    built = json.loads(path.with_suffix(".json").read_text())
    queries = Items(count).queries(512, 1)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    empty = memory_mb()
    begin = time.perf_counter()
    index = FaissIndex.load(path, built["spec"], (f"item-{number:09d}" for number in range(count)))
    row: dict[str, Any] = {"open_s": round(time.perf_counter() - begin, 1)}
    row["memory_mb"] = {"without_an_index": empty, "opened": memory_mb()}
    kept = path.with_suffix(".npy")
    if not kept.exists():
        begin = time.perf_counter()
        np.save(kept, truth(index.vectors(), queries, 10))
        row["truth_s"] = round(time.perf_counter() - begin, 1)
    true = np.load(kept)
    drop_from_cache(path)
    row["cached_gb_after_dropping"] = round(cached_bytes(path) / 1e9, 3)
    row["cold"] = one_by_one(index, queries[:200], true)
    row["cached_gb_after_200_queries"] = round(cached_bytes(path) / 1e9, 3)
    row["memory_mb"]["after_200_cold_queries"] = memory_mb()
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass
    row["cached_gb_when_warm"] = round(cached_bytes(path) / 1e9, 3)
    one_by_one(index, queries[:100], true)
    row["warm"] = one_by_one(index, queries, true)
    width = index.spec.search_k
    row["widths"] = [
        {"search_k": int(width * share), **one_by_one(index, queries, true, int(width * share))}
        for share in (0.25, 0.5, 0.75, 2, 4)
    ]
    begin = time.perf_counter()
    index.search(queries, 10)
    row["batch_of_512_ms_a_query"] = round((time.perf_counter() - begin) / len(queries) * 1e3, 3)
    row["memory_mb"]["after_all"] = memory_mb()
    return {"count": count, "kind": args.kind, **built, **row}


def one_by_one(index: Any, queries: Any, true: Any, search_k: int | None = None) -> dict[str, Any]:
    times, hits = [], 0
    for query, near in zip(queries, true, strict=False):
        begin = time.perf_counter()
        found = index.search(query, 10, search_k)
        times.append((time.perf_counter() - begin) * 1e3)
        hits += len(np.intersect1d(found.numbers[0], near))
    return {
        "recall_at_10": round(hits / (10 * len(queries)), 4),
        "p50_ms": round(statistics.median(times), 3),
        "p99_ms": round(float(np.percentile(times, 99)), 3),
        "queries": len(queries),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--kind", default="ivf_pq")
    parser.add_argument("--stored", default="float16")
    parser.add_argument("--folder", type=Path, help="where the indexes lie and are kept")
    parser.add_argument("--json", type=Path, help="also write the rows here, in place of those of the same settings")
    parser.add_argument("--measure-only", action="store_true", help="search the indexes that an earlier run has kept")
    parser.add_argument("--remove", action="store_true", help="remove each index when it has been measured")
    parser.add_argument("--draw", type=Path, nargs=2, metavar=("JSON", "PNG"), help="only draw the picture of earlier rows")
    parser.add_argument("--stage", choices=["build", "measure"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.draw:
        draw(json.loads(args.draw[0].read_text())["rows"], args.draw[1])
        return
    if args.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            args.folder = Path(folder)
            each_size(args)
    elif args.stage:
        row = {"build": build, "measure": measure}[args.stage](args.counts[0], args)
        if args.stage == "measure":
            print(json.dumps(row))
    else:
        each_size(args)


def each_size(args: argparse.Namespace) -> None:
    print("| items | lists | recall@10 | p50, ms | p99, ms | build, s | processor, s | its memory, MB | file, GB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for count in args.counts:
        command = [sys.executable, __file__, "--counts", str(count), "--folder", str(args.folder), "--kind", args.kind]
        command += ["--stored", args.stored, "--stage"]
        if not args.measure_only:
            subprocess.run([*command, "build"], check=True)
        row = json.loads(subprocess.run([*command, "measure"], check=True, stdout=subprocess.PIPE, text=True).stdout)
        spec, warm = row["spec"], row["warm"]
        cells = [f"{count:,}", spec["lists"], warm["recall_at_10"], warm["p50_ms"], warm["p99_ms"]]
        cells += [row["build_s"], row["build_cpu_s"], row["build_peak_private_mb"], row["file_gb"]]
        print("|", " | ".join(map(str, cells)), "|", flush=True)
        if args.json:
            save(args.json, row)
        if args.remove:
            for path in args.folder.glob(f"{count}-{args.kind}-{args.stored}.*"):
                path.unlink()


def settings(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["kind"], row["spec"]["stored"], row["count"]


def save(path: Path, row: dict[str, Any]) -> None:
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [one for one in rows if settings(one) != settings(row)] + [row]
    rows.sort(key=settings)
    path.write_text(json.dumps({"machine": machine(), "dimension": DIMENSION, "rows": rows}, indent=1) + "\n")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if (row["kind"], row["spec"]["stored"]) == ("ivf_pq", "float16")]
    counts = [row["count"] for row in rows]
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    panels: list[tuple[str, dict[str, list[float]]]] = [
        (
            "one query, ms",
            {
                "warm, p50": [row["warm"]["p50_ms"] for row in rows],
                "warm, p99": [row["warm"]["p99_ms"] for row in rows],
                "nothing cached, p50": [row["cold"]["p50_ms"] for row in rows],
            },
        ),
        ("recall@10", {"512 queries": [row["warm"]["recall_at_10"] for row in rows]}),
        (
            "GB",
            {
                "file": [row["file_gb"] for row in rows],
                "private memory of a search": [row["memory_mb"]["after_all"]["private"] / 1e3 for row in rows],
                "private memory of the build": [row["build_peak_private_mb"] / 1e3 for row in rows],
            },
        ),
        ("build, processor minutes", {"all stages": [row["build_cpu_s"] / 60 for row in rows]}),
    ]
    for axis, (title, lines) in zip(axes.flat, panels, strict=True):
        for name, values in lines.items():
            axis.plot(counts, values, "o-", label=name)
        axis.set_xscale("log")
        if title == "recall@10":
            axis.set_ylim(0.8, 1)
        else:
            axis.set_yscale("log")
        axis.set_title(title)
        axis.set_xlabel("items")
        axis.grid(alpha=0.3, which="both" if title != "recall@10" else "major")
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    main()
