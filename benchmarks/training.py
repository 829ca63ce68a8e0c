"""Whole training steps beside pytorch-metric-learning, and what of a step is input, network, mining and loss.

    TFDML_DATA=... python benchmarks/training.py --json benchmarks/results/training.json
    python benchmarks/training.py --table benchmarks/results/training.json

Networks, data and optimiser are those of `quality.py`. Every library trains in a process of its own; they take turns, a few
rounds of some steps each, so that a disturbance of the machine meets all of them, and a figure is the median over all steps.
tfdml trains by `fit` on batches of `PKSampler`. The peer's batches are drawn by its `MPerClassSampler` and cut from one tensor
in memory with whole-batch operations, which is faster than its users' `DataLoader`.

The shares of a step come from the same model trained without its mining and loss (the mean of the embeddings in their place),
on one batch that stays the same, or both; each difference is what the part costs within a step, overlaps counted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import MARK, ROOT, TORCH, machine, say, version

KERAS_3, KERAS_2 = "tfdml, Keras 3", "tfdml, Keras 2"
PYTHONS = {
    KERAS_3: ROOT / ".venv/bin/python",
    KERAS_2: ROOT / ".venv-keras2/bin/python",
    TORCH: ROOT / ".venv-peers/bin/python",
}
# Data and the P x K of a batch.
BATCHES = {
    "omniglot 32 x 4": ("omniglot", 32, 4),
    "grocery 16 x 4": ("grocery", 16, 4),
    "omniglot 450 x 4": ("omniglot", 450, 4),
}
# Maps of the convolutions, the side of an image, and whether it is cropped out of a larger one; then means replace flattening.
NETWORKS = {"omniglot": ((64, 64, 64, 64), 28, False), "grocery": ((32, 64, 128, 128), 64, True)}
LOSSES = ["triplet_semi_hard", "batch_hard_soft", "multi_similarity", "n_pair", "margin_distance_weighted", "contrastive_hinge"]
# What is measured of tfdml beside the whole step.
PARTS = ["whole", "no loss", "same batch"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--loss", nargs="+", choices=LOSSES, default=["triplet_semi_hard", "margin_distance_weighted"])
    parser.add_argument("--library", nargs="+", choices=PYTHONS, default=list(PYTHONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each library, part and round")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--table", type=Path, metavar="JSON", help="only print the tables of a file that --json has written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(args.worker)
        return
    print(tables(json.loads(args.table.read_text())["rows"] if args.table else measure(args)))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    versions: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_images({BATCHES[batch][0] for batch in args.batch}, Path(folder))
        for batch, loss in itertools.product(args.batch, args.loss):
            workers = [Worker(library, batch, loss, folder) for library in args.library if PYTHONS[library].exists()]
            for _ in range(args.rounds):
                for worker in workers:
                    worker.round(args.seconds)
            for worker in workers:
                versions[worker.library] = worker.end()
                rows += [worker.row(part) for part in worker.times]
            if args.json:
                # At once, so that a run that is cut short keeps what it has.
                record = {"machine": machine(), "versions": versions, "rows": rows}
                args.json.write_text(json.dumps(record, indent=1) + "\n")
    return rows


def write_images(names: set[str], folder: Path) -> None:
    """The training images, as tfdml reads them, for everybody."""
    import quality

    for name in names:
        train = quality.DATA[name]().train
        (folder / name).mkdir()
        np.save(folder / name / "images.npy", np.concatenate([batch.numpy() for batch in train.batches(256)]))
        np.save(folder / name / "labels.npy", train.labels)


class Worker:
    """One library's process, which trains for a while whenever it is told a part and a time."""

    def __init__(self, library: str, batch: str, loss: str, folder: str) -> None:
        self.library, self.batch, self.loss = library, batch, loss
        self.times: dict[str, list[list[float]]] = {part: [] for part in (["whole"] if library == TORCH else PARTS)}
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
        command = [str(PYTHONS[library]), __file__, "--worker", json.dumps([library, *BATCHES[batch], loss, folder])]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        self._answer()

    def round(self, seconds: float) -> None:
        for part, times in self.times.items():
            times.append(self._ask([part, seconds]))

    def end(self) -> dict[str, str]:
        versions: dict[str, str] = self._ask(None)
        self.process.wait()
        return versions

    def row(self, part: str) -> dict[str, Any]:
        rounds = self.times[part]
        times = sorted(time for times in rounds for time in times)
        median = statistics.median(times)
        print(f"{self.batch}, {self.loss}: {self.library}, {part} {median:.1f} ms", file=sys.stderr)
        return {
            "batch": self.batch,
            "loss": self.loss,
            "library": self.library,
            "part": part,
            "ms": round(median, 2),
            "ms_of_each_round": [round(statistics.median(times), 2) for times in rounds],
            "steps": len(times),
        }

    def _ask(self, question: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))["answer"]
        raise RuntimeError(f"the process of {self.library} has ended")


