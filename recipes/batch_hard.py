"""Batch hard: what the hardest positive and negative of each batch are worth, and what the test can add.

    python recipes/batch_hard.py                             # grocery photographs (TFDML_DATA or a download)
    python recipes/batch_hard.py --network lunet             # the paper's own small network, a quarter as wide; slower
    python recipes/batch_hard.py --seed 1 --steps 1500

Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017. The paper finds a known person in
the pictures of other cameras; here it is a product in other photographs, and, as there, none that is searched for was ever
trained on. Its claim: a plain triplet loss does poorly because most triplets teach nothing, and does well on the hardest ones
of each batch.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

import tfdml
from tfdml.augmentation import RandomCropFlip
from tfdml.models import with_views
from tfdml.preprocessing import ImagePreprocessing


def main() -> None:
    arguments = parse_arguments()

    # 1. Photographs, loaded at 1.125 times the size that the network sees. Training crops them at random and mirrors half of
    #    them; the test classes are not those of the training.
    size = arguments.size
    preprocessing = ImagePreprocessing(size=size, resize=size * 9 // 8)
    data = tfdml.datasets.first_available(*arguments.data.split(","), image_size=size * 9 // 8)
    data.summary()
    train, test = (part.in_memory() for part in data.split_by_class(test=0.5, seed=arguments.seed))

    # 2. The same network, batches, schedule and soft margin ln(1 + e^x) twice. For each anchor and positive, plain triplets
    #    take any negative; batch hard takes each anchor's farthest positive and nearest negative. Distances are plain
    #    Euclidean and embeddings as long as they come out.
    plain, hard = (train_with(mining, train, preprocessing, arguments) for mining in ("random", "hard"))
    untrained = tfdml.EmbeddingModel(make_encoder(arguments), normalize=False, preprocessing=preprocessing)

    # 3. Better figures for more computing: more views of each photograph, then the neighbours' neighbours.
    center = {"crops": "center", "flip": False}
    print(f"\n{len(test):,} photographs of {test.num_classes} products never trained on      mAP    rank-1")
    judge("untrained network", untrained, test, **center)
    judge("plain triplets, random negatives", plain, test, **center)
    judge("batch hard", hard, test, **center)
    judge("batch hard, mirror image averaged", hard, test, crops="center", flip=True)
    embeddings = judge("batch hard, five crops and mirror images", hard, test, crops="five", flip=True)
    k1 = min(20, len(test) - 1)
    show("... and k-reciprocal re-ranking", tfdml.evaluation.k_reciprocal_distances(embeddings, k1=k1), test.labels)


def make_encoder(arguments: argparse.Namespace) -> keras.Model:
    """Both end in a linear layer: lengths of embeddings are the network's own choice."""
    shape = (arguments.size, arguments.size, 3)
    if arguments.network == "lunet":
        return tfdml.models.lunet(shape, dimension=64, width=1 / 4)
    return tfdml.models.conv_encoder(shape, dimension=64)


def train_with(
    mining: str, train: tfdml.datasets.Dataset, preprocessing: ImagePreprocessing, arguments: argparse.Namespace
) -> tfdml.EmbeddingModel:
    keras.utils.set_random_seed(arguments.seed)
    model = tfdml.EmbeddingModel(make_encoder(arguments), normalize=False, preprocessing=preprocessing)
    # The rate holds for three fifths of the steps, then falls to a thousandth; beta_1 changes from 0.9 to 0.5 as it begins to.
    rate = tfdml.schedules.HoldThenDecay(1e-3, hold=arguments.steps * 3 // 5, end=arguments.steps)
    optimizer = tfdml.schedules.BetaSwitchAdam(rate, switch_at=rate.hold)
    model.compile(optimizer, loss=tfdml.losses.TripletLoss(margin="soft", mining=mining))
    sampler = tfdml.samplers.PKSampler(train.labels, arguments.classes, arguments.examples, seed=arguments.seed)
    batches = sampler.dataset(train.load, augment=RandomCropFlip(arguments.size, arguments.size))
    epochs = min(4, arguments.steps)
    history = model.fit(batches, steps_per_epoch=arguments.steps // epochs, epochs=epochs, shuffle=False, verbose=0)
    # A loss that stays at ln 2 would be a collapse: every distance zero.
    losses = ", ".join(f"{loss:.3f}" for loss in history.history["loss"])
    print(f"mining={mining!r}: loss {losses} (ln 2 = 0.693)", flush=True)
    return model


def judge(name: str, model: tfdml.EmbeddingModel, test: tfdml.datasets.Dataset, **views: object) -> np.ndarray:
    """Prints figures of the embedding of these views, and returns it."""
    embeddings = with_views(model, **views).embed(test)
    squared = np.sum(embeddings**2, 1)
    distances = squared[:, None] + squared - 2 * embeddings @ embeddings.T
    show(name, distances, test.labels)
    return embeddings


def show(name: str, distances: np.ndarray, labels: np.ndarray) -> None:
    """mAP and rank-1, every photograph a query against all others."""
    distances = distances.copy()
    np.fill_diagonal(distances, -np.inf)  # each is its own first neighbour, and left out
    right = labels[np.argsort(distances, axis=1)[:, 1:]] == labels[:, None]
    precision = np.cumsum(right, 1) / np.arange(1, right.shape[1] + 1)
    average = (precision * right).sum(1) / np.maximum(right.sum(1), 1)
    answerable = right.any(1)
    print(f"{name:<56}{average[answerable].mean():6.1%}    {right[answerable, 0].mean():6.1%}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="grocery_store,rendered_catalogue", help="the first that can be had (%(default)s)")
    parser.add_argument("--network", default="conv", choices=["conv", "lunet"], help="(%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of the crops in pixels (%(default)s)")
    parser.add_argument("--classes", type=int, default=18, help="products in a batch, P (%(default)s)")
    parser.add_argument("--examples", type=int, default=4, help="photographs of each, K (%(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="training steps of each network (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of split, batches and weights (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
