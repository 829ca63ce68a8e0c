"""Draws docs/papers/deep_ranking.svg: python docs/papers/pictures/deep_ranking.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from tfdml.samplers import RelevanceTripletSampler

ITEMS, GAP = 40, 0.2


def drawn(relevance: np.ndarray, cap: float) -> np.ndarray:
    """Triplets of one query, item 0, in a category of which only it has a total relevance."""
    matrix = np.zeros((ITEMS + 1, ITEMS + 1))
    matrix[0, :ITEMS] = relevance
    sampler = RelevanceTripletSampler([0] * ITEMS + [1], matrix, 20_000, 0.0, cap, GAP)
    return sampler.batch_at(0)[0]


def main() -> None:
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), facecolor="white", layout="constrained")
    ranks = np.arange(ITEMS)
    relevance = 0.95 * np.exp(-ranks / 12.0)
    relevance[1:4] = [3.0, 2.6, 2.2]  # near-duplicates of the query

    axes[0].bar(ranks[1:], relevance[1:], color="0.6")
    axes[0].axhline(0.8, color="tab:blue", linestyle=":", linewidth=1.2)
    axes[0].text(39, 0.86, "cap T_p", color="tab:blue", ha="right")
    axes[0].text(5, 2.5, "near-duplicates", color="0.4")
    axes[0].set(title="relevance to the query", xlabel="images of its category, by relevance", xlim=(0, ITEMS))

    for cap, colour, name in ((np.inf, "0.55", "without a cap"), (0.8, "tab:blue", "capped at 0.8")):
        triplets = drawn(relevance, cap)
        counts = np.bincount(triplets[:, 1], minlength=ITEMS) / len(triplets)
        axes[1].step(ranks, counts, where="mid", color=colour, label=f"positive, {name}")
    counts = np.bincount(triplets[:, 2], minlength=ITEMS) / len(triplets)
    axes[1].step(ranks, counts, where="mid", color="tab:red", label="in-class negative, capped")
    axes[1].set(title="how often each is drawn", xlabel="images of its category, by relevance", ylabel="share", xlim=(0, ITEMS))
    axes[1].legend(frameon=False, loc="upper right")

    some = triplets[:500]
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, (2, len(some)))
    axes[2].scatter(some[:, 1] + jitter[0], some[:, 2] + jitter[1], s=5, color="tab:red", alpha=0.6, linewidths=0)
    border = [int(np.argmax(relevance[p] - relevance >= GAP)) for p in ranks[1:] if relevance[p] - relevance[-1] >= GAP]
    axes[2].step(ranks[1 : len(border) + 1], np.array(border) - 0.5, where="mid", color="0.3", linewidth=1.2)
    axes[2].text(15, 6, "gap T_r not reached:\nnever drawn", color="0.3")
    axes[2].set(title="in-class triplets", xlabel="positive", ylabel="negative", xlim=(0, ITEMS), ylim=(0, ITEMS))
    figure.savefig(Path(__file__).resolve().parents[1] / "deep_ranking.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
