"""What can be had without deep learning: raw pixels, PCA, LDA, NCA and Isomap beside a trained embedding, on unseen classes.

    python recipes/shallow_baselines.py                      # grocery photographs (TFDML_DATA or a download)
    python recipes/shallow_baselines.py --data photos/       # your own: one folder of images for each class
    python recipes/shallow_baselines.py --steps 0            # without the network: scikit-learn only

Everything is fitted on one half of the classes and judged on the other. PCA, LDA and NCA are linear maps, and Isomap places a
new image by its neighbours among those it was fitted on, so all of them can embed an image that they have not seen. MDS and
t-SNE cannot: they move points around, not images into points, so a new image means a new layout. The last lines measure how
far the old points move when a few images join.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import keras
import numpy as np
from scipy.spatial import procrustes
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.manifold import MDS, TSNE, Isomap
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline

import tfdml

DATA = "folder, .csv file or name of a data set; of several, the first that can be had (%(default)s)"


def shallow_methods(options: argparse.Namespace, classes: int) -> dict[str, object]:
    """scikit-learn estimators with `fit(pixels, labels)` and `transform(pixels)`."""
    dimension = options.dimension
    # LDA and NCA on thousands of pixels would fit the noise of a few thousand images: PCA goes first.
    before = {"n_components": options.components, "whiten": True, "random_state": options.seed}
    return {
        "PCA": PCA(dimension, random_state=options.seed),
        "LDA": make_pipeline(PCA(**before), LinearDiscriminantAnalysis(n_components=min(dimension, classes - 1))),
        "NCA": make_pipeline(
            PCA(**before),
            NeighborhoodComponentsAnalysis(
                dimension, init="lda" if dimension < classes else "pca", max_iter=30, random_state=options.seed
            ),
        ),
        "Isomap": Isomap(n_neighbors=10, n_components=dimension),
    }


def train_embedding(train: tfdml.datasets.Dataset, options: argparse.Namespace) -> tfdml.EmbeddingModel:
    """The small network of the demo, for fewer steps."""
    size = options.size
    encoder = tfdml.models.conv_encoder((size, size, 3), dimension=options.dimension)
    model = tfdml.EmbeddingModel(encoder)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, options.steps)
    model.compile(keras.optimizers.Adam(schedule), loss=tfdml.losses.TripletLoss(margin=0.2, mining="semi_hard"))
    classes = min(16, train.num_classes)
    sampler = tfdml.samplers.PKSampler(train.labels, classes=classes, examples=4, seed=options.seed)
    augment = tfdml.augmentation.RandomCropFlip(size, size, light=0.1)
    larger = tfdml.preprocessing.ImagePreprocessing((size + size // 8,) * 2)
    batches = sampler.dataset(train.with_preprocessing(larger).in_memory().load, augment=augment)
    model.fit(batches, steps_per_epoch=options.steps, epochs=1, shuffle=False, verbose=0)
    return model


def layout_moves(layout: Callable[[], object], pixels: np.ndarray, joining: int) -> float:
    """How far old points move when `joining` images join, turned and scaled to fit best: a share of the layout's own spread."""
    old = len(pixels) - joining
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = layout().fit_transform(pixels[:old])
        after = layout().fit_transform(pixels)[:old]
    # Both are scaled to a spread of 1, so the disparity is the share of it that no rotation explains.
    return float(np.sqrt(procrustes(before, after)[2]))


def main() -> None:
    options = parse_arguments()
    keras.utils.set_random_seed(options.seed)
    data = tfdml.datasets.first_available(*options.data.split(","), image_size=options.size)
    train, unseen = (part.in_memory() for part in data.split_by_class(test=0.5, seed=options.seed))
    print(f"{data.name}: fitted on {len(train):,} images of {train.num_classes} classes, judged on {len(unseen):,} of others")
    pixels = {
        name: tfdml.evaluation.raw_pixels(part, (options.pixels,) * 2) for name, part in (("train", train), ("test", unseen))
    }

    def judge(name: str, embeddings: np.ndarray, seconds: float) -> None:
        found = tfdml.evaluation.retrieval(embeddings, unseen.labels)
        figures = f"Recall@1 {found.recall_at[1]:6.1%}, R-Precision {found.r_precision:6.1%}, MAP@R {found.map_at_r:6.1%}"
        print(f"{name:<18} {embeddings.shape[1]:>5} numbers: {figures}  ({seconds:.0f} s)", flush=True)

    judge("raw pixels", pixels["test"], 0)
    for name, method in shallow_methods(options, train.num_classes).items():
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            method.fit(pixels["train"], train.labels)
        judge(name, np.asarray(method.transform(pixels["test"])), time.monotonic() - started)
    if options.steps:
        started = time.monotonic()
        model = train_embedding(train, options)
        judge("trained embedding", tfdml.evaluation.of_models.embed(model, unseen), time.monotonic() - started)

    joining = options.layout // 10
    chosen = np.random.default_rng(options.seed).choice(len(unseen), min(options.layout, len(unseen)), replace=False)
    layouts = {
        "MDS": lambda: MDS(2, n_init=1, random_state=options.seed),
        "t-SNE": lambda: TSNE(2, perplexity=min(30, options.layout // 4), random_state=options.seed),
    }
    for name, layout in layouts.items():
        moved = layout_moves(layout, pixels["test"][chosen], joining)
        can = "can" if hasattr(layout(), "transform") else "cannot"
        print(f"{name} {can} embed an unseen image; when {joining} images join, old points move by {moved:.0%} of the spread")
    pca = layout_moves(lambda: PCA(2), pixels["test"][chosen], joining)
    print(f"PCA can, and refitted with them its points move by {pca:.0%}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="grocery_store,rendered_catalogue", help=DATA)
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels (%(default)s)")
    parser.add_argument("--pixels", type=int, default=32, help="side that the shallow methods see (%(default)s)")
    parser.add_argument("--dimension", type=int, default=32, help="length of an embedding (%(default)s)")
    parser.add_argument("--components", type=int, default=100, help="of the PCA before LDA and NCA (%(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="training steps of the network; 0 for none (%(default)s)")
    parser.add_argument("--layout", type=int, default=400, help="images that MDS and t-SNE lay out (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of split, fits and weights (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
