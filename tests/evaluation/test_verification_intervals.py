"""Intervals of verification figures: the draws against plain loops over repeated classes, and what they must cover."""

from __future__ import annotations

import evaluation_oracles as oracles
import numpy as np
import pytest

from tfdml.evaluation import verification, verification_intervals
from tfdml.evaluation._bootstrap import draws
from tfdml.evaluation._comparison import comparison
from tfdml.evaluation.pairs import ItemPairs
from tfdml.evaluation.verification_intervals import _figures


def embedded(seed=0, classes=30, size=5, spread=0.8):
    random = np.random.default_rng(seed)
    labels = np.arange(classes * size) // size
    widths = spread * random.uniform(0.3, 1.7, classes)[labels, None]
    return (random.normal(size=(classes, 4))[labels] + widths * random.normal(size=(classes * size, 4))), labels


def test_each_draw_is_the_figure_of_its_classes() -> None:
    embeddings, labels = embedded(classes=6, size=3)
    weights = np.concatenate(list(draws(6, 1000, 5))).astype(int)
    expected = {"auc": [], "tar_at_far_1e-1": []}
    distances = {(i, j): oracles.distance(embeddings[i], embeddings[j], "cosine") for j in range(18) for i in range(j)}
    for row in weights[:60]:
        # A class that is drawn twice is there twice, and makes no negative pairs with its copy.
        pairs = [
            (d, labels[i] == labels[j])
            for (i, j), d in distances.items()
            for _ in range(row[labels[i]] * (1 if labels[i] == labels[j] else row[labels[j]]))
        ]
        d, same = [d for d, _ in pairs], [s for _, s in pairs]
        expected["auc"].append(oracles.auc(d, same))
        threshold = oracles.threshold_at_far(d, same, 0.1)
        expected["tar_at_far_1e-1"].append(oracles.shares(d, same, threshold)[0])

    everything = ItemPairs(np.arange(18), labels)
    sides = []
    for same in (True, False):
        left, right = everything.at(np.arange(everything.count(same)), same)
        values = comparison(embeddings, "cosine").paired(left, right)
        order = np.argsort(values, kind="stable")
        sides.append((values[order], labels[left[order]], labels[right[order]]))
    rows = _figures(sides, weights[:60].astype(float), [0.1])
    np.testing.assert_allclose(rows[:, 0], expected["auc"], atol=1e-9)
    np.testing.assert_allclose(rows[:, 2], expected["tar_at_far_1e-1"], atol=1e-9)
    whole = verification(embeddings, labels, fars=[0.1])
    assert _figures(sides, np.ones((1, 6)), [0.1])[0] == pytest.approx([whole.auc, whole.eer, whole.tar_at_far[0.1]])


def test_the_figures_are_verifications_and_lie_inside() -> None:
    embeddings, labels = embedded()
    found = verification_intervals(embeddings, labels, fars=[0.1, 0.01], resamples=400)
    exact = verification(embeddings, labels, fars=[0.1, 0.01]).figures()
    assert list(found) == ["auc", "eer", "tar_at_far_1e-1", "tar_at_far_1e-2"]
    for name, each in found.items():
        assert each.value == exact[name]
        assert each.low < each.value < each.high
    sampled = verification_intervals(embeddings, labels, fars=[0.1], resamples=400, pairs=150)
    assert sampled["auc"].value == exact["auc"]
    assert sampled["auc"].low == pytest.approx(found["auc"].low, abs=0.05)
    with pytest.raises(ValueError, match="3 or more of them, received 2"):
        verification_intervals(embeddings[:10], labels[:10])
    with pytest.raises(ValueError, match="pairs=0"):
        verification_intervals(embeddings, labels, pairs=0)


def test_they_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = verification(*embedded(99, classes=600), fars=[0.1]).auc
    covered = 0
    for seed in range(40):
        each = verification_intervals(*embedded(seed), fars=[0.1], confidence=0.9, resamples=150, seed=seed)["auc"]
        covered += each.low <= truth <= each.high
    assert 29 <= covered <= 40
