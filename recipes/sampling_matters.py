"""Sampling matters: with which negatives an embedding is trained decides as much as with which loss.

    python recipes/sampling_matters.py                            # Omniglot (TFDML_DATA or a download)
    python recipes/sampling_matters.py --data rendered_catalogue  # products that are drawn here
    python recipes/sampling_matters.py --seeds 0 1 2              # mean and spread

Wu, Manmatha, Smola, Kraehenbuehl, "Sampling Matters in Deep Embedding Learning", ICCV 2017. In many dimensions nearly all
points of the unit sphere are about sqrt(2) apart: negatives drawn at random are all alike, and soon far enough. The paper draws
them so that every distance is equally likely, and proposes a loss that can use all of them: the margin loss, whose boundary
between near and far is trained too. Here two losses meet three ways of choosing the negative of each positive pair; everything
else is the same.
"""

from __future__ import annotations

import argparse
import time

import keras
import numpy as np

import tfdml

SAMPLING = ("random", "semi_hard", "distance_weighted")


def objective(loss: str, sampling: str, beta: float):
    """A loss for `compile`, or a head with weights of its own: the margin loss trains its boundary."""
    if loss == "triplet":
        return tfdml.losses.TripletLoss(margin=0.2, mining=sampling)
    return tfdml.layers.MarginHead(alpha=0.2, beta=beta, mining=sampling)


def make_encoder(data, dimension: int) -> keras.Model:
    return tfdml.models.conv_encoder(data.preprocessing.shape, (32, 32, 64, 64), dimension, pooling="flatten")


def train_and_judge(loss: str, sampling: str, train, unseen, arguments: argparse.Namespace, seed: int):
    keras.utils.set_random_seed(seed)
    encoder = make_encoder(train, arguments.dimension)

    # 1. The same batches for all: P classes with K images each, in which every image meets all others.
    sampler = tfdml.samplers.PKSampler(train.labels, arguments.classes, arguments.examples, seed=seed)

    # 2. What differs: which negatives count, and how.
    target = objective(loss, sampling, arguments.beta)
    head = target if isinstance(target, tfdml.layers.Head) else None
    model = tfdml.EmbeddingModel(encoder, head=head)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, arguments.steps)
    model.compile(keras.optimizers.Adam(schedule), loss=None if head else target)
    model.fit(sampler.dataset(train.load), steps_per_epoch=arguments.steps, shuffle=False, verbose=0)

    # 3. Retrieval on classes that were never trained on, every image a query against all others.
    figures = model.evaluate(unseen, ks=(1,))
    return figures, (float(head.beta_layer.get_weights()[0]) if head else None)


def main() -> None:
    arguments = parse_arguments()
    data = tfdml.datasets.first_available(*arguments.data.split(","), image_size=arguments.size)
    data.summary()
    train, unseen = data.split_by_class(test=0.5, seed=0)
    if arguments.judge_classes and arguments.judge_classes < unseen.num_classes:
        unseen = unseen.split_by_class(test=arguments.judge_classes, seed=0)[1]
    train, unseen = train.in_memory(), unseen.in_memory()

    keras.utils.set_random_seed(0)
    floor = tfdml.EmbeddingModel(make_encoder(train, arguments.dimension)).evaluate(unseen, ks=(1,))
    print(f"{'untrained':<26}: Recall@1 {floor['recall_at_1']:.1%}, MAP@R {floor['map_at_r']:.1%}", flush=True)
    rows = [(loss, sampling) for loss in arguments.losses for sampling in arguments.sampling]
    for loss, sampling in rows:
        started = time.monotonic()
        runs = [train_and_judge(loss, sampling, train, unseen, arguments, seed) for seed in arguments.seeds]
        recall, precision = (np.array([figures[name] for figures, _ in runs]) for name in ("recall_at_1", "map_at_r"))
        boundary = f", boundary {np.mean([beta for _, beta in runs]):.2f}" if loss == "margin" else ""
        spread = f" ({precision.min():.1%} to {precision.max():.1%})" if len(runs) > 1 else ""
        print(
            f"{loss:>7}, {sampling:<17}: Recall@1 {recall.mean():.1%}, MAP@R {precision.mean():.1%}{spread}{boundary}"
            f"  [{time.monotonic() - started:.0f} s]",
            flush=True,
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="omniglot,rendered_catalogue", help="names of data sets; the first that can be had")
    parser.add_argument("--size", type=int, default=28, help="side of the images in pixels (%(default)s)")
    parser.add_argument("--dimension", type=int, default=64, help="length of the embedding (%(default)s)")
    parser.add_argument("--classes", type=int, default=16, help="classes in a batch, P (%(default)s)")
    parser.add_argument("--examples", type=int, default=4, help="images of each, K (%(default)s)")
    parser.add_argument("--beta", type=float, default=0.6, help="where the margin loss's boundary begins (%(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="training steps of each row (%(default)s)")
    parser.add_argument("--judge-classes", type=int, default=200, help="unseen classes to judge on; 0: all (%(default)s)")
    parser.add_argument("--losses", nargs="+", default=["triplet", "margin"], choices=["triplet", "margin"])
    parser.add_argument("--sampling", nargs="+", default=list(SAMPLING), choices=list(SAMPLING))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of batches and weights (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
