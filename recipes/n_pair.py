"""N-pair: each anchor against its positive and one negative of every other class in the batch, and which classes those are.

    python recipes/n_pair.py                            # Omniglot (TFDML_DATA or a download)
    python recipes/n_pair.py --data rendered_catalogue  # products that are drawn here
    python recipes/n_pair.py --seeds 0 1 2              # mean and spread

Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016. A triplet compares a positive with one
negative at a time, and is content once that one is far enough. The N-pair loss sets it against all N - 1 other classes of the
batch in one softmax (mc), or one by one (ovo); 2 N images give N tuplets. With many classes, most of any batch are easy:
hard negative class mining fills it with classes that are confused with each other. Everything else is the same in all rows.
"""

from __future__ import annotations

import argparse
import time

import keras
import numpy as np

import tfdml

ROWS = {
    "triplet": "triplet, random negatives",
    "triplet-nm": "triplet, mined classes",
    "ovo": "N-pair-ovo",
    "mc": "N-pair-mc",
    "mc-nm": "N-pair-mc, mined classes",
}


def train_and_judge(row: str, train, unseen, arguments: argparse.Namespace, seed: int) -> dict[str, float]:
    keras.utils.set_random_seed(seed)

    # 1. Batches of N classes with two images each, an anchor and its positive: any classes, or mined ones.
    candidates = min(arguments.candidates, train.num_classes) if row.endswith("-nm") else None
    sampler = tfdml.samplers.NPairSampler(train.labels, arguments.classes, candidates, seed=seed)

    # 2. N-pair embeddings are not normalised; a penalty keeps them short. Triplets need them on the unit sphere, or a
    #    penalty of their own.
    triplet = row.startswith("triplet")
    if triplet:
        loss = tfdml.losses.TripletLoss(margin=0.2, mining="random", distance="squared_euclidean")
    else:
        loss = tfdml.losses.NPairLoss(row.removesuffix("-nm"), l2=0.02)
    size, _, channels = train.preprocessing.shape
    encoder = tfdml.models.conv_encoder((size, size, channels), (64,) * 4, arguments.dimension, pooling="flatten")
    model = tfdml.EmbeddingModel(encoder, normalize=triplet)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, arguments.steps)
    model.compile(keras.optimizers.Adam(schedule), loss=loss)

    # 3. While it trains, now and then two images of each of many classes are embedded: that tells which are confused.
    mining = [tfdml.samplers.HardClassMining(sampler, train.load, every=arguments.every)] if candidates else []
    model.fit(sampler.dataset(train.load), steps_per_epoch=arguments.steps, shuffle=False, verbose=0, callbacks=mining)

    # 4. Retrieval on classes that were never trained on, every image a query against all others.
    return model.evaluate(unseen, ks=(1,), metric="cosine")


def main() -> None:
    arguments = parse_arguments()
    data = tfdml.datasets.first_available(*arguments.data.split(","), image_size=arguments.size)
    data.summary()
    train, unseen = data.split_by_class(test=0.5, seed=0)
    if arguments.judge_classes and arguments.judge_classes < unseen.num_classes:
        unseen = unseen.split_by_class(test=arguments.judge_classes, seed=0)[1]
    train, unseen = train.in_memory(), unseen.in_memory()

    for row in arguments.rows:
        started = time.monotonic()
        runs = [train_and_judge(row, train, unseen, arguments, seed) for seed in arguments.seeds]
        recall, precision = (np.array([run[name] for run in runs]) for name in ("recall_at_1", "map_at_r"))
        spread = f" ({precision.min():.1%} to {precision.max():.1%})" if len(runs) > 1 else ""
        print(
            f"{ROWS[row]:<25}: Recall@1 {recall.mean():.1%}, MAP@R {precision.mean():.1%}{spread}"
            f"  [{time.monotonic() - started:.0f} s]",
            flush=True,
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="omniglot,rendered_catalogue", help="names of data sets; the first that can be had")
    parser.add_argument("--size", type=int, default=28, help="side of the images in pixels (%(default)s)")
    parser.add_argument("--dimension", type=int, default=64, help="length of the embedding (%(default)s)")
    parser.add_argument("--classes", type=int, default=48, help="classes in a batch, N (%(default)s)")
    parser.add_argument("--candidates", type=int, default=400, help="classes that are mined from (%(default)s)")
    parser.add_argument("--every", type=int, default=50, help="steps between two looks at the classes (%(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="training steps of each row (%(default)s)")
    parser.add_argument("--judge-classes", type=int, default=200, help="unseen classes to judge on; 0: all (%(default)s)")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of batches and weights (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
