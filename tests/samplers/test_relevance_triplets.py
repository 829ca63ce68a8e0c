"""Triplets by relevance: each law by chi-square against loops, and the gap in every triplet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import samplers_oracles as oracles

from tfdml.samplers import GradedRelevance, RelevanceTripletSampler, relevance


def triplets_of(sampler, batches, start=0):
    return np.concatenate([indices for indices, _ in sampler.indices(start).take(batches).as_numpy_iterator()])


def counts_of(triplets, items):
    counts = np.zeros((items,) * 3)
    np.add.at(counts, tuple(triplets.T), 1)
    return counts


CATEGORIES = np.array([4, 4, 4, 4, 4, 9, 9, 9, -1])


@pytest.mark.parametrize(("cap", "gap", "seed"), [(math.inf, 0.2, 0), (0.5, 0.3, 1), (0.05, 0.01, 2)])
def test_the_laws_are_those_of_loops(cap, gap, seed):
    matrix = np.random.default_rng(seed).random((9, 9)).round(1)
    sampler = RelevanceTripletSampler(CATEGORIES, matrix, 50, 0.4, cap, gap, seed)
    triplets = triplets_of(sampler, 400)
    out = CATEGORIES[triplets[:, 2]] != CATEGORIES[triplets[:, 0]]
    assert out.mean() == 0.4
    law = oracles.out_of_class_law(CATEGORIES, matrix, cap)
    assert oracles.chi_square_p(counts_of(triplets[out], 9), law * out.sum()) > oracles.UNLIKELY
    law = oracles.in_class_law(CATEGORIES, matrix, cap, gap)
    assert oracles.chi_square_p(counts_of(triplets[~out], 9), law * (~out).sum()) > oracles.UNLIKELY


def test_every_in_class_triplet_has_the_gap():
    random = np.random.default_rng(3)
    categories, matrix = random.integers(0, 6, 200), random.random((200, 200)) ** 3
    sampler = RelevanceTripletSampler(categories, matrix, batch_size=100, out_of_class=0.0, relevance_gap=0.25)
    query, positive, negative = triplets_of(sampler, 40).T
    assert (categories[query] == categories[positive]).all()
    assert (categories[query] == categories[negative]).all()
    assert (query != positive).all()
    assert (query != negative).all()
    assert (matrix[query, positive] - matrix[query, negative] >= 0.25 - 1e-12).all()
    assert (matrix[query, negative] > 0).all()


def test_the_cap_keeps_near_duplicates_from_being_drawn_again_and_again():
    matrix = np.array([[0, 100, 1, 1], [100, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0.0]])
    for cap, share in ((math.inf, 100 / 102), (1.0, 1 / 3)):
        sampler = RelevanceTripletSampler([0, 0, 0, 0, 1], np.pad(matrix, (0, 1)), 40, 1.0, cap)
        triplets = triplets_of(sampler, 100)
        of_first = triplets[triplets[:, 0] == 0]
        assert (of_first[:, 1] == 1).mean() == pytest.approx(share, abs=0.05)
    assert np.isin(triplets[:, 0], [0, 1]).mean() == pytest.approx(204 / 210, abs=0.02), "queries by their total relevance"


def test_labels_are_the_categories_and_the_mix_is_exact():
    sampler = RelevanceTripletSampler(CATEGORIES, np.ones((9, 9)) - np.tri(9) * 0.5, 10, 0.3, relevance_gap=0.5)
    for indices, labels in sampler.indices().take(10).as_numpy_iterator():
        assert (labels == CATEGORIES[indices]).all()
        out = labels[:, 2] != labels[:, 0]
        assert out.sum() == 3
        assert out[:5].sum() in (1, 2)


def test_string_categories_and_what_is_relevant_to_nothing():
    names = ["milk", "fruit", "fruit", "milk", "fruit", "tea"]
    relevant = GradedRelevance([0, 1, 1, 2, 1, 5])  # milk 0 and 3 are of different products
    sampler = RelevanceTripletSampler(names, relevant, batch_size=20, out_of_class=1.0)
    assert sampler.class_names == ("fruit", "milk", "tea")
    triplets = triplets_of(sampler, 20)
    assert set(triplets[:, 0]) == {1, 2, 4}
    assert set(triplets[:, 2]) == {0, 3, 5}


def test_relevance_comes_category_by_category_and_block_by_block(monkeypatch):
    random = np.random.default_rng(0)
    categories, matrix = random.integers(0, 4, 40), random.random((40, 40))
    whole = triplets_of(RelevanceTripletSampler(categories, matrix), 5)
    monkeypatch.setattr(relevance, "_BLOCK_BYTES", 200)
    sizes = []

    def function(first, second):
        sizes.append(len(first) * len(second))
        return matrix[np.ix_(first, second)]

    assert (triplets_of(RelevanceTripletSampler(categories, function), 5) == whole).all()
    assert max(sizes) <= 25


def test_batches_are_those_of_every_version():
    """Resuming a run on another machine or TensorFlow must give the same batches: these numbers may never change."""
    matrix = (np.arange(36).reshape(6, 6) % 7) / 7
    sampler = RelevanceTripletSampler([0, 0, 0, 0, 1, 1], matrix, batch_size=4, out_of_class=0.25, seed=3)
    assert [sampler.batch_at(step)[0].tolist() for step in (0, 5)] == GOLDEN


GOLDEN = [
    [[1, 0, 3], [3, 1, 0], [3, 2, 0], [3, 0, 5]],
    [[1, 0, 2], [3, 2, 0], [3, 2, 1], [0, 2, 5]],
]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"relevance": np.zeros((9, 9))}, "relevance is 0 between all items"),
        ({"relevance": np.ones((9, 9))}, "relevance_gap=0.1: no two candidates.*out_of_class=1"),
        ({"relevance_gap": 0}, "relevance_gap=0: expected a number > 0"),
        ({"relevance_cap": -1}, "relevance_cap=-1"),
        ({"relevance_cap": math.nan}, "relevance_cap=nan"),
        ({"out_of_class": 2}, "out_of_class=2"),
        ({"out_of_class": 0.01}, "out_of_class=0.01: of batch_size=32 rows that is none"),
        ({"categories": np.zeros(9, int)}, "there is one category.*out_of_class=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments(keywords, message):
    arguments = {"categories": CATEGORIES, "relevance": np.random.default_rng(0).random((9, 9)), **keywords}
    with pytest.raises(ValueError, match=message):
        RelevanceTripletSampler(**arguments)


def test_nothing_but_out_of_class_needs_no_gap():
    sampler = RelevanceTripletSampler(CATEGORIES, np.ones((9, 9)), out_of_class=1.0)
    assert (CATEGORIES[triplets_of(sampler, 3)[:, 2]] != CATEGORIES[triplets_of(sampler, 3)[:, 0]]).all()
