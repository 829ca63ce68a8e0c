"""What a training step costs as classes, batches and memories grow: its time, and memory beyond what the process began with.

    python benchmarks/scale.py --json benchmarks/results/scale.json     # everything; tens of minutes
    python benchmarks/scale.py --only classes                           # heads that sample their classes
    python benchmarks/scale.py --table benchmarks/results/scale.json

Every row is a process of its own, as only that shows what memory it needs. A step is that of `fit`: forward, backward and the
optimizer's update, in one graph. Its time is the median; its memory the process's high-water mark above that of the same
process with TensorFlow loaded and nothing made. D = 128.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import DIMENSION, PACKAGES, ROOT, high_water_mb, machine, version

SAMPLED = 10_000
OPTIMIZERS = {"LazyAdam": {}, "LazySGD": {"momentum": 0.9}, "SGD": {}, "Adam": {}}
LOSSES = ("TripletLoss semi-hard", "TripletLoss hard", "MultiSimilarityLoss", "NTXentLoss")


def rows() -> dict[str, dict[str, Any]]:
    """The settings of every row, by name."""
    found = []
    for optimizer in OPTIMIZERS:
        for classes in (10_000, 100_000, 1_000_000):
            found.append({"kind": "classes", "classes": classes, "sampled": SAMPLED, "optimizer": optimizer, "batch": 128})
    for classes in (10_000, 100_000):
        found.append({"kind": "classes", "classes": classes, "sampled": None, "optimizer": "LazyAdam", "batch": 128})
    for loss in LOSSES:
        for batch, block in ((2048, None), (2048, 512), (16_384, 512)):
            found.append({"kind": "batches", "loss": loss, "batch": batch, "rows": block})
    for size, batch, block in ((10_000, 128, None), (100_000, 128, None), (100_000, 1024, None), (100_000, 1024, 128)):
        found.append({"kind": "memories", "loss": "ContrastiveLoss", "memory": size, "batch": batch, "rows": block})
    return {" ".join(str(value) for value in row.values()): row for row in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(STEPS))
    parser.add_argument("--match", default="", help="only rows whose settings hold this text, as in '1000000 10000 LazyAdam'")
    parser.add_argument("--seconds", type=float, default=8.0, help="timed for each row, at least two steps")
    parser.add_argument("--json", type=Path, help="also write the rows here, in place of those of the same settings")
    parser.add_argument("--table", type=Path, metavar="JSON", help="only print the tables of a file that --json has written")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(MARK + json.dumps(measure(json.loads(args.row), args.seconds)))
        return
    if args.table:
        print(tables(json.loads(args.table.read_text())["rows"]))
        return
    found = []
    for name, row in rows().items():
        if (args.only and row["kind"] not in args.only) or args.match not in name:
            continue
        found.append(row | in_a_process_of_its_own(row, args.seconds))
        print(json.dumps(found[-1]), file=sys.stderr)
        if args.json:
            write(args.json, found[-1])
    print(tables(found))


MARK = "scale: "


def in_a_process_of_its_own(row: dict[str, Any], seconds: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--row", json.dumps(row), "--seconds", str(seconds)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    answer = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not answer:
        return {"failed": f"the process ended with status {done.returncode}"}
    return json.loads(answer[-1].removeprefix(MARK))


def measure(row: dict[str, Any], seconds: float) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    from tfdml import layers, losses, optimizers  # noqa: F401

    keras.utils.set_random_seed(0)
    tf.matmul(tf.zeros([64, 64]), tf.zeros([64, 64])).numpy()
    before = high_water_mb()
    step = STEPS[row["kind"]](row)
    made = high_water_mb() - before
    times: list[float] = []
    # The first traces, and is not timed.
    step()
    end = time.perf_counter() + seconds
    while len(times) < 2 or (time.perf_counter() < end and len(times) < 300):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return {
        "ms": round(statistics.median(times), 2),
        "ms_5_to_95_percent": [round(times[int(share * (len(times) - 1))], 2) for share in (0.05, 0.95)],
        "steps": len(times),
        "made_mb": round(made),
        "peak_mb": round(high_water_mb() - before),
        "versions": {name: found for name in PACKAGES if (found := version(name))},
    }


def class_step(row: dict[str, Any]) -> Callable[[], Any]:
    import keras
    import numpy as np
    import tensorflow as tf

    from tfdml import layers, optimizers

    name = row["optimizer"]
    head = layers.ArcFace(row["classes"], sampled_classes=row["sampled"])
    head.build((None, DIMENSION))
    optimizer = getattr(optimizers, name, None) or getattr(keras.optimizers, name)
    train = training_step(head, optimizer(0.001, **OPTIMIZERS[name]))
    rng = np.random.default_rng(0)
    x = tf.constant(rng.standard_normal((row["batch"], DIMENSION)), tf.float32)
    return lambda: train(x, tf.constant(rng.integers(0, row["classes"], row["batch"])))


def batch_step(row: dict[str, Any]) -> Callable[[], Any]:
    import tensorflow as tf

    loss = made_loss(row)
    x, y = embeddings(row["batch"])

    @tf.function(input_signature=[tf.TensorSpec([None, DIMENSION]), tf.TensorSpec([None], tf.int64)])
    def gradient(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(y, x)
        return tape.gradient(value, x)

    return lambda: gradient(x, y).numpy()


def memory_step(row: dict[str, Any]) -> Callable[[], Any]:
    from tfdml import layers

    memory = layers.CrossBatchMemory(made_loss(row), size=row["memory"])
    memory.build((None, DIMENSION))
    # Full from the beginning: each block of it is a batch.
    for seed in range(-(-row["memory"] // 10_000)):
        memory.push(*embeddings(10_000, seed + 1))
    train = training_step(memory, None)
    x, y = embeddings(row["batch"])
    return lambda: train(x, y)


STEPS = {"classes": class_step, "batches": batch_step, "memories": memory_step}


def training_step(head: Any, optimizer: Any) -> Callable[[Any, Any], Any]:
    """Forward, backward and update of a head, as `fit` does them."""
    import tensorflow as tf

    variables = head.trainable_variables
    weights = [v if isinstance(v, tf.Variable) else v.value for v in variables]
    if optimizer is not None:
        optimizer.build(variables)

    @tf.function(input_signature=[tf.TensorSpec([None, DIMENSION]), tf.TensorSpec([None], tf.int64)])
    def train(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(head.per_anchor(x, y, training=True))
        of_x, *gradients = tape.gradient(loss, [x, *weights])
        if optimizer is not None:
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return of_x

    return lambda x, y: train(x, y).numpy()


def made_loss(row: dict[str, Any]) -> Any:
    from tfdml import losses

    name, _, mining = row["loss"].partition(" ")
    loss = getattr(losses, name)(**({"mining": mining.replace("-", "_")} if mining else {}))
    return loss if row["rows"] is None else losses.RowBlocks(loss, row["rows"])


def embeddings(count: int, seed: int = 0) -> tuple[Any, Any]:
    """Normalised, four to a class."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, DIMENSION)).astype("float32")
    return tf.constant(x / np.linalg.norm(x, axis=1, keepdims=True)), tf.constant(np.arange(count) // 4, tf.int64)


def tables(found: list[dict[str, Any]]) -> str:
    """One Markdown table for each kind of row."""
    parts = []
    for kind in STEPS:
        of_kind = [row for row in found if row["kind"] == kind]
        if not of_kind:
            continue
        heads = [key for key in rows_of_kind(kind) if key != "kind"]
        lines = ["| " + " | ".join([*heads, "a step, ms", "made, MB", "peak, MB"]) + " |"]
        lines.append("|" + "---:|" * (len(heads) + 3))
        for row in of_kind:
            figures = (
                ["failed", "", ""] if "failed" in row else [f"{row['ms']:,.0f}", f"{row['made_mb']:,}", f"{row['peak_mb']:,}"]
            )
            cells = [f"{v:,}" if isinstance(v, int) else str(v or "all") for v in (row[key] for key in heads)]
            lines.append("| " + " | ".join([*cells, *figures]) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def rows_of_kind(kind: str) -> list[str]:
    return next(list(row) for row in rows().values() if row["kind"] == kind)


def write(path: Path, row: dict[str, Any]) -> None:
    """Into a file that runs in parts fill."""
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    known = rows()
    kept = {n: r for r in [*old, row] for n, settings in known.items() if all(r.get(k, 0) == v for k, v in settings.items())}
    lines = ",\n".join(f"  {json.dumps(kept[n])}" for n in known if n in kept)
    head = json.dumps({"machine": machine(), "dimension": DIMENSION}, indent=1)[:-2]
    path.write_text(f'{head},\n "rows": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
