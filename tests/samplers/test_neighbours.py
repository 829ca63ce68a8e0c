"""Graphs: nearest neighbours against scikit-learn, translated copies against loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfdml.samplers import nearest_neighbours, pairs_of_copies, translated_copies

pytestmark = pytest.mark.one_stack


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_neighbours_are_those_of_scikit_learn(metric):
    neighbors = pytest.importorskip("sklearn.neighbors")
    vectors = np.random.default_rng(0).normal(size=(300, 6))
    found = neighbors.NearestNeighbors(n_neighbors=4, metric=metric, algorithm="brute").fit(vectors)
    expected = {tuple(sorted((i, int(j)))) for i, row in enumerate(found.kneighbors(return_distance=False)) for j in row}
    pairs = nearest_neighbours(vectors, k=4, metric=metric)
    assert pairs.dtype == np.int64
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)


def test_images_are_flattened():
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
    assert (nearest_neighbours(images, k=3) == nearest_neighbours(images.reshape(30, 16), k=3)).all()


def test_an_exact_copy_is_a_neighbour_and_an_item_is_none_of_its_own():
    assert nearest_neighbours([[1.0], [1.0], [5.0]], k=1).tolist() == [[0, 1], [0, 2]]


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"k": 0}, ValueError, "k=0: expected an integer from 1 to 2"),
        ({"k": 3}, ValueError, "k=3"),
        ({"k": 1, "metric": "manhattan"}, ValueError, "metric='manhattan' is not known"),
    ],
)
def test_bad_arguments(keywords, error, message):
    with pytest.raises(error, match=message):
        nearest_neighbours([[0.0], [1.0], [2.0]], **keywords)
    with pytest.raises(ValueError, match="NaN"):
        nearest_neighbours([[0.0], [np.nan], [2.0]], k=1)


@pytest.mark.parametrize("shape", [(3, 5, 6), (2, 5, 6, 3)])
def test_translated_copies_are_those_of_loops(shape):
    images = np.random.default_rng(1).integers(1, 256, shape, dtype=np.uint8)
    shifts = [(0, 2), (-1, 0), (3, -4), (0, 0)]
    copies = translated_copies(images, shifts)
    assert copies.dtype == np.uint8
    assert len(copies) == 5 * len(images)
    assert (copies[: len(images)] == images).all()
    for c, (down, right) in enumerate(shifts, start=1):
        for i, y, x in itertools.product(range(len(images)), range(5), range(6)):
            inside = 0 <= y - down < 5 and 0 <= x - right < 6
            expected = images[i, y - down, x - right] if inside else 0
            assert (copies[c * len(images) + i, y, x] == expected).all()


def test_translations_out_of_sight_are_refused():
    with pytest.raises(ValueError, match=r"\(0, 6\) moves images of 5 x 6 out of sight"):
        translated_copies(np.zeros((2, 5, 6)), [(0, 6)])
    with pytest.raises(ValueError, match=r"shape \(5, 6\)"):
        translated_copies(np.zeros((5, 6)), [(0, 1)])


@pytest.mark.parametrize("edges", [[], [(0, 1)], [(0, 2), (3, 1)]])
def test_pairs_of_copies_are_those_of_loops(edges):
    items, copies = 4, 2
    original = {frozenset(edge) for edge in edges}
    expected = set()
    for one, other in itertools.combinations(range(items * (copies + 1)), 2):
        same = one % items == other % items
        if same or frozenset((one % items, other % items)) in original:
            expected.add((one, other))
    assert {tuple(pair) for pair in pairs_of_copies(edges, items, copies).tolist()} == expected


def test_pairs_of_copies_need_all_items():
    with pytest.raises(ValueError, match="num_items=3"):
        pairs_of_copies([[0, 3]], 3, 2)
    with pytest.raises(ValueError, match="copies=0"):
        pairs_of_copies([[0, 3]], 4, 0)
