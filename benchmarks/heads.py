"""Every head beside pytorch-metric-learning's: time of forward + backward, and memory, all on this machine, in one run.

    python benchmarks/heads.py                           # 10,000 classes, B = 128, 512, 1800
    python benchmarks/heads.py --batch 512 --head ArcFace ProxyAnchor --json out.json

A step goes from embeddings and labels to the gradients by embeddings and by class weights. Measured as `benchmarks/losses.py`
does it: libraries take turns, a figure is the median over all steps, memory is the growth of the high-water mark of a fresh
process by its first steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from losses import DIMENSION, ROOT, high_water_mb

HEADS = [
    "bare logits",
    "NormalizedSoftmax",
    "CosFace",
    "ArcFace",
    "ArcFace, 3 sub-centres",
    "ASoftmax",
    "ProxyAnchor",
    "ProxyNCA",
    "MarginHead, all pairs",
    "MarginHead, distance-weighted",
    "IdentificationVerification",
]
# library -> (python, what it can run)
LIBRARIES = {
    "tfdml": (Path(sys.executable), HEADS),
    "pytorch-metric-learning": (ROOT / ".venv-peers/bin/python", HEADS[:-1]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512, 1800])
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=4, help="examples per class in a batch (K)")
    parser.add_argument("--head", nargs="+", choices=HEADS, default=HEADS, metavar="HEAD", help=f"some of: {'; '.join(HEADS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="timed for each head and round")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(json.loads(args.worker))
        return
    rows = [row for batch in args.batch for row in measure(batch, args)]
    print(table(rows))
    if args.json:
        machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "machine": platform.machine()}
        record = {"machine": machine, "dimension": DIMENSION, "classes": args.classes, "rows": rows}
        args.json.write_text(json.dumps(record, indent=1) + "\n")


def measure(batch: int, args: argparse.Namespace) -> list[dict]:
    """All figures of one batch size."""
    libraries = [name for name, (python, _) in LIBRARIES.items() if python.exists() and (name == "tfdml" or not args.no_peers)]
    cells = [(library, head) for head in args.head for library in libraries if head in LIBRARIES[library][1]]
    steps: dict = {cell: [] for cell in cells}
    memory: dict = {}
    for number in range(args.rounds):
        for library, head in cells:
            task = {"library": library, "head": head, "batch": batch, "classes": args.classes}
            answer = run_worker({**task, "examples": args.examples, "seconds": args.seconds})
            if answer is None:
                continue
            steps[library, head] += answer["ms"]
            memory.setdefault((library, head), answer["extra_mb"])
            print(f"B={batch} round {number + 1}: {library} {head} {statistics.median(answer['ms']):.1f} ms", file=sys.stderr)
    return [
        {"batch": batch, "head": head, "library": library, "ms": statistics.median(times), "steps": len(times)}
        | {"extra_mb": memory[library, head]}
        for (library, head), times in steps.items()
        if times
    ]


def run_worker(task: dict) -> dict | None:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    command = [str(LIBRARIES[task["library"]][0]), __file__, "--worker", json.dumps(task)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"B={task['batch']}: {task['library']} {task['head']} failed: {reason}", file=sys.stderr)
        return None
    return json.loads(run.stdout.strip().splitlines()[-1])


def table(rows: list[dict]) -> str:
    """A Markdown table: time, against tfdml, against the bare matrix of logits, and memory."""
    ours = {(r["batch"], r["head"]): r["ms"] for r in rows if r["library"] == "tfdml"}
    lines = [
        "| B | head | library | forward + backward, ms | x tfdml | x bare logits of tfdml | extra memory, MB |",
        "|---:|---|---|---:|---:|---:|---:|",
    ]
    for r in sorted(rows, key=lambda r: (r["batch"], HEADS.index(r["head"]), r["library"] != "tfdml")):
        against, bare = ours.get((r["batch"], r["head"])), ours.get((r["batch"], HEADS[0]))
        ratios = " | ".join(f"{r['ms'] / x:.2f}" if x else "" for x in (against, bare))
        lines.append(f"| {r['batch']} | {r['head']} | {r['library']} | {r['ms']:.1f} | {ratios} | {r['extra_mb']:.0f} |")
    return "\n".join(lines)


def work(task: dict) -> None:
    """In a process of its own: times one head of one library and prints one line of JSON."""
    make = torch_step if task["library"] == "pytorch-metric-learning" else tensorflow_step
    warm, step = make(task["head"], task["classes"], task["batch"], task["examples"])
    warm()
    before = high_water_mb()
    for _ in range(3):
        step()
    extra = high_water_mb() - before
    times, end = [], time.perf_counter() + task["seconds"]
    while not times or (time.perf_counter() < end and len(times) < 200):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"ms": times, "extra_mb": extra}))


def data(classes: int, batch: int, examples: int):
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, DIMENSION)).astype("float32")
    labels = rng.permutation(classes)[: -(-batch // examples)]
    return np.repeat(labels, examples)[:batch], x / np.linalg.norm(x, axis=1, keepdims=True)


def tensorflow_step(name: str, classes: int, batch: int, examples: int):
    import tensorflow as tf

    from tfdml import layers

    class BareLogits(layers.ClassifierHead):
        def build(self, input_shape):
            self.kernel = self.add_class_weights(input_shape[-1])
            self.built = True

        def call(self, embeddings, labels, training=None):
            return tf.matmul(embeddings, tf.convert_to_tensor(self.kernel), transpose_b=True)

    head = {
        HEADS[0]: lambda: BareLogits(classes),
        "NormalizedSoftmax": lambda: layers.NormalizedSoftmax(classes),
        "CosFace": lambda: layers.CosFace(classes),
        "ArcFace": lambda: layers.ArcFace(classes),
        "ArcFace, 3 sub-centres": lambda: layers.ArcFace(classes, sub_centers=3),
        "ASoftmax": lambda: layers.ASoftmax(classes, base=0.0, lambda_min=0.0),
        "ProxyAnchor": lambda: layers.ProxyAnchor(classes),
        "ProxyNCA": lambda: layers.ProxyNCA(classes),
        "MarginHead, all pairs": lambda: layers.MarginHead(classes, mining="all"),
        "MarginHead, distance-weighted": lambda: layers.MarginHead(classes),
        "IdentificationVerification": lambda: layers.IdentificationVerification(classes),
    }[name]()

    def graph(labels, embeddings):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = tf.reduce_mean(head.per_anchor(embeddings, labels, training=True))
        return tape.gradient(value, [embeddings, *head.trainable_weights])

    y, x = (tf.constant(part) for part in data(classes, batch, examples))
    small_y, small_x = (tf.constant(part) for part in data(classes, 4 * examples, examples))
    head.build((None, DIMENSION))
    # As `fit` does, with the batch size left open; the first run, on a small batch, is not measured.
    concrete = tf.function(graph).get_concrete_function(
        tf.TensorSpec([None], y.dtype), tf.TensorSpec([None, DIMENSION], x.dtype)
    )

    def run(labels, embeddings):
        return [tf.convert_to_tensor(gradient).numpy() for gradient in concrete(labels, embeddings)]

    return lambda: run(small_y, small_x), lambda: run(y, x)


def torch_step(name: str, classes: int, batch: int, examples: int):
    import torch
    from pytorch_metric_learning import losses, miners

    class BareLogits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = torch.nn.Parameter(torch.randn(classes, DIMENSION))

        def forward(self, x, y):
            return torch.nn.functional.cross_entropy(x @ self.kernel.T, y)

    torch.manual_seed(0)
    weighted = miners.DistanceWeightedMiner()
    loss = {
        HEADS[0]: lambda: BareLogits(),
        "NormalizedSoftmax": lambda: losses.NormalizedSoftmaxLoss(classes, DIMENSION),
        "CosFace": lambda: losses.CosFaceLoss(classes, DIMENSION),
        "ArcFace": lambda: losses.ArcFaceLoss(classes, DIMENSION),
        "ArcFace, 3 sub-centres": lambda: losses.SubCenterArcFaceLoss(num_classes=classes, embedding_size=DIMENSION),
        "ASoftmax": lambda: losses.SphereFaceLoss(classes, DIMENSION),
        "ProxyAnchor": lambda: losses.ProxyAnchorLoss(classes, DIMENSION),
        "ProxyNCA": lambda: losses.ProxyNCALoss(classes, DIMENSION),
        "MarginHead, all pairs": lambda: losses.MarginLoss(learn_beta=True, num_classes=classes),
        "MarginHead, distance-weighted": lambda: losses.MarginLoss(learn_beta=True, num_classes=classes),
    }[name]()

    def run(labels, embeddings):
        x, y = torch.from_numpy(embeddings).requires_grad_(), torch.from_numpy(labels)
        loss.zero_grad(set_to_none=True)
        value = loss(x, y, weighted(x, y)) if name.endswith("distance-weighted") else loss(x, y)
        value.backward()
        return x.grad.numpy(), [parameter.grad.numpy() for parameter in loss.parameters()]

    y, x = data(classes, batch, examples)
    small_y, small_x = data(classes, 4 * examples, examples)
    return lambda: run(small_y, small_x), lambda: run(y, x)


if __name__ == "__main__":
    main()
