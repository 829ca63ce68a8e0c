"""Draws docs/papers/batch_hard.svg: which distances of a batch count, the soft margin, and the schedule."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import tfdml

RED, BLUE, GREY = "#d62728", "#1f77b4", "#999999"


def main() -> None:
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 10})
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.5), layout="constrained")
    draw_batch(left)
    draw_margins(middle)
    draw_schedule(right)
    for axes in (middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(Path(__file__).parents[1] / "batch_hard.svg", metadata={"Date": None})
    plt.close(figure)


def draw_batch(axes: plt.Axes) -> None:
    """The distance matrix of a batch, P = 4, K = 3, and what each row's anchor takes from it."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(4), 3)
    points = rng.normal(size=(4, 2))[labels] * 1.6 + 0.7 * rng.normal(size=(12, 2))
    distances = tfdml.distances.pairwise_distances(points.astype(np.float32)).numpy()
    axes.imshow(distances, cmap="Greys", vmin=-1, vmax=distances.max() * 1.6)
    same = labels[:, None] == labels
    positives = np.where(same & ~np.eye(12, dtype=bool), distances, -np.inf).argmax(1)
    negatives = np.where(same, np.inf, distances).argmin(1)
    rows = np.arange(12)
    options = {"s": 75, "linewidths": 1.8, "facecolors": "none", "marker": "s"}
    axes.scatter(positives, rows, edgecolors=BLUE, label="farthest positive", **options)
    axes.scatter(negatives, rows, edgecolors=RED, label="nearest negative", **options)
    for edge in (2.5, 5.5, 8.5):
        axes.axhline(edge, color="white", linewidth=1.5)
        axes.axvline(edge, color="white", linewidth=1.5)
    axes.set(xticks=[], yticks=[], ylabel="anchors", xlabel="distances in a batch, P = 4, K = 3 (dark: far)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, handletextpad=0.2, columnspacing=1)


def draw_margins(axes: plt.Axes) -> None:
    gap = np.linspace(-3, 3, 301)
    axes.plot(gap, np.maximum(gap + 0.5, 0), color=GREY, label="hinge, m = 0.5")
    axes.plot(gap, np.logaddexp(0, gap), color=RED, label="soft margin, ln(1 + e^x)")
    axes.plot(0, np.log(2), "o", color=RED)
    axes.annotate("collapse: all distances 0,\nloss ln 2 = 0.69", (0, np.log(2)), (-2.8, 1.75), arrowprops={"arrowstyle": "-"})
    axes.set(xlabel="x = d(farthest positive) - d(nearest negative)", ylabel="loss of an anchor", ylim=(-0.1, 3.6))
    axes.legend(frameon=False, loc="upper left")


def draw_schedule(axes: plt.Axes) -> None:
    rate = tfdml.schedules.HoldThenDecay(1e-3)
    steps = np.arange(0, 28_001, 250)
    axes.semilogy(steps, [float(rate(step)) for step in steps], color=RED)
    axes.axvline(15_000, color=GREY, linewidth=0.8, linestyle="--")
    axes.text(14_500, 2e-6, "beta_1 0.9", ha="right")
    axes.text(15_500, 2e-6, "0.5")
    axes.set(xlabel="training step", ylabel="learning rate", xticks=[0, 15_000, 25_000], ylim=(5e-7, 3e-3))


if __name__ == "__main__":
    main()