def serve(task: str) -> None:
    """In the worker's process."""
    library, data, classes, examples, loss, folder = json.loads(task)
    make = torch_trainer if library == TORCH else tfdml_trainer
    train = make(data, classes, examples, loss, Path(folder) / data)
    for part in ["whole"] if library == TORCH else PARTS:
        train(part, 0.0)
    say({"answer": None})
    for line in sys.stdin:
        question = json.loads(line)
        if question is None:
            break
        say({"answer": train(*question)})
    packages = ("tensorflow", "keras", "torch")
    found = {name: found for name in packages if (found := version(name))}
    if library == TORCH:
        found["pytorch-metric-learning"] = importlib.metadata.version("pytorch-metric-learning")
    say({"answer": found})


Train = Callable[[str, float], list[float]]


def tfdml_trainer(data: str, classes: int, examples: int, loss: str, folder: Path) -> Train:
    import keras
    import quality
    import tensorflow as tf

    import tfdml
    from tfdml.augmentation import RandomCropFlip

    class NoLoss(keras.losses.Loss):
        def call(self, labels: Any, embeddings: Any) -> Any:
            return tf.reduce_mean(embeddings, axis=1)

    class Timed(keras.callbacks.Callback):
        """Milliseconds from the end of one step to the end of the next, until the time is over."""

        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.until, self.seconds, self.ends = 0.0, seconds, list[float]()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float((logs or {})["loss"])
            self.ends.append(time.perf_counter())
            self.until = self.until or self.ends[0] + self.seconds
            if self.ends[-1] > self.until and len(self.ends) > 3:
                self.model.stop_training = True

    maps, side, crop = NETWORKS[data]
    train_set = tfdml.datasets.Dataset.from_arrays(np.load(folder / "images.npy"), np.load(folder / "labels.npy"))
    if loss == "n_pair":
        classes, examples = classes * examples // 2, 2
    augment = RandomCropFlip(side, side) if crop else None
    sampler = tfdml.samplers.PKSampler(train_set.labels, classes, examples, seed=0)
    batches = sampler.dataset(train_set.load, augment=augment)
    same = tf.data.Dataset.from_tensors(next(iter(batches))).repeat()
    normalize = loss not in quality.RAW
    models = {}
    for name, objective in {"loss": quality.OBJECTIVES[loss](train_set.num_classes), "no loss": NoLoss()}.items():
        pooling = "average" if crop else "flatten"
        encoder = tfdml.models.conv_encoder((side, side, train_set.preprocessing.channels), maps, 64, pooling=pooling)
        models[name] = tfdml.EmbeddingModel(encoder, normalize=normalize)
        models[name].compile(quality.adam(100_000), loss=objective)

    def train(part: str, seconds: float) -> list[float]:
        model = models["no loss" if part == "no loss" else "loss"]
        timed = Timed(seconds)
        inputs = same if part == "same batch" else batches
        model.fit(inputs, steps_per_epoch=10_000_000, shuffle=False, callbacks=[timed], verbose=0)
        return [1e3 * (after - before) for before, after in zip(timed.ends[1:], timed.ends[2:], strict=False)]

    return train


