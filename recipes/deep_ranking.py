"""Deep Ranking: similarity finer than classes, from triplets drawn by relevance, with a network of several scales.

    python recipes/deep_ranking.py                            # grocery photographs (TFDML_DATA or a download)
    python recipes/deep_ranking.py --data rendered_catalogue  # products that are drawn here

Wang et al., "Learning Fine-grained Image Similarity with Deep Ranking", CVPR 2014. For visual search it is not enough that a
milk carton finds milk: it should find its own brand first. So there are two grades here: a photograph of the same product is
more relevant than one of the same category, and that more than any other. Triplets (query, positive, negative) are drawn by
relevance, and a network that sees the image as a whole and in detail learns to order them.

Whole categories are kept out of training. On them, similarity precision is the share of triplets in the right order, and
score-at-top-30 how many more are right than wrong among those that concern the 30 nearest images.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

import tfdml


def split_by_category(data, seed: int):
    """Two data sets without a common category."""
    categories = np.array(data.fields["category"])
    names = np.random.default_rng(seed).permutation(sorted(set(categories)))
    held_out = np.isin(categories, names[: len(names) // 2])
    return data.subset(~held_out), data.subset(held_out)


def graded_triplets(data, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Triplets whose order the labels tell, `[count, 3]`, and which of them stay within one category.

    Half of them do: the positive is of the query's product, and the negative is not. In the others the positive is of the
    query's category, and the negative is not.
    """

    def grade(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return 1.0 + (data.labels[first][:, None] == data.labels[second])

    sampler = tfdml.samplers.RelevanceTripletSampler(data.fields["category"], grade, count, 0.5, relevance_gap=1.0)
    triplets, categories = sampler.batch_at(0)
    return triplets, categories[:, 0] == categories[:, 2]


def make_encoder(scales: str, size: int, dimension: int) -> keras.Model:
    """One path that sees the image as it is, or that and two shallow ones that see it small."""
    convnet = tfdml.models.conv_encoder((size, size, 3), dimension=128)
    if scales == "single":
        output = tfdml.layers.L2Normalization()(keras.layers.Dense(dimension)(convnet.output))
        return keras.Model(convnet.input, output)
    return tfdml.models.deep_ranking_encoder((size, size, 3), dimension, convnet=convnet, width=1 / 4, dropout=0.0)


def main() -> None:
    arguments = parse_arguments()
    data = tfdml.datasets.first_available(*arguments.data.split(","), image_size=arguments.size)
    data.summary()
    train, unseen = (part.in_memory() for part in split_by_category(data, arguments.seed))
    pool = np.sort(np.random.default_rng(0).permutation(len(unseen))[: arguments.pool])
    unseen = unseen.subset(pool)
    triplets, fine = graded_triplets(unseen, arguments.triplets)
    results = {}

    def judge(name: str, embeddings: np.ndarray) -> None:
        found = results[name] = tfdml.evaluation.similarity(embeddings, triplets, k=30)
        print(
            f"{name:<26}: similarity precision {found.precision:.1%} (within a category {found.correct[fine].mean():.1%}), "
            f"score-at-top-30 {found.score:+,d}",
            flush=True,
        )

    judge("raw pixels", tfdml.evaluation.raw_pixels(unseen, size=(16, 16)))
    judge("colour histogram", tfdml.samplers.colour_histograms(unseen))

    # 1. Relevance: half of it is being the same product, the other half looking alike, here by colours.
    relevance = tfdml.samplers.GradedRelevance(train.labels, tfdml.samplers.colour_histograms(train), class_weight=0.5)

    # 2. Triplets by relevance: one in five has its negative from another category, the others from the query's own.
    sampler = tfdml.samplers.RelevanceTripletSampler(
        train.fields["category"], relevance, arguments.batch, out_of_class=0.2, relevance_gap=0.2, seed=arguments.seed
    )
    augment = tfdml.augmentation.RandomCropFlip(arguments.size, arguments.size, light=0.1)
    larger = tfdml.preprocessing.ImagePreprocessing(size=arguments.size, resize=arguments.size * 9 // 8).uncropped()
    batches = sampler.dataset(train.with_preprocessing(larger).in_memory().load, augment)

    # 3. [gap + D(query, positive) - D(query, negative)]_+ with squared distances of embeddings of length 1.
    for scales in ("single", "multi"):
        keras.utils.set_random_seed(arguments.seed)
        encoder = make_encoder(scales, arguments.size, arguments.dimension)
        if scales == "multi":
            judge("several scales, untrained", encoder.predict(unseen.batches(), verbose=0))
        model = tfdml.models.siamese(encoder, images=3)
        schedule = keras.optimizers.schedules.CosineDecay(1e-3, arguments.steps)
        loss = tfdml.losses.TripletLoss(margin=arguments.gap, mining="explicit", distance="squared_euclidean")
        model.compile(keras.optimizers.Adam(schedule), loss=loss)
        model.fit(batches, steps_per_epoch=arguments.steps, shuffle=False, verbose=2)
        name = "one scale, trained" if scales == "single" else "several scales, trained"
        judge(name, encoder.predict(unseen.batches(), verbose=0))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="grocery_store,rendered_catalogue", help="data sets; the first that can be had")
    parser.add_argument("--size", type=int, default=48, help="side of the images in pixels (%(default)s)")
    parser.add_argument("--dimension", type=int, default=64, help="length of the embedding (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="triplets in a batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="training steps of each network (%(default)s)")
    parser.add_argument("--gap", type=float, default=0.5, help="the gap of the loss (%(default)s)")
    parser.add_argument("--pool", type=int, default=1000, help="unseen images to judge on (%(default)s)")
    parser.add_argument("--triplets", type=int, default=5000, help="triplets to judge by (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of split, triplets and weights (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
