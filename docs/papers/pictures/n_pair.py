"""Draws docs/papers/n_pair.svg: python docs/papers/pictures/n_pair.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfdml.losses import NPairLoss
from tfdml.samplers import NPairSampler

NEGATIVES = np.array([1.0, 0.0, -0.5, -1.0, -1.5, -2.0, -2.5, -3.0])
"""Dot products of one anchor with the positives of other classes, less that with its own."""


def weights(variant: str) -> np.ndarray:
    """How strongly each negative is pushed: the slope of the first anchor's loss by its dot products."""
    count = len(NEGATIVES) + 1
    anchors = np.zeros((count, count))
    anchors[0, 0] = 1.0
    positives = np.eye(count)
    positives[1:, 0] = NEGATIVES
    positives[0, 0] = 0.0
    x = tf.Variable(np.stack([anchors, positives], axis=1).reshape(2 * count, count))
    with tf.GradientTape() as tape:
        # The values are divided by the number of anchors, of two items each.
        value = NPairLoss(variant, l2=0.0).call(np.repeat(np.arange(count), 2), x)[0] / 2
    return tape.gradient(value, x).numpy()[3::2, 0]


def violations(candidates: int | None) -> np.ndarray:
    """Largest violation of the triplet constraint by another class of the batch, for every class of some batches."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(400, 16)) * 0.6
    labels = np.repeat(np.arange(400), 2)
    vectors = centres[labels] + 0.3 * rng.normal(size=(800, 16))
    sampler = NPairSampler(labels, classes=24, candidates=candidates)
    if candidates:
        sampler.refresh(lambda indices: vectors[indices], step=0)
    found = []
    for step in range(16, 36):
        pairs = vectors[sampler.batch_at(step)[0]].reshape(24, 2, 16)
        logits = pairs[:, 0] @ pairs[:, 1].T
        own = np.diag(logits).copy()
        np.fill_diagonal(logits, -np.inf)
        found.append(logits.max(axis=1) - own)
    return np.concatenate(found)


def main() -> None:
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), facecolor="white", layout="constrained")

    gap = np.linspace(-6, 3, 200)
    for negatives, colour in ((1, "0.6"), (7, "tab:cyan"), (59, "tab:blue")):
        axes[0].plot(gap, np.log1p(negatives * np.exp(gap)), color=colour, label=f"{negatives} negative{'s' * (negatives > 1)}")
    axes[0].plot(gap, np.maximum(gap + 1, 0), color="tab:red", linestyle="--", label="triplet, margin 1")
    axes[0].set(title="loss of an anchor", xlabel="f·n - f·p, all negatives alike", xlim=(-6, 3), ylim=(0, 7))
    axes[0].legend(frameon=False, loc="upper left")

    places = np.arange(len(NEGATIVES))
    for offset, variant, colour in ((-0.2, "mc", "tab:blue"), (0.2, "ovo", "tab:orange")):
        axes[1].bar(places + offset, weights(variant), 0.4, color=colour, label=f"N-pair-{variant}")
    axes[1].set(title="push on each of 8 negatives", xlabel="f·n - f·p", ylabel="slope")
    axes[1].set_xticks(places, [f"{value:g}" for value in NEGATIVES])
    axes[1].legend(frameon=False)

    edges = np.linspace(-9, 4, 40)
    for candidates, name, colour in ((None, "any classes", "0.6"), (400, "mined classes", "tab:red")):
        axes[2].hist(violations(candidates), edges, color=colour, alpha=0.6, label=name, density=True)
    axes[2].axvline(0, color="0.4", linestyle=":", linewidth=1)
    axes[2].set(title="hardest class in a batch of 24", xlabel="max f·n - f·p", ylabel="density", xlim=(-9, 4))
    axes[2].legend(frameon=False, loc="upper left")
    figure.savefig(Path(__file__).resolve().parents[1] / "n_pair.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
