"""Retrieval quality of every objective under one fixed protocol: same data, split, network, optimiser, steps and figures.

    TFDML_DATA=... python benchmarks/quality.py --seeds 0 1 --json benchmarks/results/quality.json
    python benchmarks/quality.py --data omniglot --objectives triplet_semi_hard daml_triplet --seeds 0 1 2
    python benchmarks/quality.py --table benchmarks/results/quality.json

Small enough for two cores: 1,000 steps of Adam (1e-3, cosine to 0) on P x K batches, a network of four convolutions, classes
that are never trained on. Nothing is chosen on the test classes.

| | Omniglot | Grocery Store |
|---|---|---|
| train / test | background / evaluation alphabets | even / odd product numbers |
| images | 28 x 28, ink white | 64 x 64 out of 72 x 72: random crops and mirroring, in the test the centre |
| network | 4 x 64 maps, flattened, dense 64 | 32, 64, 128, 128 maps, averaged, dense 64 |
| batch | 32 x 4 (N-pair 64 x 2) | 16 x 4 (N-pair 32 x 2) |

Every test image is a query against all others, by cosine; batch hard by the Euclidean distance that it was trained in.
Class weights of heads learn at the model's 1e-3 and start at the heads' own `initial_length`. What pytorch-metric-learning 2.9
(PyTorch 2.13) reached under the same protocol is in `benchmarks/results/peer_quality.json`; objectives that it lacks are there
for the papers' own claims.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfdml
from tfdml import layers, losses, models, samplers
from tfdml.augmentation import RandomCropFlip
from tfdml.preprocessing import ImagePreprocessing

FIGURES = ("recall_at_1", "r_precision", "map_at_r")
PEER = Path(__file__).parent / "results/peer_quality.json"


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set of the protocol. `categories` are coarser classes of the training images: alphabet, kind of product."""

    train: Any
    test: Any
    categories: list[str]
    augment: Any
    encoder: Callable[[], keras.Model]
    classes: int
    examples: int


def omniglot() -> Source:
    data = tfdml.datasets.omniglot(image_size=28)
    train, test = data.where(split="background").in_memory(), data.where(split="evaluation").in_memory()
    encoder = lambda: models.conv_encoder((28, 28, 1), (64,) * 4, 64, pooling="flatten")  # noqa: E731
    return Source(train, test, list(train.fields["alphabet"]), None, encoder, 32, 4)


def grocery() -> Source:
    preprocessing = ImagePreprocessing(size=64, resize=72)
    data = tfdml.datasets.grocery_store(preprocessing=preprocessing)
    train, test = data.subset(data.labels % 2 == 0), data.subset(data.labels % 2 == 1).in_memory()
    train = train.with_preprocessing(preprocessing.uncropped()).in_memory()
    encoder = lambda: models.conv_encoder((64, 64, 3), (32, 64, 128, 128), 64)  # noqa: E731
    return Source(train, test, list(train.fields["category"]), RandomCropFlip(64, 64), encoder, 16, 4)


DATA = {"omniglot": omniglot, "grocery": grocery}
Built = tuple[keras.Model, Any]


def build(name: str, source: Source, steps: int, seed: int) -> Built:
    """A compiled model and its batches."""
    if name in EXPLICIT:
        return given_triplets(name, source, steps, seed)
    objective = OBJECTIVES[name](source.train.num_classes)
    if name.startswith("daml_"):
        model = models.DAML(source.encoder(), mining=name.removeprefix("daml_"), seed=seed)
        model.compile(adam(steps), loss=objective)
        return model, p_by_k(source, seed)
    normalize = name not in RAW
    head = objective if isinstance(objective, layers.Head) else None
    model = tfdml.EmbeddingModel(source.encoder(), normalize=normalize, head=head)
    model.compile(adam(steps), loss=None if head else objective)
    return model, p_by_k(source, seed, pairs=name == "n_pair")


