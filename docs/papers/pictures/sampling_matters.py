"""Draws docs/papers/sampling_matters.svg: python docs/papers/pictures/sampling_matters.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from tfdml.mining import DistanceWeighted

DIMENSIONS = (4, 16, 64, 256)


def main() -> None:
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), facecolor="white", layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(DIMENSIONS)))

    distances = np.linspace(0.01, 1.99, 400)
    for dimension, colour in zip(DIMENSIONS, colours, strict=True):
        density = (dimension - 2) * np.log(distances) + (dimension - 3) / 2 * np.log(1 - distances**2 / 4)
        density = np.exp(density - density.max())
        axes[0].plot(distances, density / density.sum() / (distances[1] - distances[0]), color=colour, label=f"D = {dimension}")
    axes[0].set(title="q(d): distances of random points", xlabel="distance d", ylabel="density", xlim=(0, 2), ylim=(0, None))
    axes[0].legend(frameon=False, loc="upper left")

    # One anchor, and a negative at every distance: the chances themselves, relative to the nearest negative's.
    row = np.concatenate([[0.0], distances])
    matrix, labels = np.tile(row, (len(row), 1)), np.arange(len(row))
    for dimension, colour in zip(DIMENSIONS, colours, strict=True):
        chances = DistanceWeighted(lower=0.5, upper=1.4).probabilities(matrix, labels, dimension)[0].numpy()[1:]
        drawn = chances > 0
        axes[1].semilogy(distances[drawn], chances[drawn] / chances[0], color=colour)
    for cut in (0.5, 1.4):
        axes[1].axvline(cut, color="0.6", linestyle=":", linewidth=1)
    axes[1].text(0.47, 2e-8, "lower", rotation=90, ha="right", color="0.4")
    axes[1].text(1.43, 2e-8, "upper", rotation=90, ha="left", color="0.4")
    axes[1].set(title="weight of a negative, 1 / q(d)", xlabel="distance d", ylim=(1e-9, 4), xlim=(0, 2))

    rng = np.random.default_rng(0)
    points = rng.normal(size=(1200, 8))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    all_distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    labels = np.arange(len(points))
    chances = DistanceWeighted(lower=0.5, upper=1.4).probabilities(all_distances, labels, 8).numpy()
    uniform = (1.0 - np.eye(len(points))) / (len(points) - 1)
    edges = np.linspace(0, 2, 41)
    for name, weights, colour in (("random", uniform, "tab:orange"), ("distance weighted", chances, "tab:blue")):
        axes[2].hist(all_distances.ravel(), edges, weights=weights.ravel() / len(points), color=colour, alpha=0.6, label=name)
    axes[2].set(title="negatives that are drawn (D = 8)", xlabel="distance to the anchor", ylabel="share", xlim=(0, 2))
    axes[2].legend(frameon=False, loc="upper left")
    figure.savefig(Path(__file__).resolve().parents[1] / "sampling_matters.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
