"""Draws docs/papers/drlim.svg: python docs/papers/pictures/drlim.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfdml.losses import ContrastiveLoss
from tfdml.samplers import nearest_neighbours, pairs_of_copies

MARGIN = 1.0


def values_and_pull(distances: np.ndarray, dissimilar: int) -> tuple[np.ndarray, np.ndarray]:
    """The loss of a pair at each distance, and its slope."""
    loss = ContrastiveLoss(MARGIN, pairs="explicit")
    d = tf.constant(distances, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(d)
        pairs = tf.stack([tf.zeros_like(d), d], axis=1)[:, :, None]
        values = loss.call(tf.fill([len(distances)], dissimilar), pairs)
        total = tf.reduce_sum(values)
    return values.numpy(), tape.gradient(total, d).numpy()


def main() -> None:
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), facecolor="white", layout="constrained")

    distances = np.linspace(0.001, 1.5, 300)
    for dissimilar, name, colour in ((0, "similar", "tab:blue"), (1, "dissimilar", "tab:red")):
        value, slope = values_and_pull(distances, dissimilar)
        axes[0].plot(distances, value, color=colour, label=name)
        axes[1].plot(distances, slope, color=colour)
    for part in axes[:2]:
        part.axvline(MARGIN, color="0.6", linestyle=":", linewidth=1)
        part.set(xlabel="distance d", xlim=(0, 1.5))
    axes[0].set(title="loss of a pair", ylim=(0, 1.1))
    axes[0].legend(frameon=False, loc="upper left")
    axes[0].text(MARGIN + 0.02, 0.06, "margin", color="0.4")
    axes[1].axhline(0, color="0.8", linewidth=1, zorder=0)
    axes[1].set(title="its slope: the springs", ylim=(-1.1, 1.6))
    axes[1].text(0.55, 0.75, "pulls", color="tab:blue")
    axes[1].text(0.55, -0.75, "pushes, up to the margin", color="tab:red")

    points = np.random.default_rng(4).normal(size=(9, 2)) * [1.0, 0.8]
    graph = nearest_neighbours(points, k=2)
    places = np.concatenate([points, points + np.array([7.5, 0.0])])
    for i, j in pairs_of_copies(graph, len(points), copies=1):
        across = (i < len(points)) != (j < len(points))
        same = j - i == len(points)
        style = {"color": "tab:green", "linewidth": 1.6} if same else {"color": "0.75" if across else "0.3", "linewidth": 0.8}
        axes[2].plot(*places[[i, j]].T, zorder=2 if same else 1, alpha=0.5 if across and not same else 1.0, **style)
    axes[2].scatter(*places.T, s=28, color=["tab:blue"] * 9 + ["tab:orange"] * 9, zorder=3)
    lowest = points[:, 1].min() - 0.45
    axes[2].text(points[:, 0].mean(), lowest, "images", ha="center", color="tab:blue")
    axes[2].text(points[:, 0].mean() + 7.5, lowest, "shifted copies", ha="center", color="tab:orange")
    axes[2].set(title="the graph says what is similar", ylim=(lowest - 0.1, None))
    axes[2].axis("off")
    figure.savefig(Path(__file__).resolve().parents[1] / "drlim.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
