"""SphereFace: an angular margin between the classes of a softmax, judged on classes that it has never seen.

    python recipes/sphereface.py                             # grocery photographs (TFDML_DATA or a download)
    python recipes/sphereface.py --depth 20 --width 0.5      # a network nearer to the paper's
    python recipes/sphereface.py --margins 1 2 3 4           # every margin of the paper's table

Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017. The paper tells faces apart; here it is
products, and, as there, none of the test was trained on. Its claim: with weights of length 1, a softmax learns angles, and when
an embedding must be m times as close to its own class, unseen classes are told apart better: m = 4 better than m = 1.
"""

from __future__ import annotations

import argparse

import keras

import tfdml
from tfdml.augmentation import RandomCropFlip
from tfdml.evaluation import retrieval, verification, verification_pairs
from tfdml.models import with_views
from tfdml.preprocessing import ImagePreprocessing


def main() -> None:
    arguments = parse_arguments()

    # 1. Photographs. Training crops them at random and mirrors half of them; the test takes their centres.
    size = arguments.size
    preprocessing = ImagePreprocessing(size=size, resize=size * 9 // 8)
    data = tfdml.datasets.first_available(*arguments.data.split(","), image_size=size * 9 // 8)
    data.summary()
    train, test = data.split_by_class(test=0.5, seed=arguments.seed)
    train = train.in_memory()

    # 2. The paper's network: residual units, PReLU, no batch normalisation; here with fewer and narrower layers.
    # 3. Its head. Each class has a direction; logits are |x| cos(angle), and |x| psi(angle) for the embedding's own class,
    #    where psi falls m times as fast as the cosine. Training cannot begin like that, so lambda, the weight of the plain
    #    cosine, falls from 1000 to 5: here in two fifths of the steps, in the paper in 1,659 of 28,000.
    models = {margin: train_with(margin, train, preprocessing, arguments) for margin in arguments.margins}

    # 4. Judged by the angle between features of two photographs: are they of one product (as on LFW: ten folds, a tenth's
    #    threshold from the other nine), and which are nearest? The feature is that of an image, or that of the image and that
    #    of its mirror image, one behind the other.
    test = test.with_preprocessing(preprocessing).in_memory()
    pairs = verification_pairs(test.labels, arguments.pairs, arguments.pairs, arguments.folds, seed=arguments.seed)
    print(f"\n{len(test):,} photographs of {test.num_classes} products never trained on    verified    Recall@1     MAP@R")
    untrained = make_model(None, preprocessing, arguments)
    judge("untrained network", untrained, test, pairs)
    for margin, model in models.items():
        judge(f"m = {margin}", model, test, pairs)
        judge(f"m = {margin}, image and mirror image", with_views(model, "none", combine="concatenate"), test, pairs)


def make_model(
    head: tfdml.layers.Head | None, preprocessing: ImagePreprocessing, arguments: argparse.Namespace
) -> tfdml.EmbeddingModel:
    keras.utils.set_random_seed(arguments.seed)
    shape = (arguments.size, arguments.size, 3)
    encoder = tfdml.models.sphereface_encoder(arguments.depth, shape, dimension=128, width=arguments.width)
    # The lengths of embeddings are part of the loss, so they are not normalised.
    return tfdml.EmbeddingModel(encoder, normalize=False, preprocessing=preprocessing, head=head)


def train_with(
    margin: int, train: tfdml.datasets.Dataset, preprocessing: ImagePreprocessing, arguments: argparse.Namespace
) -> tfdml.EmbeddingModel:
    # lambda = 1000 / (1 + gamma t) is 5 at gamma t = 199.
    gamma = 199 / (0.4 * arguments.steps)
    head = tfdml.layers.ASoftmax(train.num_classes, margin=margin, base=1000, gamma=gamma, lambda_min=5)
    model = make_model(head, preprocessing, arguments)
    # The rate falls to a tenth at 16/28 and again at 24/28 of the steps, as in the paper.
    drops = [arguments.steps * 16 // 28, arguments.steps * 24 // 28]
    rate = keras.optimizers.schedules.PiecewiseConstantDecay(drops, [1e-3, 1e-4, 1e-5])
    model.compile(keras.optimizers.Adam(rate))
    sampler = tfdml.samplers.PKSampler(train.labels, arguments.classes, examples=2, seed=arguments.seed)
    batches = sampler.dataset(train.load, augment=RandomCropFlip(arguments.size, arguments.size))
    epochs = min(4, arguments.steps)
    history = model.fit(batches, steps_per_epoch=arguments.steps // epochs, epochs=epochs, shuffle=False, verbose=0)
    losses = ", ".join(f"{loss:.3f}" for loss in history.history["loss"])
    print(f"m = {margin}: loss {losses}; lambda ends at {float(head.current_lambda()):.1f}", flush=True)
    return model


def judge(
    name: str, model: tfdml.EmbeddingModel, test: tfdml.datasets.Dataset, pairs: tfdml.evaluation.VerificationPairs
) -> None:
    embeddings = model.embed(test)
    verified = verification(embeddings, pairs=pairs, metric="cosine").accuracy
    found = retrieval(embeddings, test.labels, metric="cosine", ks=(1,)).as_dict()
    figures = f"{verified.mean:6.1%} ± {verified.standard_error:.1%}    {found['recall_at_1']:6.1%}    {found['map_at_r']:6.1%}"
    print(f"{name:<48}{figures}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="grocery_store,rendered_catalogue", help="the first that can be had (%(default)s)")
    parser.add_argument("--margins", type=int, nargs="+", default=[1, 4], help="m of each training (%(default)s)")
    parser.add_argument("--depth", type=int, default=10, help="convolutions: 4, 10, 20, 36 or 64 (%(default)s)")
    parser.add_argument("--width", type=float, default=0.25, help="times the paper's number of maps (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of the crops in pixels (%(default)s)")
    parser.add_argument("--classes", type=int, default=32, help="products in a batch, two photographs of each (%(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of each network (%(default)s)")
    parser.add_argument("--pairs", type=int, default=3000, help="positive, and negative, pairs to verify (%(default)s)")
    parser.add_argument("--folds", type=int, default=10, help="of these pairs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of split, batches, weights and pairs (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
