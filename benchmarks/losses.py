"""Every loss beside its peers: time of forward + backward and peak extra memory, all on this machine, in one run.

    python benchmarks/losses.py                          # B = 128, 512, 1800
    python benchmarks/losses.py --batch 512 --loss circle n-pair --json out.json
    python benchmarks/losses.py --batch 4096 --no-peers
    python benchmarks/losses.py --table benchmarks/results/losses.json

The peers run in environments of their own, found beside this repository's root: TF Addons and TF Similarity in .venv-keras2,
pytorch-metric-learning in .venv-peers. `_common.py` says how time and memory are taken. "memory of 10,000" is a step with a
full cross-batch memory, storing the batch included: ours is the loss of the batch and that with the memory,
pytorch-metric-learning's has the second part only.
"""

from __future__ import annotations

from _common import ADDONS, DIMENSION, SIMILARITY, TFDML, TORCH, Comparison, graph_steps

BARE = "bare distance matrix"
LOSSES = [
    BARE,
    "semi-hard",
    "hard",
    "all",
    "contrastive",
    "n-pair",
    "lifted",
    "lifted generalized",
    "margin, distance-weighted",
    "multi-similarity",
    "circle",
    "nt-xent",
    "sup-con",
    "random",
    "contrastive, hinge",
    "margin, semi-hard",
    "contrastive, memory of 10,000",
    "semi-hard, memory of 10,000",
]
MEMORY = 10_000
LIBRARIES = {
    TFDML: LOSSES,
    ADDONS: ["semi-hard", "hard", "n-pair", "lifted"],
    SIMILARITY: ["hard", "multi-similarity"],
    TORCH: [loss for loss in LOSSES if loss != "random"],
}
# What a peer cannot do: TF Addons' semi-hard and lifted hold B^3 numbers; pytorch-metric-learning's batch all lists all
# triplets, and its lifted and NT-Xent hold all positive pairs times all negative pairs.
TOO_LARGE = {
    (ADDONS, "semi-hard"): 512,
    (ADDONS, "lifted"): 512,
    (TORCH, "all"): 512,
    (TORCH, "lifted"): 128,
    (TORCH, "nt-xent"): 128,
}
# N-pair batches have two examples of each class, whatever the others have.
EXAMPLES = {"n-pair": 2}


def main() -> None:
    Comparison(__file__, "loss", LOSSES, LIBRARIES, step, examples=EXAMPLES, too_large=TOO_LARGE).main(__doc__)


def step(library: str, name: str, batch: int, examples: int, classes: int):
    make = torch_step if library == TORCH else tensorflow_step
    return make(library, name, batch, examples)


def data(batch: int, examples: int):
    import numpy as np

    x = np.random.default_rng(0).standard_normal((batch, DIMENSION)).astype("float32")
    return np.arange(batch) // examples, x / np.linalg.norm(x, axis=1, keepdims=True)


def tensorflow_step(library: str, name: str, batch: int, examples: int):
    import tensorflow as tf

    loss = {TFDML: tfdml_loss, ADDONS: addons_loss, SIMILARITY: similarity_loss}[library](name)

    def gradient(labels, embeddings):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss(labels, embeddings)
        return tape.gradient(value, embeddings)

    return graph_steps(gradient, data(4 * examples, examples), data(batch, examples))


def tfdml_loss(name: str):
    import tensorflow as tf

    from tfdml import losses
    from tfdml.distances import pairwise_distances

    return {
        BARE: lambda labels, x: tf.reduce_sum(pairwise_distances(x)),
        "semi-hard": losses.TripletLoss(0.2, "semi_hard"),
        "hard": losses.TripletLoss(0.2, "hard"),
        "all": losses.TripletLoss(0.2, "all"),
        "contrastive": losses.ContrastiveLoss(),
        # As the peers have it: they leave the penalty to the user.
        "n-pair": losses.NPairLoss(l2=0.0),
        "lifted": losses.LiftedStructureLoss(1.0),
        "lifted generalized": losses.LiftedStructureLoss(1.0, "generalized"),
        "margin, distance-weighted": losses.MarginLoss(0.2, 1.2),
        "multi-similarity": losses.MultiSimilarityLoss(),
        "circle": losses.CircleLoss(),
        "nt-xent": losses.NTXentLoss(0.1),
        "sup-con": losses.SupConLoss(0.1),
        "random": losses.TripletLoss(0.2, "random"),
        "contrastive, hinge": losses.ContrastiveLoss(1.0, form="hinge", average="balanced"),
        "margin, semi-hard": losses.MarginLoss(0.2, 1.2, "semi_hard"),
        "contrastive, memory of 10,000": with_memory(losses.ContrastiveLoss()),
        "semi-hard, memory of 10,000": with_memory(losses.TripletLoss(0.2, "semi_hard")),
    }[name]


