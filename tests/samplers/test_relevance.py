"""Graded relevance, colour histograms and total relevance against loops."""

from __future__ import annotations

import numpy as np
import pytest
import samplers_oracles as oracles

import tfdml
from tfdml.samplers import GradedRelevance, colour_histograms, relevance, total_relevance

pytestmark = pytest.mark.one_stack


def test_graded_relevance_is_that_of_loops():
    random = np.random.default_rng(0)
    labels, features = random.integers(0, 3, 12), random.normal(size=(12, 4))
    features[5] = 0
    graded = GradedRelevance(labels, features, class_weight=0.3)
    rows, columns = np.array([0, 5, 7]), np.arange(12)
    for i, row in zip(rows, graded(rows, columns), strict=True):
        for j, value in zip(columns, row, strict=True):
            norms = np.linalg.norm(features[i]) * np.linalg.norm(features[j])
            cosine = features[i] @ features[j] / norms if norms else 0
            assert value == pytest.approx(0.3 * (labels[i] == labels[j]) + 0.7 * max(cosine, 0))


def test_graded_relevance_without_features_is_the_class():
    assert GradedRelevance(["a", "b", "a"])(np.array([0]), np.array([0, 1, 2])).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 1]],), r"labels have shape \(1, 2\)"),
        (([0, 1], [1.0, 2.0]), r"features have shape \(2,\)"),
        (([0, 1], [[1.0], [np.nan]]), "finite numbers, a row for each of 2 items"),
        (([0, 1], [[1.0]]), "each of 2 items"),
        (([0, 1], [[1.0], [2.0]], 1.2), "class_weight=1.2"),
    ],
)
def test_bad_graded_relevance(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradedRelevance(*arguments)


@pytest.mark.parametrize("channels", [1, 3])
def test_histograms_are_those_of_loops(channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, channels), dtype=np.uint8)
    found = colour_histograms(images, bins=3)
    assert found.shape == (4, 3**channels)
    for image, row in zip(images, found, strict=True):
        counts = np.zeros((3,) * channels)
        for pixel in image.reshape(-1, channels):
            counts[tuple(int(value) * 3 // 256 for value in pixel)] += 1
        np.testing.assert_allclose(row, np.sqrt(counts.ravel() / 30), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


def test_histograms_of_a_dataset():
    data = tfdml.datasets.rendered_catalogue(classes=3, views=2, image_size=16)
    images = np.concatenate(list(data.batches(4).as_numpy_iterator()))
    assert (colour_histograms(data) == colour_histograms(images)).all()
    with pytest.raises(ValueError, match=r"images have shape \(6, 16, 16\)"):
        colour_histograms(images[..., 0])
    with pytest.raises(ValueError, match="bins=1"):
        colour_histograms(images, bins=1)


def test_total_relevance_is_the_sum_within_the_category(monkeypatch):
    random = np.random.default_rng(1)
    categories, matrix = random.integers(0, 3, 17), random.random((17, 17))
    expected = oracles.within_category(categories, matrix).sum(axis=1)
    np.testing.assert_allclose(total_relevance(categories, matrix), expected)
    monkeypatch.setattr(relevance, "_BLOCK_BYTES", 100)  # a row or two at a time
    asked = []

    def function(first, second):
        asked.append((len(first), len(second)))
        return matrix[np.ix_(first, second)]

    np.testing.assert_allclose(total_relevance(categories, function), expected)
    assert max(rows for rows, _ in asked) <= 3
    assert max(columns for _, columns in asked) < 17, "one category at a time"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones((3, 4)), r"relevance has shape \(3, 4\): expected \[4, 4\]"),
        (lambda first, second: np.ones(len(first)), r"returned shape \(2,\) for 2 and 2 items"),
        (lambda first, second: -np.ones((len(first), len(second))), "items 0 and 0 is -1.0: expected a finite number >= 0"),
        (np.full((4, 4), np.nan), "is nan"),
    ],
)
def test_bad_relevance(given, message):
    with pytest.raises(ValueError, match=message):
        total_relevance([0, 0, 1, 1], given)
