"""The search signature beside Annoy: 1,000,000 vectors, one query and batches of 32, at the same recall.

    python benchmarks/search_signature.py [--items 1000000] [--dimension 128] [--recall 0.95] [--rounds 15] [--json FILE]

Vectors and queries are drawn from the same clusters; no query is in the gallery. `search_embedding` runs in a session on a
loaded SavedModel, as in TF-Serving, once with inverted lists and once exact. Annoy searches with the fewest candidates
(`search_k`) with which it finds the asked share of the queries' 10 true neighbours, called from Python once a query;
`AnnoyIndex` is tfdml's own index, which also recomputes and orders the distances. Every round times all of them in turn on the
same queries; times are medians over rounds, ratios are medians of the rounds' ratios, so that other load cancels out. `nothing`
is a graph in a session that gives back what it got: what a call costs before anything is searched.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import annoy
import keras
import numpy as np
import tensorflow as tf
from _serving_bundles import QUERIES, K, clustered

from tfdml.bundle.graph_search import GallerySearch
from tfdml.bundle.saved_model import write_saved_model
from tfdml.bundle.search_plan import plan_search
from tfdml.index import AnnoyIndex, ExactIndex
from tfdml.preprocessing import ImagePreprocessing

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--methods", nargs="+", default=["ivf", "exact"], choices=["ivf", "exact"])
    parser.add_argument("--folder", type=Path, help="keep what is built here, and measure what is there already")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = arguments.folder or Path(folder)
        options = (arguments.items, arguments.dimension, arguments.recall, arguments.rounds, tuple(arguments.methods))
        figures = measure(home, *options)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(folder: Path, items: int, dimension: int, recall: float, rounds: int, methods: tuple[str, ...]) -> dict[str, Any]:
    rows, queries = clustered(items, dimension)
    ids = [f"item-{number}" for number in range(items)]
    truth = [set(row) for row in ExactIndex(rows, ids).search(queries, K).ids]
    seconds: dict[str, float] = {}
    megabytes: dict[str, float] = {}
    settings: dict[str, str] = {}
    searches: dict[str, Callable[[np.ndarray], list[list[str]]]] = {}
    for method in methods:
        directory = folder / method
        if not (directory / "settings").exists():
            with stopwatch(seconds, method):
                plan = plan_search(rows, "cosine", method, recall=recall)
                write_saved_model(small_model(dimension), directory, PREPROCESSING, gallery=GallerySearch(plan, ids, {}))
            looks = "every item"
            if plan.lists is not None and plan.probes is not None:
                looks = f"{plan.probes[0]} of {len(plan.lists)} lists"
            (directory / "settings").write_text(looks)
            del plan
        settings[method] = (directory / "settings").read_text()
        megabytes[method] = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / 1e6
        with stopwatch(seconds, f"{method}, load"):
            searches[method] = signature(directory)
    if not (folder / "index.json").exists():
        with stopwatch(seconds, "annoy"):
            built = AnnoyIndex.build(rows, ids, recall=recall, queries=queries, folder=folder)
            (folder / "index.json").write_text(json.dumps(built.save(folder / "index.ann").as_dict()))
    index = AnnoyIndex.load(folder / "index.ann", json.loads((folder / "index.json").read_text()), ids)
    spec = index.spec
    megabytes["annoy"] = spec.bytes / 1e6
    raw = annoy.AnnoyIndex(dimension, "angular")
    raw.load(str(folder / "index.ann"))
    search_k = fewest(raw, queries, truth, ids, recall)
    settings["annoy"] = f"{spec.trees} trees, search_k {search_k}"
    settings["AnnoyIndex"] = f"{spec.trees} trees, search_k {spec.search_k}"
    searches["annoy"] = lambda q: [[ids[i] for i in raw.get_nns_by_vector(one, K, search_k=search_k)] for one in q.tolist()]
    searches["AnnoyIndex"] = lambda q: index.search(q, K).ids.tolist()
    recalls = {name: share(searches[name](queries), truth) for name in searches}
    everything: dict[str, Callable[[np.ndarray], Any]] = {**searches, "nothing": nothing(dimension)}
    return {
        "tensorflow": tf.__version__,
        "threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS", os.cpu_count() or 1)),
        "items": items,
        "dimension": dimension,
        "rounds": rounds,
        "settings": settings,
        "recall_at_10": {name: round(value, 4) for name, value in recalls.items()},
        "build_seconds": {name: round(value, 1) for name, value in seconds.items()},
        "megabytes": {name: round(value) for name, value in megabytes.items()},
        "milliseconds": {str(size): timed(everything, queries, size, rounds) for size in (1, BATCH)},
    }


PREPROCESSING = ImagePreprocessing(size=8)


def small_model(dimension: int) -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(dimension)])


def signature(directory: Path) -> Callable[[np.ndarray], list[list[str]]]:
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        definition = tf.compat.v1.saved_model.load(session, ["serve"], str(directory)).signature_def["search_embedding"]
    feeds = [definition.inputs[name].name for name in ("embedding", "k")]
    outputs = sorted(definition.outputs)
    call = session.make_callable([definition.outputs[name].name for name in outputs], feed_list=feeds)
    place = outputs.index("ids")

    def run(queries: np.ndarray) -> list[list[str]]:
        found = call(queries, np.full(len(queries), K, np.int32))[place]
        return [[name.decode() for name in row] for row in found]

    return run


def nothing(dimension: int) -> Callable[[np.ndarray], Any]:
    """Of the inputs of `search_embedding`, and as many outputs."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        embedding = tf.compat.v1.placeholder(tf.float32, [None, dimension])
        k = tf.compat.v1.placeholder(tf.int32, [None])
        outputs = [tf.identity(embedding), tf.identity(embedding), tf.identity(k), tf.identity(k)]
    call = session.make_callable(outputs, feed_list=[embedding, k])
    return lambda queries: call(queries, np.full(len(queries), K, np.int32))