def given_triplets(name: str, source: Source, steps: int, seed: int) -> Built:
    """Triplets that are drawn rather than mined, as many images a step as the others have.

    `triplet_plain`: a positive of the same class, a negative of any other. `deep_ranking`: by relevance, which is the same
    class, and hardly more than nothing the same category; in-class negatives are of the query's category.
    """
    count = source.classes * source.examples // 3
    if name == "triplet_plain":
        alike = samplers.GradedRelevance(source.train.labels)
        sampler = samplers.RelevanceTripletSampler(source.train.labels, alike, count, out_of_class=1.0, seed=seed)
        loss = losses.TripletLoss(0.2, mining="explicit")
    else:
        relevance = samplers.GradedRelevance(source.train.labels, np.ones([len(source.train), 1]), class_weight=0.999)
        sampler = samplers.RelevanceTripletSampler(source.categories, relevance, count, relevance_gap=0.5, seed=seed)
        loss = losses.TripletLoss(0.2, mining="explicit", distance="squared_euclidean")
    model = models.siamese(tfdml.EmbeddingModel(source.encoder()), images=3)
    model.compile(adam(steps), loss=loss)
    return model, sampler.dataset(source.train.load, augment=source.augment)


def adam(steps: int) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps), epsilon=1e-8)


def p_by_k(source: Source, seed: int, pairs: bool = False) -> Any:
    shape = (2 * source.classes, 2) if pairs else (source.classes, source.examples)
    return samplers.PKSampler(source.train.labels, *shape, seed=seed).dataset(source.train.load, augment=source.augment)


# The loss, or the head for a number of classes.
OBJECTIVES: dict[str, Callable[[int], Any]] = {
    "contrastive": lambda classes: losses.ContrastiveLoss(),
    "contrastive_hinge": lambda classes: losses.ContrastiveLoss(1.0, average="balanced", form="hinge"),
    "triplet_random": lambda classes: losses.TripletLoss(0.2, "random"),
    "triplet_semi_hard": lambda classes: losses.TripletLoss(0.2, "semi_hard"),
    "triplet_all": lambda classes: losses.TripletLoss(0.2, "all"),
    "batch_hard": lambda classes: losses.TripletLoss(0.2, "hard"),
    "batch_hard_soft": lambda classes: losses.TripletLoss("soft", "hard"),
    "n_pair": lambda classes: losses.NPairLoss(l2=0.005),
    "margin_random": lambda classes: losses.MarginLoss(0.2, 1.2, mining="random"),
    "margin_distance_weighted": lambda classes: losses.MarginLoss(0.2, 1.2),
    "a_softmax_annealed": lambda classes: layers.ASoftmax(classes, margin=4),
    "multi_similarity": lambda classes: losses.MultiSimilarityLoss(),
    "normalised_softmax": lambda classes: layers.NormalizedSoftmax(classes, temperature=0.05),
    "daml_random": lambda classes: losses.TripletLoss(0.2, "random"),
    "daml_semi_hard": lambda classes: losses.TripletLoss(0.2, "semi_hard"),
    **dict.fromkeys(("triplet_plain", "deep_ranking"), lambda classes: None),
    "deepid2": lambda classes: layers.IdentificationVerification(classes),
}
# Embeddings that keep their lengths, and those that are compared by the distance they were trained in.
RAW = {"batch_hard_soft", "n_pair", "a_softmax_annealed", "deepid2"}
EUCLIDEAN = {"batch_hard_soft"}
# Those whose triplets are drawn one by one.
EXPLICIT = {"triplet_plain", "deep_ranking"}
# The peer's contrastive loss is the plain hinge; ours is the paper's, and the hinge an option.
SAME_IN_PEER = {"contrastive_hinge": "contrastive"}


def run(name: str, seed: int, steps: int, source: Source) -> dict[str, float]:
    """Trains with one objective and one seed; the figures on the test classes, in percent."""
    keras.utils.set_random_seed(seed)
    model, batches = build(name, source, steps, seed)
    started = time.monotonic()
    history = model.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
    seconds = time.monotonic() - started
    if name in EXPLICIT:
        model = next(layer for layer in model.layers if isinstance(layer, tfdml.EmbeddingModel))
    figures = model.evaluate(source.test, ks=(1,), metric="euclidean" if name in EUCLIDEAN else "cosine")
    result = {figure: round(100 * figures[figure], 2) for figure in FIGURES}
    return {**result, "seconds": round(seconds, 1), "last_loss": round(history.history["loss"][-1], 4)}


