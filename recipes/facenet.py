"""FaceNet: are these two of one class? An embedding learned from triplets with semi-hard negatives, judged by verification.

    python recipes/facenet.py                          # handwritten characters (TFDML_DATA or a download)
    python recipes/facenet.py --data my_faces/         # one folder of pictures for each person
    python recipes/facenet.py --steps 1000 --examples 40 --classes 36 --negatives 360      # the paper's batches

F. Schroff, D. Kalenichenko, J. Philbin, FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR 2015.

The paper's claim is that *which* negatives a triplet has decides: random ones are soon easy and teach nothing, the hardest lead
to a collapse, semi-hard ones (farther than the positive, but within the margin) do well. Here two networks that begin alike see
the same batches, one with random negatives, one with semi-hard ones, and are judged on classes that were never trained on.
"""

from __future__ import annotations

import argparse

import keras

import tfdml
from tfdml.evaluation import EmbeddingMonitor, verification, verification_pairs


def main() -> None:
    arguments = parse_arguments()

    # 1. Images of many classes with few images each, as faces are. The classes of the unseen side are never trained on.
    data = tfdml.datasets.first_available(*arguments.data.split(","), image_size=arguments.size)
    data.summary()
    if "alphabet" in data.fields:
        train, unseen = data.where(split="background"), data.where(split="evaluation")  # Omniglot's own split: other alphabets
    else:
        train, unseen = data.split_by_class(test=0.5, seed=arguments.seed)
    train, unseen = train.in_memory(), unseen.in_memory()
    if unseen.num_classes < 8:
        raise SystemExit(f"{unseen.num_classes} classes are kept to judge on: expected at least 8, two folds of four.")

    # 2. Large batches: some classes with many images each, so that there are many positive pairs, and others as negatives. In
    #    a large batch a semi-hard negative is truly semi-hard: the nearest of hundreds that is farther than the positive.
    sampler = tfdml.samplers.FaceNetSampler(
        train.labels, arguments.classes, arguments.examples, arguments.negatives, seed=arguments.seed
    )
    print(sampler)

    # 3. The same network twice. Embeddings lie on a sphere of radius 1, distances are squared, the margin is 0.2.
    models = {}
    for mining in ("random", "semi_hard"):
        keras.utils.set_random_seed(arguments.seed)
        models[mining] = fitted(mining, train, sampler, arguments)
    keras.utils.set_random_seed(arguments.seed)
    models["untrained"] = make_model(train)

    # 4. VAL@FAR=1e-3: the share of pairs of one class that are accepted where one of a thousand pairs of two classes is. The
    #    threshold comes from nine folds of classes, the figure from the tenth, ten times. LFW's accuracy: 3,000 pairs of one
    #    class and 3,000 of two, in ten folds, the threshold again from the other nine.
    few = min(unseen.num_classes // 4, 10)
    available = int((unseen.class_counts * (unseen.class_counts - 1) // 2).sum())
    count = min(3000, available // 2 // few * few)
    pairs = verification_pairs(unseen.labels, count, count, folds=few, seed=arguments.seed)
    print(f"\n{len(unseen):,} images of {unseen.num_classes} unseen classes; {pairs}")
    figures = {}
    for name, model in models.items():
        embeddings = model.embed(unseen)
        every = verification(embeddings, unseen.labels, folds=few, metric="squared_euclidean", fars=(arguments.far,))
        listed = verification(embeddings, pairs=pairs, metric="squared_euclidean")
        figures[name] = every.val_at_far[arguments.far].mean
        print(
            f"{name:>9}: VAL@FAR={arguments.far:g} {every.val_at_far[arguments.far]}, "
            f"accuracy {listed.accuracy} (accepted if d^2 <= {listed.accuracy_thresholds.mean():.3f})"
        )
    gain = figures["semi_hard"] - figures["random"]
    print(f"semi-hard minus random negatives: {100 * gain:+.1f} points of VAL@FAR={arguments.far:g}")


def make_model(train: tfdml.datasets.Dataset) -> tfdml.EmbeddingModel:
    """128 numbers for an image, as in the paper, from a small network."""
    height, width, channels = train.preprocessing.shape
    filters = (64, 64, 64, 64) if height < 64 else (32, 64, 128, 128)
    pooling = "flatten" if height < 64 else "average"
    encoder = tfdml.models.conv_encoder((height, width, channels), filters, dimension=128, pooling=pooling)
    return tfdml.EmbeddingModel(encoder, preprocessing=train.preprocessing)


def fitted(mining: str, train: tfdml.datasets.Dataset, sampler: tfdml.samplers.FaceNetSampler, arguments: argparse.Namespace):
    model = make_model(train)
    loss = tfdml.losses.TripletLoss(margin=0.2, mining=mining, distance="squared_euclidean")
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, arguments.steps)), loss=loss)
    # How many of all triplets still have a loss: with few left, random ones are mostly easy.
    monitor = EmbeddingMonitor(train, margin=0.2, distance="squared_euclidean")
    epochs = min(5, arguments.steps)
    model.fit(
        sampler.dataset(train.load),
        steps_per_epoch=arguments.steps // epochs,
        epochs=epochs,
        shuffle=False,  # the sampler has shuffled already
        callbacks=[monitor],
        verbose=0,
    )
    for figures in monitor.history:
        print(f"{mining:>9}: after {figures['step']:4d} steps {figures['active_triplets']:.2%} of all triplets are active")
    return model


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="omniglot,rendered_catalogue", help="data set, folder or .csv file (%(default)s)")
    parser.add_argument("--size", type=int, default=28, help="side of the images in pixels (%(default)s)")
    parser.add_argument("--classes", type=int, default=24, help="classes with many images in a batch (%(default)s)")
    parser.add_argument("--examples", type=int, default=20, help="images of each of them, at most (%(default)s)")
    parser.add_argument("--negatives", type=int, default=120, help="further images in a batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="training steps of each network (%(default)s)")
    parser.add_argument("--far", type=float, default=1e-3, help="false accept rate (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of split, batches and weights (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
