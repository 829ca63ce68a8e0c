"""Every loss beside its peers: time of forward + backward and peak extra memory, all on this machine, in one run.

    python benchmarks/losses.py                          # B = 128, 512, 1800
    python benchmarks/losses.py --batch 512 --loss circle n-pair --json out.json
    python benchmarks/losses.py --batch 4096 --no-peers

The peers run in environments of their own, found beside this repository's root: TF Addons and TF Similarity in .venv-keras2,
pytorch-metric-learning in .venv-peers. Within each batch size every library is timed in `--rounds` rounds that take turns, so
that a disturbance of the machine meets all of them; a figure is the median over all steps. Memory is the growth of the
high-water mark of a fresh process by its first steps. "memory of 10,000" is a step with a full cross-batch memory, storing the
batch included: ours is the loss of the batch and that with the memory, pytorch-metric-learning's has the second part only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BARE = "bare distance matrix"
DIMENSION = 128
LOSSES = [
    BARE,
    "semi-hard",
    "hard",
    "all",
    "contrastive",
    "n-pair",
    "lifted",
    "lifted generalized",
    "margin, distance-weighted",
    "multi-similarity",
    "circle",
    "nt-xent",
    "sup-con",
    "random",
    "contrastive, hinge",
    "margin, semi-hard",
    "contrastive, memory of 10,000",
    "semi-hard, memory of 10,000",
]
MEMORY = 10_000
# library -> (python, what it can run)
LIBRARIES = {
    "tfdml": (Path(sys.executable), LOSSES),
    "TF Addons": (ROOT / ".venv-keras2/bin/python", ["semi-hard", "hard", "n-pair", "lifted"]),
    "TF Similarity": (ROOT / ".venv-keras2/bin/python", ["hard", "multi-similarity"]),
    "pytorch-metric-learning": (ROOT / ".venv-peers/bin/python", [loss for loss in LOSSES if loss != "random"]),
}
# What a peer cannot do: TF Addons' semi-hard and lifted hold B^3 numbers; pytorch-metric-learning's batch all lists all
# triplets, and its lifted and NT-Xent hold all positive pairs times all negative pairs.
TOO_LARGE = {
    ("TF Addons", "semi-hard"): 512,
    ("TF Addons", "lifted"): 512,
    ("pytorch-metric-learning", "all"): 512,
    ("pytorch-metric-learning", "lifted"): 128,
    ("pytorch-metric-learning", "nt-xent"): 128,
}
# N-pair batches have two examples of each class, whatever the others have.
EXAMPLES = {"n-pair": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512, 1800])
    parser.add_argument("--examples", type=int, default=4, help="examples per class in a batch (K)")
    parser.add_argument(
        "--loss", nargs="+", choices=LOSSES, default=LOSSES, metavar="LOSS", help=f"some of: {', '.join(LOSSES)}"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="timed for each loss and round")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(json.loads(args.worker))
        return
    rows = []
    for batch in args.batch:
        rows += measure(batch, args)
    print(table(rows))
    if args.json:
        machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "machine": platform.machine()}
        args.json.write_text(json.dumps({"machine": machine, "dimension": DIMENSION, "rows": rows}, indent=1) + "\n")


def measure(batch: int, args: argparse.Namespace) -> list[dict]:
    """All figures of one batch size."""
    cells = []
    for library, (python, losses) in LIBRARIES.items():
        if library != "tfdml" and args.no_peers:
            continue
        if not python.exists():
            print(f"{library}: no {python.relative_to(ROOT)}, left out", file=sys.stderr)
            continue
        losses = [loss for loss in losses if loss in args.loss and batch <= TOO_LARGE.get((library, loss), batch)]
        cells += [(library, loss) for loss in losses]
    steps: dict = {cell: [] for cell in cells}
    memory: dict = {}
    for number in range(args.rounds):
        for library, loss in cells:
            examples = EXAMPLES.get(loss, args.examples)
            task = {"library": library, "loss": loss, "batch": batch, "examples": examples, "seconds": args.seconds}
            answer = run_worker(task)
            if answer is None:
                continue
            steps[library, loss] += answer["ms"]
            memory.setdefault((library, loss), answer["extra_mb"])
            print(f"B={batch} round {number + 1}: {library} {loss} {statistics.median(answer['ms']):.1f} ms", file=sys.stderr)
    rows = []
    for (library, loss), times in steps.items():
        if times:
            row = {"batch": batch, "examples": EXAMPLES.get(loss, args.examples), "loss": loss, "library": library}
            rows.append(row | {"ms": statistics.median(times), "steps": len(times), "extra_mb": memory[library, loss]})
    return rows


def run_worker(task: dict) -> dict | None:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    command = [str(LIBRARIES[task["library"]][0]), __file__, "--worker", json.dumps(task)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"B={task['batch']}: {task['library']} {task['loss']} failed: {reason}", file=sys.stderr)
        return None
    return json.loads(run.stdout.strip().splitlines()[-1])


def table(rows: list[dict]) -> str:
    """A Markdown table: time, against the bare matrix, against tfdml, and memory."""
    ours = {(r["batch"], r["loss"]): r["ms"] for r in rows if r["library"] == "tfdml"}
    lines = [
        "| B | K | loss | library | forward + backward, ms | x tfdml | x bare matrix of tfdml | extra memory, MB |",
        "|---:|---:|---|---|---:|---:|---:|---:|",
    ]
    for r in sorted(rows, key=lambda r: (r["batch"], r["loss"] != BARE, r["loss"], r["library"] != "tfdml", r["library"])):
        against, bare = ours.get((r["batch"], r["loss"])), ours.get((r["batch"], BARE))
        ratios = " | ".join(f"{r['ms'] / x:.2f}" if x else "" for x in (against, bare))
        cells = f"{r['batch']} | {r['examples']} | {r['loss']} | {r['library']} | {r['ms']:.1f} | {ratios}"
        lines.append(f"| {cells} | {r['extra_mb']:.0f} |")
    return "\n".join(lines)


def work(task: dict) -> None:
    """In a process of its own: times one loss of one library and prints one line of JSON."""
    make = {"pytorch-metric-learning": torch_step}.get(task["library"], tensorflow_step)
    warm, step = make(task["library"], task["loss"], task["batch"], task["examples"])
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


def high_water_mb() -> float:
    # Linux counts in KB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def data(batch: int, examples: int):
    import numpy as np

    x = np.random.default_rng(0).standard_normal((batch, DIMENSION)).astype("float32")
    return np.arange(batch) // examples, x / np.linalg.norm(x, axis=1, keepdims=True)


def tensorflow_step(library: str, name: str, batch: int, examples: int):
    import tensorflow as tf

    loss = {"tfdml": tfdml_loss, "TF Addons": addons_loss, "TF Similarity": similarity_loss}[library](name)

    @tf.function
    def step(labels, embeddings):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss(labels, embeddings)
        return tape.gradient(value, embeddings)

    y, x = (tf.constant(part) for part in data(batch, examples))
    # As `fit` does, with the batch size left open; the first run, on a small batch, is not measured.
    small_y, small_x = (tf.constant(part) for part in data(4 * examples, examples))
    concrete = step.get_concrete_function(tf.TensorSpec([None], y.dtype), tf.TensorSpec([None, DIMENSION], x.dtype))
    return lambda: concrete(small_y, small_x).numpy(), lambda: concrete(y, x).numpy()


def tfdml_loss(name: str):
    import tensorflow as tf

    from tfdml import losses
    from tfdml.distances import pairwise_distances

    return {
        BARE: lambda labels, x: tf.reduce_sum(pairwise_distances(x)),
        "semi-hard": losses.TripletLoss(0.2, "semi_hard"),
        "hard": losses.TripletLoss(0.2, "hard"),
        "all": losses.TripletLoss(0.2, "all"),
        "contrastive": losses.ContrastiveLoss(),
        # As the peers have it: they leave the penalty to the user.
        "n-pair": losses.NPairLoss(l2=0.0),
        "lifted": losses.LiftedStructureLoss(1.0),
        "lifted generalized": losses.LiftedStructureLoss(1.0, "generalized"),
        "margin, distance-weighted": losses.MarginLoss(0.2, 1.2),
        "multi-similarity": losses.MultiSimilarityLoss(),
        "circle": losses.CircleLoss(),
        "nt-xent": losses.NTXentLoss(0.1),
        "sup-con": losses.SupConLoss(0.1),
        "random": losses.TripletLoss(0.2, "random"),
        "contrastive, hinge": losses.ContrastiveLoss(1.0, form="hinge", average="balanced"),
        "margin, semi-hard": losses.MarginLoss(0.2, 1.2, "semi_hard"),
        "contrastive, memory of 10,000": with_memory(losses.ContrastiveLoss()),
        "semi-hard, memory of 10,000": with_memory(losses.TripletLoss(0.2, "semi_hard")),
    }[name]


def with_memory(loss):
    """The step of a full cross-batch memory, whose items are four to a class."""
    import tensorflow as tf

    from tfdml.layers import CrossBatchMemory

    memory = CrossBatchMemory(loss, MEMORY)
    memory.build((None, DIMENSION))
    labels, embeddings = data(MEMORY, 4)
    memory.push(tf.constant(embeddings), tf.constant(labels))
    return lambda labels, x: memory(x, labels, training=True)


def addons_loss(name: str):
    import tensorflow as tf
    import tensorflow_addons as tfa

    n_pairs = tfa.losses.NpairsLoss()
    return {
        "semi-hard": tfa.losses.TripletSemiHardLoss(0.2),
        "hard": tfa.losses.TripletHardLoss(0.2),
        "n-pair": lambda labels, x: n_pairs(labels[::2], tf.matmul(x[::2], x[1::2], transpose_b=True)),
        "lifted": tfa.losses.LiftedStructLoss(1.0),
    }[name]


def similarity_loss(name: str):
    import tensorflow_similarity.losses as tfsim

    return {
        "hard": lambda: tfsim.TripletLoss("euclidean", negative_mining_strategy="hard", margin=0.2),
        "multi-similarity": lambda: tfsim.MultiSimilarityLoss(beta=50.0),
    }[name]()


def torch_step(library: str, name: str, batch: int, examples: int):
    import torch
    from pytorch_metric_learning import losses, miners

    triplet, multi_similarity, margin = losses.TripletMarginLoss(0.2), losses.MultiSimilarityLoss(), losses.MarginLoss()
    semi_hard, hard = miners.TripletMarginMiner(0.2, "semihard"), miners.BatchHardMiner()
    if "memory" in name:
        inner, miner = (triplet, semi_hard) if name.startswith("semi-hard") else (losses.ContrastiveLoss(), None)
        memory = losses.CrossBatchMemory(inner, DIMENSION, MEMORY, miner)
        kept_labels, kept = data(MEMORY, 4)
        memory.add_to_memory(torch.from_numpy(kept), torch.from_numpy(kept_labels), MEMORY)
    similar, weighted = miners.MultiSimilarityMiner(0.1), miners.DistanceWeightedMiner()
    loss = {
        BARE: lambda x, y: torch.cdist(x, x).sum(),
        "semi-hard": lambda x, y: triplet(x, y, semi_hard(x, y)),
        "hard": lambda x, y: triplet(x, y, hard(x, y)),
        "all": triplet,
        "contrastive": losses.ContrastiveLoss(),
        "n-pair": losses.NPairsLoss(),
        "lifted": losses.LiftedStructureLoss(),
        "lifted generalized": losses.GeneralizedLiftedStructureLoss(),
        "margin, distance-weighted": lambda x, y: margin(x, y, weighted(x, y)),
        "multi-similarity": lambda x, y: multi_similarity(x, y, similar(x, y)),
        "circle": losses.CircleLoss(),
        "nt-xent": losses.NTXentLoss(0.1),
        "sup-con": losses.SupConLoss(0.1),
        "contrastive, hinge": losses.ContrastiveLoss(),
        "margin, semi-hard": lambda x, y: margin(x, y, semi_hard(x, y)),
        **({name: memory} if "memory" in name else {}),
    }[name]

    def run(labels, embeddings):
        x = torch.from_numpy(embeddings).requires_grad_()
        loss(x, torch.from_numpy(labels)).backward()
        return x.grad.numpy()

    y, x = data(batch, examples)
    small_y, small_x = data(4 * examples, examples)
    return lambda: run(small_y, small_x), lambda: run(y, x)


if __name__ == "__main__":
    main()