def fewest(raw: Any, queries: np.ndarray, truth: list[set[str]], ids: list[str], recall: float) -> int:
    """The smallest `search_k`, to a twentieth, with which Annoy reaches the recall on these queries."""

    def reached(search_k: int) -> bool:
        found = [[ids[i] for i in raw.get_nns_by_vector(query, K, search_k=search_k)] for query in queries.tolist()]
        return share(found, truth) >= recall

    low, high = 0, 1000
    while not reached(high):
        low, high = high, 2 * high
    while high - low > max(1, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def share(found: list[list[str]], truth: list[set[str]]) -> float:
    return sum(len(set(row) & true) for row, true in zip(found, truth, strict=True)) / (K * len(truth))


def timed(searches: dict[str, Callable[[np.ndarray], Any]], queries: np.ndarray, size: int, rounds: int) -> dict[str, Any]:
    """Milliseconds a call by name, and their ratio to Annoy's."""
    batches = [queries[start : start + size] for start in range(0, QUERIES - size + 1, size)][:64]
    times: dict[str, list[float]] = {name: [] for name in searches}
    for round_number in range(-1, rounds):
        for name, search in searches.items():
            some = batches[: max(2, len(batches) // 16)] if name == "exact" else batches
            started = time.perf_counter()
            for batch in some:
                search(batch)
            if round_number >= 0:
                times[name].append((time.perf_counter() - started) / len(some) * 1e3)
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, times["annoy"], strict=True)) for name, values in times.items()
    }
    return {name: {"median": round(statistics.median(times[name]), 3), "times_annoy": round(ratios[name], 2)} for name in times}


@contextmanager
def stopwatch(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['items']:,} x {figures['dimension']}, TensorFlow {figures['tensorflow']}, {figures['threads']} threads, "
        f"{figures['rounds']} rounds. Milliseconds a call; in brackets times Annoy's.",
        "",
        f"| search | settings | recall@10 | one query | batch of {BATCH} | build | size |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, label in {
        "ivf": "`search_embedding`, lists",
        "exact": "`search_embedding`, exact",
        "annoy": "Annoy",
        "AnnoyIndex": "`tfdml.index.AnnoyIndex`",
    }.items():
        if name not in figures["settings"]:
            continue
        ms = [figures["milliseconds"][size][name] for size in ("1", str(BATCH))]
        build, size = figures["build_seconds"].get(name), figures["megabytes"].get(name)
        cells = [
            label,
            figures["settings"][name],
            f"{figures['recall_at_10'][name]:.3f}",
            *(f"{one['median']:.2f} ({one['times_annoy']:.2f})" for one in ms),
            "" if build is None else f"{build:.0f} s",
            "" if size is None else f"{size:,} MB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    floors = [f"{figures['milliseconds'][size]['nothing']['median']:.2f}" for size in ("1", str(BATCH))]
    lines.append(f"| a graph that does nothing |  |  | {floors[0]} | {floors[1]} |  |  |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
