"""Retrieval quality of every loss under one fixed protocol: same data, split, network, optimiser, steps, sampler and figures.

    TFDML_DATA=... python benchmarks/quality.py --data omniglot grocery --seeds 0 1 --json quality.json

Small enough for two cores: 1,000 steps of Adam (1e-3, cosine to 0) on P x K batches, a network of four convolutions, classes
that are never trained on. Nothing is chosen on the test classes.

| | Omniglot | Grocery Store |
|---|---|---|
| train / test | background / evaluation alphabets | even / odd product numbers |
| images | 28 x 28, ink white | 64 x 64 out of 72 x 72: random crops and mirroring, in the test the centre |
| network | 4 x 64 maps, flattened, dense 64 | 32, 64, 128, 128 maps, averaged, dense 64 |
| batch | 32 x 4 (N-pair 64 x 2) | 16 x 4 (N-pair 32 x 2) |

Every test image is a query against all others, by cosine; batch hard by the Euclidean distance that it was trained in. Class
weights of heads start at length 1 and learn at 1e-3, which for weights that are normalised before use is what N(0, 1) and 1e-2
are elsewhere.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfdml
from tfdml import layers, losses
from tfdml.augmentation import RandomCropFlip
from tfdml.preprocessing import ImagePreprocessing

# Name: (the loss, or the head for a number of classes; whether embeddings are normalised; the metric of the test).
OBJECTIVES: dict[str, tuple[Callable[[int], Any], bool, str]] = {
    "contrastive": (lambda classes: losses.ContrastiveLoss(), True, "cosine"),
    "triplet_semi_hard": (lambda classes: losses.TripletLoss(0.2, "semi_hard"), True, "cosine"),
    "triplet_all": (lambda classes: losses.TripletLoss(0.2, "all"), True, "cosine"),
    "batch_hard_soft": (lambda classes: losses.TripletLoss("soft", "hard"), False, "euclidean"),
    "n_pair": (lambda classes: losses.NPairLoss(l2=0.005), False, "cosine"),
    "margin_distance_weighted": (lambda classes: losses.MarginLoss(0.2, 1.2), True, "cosine"),
    "a_softmax_annealed": (lambda classes: layers.ASoftmax(classes, margin=4), False, "cosine"),
    "multi_similarity": (lambda classes: losses.MultiSimilarityLoss(), True, "cosine"),
    "normalised_softmax": (lambda classes: layers.NormalizedSoftmax(classes, temperature=0.05), True, "cosine"),
}
FIGURES = ("recall_at_1", "r_precision", "map_at_r")


def omniglot() -> tuple[Any, Any, Any, Callable[[], keras.Model], tuple[int, int]]:
    data = tfdml.datasets.omniglot(image_size=28)
    train, test = data.where(split="background"), data.where(split="evaluation")
    encoder = lambda: tfdml.models.conv_encoder((28, 28, 1), (64,) * 4, 64, pooling="flatten")  # noqa: E731
    return train.in_memory(), test.in_memory(), None, encoder, (32, 4)


def grocery() -> tuple[Any, Any, Any, Callable[[], keras.Model], tuple[int, int]]:
    preprocessing = ImagePreprocessing(size=64, resize=72)
    data = tfdml.datasets.grocery_store(preprocessing=preprocessing)
    train, test = data.subset(data.labels % 2 == 0), data.subset(data.labels % 2 == 1)
    train = train.with_preprocessing(preprocessing.uncropped())
    encoder = lambda: tfdml.models.conv_encoder((64, 64, 3), (32, 64, 128, 128), 64)  # noqa: E731
    return train.in_memory(), test.in_memory(), RandomCropFlip(64, 64), encoder, (16, 4)


DATA = {"omniglot": omniglot, "grocery": grocery}


def run(
    name: str, seed: int, steps: int, data: tuple[Any, Any, Any, Callable[[], keras.Model], tuple[int, int]]
) -> dict[str, float]:
    """Trains with one objective and one seed; the figures on the test classes, in percent."""
    train, test, augment, encoder, (classes, examples) = data
    make, normalize, metric = OBJECTIVES[name]
    if name == "n_pair":
        classes, examples = 2 * classes, 2
    keras.utils.set_random_seed(seed)
    objective = make(train.num_classes)
    head = objective if isinstance(objective, layers.Head) else None
    model = tfdml.EmbeddingModel(encoder(), normalize=normalize, head=head)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps), epsilon=1e-8)
    model.compile(optimizer, loss=None if head else objective)
    batches = tfdml.samplers.PKSampler(train.labels, classes, examples, seed=seed).dataset(train.load, augment=augment)
    started = time.monotonic()
    history = model.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
    seconds = time.monotonic() - started
    figures = model.evaluate(test, ks=(1,), metric=metric)
    result = {figure: round(100 * figures[figure], 2) for figure in FIGURES}
    return {**result, "seconds": round(seconds, 1), "last_loss": round(history.history["loss"][-1], 4)}


def floors(data: tuple[Any, Any, Any, Callable[[], keras.Model], tuple[int, int]]) -> dict[str, dict[str, float]]:
    """Raw pixels and an untrained network."""
    _, test, _, encoder, _ = data
    raw = tfdml.evaluation.retrieval(tfdml.evaluation.raw_pixels(test), test.labels, ks=(1,)).as_dict()
    keras.utils.set_random_seed(0)
    fresh = tfdml.EmbeddingModel(encoder()).evaluate(test, ks=(1,))
    named = {"raw_pixels/-": raw, "untrained/0": fresh}
    return {name: {figure: round(100 * values[figure], 2) for figure in FIGURES} for name, values in named.items()}


def table(results: dict[str, dict[str, float]]) -> str:
    """Mean and, over several seeds, the lowest and highest MAP@R."""
    rows = [
        "| data | objective | seeds | Recall@1 | R-Precision | MAP@R | spread of MAP@R |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    groups: dict[str, list[dict[str, float]]] = {}
    for key, values in results.items():
        groups.setdefault(key.rsplit("/", 1)[0], []).append(values)
    for group, runs in groups.items():
        data, name = group.split("/")
        means = " | ".join(f"{np.mean([r[figure] for r in runs]):.1f}" for figure in FIGURES)
        spread = sorted(r["map_at_r"] for r in runs)
        rows.append(f"| {data} | {name} | {len(runs)} | {means} | {spread[0]:.1f} to {spread[-1]:.1f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="results are added to this file as they come")
    arguments = parser.parse_args()
    results = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.is_file() else {}
    for source in arguments.data:
        data = DATA[source]()
        results |= {f"{source}/{name}": values for name, values in floors(data).items()}
        for name in arguments.objectives:
            for seed in arguments.seeds:
                results[f"{source}/{name}/{seed}"] = run(name, seed, arguments.steps, data)
                print(f"{source}/{name}/{seed}: {results[f'{source}/{name}/{seed}']}", flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