def torch_trainer(data: str, classes: int, examples: int, loss: str, folder: Path) -> Train:
    import torch
    from pytorch_metric_learning import losses, miners, samplers

    maps, side, crop = NETWORKS[data]
    images = torch.as_tensor(np.load(folder / "images.npy")).permute(0, 3, 1, 2).contiguous()
    labels = torch.as_tensor(np.load(folder / "labels.npy"))
    parts: list[Any] = []
    for before, after in zip([images.shape[1], *maps], maps, strict=False):
        parts += [
            torch.nn.Conv2d(before, after, 3, padding=1),
            torch.nn.BatchNorm2d(after),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
        ]
    parts += [torch.nn.AdaptiveAvgPool2d(1)] if crop else []
    network = torch.nn.Sequential(*parts, torch.nn.Flatten(), torch.nn.Linear(maps[-1], 64))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    if loss == "n_pair":
        classes, examples = classes * examples // 2, 2
    count = classes * examples
    objectives: dict[str, tuple[Any, Any]] = {
        "triplet_semi_hard": (losses.TripletMarginLoss(0.2), miners.TripletMarginMiner(0.2, "semihard")),
        "batch_hard_soft": (losses.TripletMarginLoss(0.0, smooth_loss=True), miners.BatchHardMiner()),
        "multi_similarity": (losses.MultiSimilarityLoss(2, 50, 0.5), miners.MultiSimilarityMiner(0.1)),
        "n_pair": (losses.NPairsLoss(), None),
        "margin_distance_weighted": (losses.MarginLoss(0.2, 1.2), miners.DistanceWeightedMiner(0.5, 1.4)),
        "contrastive_hinge": (losses.ContrastiveLoss(0.0, 1.0), None),
    }
    objective, miner = objectives[loss]

    def batches() -> Iterator[tuple[Any, Any]]:
        rng = torch.Generator().manual_seed(0)
        while True:
            drawn = list(samplers.MPerClassSampler(labels, examples, count, length_before_new_iter=100 * count))
            for start in range(0, len(drawn), count):
                rows = torch.as_tensor(drawn[start : start + count])
                yield crop_and_flip(images[rows], side, rng) if crop else images[rows] / 255, labels[rows]

    drawn = batches()

    def train(part: str, seconds: float) -> list[float]:
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            x, y = next(drawn)
            optimizer.zero_grad()
            found = network(x)
            value = objective(found, y, miner(found, y)) if miner else objective(found, y)
            value.backward()
            optimizer.step()
            value.item()
            times.append(1e3 * (time.perf_counter() - start))
        return times[1:]

    return train


def crop_and_flip(images: Any, side: int, rng: Any) -> Any:
    """For each image its own crop, mirrored or not; 0 to 1."""
    import torch

    count, _, height, width = images.shape
    rows = torch.randint(height - side + 1, (count, 1), generator=rng) + torch.arange(side)
    columns = torch.randint(width - side + 1, (count, 1), generator=rng) + torch.arange(side)
    mirrored = torch.rand((count, 1), generator=rng) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    number = torch.arange(count)[:, None, None, None]
    channel = torch.arange(images.shape[1])[None, :, None, None]
    return images[number, channel, rows[:, None, :, None], columns[:, None, None, :]] / 255


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown: steps a second beside the peer, then the parts of tfdml's step."""
    found = {(row["batch"], row["loss"], row["library"], row["part"]): row for row in rows}
    cases = list(dict.fromkeys((row["batch"], row["loss"]) for row in rows))
    ours = [library for library in PYTHONS if library != TORCH]
    heads = ["batch", "loss", *(f"{library}, ms" for library in PYTHONS)]
    heads += [f"{library}: steps for one of the peer" for library in ours]
    speed = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * (len(heads) - 2)]
    parts = ["| batch | loss | stack | step, ms | mining and loss | input |", "|---|---|---|---:|---:|---:|"]
    for batch, loss in cases:
        whole = {library: found.get((batch, loss, library, "whole")) for library in PYTHONS}
        times = {library: row["ms"] for library, row in whole.items() if row}
        line = [batch, loss, *(f"{times[library]:.1f}" if library in times else "" for library in PYTHONS)]
        line += [f"{times[TORCH] / times[library]:.2f}" if {TORCH, library} <= times.keys() else "" for library in ours]
        speed.append("| " + " | ".join(line) + " |")
        for library in ours:
            if library in times:
                shares = [1 - found[batch, loss, library, part]["ms"] / times[library] for part in PARTS[1:]]
                cells = " | ".join(f"{max(share, 0):.1%}" for share in shares)
                parts.append(f"| {batch} | {loss} | {library} | {times[library]:.1f} | {cells} |")
    return "\n".join([*speed, "", *parts])


if __name__ == "__main__":
    main()
