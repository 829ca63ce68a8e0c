"""Draws docs/papers/facenet.svg: python docs/papers/pictures/facenet.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from tfdml.evaluation import verification
from tfdml.losses import TripletLoss

MARGIN, POSITIVE = 0.2, 0.6


def main() -> None:
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), facecolor="white", layout="constrained")
    triplet(axes[0])
    threshold(axes[1])
    figure.savefig(Path(__file__).resolve().parents[1] / "facenet.svg", metadata={"Date": None})


def triplet(axis) -> None:
    """The loss of one triplet on the circle, the negative moving away from the anchor."""
    squares = np.linspace(0.02, 1.4, 200)
    loss = TripletLoss(MARGIN, mining="hard", distance="squared_euclidean", reduction=None)
    values = []
    for square in squares:
        points = [(1.0, 0.0)]
        for d2, side in ((POSITIVE, 1), (square, -1)):
            angle = side * 2 * np.arcsin(np.sqrt(d2) / 2)
            points.append((np.cos(angle), np.sin(angle)))
        values.append(float(loss.per_anchor(np.array([0, 0, 1]), np.array(points, np.float32))[0]) * 2 / 3)
    top = 0.85
    zones = [
        (0, POSITIVE, "hard", "tab:red"),
        (POSITIVE, POSITIVE + MARGIN, "semi-hard", "tab:green"),
        (0.8, 1.2, "easy", "0.6"),
    ]
    for left, right, name, colour in zones:
        axis.axvspan(left, right, color=colour, alpha=0.15, linewidth=0)
        axis.text(
            (left + right) / 2,
            top - 0.07,
            name,
            ha="center",
            fontsize=10,
            color=colour if name != "easy" else "0.4",
            weight="bold",
        )
    axis.plot(squares, values, color="black", linewidth=2)
    axis.axvline(POSITIVE, color="0.4", linestyle=":", linewidth=1)
    axis.annotate("the positive", (POSITIVE, 0.62), (0.28, 0.68), arrowprops={"arrowstyle": "->", "color": "0.4"}, color="0.3")
    axis.set(title="the loss of a triplet", xlabel="squared distance of the negative to the anchor", ylabel="loss")
    axis.set(xlim=(0, 1.2), ylim=(0, top))


def threshold(axis) -> None:
    """Distances of positive and of negative pairs, and what a threshold accepts."""
    random = np.random.default_rng(0)
    labels = np.arange(1200) // 6
    points = random.normal(size=(200, 16))[labels] + 0.6 * random.normal(size=(1200, 16))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    found = verification(points, labels, metric="squared_euclidean", fars=(1e-2,))
    d2 = 2 - 2 * points @ points.T
    same, upper = labels[:, None] == labels, np.triu(np.ones(d2.shape, bool), 1)
    edges = np.linspace(0, 4, 81)
    limit = found.thresholds[1e-2]
    for pairs, name, colour in ((same & upper, "same class", "tab:blue"), (~same & upper, "different classes", "tab:orange")):
        heights, _ = np.histogram(d2[pairs], edges, density=True)
        middle = (edges[1:] + edges[:-1]) / 2
        axis.plot(middle, heights, color=colour, label=name)
        axis.fill_between(middle, heights, where=middle <= limit, color=colour, alpha=0.35, linewidth=0)
    axis.axvline(limit, color="black", linestyle="--", linewidth=1)
    axis.annotate(f"accepted: {found.tar_at_far[1e-2]:.0%}", (0.35, 0.8), (1.6, 1.15), color="tab:blue")
    axis.text(1.6, 1.0, "wrongly accepted: 1%", color="tab:orange")
    axis.text(limit + 0.06, 0.9, "d", style="italic")
    axis.set(title="VAL at a given FAR", xlabel="squared distance of a pair", ylabel="density", xlim=(0, 4), ylim=(0, None))
    axis.legend(frameon=False, loc="upper right")


if __name__ == "__main__":
    main()