def floors(source: Source) -> dict[str, dict[str, float]]:
    """Raw pixels and an untrained network."""
    raw = tfdml.evaluation.retrieval(tfdml.evaluation.raw_pixels(source.test), source.test.labels, ks=(1,)).as_dict()
    keras.utils.set_random_seed(0)
    fresh = tfdml.EmbeddingModel(source.encoder()).evaluate(source.test, ks=(1,))
    named = {"raw_pixels/-": raw, "untrained/0": fresh}
    return {name: {figure: round(100 * values[figure], 2) for figure in FIGURES} for name, values in named.items()}


def table(results: dict[str, dict[str, float]], peer: dict[str, dict[str, float]]) -> str:
    """Mean over the seeds, and of MAP@R every seed, beside the peer's."""
    rows = [
        "| data | objective | Recall@1 | R-Precision | MAP@R | MAP@R of each seed | peer's MAP@R | of each seed |",
        "|---|---|---:|---:|---:|---|---:|---|",
    ]
    groups: dict[str, list[str]] = {}
    for key in sorted(results):
        groups.setdefault(key.rsplit("/", 1)[0], []).append(key)
    for group, keys in groups.items():
        means = " | ".join(f"{np.mean([results[key][figure] for key in keys]):.1f}" for figure in FIGURES)
        ours = ", ".join(f"{results[key]['map_at_r']:.1f}" for key in keys)
        data, name = group.split("/")
        beside = f"{data}/{SAME_IN_PEER.get(name, name)}"
        theirs = [peer[key]["map_at_r"] for key in sorted(peer) if key.rsplit("/", 1)[0] == beside]
        columns = f"{np.mean(theirs):.1f} | {', '.join(f'{value:.1f}' for value in theirs)}" if theirs else " | "
        rows.append(f"| {data} | {name} | {means} | {ours} | {columns} |")
    return "\n".join(rows)


# What the papers claim, as far as this protocol can say: the first does better than the second.
CLAIMS = {
    "semi-hard negatives beat random ones (FaceNet)": ("triplet_semi_hard", "triplet_random"),
    "batch hard beats plain triplets (Hermans et al.)": ("batch_hard_soft", "triplet_plain"),
    "batch hard beats a random negative for every positive pair": ("batch_hard_soft", "triplet_random"),
    "distance-weighted negatives beat random ones (Sampling Matters)": ("margin_distance_weighted", "margin_random"),
    "DAML beats the triplet loss it stands on, random negatives": ("daml_random", "triplet_random"),
    "DAML beats the triplet loss it stands on, semi-hard negatives": ("daml_semi_hard", "triplet_semi_hard"),
}


def claims(results: dict[str, dict[str, float]]) -> str:
    """The papers' claims, by MAP@R of runs with the same seed."""
    rows = ["| data | claim | MAP@R of each seed | without it | difference |", "|---|---|---|---|---|"]
    for data in DATA:
        for claim, names in CLAIMS.items():
            seeds = [key.rsplit("/", 1)[1] for key in sorted(results) if key.startswith(f"{data}/{names[0]}/")]
            seeds = [seed for seed in seeds if f"{data}/{names[1]}/{seed}" in results]
            with_it, without = ([results[f"{data}/{name}/{seed}"]["map_at_r"] for seed in seeds] for name in names)
            gains = [a - b for a, b in zip(with_it, without, strict=True)]
            if gains:
                shown = (", ".join(f"{value:.1f}" for value in values) for values in (with_it, without))
                difference = f"{np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})"
                rows.append(f"| {data} | {claim} | {' | '.join(shown)} | {difference} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="results are added to this file as they come")
    parser.add_argument("--table", type=Path, help="only print the table of such a file")
    arguments = parser.parse_args()
    peer = json.loads(PEER.read_text(encoding="utf-8"))
    known = arguments.table or arguments.json
    results = json.loads(known.read_text(encoding="utf-8")) if known and known.is_file() else {}
    for data in [] if arguments.table else arguments.data:
        source = DATA[data]()
        results |= {f"{data}/{name}": values for name, values in floors(source).items()}
        for name in arguments.objectives:
            for seed in arguments.seeds:
                results[f"{data}/{name}/{seed}"] = run(name, seed, arguments.steps, source)
                print(f"{data}/{name}/{seed}: {results[f'{data}/{name}/{seed}']}", flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results, peer), claims(results), sep="\n\n")


if __name__ == "__main__":
    main()