def with_memory(loss):
    """The step of a full cross-batch memory, whose items are four to a class."""
    import tensorflow as tf

    from tfdml.layers import CrossBatchMemory

    memory = CrossBatchMemory(loss, MEMORY)
    memory.build((None, DIMENSION))
    labels, embeddings = data(MEMORY, 4)
    memory.push(tf.constant(embeddings), tf.constant(labels))
    return lambda labels, x: memory(x, labels, training=True)


def addons_loss(name: str):
    import tensorflow as tf
    import tensorflow_addons as tfa

    n_pairs = tfa.losses.NpairsLoss()
    return {
        "semi-hard": tfa.losses.TripletSemiHardLoss(0.2),
        "hard": tfa.losses.TripletHardLoss(0.2),
        "n-pair": lambda labels, x: n_pairs(labels[::2], tf.matmul(x[::2], x[1::2], transpose_b=True)),
        "lifted": tfa.losses.LiftedStructLoss(1.0),
    }[name]


def similarity_loss(name: str):
    import tensorflow_similarity.losses as tfsim

    return {
        "hard": lambda: tfsim.TripletLoss("euclidean", negative_mining_strategy="hard", margin=0.2),
        "multi-similarity": lambda: tfsim.MultiSimilarityLoss(beta=50.0),
    }[name]()


def torch_step(library: str, name: str, batch: int, examples: int):
    import torch
    from pytorch_metric_learning import losses, miners

    triplet, multi_similarity, margin = losses.TripletMarginLoss(0.2), losses.MultiSimilarityLoss(), losses.MarginLoss()
    semi_hard, hard = miners.TripletMarginMiner(0.2, "semihard"), miners.BatchHardMiner()
    if "memory" in name:
        inner, miner = (triplet, semi_hard) if name.startswith("semi-hard") else (losses.ContrastiveLoss(), None)
        memory = losses.CrossBatchMemory(inner, DIMENSION, MEMORY, miner)
        kept_labels, kept = data(MEMORY, 4)
        memory.add_to_memory(torch.from_numpy(kept), torch.from_numpy(kept_labels), MEMORY)
    similar, weighted = miners.MultiSimilarityMiner(0.1), miners.DistanceWeightedMiner()
    loss = {
        BARE: lambda x, y: torch.cdist(x, x).sum(),
        "semi-hard": lambda x, y: triplet(x, y, semi_hard(x, y)),
        "hard": lambda x, y: triplet(x, y, hard(x, y)),
        "all": triplet,
        "contrastive": losses.ContrastiveLoss(),
        "n-pair": losses.NPairsLoss(),
        "lifted": losses.LiftedStructureLoss(),
        "lifted generalized": losses.GeneralizedLiftedStructureLoss(),
        "margin, distance-weighted": lambda x, y: margin(x, y, weighted(x, y)),
        "multi-similarity": lambda x, y: multi_similarity(x, y, similar(x, y)),
        "circle": losses.CircleLoss(),
        "nt-xent": losses.NTXentLoss(0.1),
        "sup-con": losses.SupConLoss(0.1),
        "contrastive, hinge": losses.ContrastiveLoss(),
        "margin, semi-hard": lambda x, y: margin(x, y, semi_hard(x, y)),
        **({name: memory} if "memory" in name else {}),
    }[name]

    def run(labels, embeddings):
        x = torch.from_numpy(embeddings).requires_grad_()
        loss(x, torch.from_numpy(labels)).backward()
        return x.grad.numpy()

    y, x = data(batch, examples)
    small_y, small_x = data(4 * examples, examples)
    return lambda: run(small_y, small_x), lambda: run(y, x)


if __name__ == "__main__":
    main()
