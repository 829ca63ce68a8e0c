"""Draws docs/papers/daml.svg: what the generator does with the negatives it is given, and how lambda_1 sets how far it goes."""

from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tfdml

RED, BLUE, GREEN, GREY = "#c0392b", "#1f5fa8", "#2e8b57", "#7f7f7f"
ANCHOR, POSITIVE = np.array([0.0, 0.0], np.float32), np.array([0.45, 0.25], np.float32)


def trained(negatives: np.ndarray, regular: float) -> np.ndarray:
    """Synthetic negatives of a generator that has minimised J_hard + regular * J_reg on these triplets."""
    keras.utils.set_random_seed(0)
    generator = tfdml.layers.HardNegativeGenerator(units=(64, 64))
    anchors, positives = np.tile(ANCHOR, (len(negatives), 1)), np.tile(POSITIVE, (len(negatives), 1))
    optimizer = keras.optimizers.Adam(3e-3)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            made = generator(anchors, positives, negatives)
            squares = tf.reduce_sum(tf.square(made - anchors), 1) + regular * tf.reduce_sum(tf.square(made - negatives), 1)
            loss = tf.reduce_mean(squares)
        weights = generator.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    generator(anchors, positives, negatives)
    optimizer.build(generator.trainable_weights)
    for _ in range(300):
        step()
    return generator(anchors, positives, negatives).numpy()


def main() -> None:
    rng = np.random.default_rng(2)
    angles = np.linspace(0.3, 2 * np.pi + 0.3, 9, endpoint=False)
    negatives = (rng.uniform(1.2, 2.0, 9)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.float32)
    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "tfdml", "figure.facecolor": "white", "axes.spines.top": False})
    figure, (plane, curve) = plt.subplots(1, 2, figsize=(9, 4.2), width_ratios=(1.15, 1))

    for regular, colour in ((10.0, BLUE), (1.0, GREEN)):
        made = trained(negatives, regular)
        for start, end in zip(negatives, made, strict=True):
            plane.annotate("", end, start, arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.8, "alpha": 0.6})
        label = rf"synthetic, $\lambda_1$ = {regular:g}"
        plane.scatter(*made.T, color=colour, marker="D", s=26, label=label, zorder=3)
    plane.scatter(*negatives.T, color=RED, marker="X", s=46, label="real negative $x^-$", zorder=3)
    plane.scatter(*ANCHOR, color="black", s=60, label="anchor $x$", zorder=4)
    plane.scatter(*POSITIVE, facecolor="white", edgecolor="black", s=60, label="positive $x^+$", zorder=4)
    plane.set(aspect="equal", xticks=[], yticks=[], xlim=(-2.2, 2.2), ylim=(-2.1, 2.1), title="Feature space")
    plane.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, frameon=False, fontsize=9)
    plane.spines[:].set_visible(False)

    weights = np.geomspace(0.1, 100, 200)
    curve.plot(weights, weights / (1 + weights), color="black", label=r"optimum, $\lambda_1 / (1 + \lambda_1)$")
    for regular, colour in ((0.3, GREY), (1.0, GREEN), (3.0, GREY), (10.0, BLUE), (30.0, GREY)):
        made = trained(negatives, regular)
        share = np.mean(np.linalg.norm(made - ANCHOR, axis=1) / np.linalg.norm(negatives - ANCHOR, axis=1))
        curve.scatter(regular, share, color=colour, marker="D", s=36, zorder=3)
    curve.set(
        xscale="log", ylim=(0, 1.05), xlabel=r"$\lambda_1$, the weight of $J_{reg}$", ylabel=r"$|\tilde x - x|\ /\ |x^- - x|$"
    )
    curve.set_title("How far a synthetic negative stays away")
    curve.spines["right"].set_visible(False)
    curve.legend(loc="lower right", frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(Path(__file__).resolve().parent.parent / "daml.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
