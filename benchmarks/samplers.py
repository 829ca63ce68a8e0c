"""Sampling: readiness, speed, memory and graph size at ten million items, and beside TF Similarity at a size it can bear.

    python benchmarks/samplers.py [--json FILE] [--only pk|others|peer]

Every measurement runs in a process of its own. TF Similarity needs TF 2.15: looked for in this Python, then in `.venv-keras2`.
There both sides hand out item numbers, so that what is compared is the choosing, not the loading.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KERAS2 = ROOT / ".venv-keras2" / "bin" / "python"
CLASSES, ITEMS = 1_000_000, 10_000_000
PEER_CLASSES, PEER_ITEMS = 10_000, 100_000
P, K = 32, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--only", choices=["pk", "others", "peer"], help="a part of the tables")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print("\n" + json.dumps(PARTS[arguments.part](arguments.classes, arguments.items)))
        return

    figures: dict[str, Any] = {"batch": [P, K], "classes": arguments.classes, "items": arguments.items}
    size = (arguments.classes, arguments.items)
    if arguments.only in (None, "pk"):
        for labels in ("int64", "int32"):
            figures[labels] = measured(sys.executable, labels, *size)
        figures["graph_nodes_of_10_classes"] = measured(sys.executable, "graph", 10, 10 * size[1] // size[0])["nodes"]
        figures["graph_nodes"] = measured(sys.executable, "graph", *size)["nodes"]
        print(pk_table(figures) + "\n")
    if arguments.only in (None, "others"):
        figures["others"] = {name: measured(sys.executable, name, *size) for name in OTHERS}
        print(others_table(figures["others"]) + "\n")
    if arguments.only in (None, "peer"):
        peer = next((python for python in (sys.executable, str(KERAS2)) if has_tf_similarity(python)), None)
        if peer:
            figures["peer"] = measured(peer, "peer", PEER_CLASSES, PEER_ITEMS)
            print(peer_table(figures["peer"]))
        else:
            print(f"TF Similarity skipped: neither this Python nor {KERAS2.relative_to(ROOT)} has it.")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def measured(python: str, part: str, classes: int, items: int) -> Any:
    command = [python, __file__, "--part", part, "--classes", str(classes), "--items", str(items)]
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{part} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def has_tf_similarity(python: str) -> bool:
    probe = "from importlib.metadata import version; version('tensorflow-similarity'); assert version('tensorflow') < '2.16'"
    if not Path(python).exists():
        return False
    return subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0


def pk_table(figures: dict[str, Any]) -> str:
    big = f"{figures['classes']:,} classes, {figures['items']:,} items"
    rows = [f"| {big}, batches of {P} x {K} | int64 labels | int32 labels |", "|---|---|---|"]
    for text, key, form in [
        ("ready (first batch drawn), s", "ready_seconds", "{:.2f}"),
        ("index batches a second", "batches_per_second", "{:,.0f}"),
        ("peak extra memory / label bytes", "peak_over_labels", "{:.2f}"),
        ("memory kept / label bytes", "kept_over_labels", "{:.2f}"),
    ]:
        rows.append(f"| {text} | {form.format(figures['int64'][key])} | {form.format(figures['int32'][key])} |")
    nodes = f"{figures['graph_nodes']:,} ({figures['graph_nodes_of_10_classes']:,} with 10 classes)"
    rows.append(f"| nodes in the graph | {nodes} | |")
    return "\n".join(rows)


def others_table(figures: dict[str, Any]) -> str:
    rows = ["| sampler | of | batch | ready, s | batches a second | memory kept, MB |", "|---|---|---|---:|---:|---:|"]
    for name, row in figures.items():
        numbers = f"{row['ready_seconds']:.2f} | {row['batches_per_second']:,.0f} | {row['kept'] / 1e6:,.0f}"
        rows.append(f"| {name} | {row['of']} | {row['batch']} | {numbers} |")
    return "\n".join(rows)


def peer_table(peer: dict[str, Any]) -> str:
    small = f"{PEER_CLASSES:,} classes, {PEER_ITEMS:,} items, TF {peer['tensorflow']}"
    rows = [f"| {small} | tfdml | TF Similarity | ratio |", "|---|---|---|---|"]
    ready, rate = peer["ready_seconds"], peer["batches_per_second"]
    ratio = ready["tf_similarity"] / ready["tfdml"]
    rows.append(f"| ready, s | {ready['tfdml']:.2f} | {ready['tf_similarity']:.2f} | {ratio:.1f} |")
    ratio = rate["tfdml"] / rate["tf_similarity"]
    rows.append(f"| batches a second | {rate['tfdml']:,.0f} | {rate['tf_similarity']:,.0f} | {ratio:.1f} |")
    return "\n".join(rows)


# What runs in the processes


def large(classes: int, items: int, dtype: str) -> dict[str, float]:
    from tfdml.samplers import PKSampler

    # Start the runtime's threads and allocators first: they are no part of what labels cost.
    next(iter(PKSampler(shuffled(10, 100, dtype), 8, K).indices()))
    labels = shuffled(classes, items, dtype)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = memory("VmRSS")
    start = time.perf_counter()
    sampler = PKSampler(labels, P, K)
    iterator = iter(sampler.indices())
    next(iterator)
    ready = time.perf_counter() - start
    rate = per_second(lambda: next(iterator), 5_000)
    return {
        "ready_seconds": ready,
        "batches_per_second": rate,
        "peak_over_labels": (memory("VmHWM") - before) / labels.nbytes,
        "kept_over_labels": (memory("VmRSS") - before) / labels.nbytes,
    }


def graph(classes: int, items: int) -> dict[str, int]:
    import tensorflow as tf

    from tfdml.samplers import PKSampler

    sampler = PKSampler(shuffled(classes, items, "int64"), min(P, classes), K)
    traced = tf.function(lambda: next(iter(sampler.indices()))).get_concrete_function().graph.as_graph_def()
    return {"nodes": len(traced.node) + sum(len(part.node_def) for part in traced.library.function)}


def peer(classes: int, items: int) -> dict[str, Any]:
    import numpy as np
    import tensorflow as tf
    from tensorflow_similarity.samplers import MultiShotMemorySampler

    from tfdml.samplers import PKSampler

    labels = shuffled(classes, items, "int64")
    rows = np.arange(items)
    next(iter(PKSampler(labels[:1000], 8, K).indices()))

    start = time.perf_counter()
    ours = iter(PKSampler(labels, P, K).indices())
    next(ours)
    ours_ready = time.perf_counter() - start

    start = time.perf_counter()
    theirs = MultiShotMemorySampler(rows, labels, classes_per_batch=P, examples_per_class_per_batch=K, steps_per_epoch=1)
    theirs.generate_batch(0)
    theirs_ready = time.perf_counter() - start
    return {
        "tensorflow": tf.__version__,
        "ready_seconds": {"tfdml": ours_ready, "tf_similarity": theirs_ready},
        "batches_per_second": {
            "tfdml": per_second(lambda: next(ours), 2_000),
            "tf_similarity": per_second(lambda: theirs.generate_batch(0), 200),
        },
    }


def facenet(classes: int, items: int) -> dict[str, Any]:
    from tfdml.samplers import FaceNetSampler

    labels = shuffled(classes // 10, items, "int64")
    size = (36, 40, 360) if classes >= 400 else (2, 4, 4)
    figures = timed(lambda: FaceNetSampler(labels, *size), 200)
    return {**figures, "of": f"{classes // 10:,} classes, {items:,} items", "batch": "{} x {} + {}".format(*size)}


def pairs(classes: int, items: int) -> dict[str, Any]:
    import numpy as np

    from tfdml.samplers import PairSampler

    count = items // 5
    edges = np.stack([np.repeat(np.arange(count), 5), np.random.default_rng(0).integers(0, count, 5 * count)], axis=1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    figures = timed(lambda: PairSampler(edges, count, batch_size=64), 1_000)
    return {**figures, "of": f"{count:,} items, {len(edges):,} similar pairs", "batch": "64 pairs"}


def mined(classes: int, items: int) -> dict[str, Any]:
    import numpy as np

    from tfdml.samplers import NPairSampler

    labels, candidates = shuffled(classes, items, "int64"), min(1000, classes)
    vectors = np.random.default_rng(0).normal(size=(2 * candidates, 128))

    def make() -> Any:
        sampler = NPairSampler(labels, min(60, classes), candidates)
        sampler.refresh(lambda indices: vectors, step=0)
        return sampler

    of = f"{classes:,} classes, {candidates:,} candidates of 128 numbers"
    return {**timed(make, 200, start=16), "of": of, "batch": f"{min(60, classes)} x 2"}


def relevance(classes: int, items: int) -> dict[str, Any]:
    import numpy as np

    from tfdml.samplers import RelevanceTripletSampler

    count = items // 100
    features = np.random.default_rng(0).random((count, 16)).astype(np.float32)
    categories = np.arange(count) % max(count // 100, 2)

    def make() -> Any:
        return RelevanceTripletSampler(categories, lambda first, second: features[first] @ features[second].T)

    of = f"{count:,} items in {categories.max() + 1:,} categories"
    return {**timed(make, 1_000), "of": of, "batch": "32 triplets"}


def online(classes: int, items: int) -> dict[str, Any]:
    import tensorflow as tf

    from tfdml.samplers import OnlineTripletSampler

    features = tf.random.stateless_uniform([10_000, 64], [0, 0])

    def element(number: Any) -> dict[str, Any]:
        row = number % 10_000
        return {"item": number, "category": row % 50, "features": features[row], "total_relevance": 1000.0}

    stream = tf.data.Dataset.range(2**40).map(element, num_parallel_calls=tf.data.AUTOTUNE)
    figures = timed(lambda: OnlineTripletSampler(stream, 50, capacity=128), 300)
    return {**figures, "of": "a stream, 50 buffers of 128 with 64 numbers", "batch": "32 triplets"}


def timed(make: Callable[[], Any], count: int, start: int = 0) -> dict[str, float]:
    from tfdml.samplers import PKSampler

    next(iter(PKSampler(shuffled(10, 100, "int64"), 8, K).indices()))  # the runtime's threads and allocators
    before, began = memory("VmRSS"), time.perf_counter()
    sampler = make()
    iterator = iter(sampler.indices(start))
    next(iterator)
    ready = time.perf_counter() - began
    rate = per_second(lambda: next(iterator), count)
    return {"ready_seconds": ready, "batches_per_second": rate, "kept": memory("VmRSS") - before}


def shuffled(classes: int, items: int, dtype: str) -> Any:
    import numpy as np

    labels = np.arange(items, dtype=dtype)
    labels %= classes
    np.random.default_rng(0).shuffle(labels)
    return labels


def per_second(work: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        work()
    return count / (time.perf_counter() - start)


def memory(field: str) -> int:
    """Bytes, from the kernel's account of this process (Linux)."""
    lines: Iterable[str] = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


OTHERS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "PairSampler": pairs,
    "NPairSampler, mined": mined,
    "FaceNetSampler": facenet,
    "RelevanceTripletSampler": relevance,
    "OnlineTripletSampler": online,
}
PARTS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "int64": lambda classes, items: large(classes, items, "int64"),
    "int32": lambda classes, items: large(classes, items, "int32"),
    "graph": graph,
    "peer": peer,
    **OTHERS,
}

if __name__ == "__main__":
    main()
