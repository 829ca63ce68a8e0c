"""Retrieval figures beside other libraries: 20,000, 60,000 and 100,000 x 128, leave-one-out.

    python benchmarks/evaluation.py [--sizes 20000 60000 100000] [--per-class 10] [--json FILE] [--keras2 PY] [--peers PY]

Every library and size runs in a process of its own, which also tells its peak memory, less what it held before (the imports
and the data). tfdml makes Recall@1 and @10, R-Precision and MAP@R; pytorch-metric-learning's AccuracyCalculator precision@1,
R-Precision and MAP@R, with exact FAISS; TF Similarity Recall@1 and MAP@R from its own index (NMSLIB, approximate), in the
TF 2.15 environment. `bare` is the float32 product of all rows with all rows in blocks, on all cores: what no exact method
can do without. The same unit vectors for all, in classes of `--per-class`.

A run that takes longer than `--limit` seconds is stopped, and so is recorded. `--only LIBRARY --only-size N` measures one;
every record is merged into the file. The table is of CPU seconds (all cores, user and system), which other load on the
machine changes little; the file has wall-clock seconds, too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "evaluation.json"
LIBRARIES = ("bare", "tfdml", "pytorch-metric-learning", "TF Similarity")
DIMENSION = 128
NOISE = {10: 1.25, 1000: 2.2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 60_000, 100_000])
    parser.add_argument("--per-class", type=int, default=10, choices=sorted(NOISE))
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--keras2", type=Path, default=ROOT / ".venv-keras2" / "bin" / "python")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers" / "bin" / "python")
    parser.add_argument("--limit", type=float, default=280)
    parser.add_argument("--only", choices=LIBRARIES)
    parser.add_argument("--only-size", type=int)
    parser.add_argument("--run", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true", help="print the table of the file, and measure nothing")
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(arguments.run, arguments.only_size, arguments.per_class)))
        return
    if not arguments.table:
        pythons = {"pytorch-metric-learning": arguments.peers, "TF Similarity": arguments.keras2}
        for size in [arguments.only_size] if arguments.only_size else arguments.sizes:
            for library in [arguments.only] if arguments.only else LIBRARIES:
                python = pythons.get(library, Path(sys.executable))
                record = measured(python, library, size, arguments.per_class, arguments.limit)
                merge(arguments.json, f"{size} x {DIMENSION}, classes of {arguments.per_class}", library, record)
    print(table(json.loads(arguments.json.read_text())))


def measured(python: Path, library: str, size: int, per_class: int, limit: float) -> dict[str, Any]:
    command = [str(python), __file__, "--run", library, "--only-size", str(size), "--per-class", str(per_class)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"stopped_after_seconds": limit}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(library: str, size: int, per_class: int) -> dict[str, Any]:
    """Measures one library in this process."""
    function = {"bare": bare, "tfdml": tfdml, "pytorch-metric-learning": peer, "TF Similarity": tf_similarity}[library]
    measure, version = function()
    embeddings, labels = data(size, per_class)
    small = data(400, 10)
    measure(*small)  # what loads or compiles on first use
    before = memory()
    started, used = time.perf_counter(), time.process_time()
    figures = measure(embeddings, labels)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_extra_megabytes": round((peak() - before) / 1e6),
        "peak_megabytes": round(peak() / 1e6),
        "version": version,
        **{name: round(float(value), 6) for name, value in figures.items()},
    }


def data(size: int, per_class: int) -> Any:
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.arange(size) // per_class
    centres = rng.standard_normal((labels[-1] + 1, DIMENSION), np.float32)
    rows = np.empty((size, DIMENSION), np.float32)
    for start in range(0, size, 10_000):
        part = slice(start, start + 10_000)
        rows[part] = centres[labels[part]] + NOISE[per_class] * rng.standard_normal(rows[part].shape, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    order = rng.permutation(size)
    return rows[order], labels[order]


def bare() -> Any:
    import numpy as np

    def measure(x: Any, labels: Any) -> dict[str, float]:
        columns = np.ascontiguousarray(x.T)
        height = max(1, (32 << 20) // (4 * len(x)))
        out = [np.empty((height, len(x)), np.float32) for _ in range(os.cpu_count() or 1)]

        def block(start: int) -> None:
            rows = x[start : start + height]
            free = out.pop()
            np.matmul(rows, columns, out=free[: len(rows)])
            out.append(free)

        with ThreadPoolExecutor(len(out)) as pool:
            list(pool.map(block, range(0, len(x), height)))
        return {}

    return measure, np.__version__


def tfdml() -> Any:
    sys.path.insert(0, str(ROOT))
    import tfdml as library
    from tfdml.evaluation import retrieval

    def measure(x: Any, labels: Any) -> dict[str, float]:
        found = retrieval(x, labels, ks=(1, 10))
        return {"recall_at_1": found.recall_at[1], "r_precision": found.r_precision, "map_at_r": found.map_at_r}

    return measure, library.__version__


def peer() -> Any:
    import pytorch_metric_learning
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import FaissKNN

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=names, k="max_bin_count", knn_func=FaissKNN(), device=torch.device("cpu"))

    def measure(x: Any, labels: Any) -> dict[str, float]:
        found = calculator.get_accuracy(torch.from_numpy(x), torch.from_numpy(labels))
        return {"recall_at_1": found[names[0]], "r_precision": found[names[1]], "map_at_r": found[names[2]]}

    return measure, pytorch_metric_learning.__version__


def tf_similarity() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np
    import tensorflow as tf
    import tensorflow_similarity
    from tensorflow_similarity.evaluators import MemoryEvaluator
    from tensorflow_similarity.indexer import Indexer
    from tensorflow_similarity.retrieval_metrics import MapAtK, RecallAtK

    def measure(x: Any, labels: Any) -> dict[str, float]:
        counts = np.bincount(labels)
        depth = int(counts.max())
        # Its callback's own way: an index of the data, looked up at once; a query finds itself first, which is dropped.
        index = Indexer(embedding_size=x.shape[1], distance="cosine")
        index.batch_add(predictions=tf.constant(x), labels=labels.tolist(), verbose=0)
        recall = RecallAtK(k=1)
        map_at_r = MapAtK(r=dict(enumerate((counts - 1).tolist())), clip_at_r=True, k=depth - 1)
        lookups = [row[1:] for row in index.batch_lookup(tf.constant(x), k=depth, verbose=0)]
        found = MemoryEvaluator().evaluate_retrieval(labels.tolist(), lookups, [recall, map_at_r])
        return {"recall_at_1": found[recall.name], "map_at_r": found[map_at_r.name]}

    return measure, tensorflow_similarity.__version__


def memory() -> float:
    """Bytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def merge(path: Path, key: str, library: str, record: dict[str, Any]) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    content.setdefault(key, {})[library] = record
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def table(content: dict[str, Any]) -> str:
    lines = [
        "| data | library | CPU seconds | times the bare product | extra memory, MB | MAP@R |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for key, records in content.items():
        floor = records.get("bare", {}).get("cpu_seconds")
        for library in LIBRARIES:
            record = records.get(library)
            if record is None:
                continue
            if "seconds" not in record:
                why = record.get("failed") or f"stopped after {record['stopped_after_seconds']:.0f} s"
                lines.append(f"| {key} | {library} | {why} | | | |")
                continue
            ratio = f"{record['cpu_seconds'] / floor:.2f}" if floor else ""
            score = f"{100 * record['map_at_r']:.2f}" if "map_at_r" in record else ""
            lines.append(
                f"| {key} | {library} | {record['cpu_seconds']:.1f} | {ratio} | {record['peak_extra_megabytes']:,} | {score} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
