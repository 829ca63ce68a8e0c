"""DrLIM: images into the plane by a neighbourhood graph, without a label.

    python recipes/drlim.py                            # MNIST's 4 against 9 (TFDML_DATA or a download)
    python recipes/drlim.py --shifted                  # ... moved to the left and right, with two different graphs
    python recipes/drlim.py --data rendered_catalogue  # two kinds of products that are drawn here

Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006. All that is given is which
images are neighbours. A network learns to put neighbours close together, and everything else at least a margin apart; unlike
LLE and its like it is a function, and places images that it has never seen. And neighbours may be *said* to be ones: with each
image and its shifted copies declared neighbours, the map learns to ignore shifts, which pixels alone can not teach.

The labels are used for nothing but the colours and the figures at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

import tfdml

SHIFTS = [(0, -6), (0, -3), (0, 3), (0, 6)]  # (down, right) in pixels


def load_two_kinds(names: str, count: int):
    """Images `[N, 32, 32, 1]` of two kinds with their kind, 0 or 1: some to train on, and others."""
    data = tfdml.datasets.first_available(*names.split(","))
    if "category" in data.fields:  # products: of two families, each product for training or for the test alone
        data = data.where(category=sorted(set(data.fields["category"]))[:2])
        kinds = (np.array(data.fields["category"]) != data.fields["category"][0]).astype(int)
        testing = data.labels % 4 == 3
    else:
        data = data.subset(np.isin(np.array(data.class_names)[data.labels], ["4", "9"]))
        kinds, testing = data.labels, np.array(data.fields["split"]) == "test"
    data = data.with_preprocessing(tfdml.preprocessing.ImagePreprocessing(size=28, channels=1))
    images = np.pad(np.concatenate(list(data.batches(256).as_numpy_iterator())), ((0, 0), (2, 2), (2, 2), (0, 0)))
    rows = [np.flatnonzero((kinds == kind) & (testing == test))[:n] for test, n in ((0, count), (1, 1000)) for kind in (0, 1)]
    train, test = np.concatenate(rows[:2]), np.concatenate(rows[2:])
    return (images[train], kinds[train]), (images[test], kinds[test])


def fit_map(images: np.ndarray, graph: np.ndarray, arguments: argparse.Namespace) -> keras.Model:
    keras.utils.set_random_seed(arguments.seed)

    # 2. Pairs: neighbours from the graph (Y = 0), and any two others (Y = 1).
    sampler = tfdml.samplers.PairSampler(graph, len(images), arguments.pairs, similar=0.5, seed=arguments.seed)
    pixels = tf.constant(images)
    batches = sampler.dataset(lambda index: tf.gather(pixels, index), batched=True)

    # 3. Both images of a pair go through one network. Neighbours: 1/2 d^2; others: 1/2 [margin - d]_+^2.
    encoder = tfdml.models.drlim_encoder(images.shape[1:], dimension=2)
    model = tfdml.models.siamese(encoder)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, arguments.steps)
    model.compile(keras.optimizers.Adam(schedule), loss=tfdml.losses.ContrastiveLoss(margin=1.0, pairs="explicit"))
    model.fit(batches, steps_per_epoch=arguments.steps, shuffle=False, verbose=2)
    return encoder


def judge(name: str, train: np.ndarray, train_kinds: np.ndarray, test: np.ndarray, kinds: np.ndarray) -> None:
    """How well the images that were never trained on can be told apart by where they land."""
    index = tfdml.index.ExactIndex(train, ids=map(str, range(len(train))), metric="euclidean")
    votes = train_kinds[index.search(test, k=5).numbers].mean(axis=1) > 0.5
    precision = tfdml.evaluation.retrieval(test, kinds, metric="euclidean", ks=(1,)).r_precision
    print(f"{name:<28}: 5 nearest neighbours {(votes == kinds).mean():.1%} right, R-Precision {precision:.1%}")


def shift_ratio(name: str, encoder: keras.Model, images: np.ndarray) -> None:
    """How far an image lands from its own shifted copies, if any two images are 1 apart on average."""
    copies = tfdml.samplers.translated_copies(images, SHIFTS)
    points = encoder.predict(copies, verbose=0).reshape(len(SHIFTS) + 1, len(images), -1)
    to_own = np.linalg.norm(points[1:] - points[0], axis=-1).mean()
    others = points.reshape(-1, points.shape[-1])
    to_any = np.linalg.norm(others - np.random.default_rng(0).permutation(others), axis=-1).mean()
    print(f"{name:<28}: an image is {to_own / to_any:.3f} from its shifted copies, if any two are 1 apart")


def draw(points: np.ndarray, kinds: np.ndarray, images: np.ndarray, title: str, path: Path) -> None:
    """The paper's picture: every image a point, and some of them as they look."""
    figure, axes = plt.subplots(figsize=(9, 8), layout="constrained", facecolor="white")
    for kind, colour in enumerate(("tab:blue", "tab:red")):
        axes.scatter(*points[kinds == kind].T, s=5, color=colour, alpha=0.4, linewidths=0)
    shown: list[np.ndarray] = []
    apart = np.ptp(points, axis=0).max() / 16
    for number in np.random.default_rng(0).permutation(len(points)):
        if all(np.abs(points[number] - other).max() > apart for other in shown):
            shown.append(points[number])
            border = {"edgecolor": ("tab:blue", "tab:red")[kinds[number]], "linewidth": 1}
            thumbnail = OffsetImage(255 - images[number, ..., 0], zoom=0.85, cmap="gray")
            axes.add_artist(AnnotationBbox(thumbnail, points[number], pad=0.1, bboxprops=border))
    axes.set(title=title, aspect="equal")
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main() -> None:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (images, kinds), (test, test_kinds) = load_two_kinds(arguments.data, arguments.images)

    # 1. The graph: each image and its 5 nearest in pixels. No label is looked at.
    graph = tfdml.samplers.nearest_neighbours(images, k=5)
    if arguments.shifted:
        moved = tfdml.samplers.translated_copies(images, SHIFTS)
        pixels_only = tfdml.samplers.nearest_neighbours(moved, k=5)
        declared = tfdml.samplers.pairs_of_copies(graph, len(images), copies=len(SHIFTS))
        for name, pairs in {"neighbours in pixels": pixels_only, "shifts declared neighbours": declared}.items():
            encoder = fit_map(moved, pairs, arguments)
            shift_ratio(name, encoder, test)
            sample = tfdml.samplers.translated_copies(test, SHIFTS)
            path = arguments.out / f"drlim_{name.replace(' ', '_')}.png"
            draw(encoder.predict(sample, verbose=0), np.tile(test_kinds, len(SHIFTS) + 1), sample, f"Shifted: {name}", path)
        return

    encoder = fit_map(images, graph, arguments)
    raw, raw_test = (part.reshape(len(part), -1) / 255.0 for part in (images, test))
    axes = np.linalg.svd(raw - raw.mean(axis=0), full_matrices=False)[2][:2].T
    judge("raw pixels (1,024 numbers)", raw, kinds, raw_test, test_kinds)
    judge("PCA (2 numbers)", raw @ axes, kinds, raw_test @ axes, test_kinds)
    points = encoder.predict(test, verbose=0)
    judge("DrLIM (2 numbers)", encoder.predict(images, verbose=0), kinds, points, test_kinds)
    draw(
        points,
        test_kinds,
        test,
        "Images that were not trained on; colours are the labels it never saw",
        arguments.out / "drlim.png",
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist,rendered_catalogue", help="names of data sets; the first that can be had")
    parser.add_argument("--shifted", action="store_true", help="the second experiment: images and shifted copies of them")
    parser.add_argument("--images", type=int, default=1900, help="training images of each kind (%(default)s)")
    parser.add_argument("--pairs", type=int, default=128, help="pairs in a batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=2500, help="training steps (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("drlim"), help="folder for the pictures (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of pairs and weights (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
