"""Pairs from a graph: each similar and each dissimilar pair in its turn, and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samplers_oracles import UNLIKELY, chi_square_p

from tfdml.samplers import PairSampler


def drawn(sampler, batches, start=0):
    indices, flags = zip(*sampler.indices(start).take(batches).as_numpy_iterator(), strict=True)
    return np.concatenate(indices), np.concatenate(flags)


@st.composite
def graphs(draw):
    items = draw(st.integers(3, 12))
    every = list(itertools.combinations(range(items), 2))
    edges = draw(st.lists(st.sampled_from(every), min_size=1, max_size=2 * items))
    return items, edges


@settings(deadline=None, max_examples=5)
@given(graph=graphs(), batch_size=st.integers(2, 9), seed=st.integers(0, 2**64 - 1), turn=st.booleans())
def test_each_pair_comes_in_its_turn(graph, batch_size, seed, turn):
    items, edges = graph
    similar = {tuple(edge) for edge in edges}
    dissimilar = set(itertools.combinations(range(items), 2)) - similar
    if not dissimilar:
        similar.discard(edges[0])
        dissimilar.add(edges[0])
        if not similar:
            return
    given_pairs = [edge[::-1] if turn else edge for edge in similar] * 2  # order and repetition do not matter
    sampler = PairSampler(given_pairs, items, batch_size, similar=0.5, seed=seed)
    assert (sampler.similar_pairs, sampler.dissimilar_pairs) == (len(similar), len(dissimilar))
    indices, flags = drawn(sampler, 2 * (len(dissimilar) + len(similar)))
    for flag, expected in ((0, similar), (1, dissimilar)):
        walk = [tuple(sorted(pair)) for pair in indices[flags == flag].tolist()]
        assert set(walk) == expected
        for begin in range(0, len(walk) - len(expected), len(expected)):
            assert len(set(walk[begin : begin + len(expected)])) == len(expected), "none twice before all have come"


def test_a_round_shows_every_similar_pair():
    sampler = PairSampler([[i, i + 1] for i in range(10)], batch_size=8, similar=0.4)
    assert sampler.steps_per_epoch == 4  # three of eight rows are similar
    indices, flags = drawn(sampler, 4)
    assert len({tuple(sorted(pair)) for pair in indices[flags == 0].tolist()}) == 10


@pytest.mark.parametrize(("similar", "rows"), [(0.0, 0), (0.25, 2), (0.5, 4), (0.9, 7), (1.0, 8)])
def test_the_mix_is_the_same_in_every_batch_and_spread_over_it(similar, rows):
    sampler = PairSampler([[0, 1], [1, 2]], 20, batch_size=8, similar=similar)
    for _, flags in sampler.indices().take(5).as_numpy_iterator():
        assert (flags == 0).sum() == rows
        halves = [(flags[:4] == 0).sum(), (flags[4:] == 0).sum()]
        assert abs(halves[0] - halves[1]) <= 1


def test_dissimilar_pairs_are_drawn_evenly_in_both_orders():
    edges = np.random.default_rng(0).integers(0, 60, (90, 2))
    edges = np.concatenate([edges[edges[:, 0] != edges[:, 1]], [[0, other] for other in range(1, 50)]])
    partners = np.full((60, 60), 1.0) - np.eye(60)
    partners[edges[:, 0], edges[:, 1]] = partners[edges[:, 1], edges[:, 0]] = 0
    # Half of a round, so that evenness is not forced by the walk.
    sampler = PairSampler(edges, 60, batch_size=50, similar=0.0, seed=6)
    indices, flags = drawn(sampler, sampler.dissimilar_pairs // 100)
    assert flags.all()
    assert (partners[indices[:, 0], indices[:, 1]] == 1).all()
    expected = partners.sum(axis=1) / partners.sum() * len(indices)
    for place in range(2):
        assert chi_square_p(np.bincount(indices[:, place], minlength=60), expected) > UNLIKELY
    apart = (indices[:, 1] - indices[:, 0]) % 60
    lags = np.array([sum(partners[i, (i + lag) % 60] for i in range(60)) for lag in range(60)])
    assert chi_square_p(np.bincount(apart, minlength=60), lags / lags.sum() * len(indices)) > UNLIKELY


def test_a_large_sparse_graph_costs_its_edges():
    items = 2_000_000
    sampler = PairSampler(np.stack([np.arange(items - 1), np.arange(1, items)], 1), batch_size=1024, similar=0.5)
    assert sampler.similar_pairs + sampler.dissimilar_pairs == items * (items - 1) // 2
    indices, flags = sampler.batch_at(10**6)
    apart = np.abs(indices[:, 0] - indices[:, 1])
    assert (apart[flags == 0] == 1).all()
    assert (apart[flags == 1] > 1).all()
    spread = np.bincount(indices.ravel() * 8 // items, minlength=8)
    assert chi_square_p(spread, np.full(8, 256.0)) > UNLIKELY


def test_batches_are_those_of_every_version():
    """Resuming a run on another machine or TensorFlow must give the same batches: these numbers may never change."""
    sampler = PairSampler([[0, 1], [1, 2], [3, 4], [0, 5]], 7, batch_size=4, seed=3)
    parts = [[part.tolist() for part in sampler.batch_at(step)] for step in (0, 5)]
    assert parts == GOLDEN


GOLDEN = [
    [[[2, 3], [0, 1], [2, 4], [5, 0]], [1, 0, 1, 0]],
    [[[3, 1], [4, 3], [5, 6], [5, 0]], [1, 0, 1, 0]],
]


@pytest.mark.parametrize(
    ("pairs", "keywords", "error", "message"),
    [
        ([[0, 1, 2]], {}, ValueError, r"pairs have shape \(1, 3\)"),
        ([0, 1], {}, ValueError, r"pairs have shape \(2,\)"),
        ([[0.0, 1.0]], {}, TypeError, "pairs have dtype float64"),
        ([[0, -1]], {}, ValueError, "the index -1"),
        ([[0, 1], [2, 2]], {}, ValueError, r"pairs\[1\] pairs item 2 with itself"),
        ([[0, 9]], {"num_items": 9}, ValueError, "reach item 9, but num_items=9.*from 0 to 8"),
        ([[0, 1]], {"num_items": 1}, ValueError, "num_items=1"),
        ([[0, 1], [2, 3]], {"similar": 1.5}, ValueError, "similar=1.5: expected a share from 0 to 1"),
        ([[0, 1], [2, 3]], {"similar": 0.1, "batch_size": 4}, ValueError, "similar=0.1: of batch_size=4 rows that is none"),
        ([[0, 1], [2, 3]], {"similar": 0.9, "batch_size": 4}, ValueError, "that is every one"),
        ([[0, 1], [2, 3]], {"batch_size": 0}, ValueError, "batch_size=0"),
        ([[0, 1], [2, 3]], {"seed": -1}, ValueError, "seed=-1"),
        ([], {"num_items": 5}, ValueError, "pairs are empty.*similar=0"),
        ([[0, 1], [0, 2], [1, 2]], {}, ValueError, "no dissimilar one.*similar=1"),
    ],
)
def test_bad_arguments(pairs, keywords, error, message):
    with pytest.raises(error, match=message):
        PairSampler(pairs, **keywords)


def test_the_extremes_work():
    complete = PairSampler([[0, 1], [0, 2], [1, 2]], similar=1.0, batch_size=4)
    assert not drawn(complete, 3)[1].any()
    empty = PairSampler([], 5, similar=0.0, batch_size=4)
    assert empty.steps_per_epoch == 3
    assert len({tuple(sorted(pair)) for pair in drawn(empty, 5)[0].tolist()}) == 10
