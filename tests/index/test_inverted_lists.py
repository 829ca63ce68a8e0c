"""Cutting a gallery into lists: every item once, near its centre, and no list too long."""

from __future__ import annotations

import numpy as np
import pytest

from tfdml.index._inverted_lists import _LARGEST_OVER_MEAN, InvertedLists


def clustered(count: int, dimension: int = 8, centres: int = 30, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    around = rng.normal(size=(centres, dimension))
    rows = around[rng.integers(0, centres, count)] + 0.3 * rng.normal(size=(count, dimension))
    return rows.astype(np.float32)


def check(lists: InvertedLists, count: int) -> None:
    """What holds for every gallery."""
    assert sorted(lists.order.tolist()) == list(range(count))
    sizes = np.diff(lists.offsets)
    assert (lists.offsets[0], lists.offsets[-1]) == (0, count)
    assert sizes.min() >= 1
    assert len(lists.centres) == len(lists) == len(sizes)
    for start, end in zip(lists.offsets[:-1], lists.offsets[1:], strict=True):
        assert (np.diff(lists.order[start:end]) > 0).all(), "numbers rise within a list, so that ties keep their order"
    assert lists.order[lists.offsets[lists.list_of_items()]].shape == (count,)


def test_every_row_is_in_the_list_of_its_nearest_centre():
    rows = clustered(3000)
    lists = InvertedLists.build(rows, 50)
    check(lists, 3000)
    assert 40 <= len(lists) <= 60
    squares = ((rows[:, None].astype(np.float64) - lists.centres[None]) ** 2).sum(axis=-1)
    own = squares[np.arange(3000), lists.list_of_items()]
    np.testing.assert_allclose(own, squares.min(axis=1), rtol=1e-3, atol=1e-4)


def test_centres_are_the_means_of_well_parted_clusters():
    rng = np.random.default_rng(1)
    around = 100 * np.eye(6, dtype=np.float32)
    rows = (around[np.repeat(np.arange(6), 50)] + rng.normal(size=(300, 6))).astype(np.float32)
    lists = InvertedLists.build(rows, 12, seed=3)
    check(lists, 300)
    for members in np.split(lists.order, lists.offsets[1:-1]):
        assert len({int(member) // 50 for member in members}) == 1, "no list mixes two clusters"


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_small_galleries(count):
    check(InvertedLists.build(clustered(count)), count)


def test_copies_are_cut_in_the_order_of_their_numbers():
    rows = np.tile(clustered(1), (1000, 1))
    lists = InvertedLists.build(rows, 20)
    check(lists, 1000)
    assert np.diff(lists.offsets).max() <= _LARGEST_OVER_MEAN * 50
    np.testing.assert_array_equal(lists.order, np.arange(1000))
    assert (lists.ranks(rows[:1])[0] == np.arange(len(lists))).all(), "of equal lists, the first is looked into first"


def test_a_crowd_among_few_others_is_cut_and_the_others_are_not():
    rows = clustered(5000)
    rows[1000:4500] = rows[1000] + 1e-3 * np.random.default_rng(0).normal(size=(3500, 8)).astype(np.float32)
    lists = InvertedLists.build(rows, 100)
    check(lists, 5000)
    assert np.diff(lists.offsets).max() <= _LARGEST_OVER_MEAN * 50


def test_the_training_does_not_see_what_is_left_out():
    rows = clustered(400)
    left_out = np.arange(0, 400, 4)
    moved = rows.copy()
    moved[left_out] += 50
    here, there = (InvertedLists.build(each, 10, left_out=left_out).centres for each in (rows, moved))
    np.testing.assert_array_equal(here, there)
    check(InvertedLists.build(rows, 10, left_out=np.arange(400)), 400)


def test_the_same_seed_gives_the_same_lists():
    rows = clustered(500)
    first, again, other = (InvertedLists.build(rows, 20, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.order, again.order)
    np.testing.assert_array_equal(first.centres, again.centres)
    assert first.centres.shape != other.centres.shape or (first.centres != other.centres).any()


def test_ranks_are_the_order_of_the_distances_to_the_centres():
    rows, queries = clustered(600), clustered(70, seed=5)
    lists = InvertedLists.build(rows, 25)
    ranks = lists.ranks(queries)
    for query, rank in zip(queries.astype(np.float64), ranks, strict=True):
        distances = ((lists.centres - query) ** 2).sum(axis=1)
        assert sorted(rank.tolist()) == list(range(len(lists)))
        np.testing.assert_allclose(distances[np.argsort(rank)], np.sort(distances), rtol=1e-4, atol=1e-5)
