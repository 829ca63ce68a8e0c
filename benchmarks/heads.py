"""Every head beside pytorch-metric-learning's: time of forward + backward, and memory, all on this machine, in one run.

    python benchmarks/heads.py                           # 10,000 classes, B = 128, 512, 1800
    python benchmarks/heads.py --batch 512 --head ArcFace ProxyAnchor --json out.json
    python benchmarks/heads.py --table benchmarks/results/heads.json

A step goes from embeddings and labels to the gradients by embeddings and by class weights. `_common.py` says how time and
memory are taken.
"""

from __future__ import annotations

from _common import DIMENSION, TFDML, TORCH, Comparison, graph_steps

HEADS = [
    "bare logits",
    "NormalizedSoftmax",
    "CosFace",
    "ArcFace",
    "ArcFace, 3 sub-centres",
    "ASoftmax",
    "ProxyAnchor",
    "ProxyNCA",
    "MarginHead, all pairs",
    "MarginHead, distance-weighted",
    "IdentificationVerification",
]
LIBRARIES = {TFDML: HEADS, TORCH: HEADS[:-1]}


def main() -> None:
    Comparison(__file__, "head", HEADS, LIBRARIES, step, classes=10_000).main(__doc__)


def step(library: str, name: str, batch: int, examples: int, classes: int):
    return (torch_step if library == TORCH else tensorflow_step)(name, classes, batch, examples)


def data(classes: int, batch: int, examples: int):
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, DIMENSION)).astype("float32")
    labels = rng.permutation(classes)[: -(-batch // examples)]
    return np.repeat(labels, examples)[:batch], x / np.linalg.norm(x, axis=1, keepdims=True)


def tensorflow_step(name: str, classes: int, batch: int, examples: int):
    import tensorflow as tf

    from tfdml import layers

    class BareLogits(layers.ClassifierHead):
        def logits_for(self, embeddings, weights, own):
            return tf.matmul(embeddings, tf.convert_to_tensor(weights), transpose_b=True)

    head = {
        HEADS[0]: lambda: BareLogits(classes),
        "NormalizedSoftmax": lambda: layers.NormalizedSoftmax(classes),
        "CosFace": lambda: layers.CosFace(classes),
        "ArcFace": lambda: layers.ArcFace(classes),
        "ArcFace, 3 sub-centres": lambda: layers.ArcFace(classes, sub_centers=3),
        "ASoftmax": lambda: layers.ASoftmax(classes, base=0.0, lambda_min=0.0),
        "ProxyAnchor": lambda: layers.ProxyAnchor(classes),
        "ProxyNCA": lambda: layers.ProxyNCA(classes),
        "MarginHead, all pairs": lambda: layers.MarginHead(classes, mining="all"),
        "MarginHead, distance-weighted": lambda: layers.MarginHead(classes),
        "IdentificationVerification": lambda: layers.IdentificationVerification(classes),
    }[name]()

    def gradients(labels, embeddings):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = tf.reduce_mean(head.per_anchor(embeddings, labels, training=True))
        return tape.gradient(value, [embeddings, *head.trainable_weights])

    head.build((None, DIMENSION))
    return graph_steps(gradients, data(classes, 4 * examples, examples), data(classes, batch, examples))


def torch_step(name: str, classes: int, batch: int, examples: int):
    import torch
    from pytorch_metric_learning import losses, miners

    class BareLogits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = torch.nn.Parameter(torch.randn(classes, DIMENSION))

        def forward(self, x, y):
            return torch.nn.functional.cross_entropy(x @ self.kernel.T, y)

    torch.manual_seed(0)
    weighted = miners.DistanceWeightedMiner()
    loss = {
        HEADS[0]: lambda: BareLogits(),
        "NormalizedSoftmax": lambda: losses.NormalizedSoftmaxLoss(classes, DIMENSION),
        "CosFace": lambda: losses.CosFaceLoss(classes, DIMENSION),
        "ArcFace": lambda: losses.ArcFaceLoss(classes, DIMENSION),
        "ArcFace, 3 sub-centres": lambda: losses.SubCenterArcFaceLoss(num_classes=classes, embedding_size=DIMENSION),
        "ASoftmax": lambda: losses.SphereFaceLoss(classes, DIMENSION),
        "ProxyAnchor": lambda: losses.ProxyAnchorLoss(classes, DIMENSION),
        "ProxyNCA": lambda: losses.ProxyNCALoss(classes, DIMENSION),
        "MarginHead, all pairs": lambda: losses.MarginLoss(learn_beta=True, num_classes=classes),
        "MarginHead, distance-weighted": lambda: losses.MarginLoss(learn_beta=True, num_classes=classes),
    }[name]()

    def run(labels, embeddings):
        x, y = torch.from_numpy(embeddings).requires_grad_(), torch.from_numpy(labels)
        loss.zero_grad(set_to_none=True)
        value = loss(x, y, weighted(x, y)) if name.endswith("distance-weighted") else loss(x, y)
        value.backward()
        return x.grad.numpy(), [parameter.grad.numpy() for parameter in loss.parameters()]

    y, x = data(classes, batch, examples)
    small_y, small_x = data(classes, 4 * examples, examples)
    return lambda: run(small_y, small_x), lambda: run(y, x)


if __name__ == "__main__":
    main()
