"""DeepID2: who is it, and are these two the same? Both questions train one network; Joint Bayesian answers the second.

    python recipes/deepid2.py                          # handwritten characters (TFDML_DATA or a download)
    python recipes/deepid2.py --data my_faces/ --size 64
    python recipes/deepid2.py --weight 0.05 --seed 1

Y. Sun, Y. Chen, X. Wang, X. Tang, Deep Learning Face Representation by Joint Identification-Verification, NIPS 2014.

The paper's claims: a softmax over many identities (identification) makes the features of different people differ, but leaves
those of one person spread out; a contrastive signal on pairs (verification), weighted by a lambda of 0.05, draws them together,
and both together verify unseen people better than either. And on such features a Joint Bayesian model decides better than
their distance. Here two networks that begin alike see the same batches, with lambda 0 and 0.05.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

import tfdml
from tfdml.evaluation import JointBayesian, verification, verification_pairs


def main() -> None:
    arguments = parse_arguments()

    # 1. Three sets of classes, as in the paper: to train the network, to fit Joint Bayesian, and to test. Features of classes
    #    that the network was trained on are tidier than those of others, and would mislead Joint Bayesian.
    data = tfdml.datasets.first_available(*arguments.data.split(","), image_size=arguments.size)
    data.summary()
    if "alphabet" in data.fields:
        known, unseen = data.where(split="background"), data.where(split="evaluation")  # Omniglot's own split: other alphabets
    else:
        known, unseen = data.split_by_class(test=0.4, seed=arguments.seed)
    train, held_out = known.split_by_class(test=0.3, seed=arguments.seed)
    train, held_out, unseen = (part.in_memory() for part in (train, held_out, unseen))
    print(f"classes: {train.num_classes} train the network, {held_out.num_classes} Joint Bayesian; {unseen.num_classes} unseen")

    # 2. Batches with pairs of both kinds in them.
    sampler = tfdml.samplers.PKSampler(train.labels, arguments.classes, arguments.examples, seed=arguments.seed)

    # 3. LFW's protocol on the unseen classes: as many pairs of one class as of two, in ten folds that share no class.
    if unseen.num_classes < 8:
        raise SystemExit(f"{unseen.num_classes} classes are kept to judge on: expected at least 8, two folds of four.")
    few = min(unseen.num_classes // 4, 10)
    available = int((unseen.class_counts * (unseen.class_counts - 1) // 2).sum())
    count = min(3000, available // 2 // few * few)
    pairs = verification_pairs(unseen.labels, count, count, folds=few, seed=arguments.seed)

    # 4. lambda = 0 is identification alone.
    accuracies = {}
    for weight in (0.0, arguments.weight):
        keras.utils.set_random_seed(arguments.seed)
        model, head = fitted(weight, train, sampler, arguments)
        held_out_features, features = model.embed(held_out), model.embed(unseen)
        print(f"\nlambda = {weight:g}: margin {float(head.margin):.2f}, {scatter(features, unseen.labels)}")

        # 5. Accuracy by the distance of the features, and by PCA and Joint Bayesian.
        components = min(arguments.components, len(held_out) - held_out.num_classes, np.linalg.matrix_rank(held_out_features))
        bayesian = JointBayesian(components).fit(held_out_features, held_out.labels)
        for name, metric in {"L2 distance": "euclidean", "Joint Bayesian": bayesian}.items():
            found = verification(features, pairs=pairs, metric=metric)
            accuracies[weight, name] = found.accuracy.mean
            print(f"  {name:<15} accuracy {found.accuracy}, EER {found.eer:.2%}")

    # 6. The two claims, one beside the other.
    for name in ("L2 distance", "Joint Bayesian"):
        gain = accuracies[arguments.weight, name] - accuracies[0.0, name]
        print(f"joint minus identification alone, {name}: {100 * gain:+.1f} points of accuracy")
    for weight in (0.0, arguments.weight):
        gain = accuracies[weight, "Joint Bayesian"] - accuracies[weight, "L2 distance"]
        print(f"Joint Bayesian minus L2 distance, lambda = {weight:g}: {100 * gain:+.1f} points of accuracy")


def fitted(weight: float, train: tfdml.datasets.Dataset, sampler: tfdml.samplers.PKSampler, arguments: argparse.Namespace):
    """The paper's network, 160 numbers for an image, under both signals. Lengths count: nothing is normalised."""
    height, width, channels = train.preprocessing.shape
    encoder = tfdml.models.deepid2_encoder((height, width, channels))
    head = tfdml.layers.IdentificationVerification(train.num_classes, weight=weight)
    model = tfdml.EmbeddingModel(encoder, normalize=False, preprocessing=train.preprocessing, head=head)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, arguments.steps)))
    epochs = min(4, arguments.steps)
    model.fit(
        sampler.dataset(train.load),
        steps_per_epoch=arguments.steps // epochs,
        epochs=epochs,
        shuffle=False,  # the sampler has shuffled already
        verbose=2,
    )
    return model, head


def scatter(features: np.ndarray, labels: np.ndarray) -> str:
    """How far features lie from the mean of their class, and these means from that of all; verification shrinks the first."""
    sizes = np.bincount(labels)
    means = np.stack([np.bincount(labels, column) for column in features.T], axis=1) / sizes[:, None]
    within = np.mean(np.sum((features - means[labels]) ** 2, axis=1))
    between = np.mean(np.sum((means[labels] - features.mean(axis=0)) ** 2, axis=1))
    return f"scatter within classes {within:.2f}, between them {between:.2f}, ratio {within / between:.2f}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="omniglot,rendered_catalogue", help="data set, folder or .csv file (%(default)s)")
    parser.add_argument("--size", type=int, default=47, help="side of the images in pixels, at least 39 (%(default)s)")
    parser.add_argument("--weight", type=float, default=0.05, help="lambda, of the verification signal (%(default)s)")
    parser.add_argument("--classes", type=int, default=32, help="classes in a batch (%(default)s)")
    parser.add_argument("--examples", type=int, default=4, help="images of each of them (%(default)s)")
    parser.add_argument("--components", type=int, default=100, help="principal components for Joint Bayesian (%(default)s)")
    parser.add_argument("--steps", type=int, default=1200, help="training steps of each network (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of split, batches and weights (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
