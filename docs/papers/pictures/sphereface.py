"""Draws docs/papers/sphereface.svg: psi for every m, and how much of it annealing lets through."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tfdml
from tfdml.layers.a_softmax import psi

COLOURS = ("#333333", "#1f77b4", "#2ca02c", "#d62728")


def main() -> None:
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 10})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    degrees = np.linspace(0, 180, 721)
    cosines = tf.cos(tf.constant(np.deg2rad(degrees)))
    for m, colour in zip((1, 2, 3, 4), COLOURS, strict=True):
        left.plot(degrees, psi(cosines, m), color=colour, label=f"m = {m}" + (" (cosine)" if m == 1 else ""))
    effective = (5 * cosines + psi(cosines, 4)) / 6
    left.plot(degrees, effective, color=COLOURS[3], linestyle="--", label="m = 4, lambda = 5")
    left.set(xlabel="angle to the own class (degrees)", ylabel="in place of the cosine", xticks=range(0, 181, 45))
    left.legend(frameon=False)

    head = tfdml.layers.ASoftmax(2, margin=4)
    head.build((None, 2))
    steps = np.unique(np.geomspace(1, 28_000, 200).astype(int))
    lambdas = []
    for step in steps:
        head.step.assign(step)
        lambdas.append(float(head.current_lambda()))
    right.loglog(steps, lambdas, color=COLOURS[3])
    right.axvline(1659, color="#999999", linewidth=0.8)
    right.text(1500, 3, "5 from step 1,659 on", ha="right")
    right.set(xlabel="training step", ylabel="lambda, the weight of the plain cosine", ylim=(2, 2000))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(Path(__file__).parents[1] / "sphereface.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
