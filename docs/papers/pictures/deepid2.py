"""Draws docs/papers/deepid2.svg: python docs/papers/pictures/deepid2.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfdml.evaluation import JointBayesian
from tfdml.layers import IdentificationVerification


def main() -> None:
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.9), facecolor="white", layout="constrained")
    margin = threshold(axes[1])
    signal(axes[0], margin)
    decision(axes[2])
    figure.savefig(Path(__file__).resolve().parents[1] / "deepid2.svg", metadata={"Date": None})


def signal(axis, margin: float) -> None:
    """Verif of one pair, over its distance: the head's value without that of its softmax."""
    distances = np.linspace(0, 4, 200)
    head = IdentificationVerification(2, weight=1.0, pairs="consecutive", margin=margin, reset_every=0)
    head.build((None, 1))
    head.kernel.assign(np.zeros((1, 2)))
    for labels, name, colour in (([0, 0], "same class", "tab:blue"), ([0, 1], "different classes", "tab:orange")):
        values = []
        for distance in distances:
            value = tf.reduce_mean(head(tf.constant([[0.0], [distance]], tf.float32), tf.constant(labels)))
            values.append(2 * (float(value) - np.log(2)))
        axis.plot(distances, values, color=colour, label=name, linewidth=2)
    axis.axvline(margin, color="0.4", linestyle=":", linewidth=1)
    axis.text(margin + 0.06, 3.3, "m", style="italic")
    axis.set(title="verification signal (L2)", xlabel="distance of the pair", ylabel="loss", xlim=(0, 4), ylim=(0, 3.6))
    axis.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.35))


def threshold(axis) -> float:
    """The head sees pairs in training, and sets its margin between them."""
    random = np.random.default_rng(0)
    labels = np.arange(240) // 4
    features = random.normal(size=(60, 3))[labels] + 0.35 * random.normal(size=(240, 3))
    head = IdentificationVerification(60, reset_every=1, window=240 * 240)
    head(tf.constant(features, tf.float32), tf.constant(labels), training=True)
    margin = float(head.margin)
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    same, upper = labels[:, None] == labels, np.triu(np.ones(distances.shape, bool), 1)
    edges = np.linspace(0, 4, 41)
    for pairs, colour in ((same & upper, "tab:blue"), (~same & upper, "tab:orange")):
        axis.hist(distances[pairs], edges, density=True, color=colour, alpha=0.6)
    axis.axvline(margin, color="black", linestyle="--", linewidth=1)
    axis.text(margin + 0.08, 1.25, "m: the threshold that\nerrs least on the\nlatest pairs", va="top")
    axis.set(title="where the margin comes from", xlabel="distance of the pair", ylabel="density", xlim=(0, 4), ylim=(0, 1.4))
    return margin


def decision(axis) -> None:
    """Which points are taken for the class of one: by distance, and by Joint Bayesian."""
    random = np.random.default_rng(1)
    labels = np.arange(3000) // 12
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    classes = random.normal(size=(250, 2)) * 1.6
    points = classes[labels] + (random.normal(size=(3000, 2)) * [1.0, 0.25]) @ turn.T
    bayesian = JointBayesian().fit(points, labels)
    for shown, colour in ((22, "tab:blue"), (7, "tab:orange"), (32, "tab:green")):
        axis.plot(*points[labels == shown].T, "o", color=colour, markersize=5)
    one = points[labels == 22].mean(axis=0)
    grid = np.stack(np.meshgrid(np.linspace(-5, 5, 300), np.linspace(-4, 4, 240)), axis=2)
    scores = bayesian.pairwise(grid.reshape(-1, 2), one[None])[:, 0].reshape(240, 300)
    axis.contour(grid[..., 0], grid[..., 1], scores, [0.0], colors="black", linewidths=2)
    area = float((scores > 0).mean()) * 80
    axis.add_patch(plt.Circle(one, np.sqrt(area / np.pi), fill=False, color="0.5", linestyle="--"))
    axis.plot(*one, "k+", markersize=10)
    axis.plot([], [], color="black", linewidth=2, label="Joint Bayesian")
    axis.plot([], [], color="0.5", linestyle="--", label="distance")
    axis.set(
        title="taken for the class of +", xlim=(-5, 5), ylim=(-4, 4), xlabel="feature 1", ylabel="feature 2", aspect="equal"
    )
    axis.legend(frameon=False, loc="lower right", fontsize=9)


if __name__ == "__main__":
    main()
