"""Triplets from a stream: the reservoirs and the laws of what is drawn from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import samplers_oracles as oracles
import tensorflow as tf

from tfdml.samplers import OnlineTripletSampler, total_relevance
from tfdml.samplers.reservoir import Reservoir

SPEC = {
    "item": tf.TensorSpec([], tf.string),
    "category": tf.TensorSpec([], tf.int64),
    "features": tf.TensorSpec([2], tf.float32),
    "total_relevance": tf.TensorSpec([], tf.float32),
    "id": tf.TensorSpec([], tf.int64),
}


def elements(categories, totals, ids=None):
    count = len(categories)
    return {
        "item": np.array([f"photo-{i}".encode() for i in range(count)]),
        "category": np.asarray(categories, np.int64),
        "features": np.arange(2 * count, dtype=np.float32).reshape(count, 2),
        "total_relevance": np.asarray(totals, np.float32),
        "id": np.arange(count) if ids is None else np.asarray(ids, np.int64),
    }


def filled(reservoir, data, at_once):
    state = reservoir.empty()
    add = tf.function(reservoir.add, reduce_retracing=True)
    for begin in range(0, len(data["id"]), at_once):
        state = add(state, {name: tf.constant(values[begin : begin + at_once]) for name, values in data.items()})
    return state


@pytest.mark.parametrize("at_once", [1, 7, 60])
def test_a_reservoir_keeps_what_loops_keep(at_once):
    random = np.random.default_rng(0)
    categories, totals = random.integers(0, 3, 60), random.random(60) * 4
    totals[[3, 9]] = 0
    data = elements(categories, totals)
    reservoir = Reservoir(SPEC, 4, 6, seed=5)
    keys = reservoir._entries(
        {name: tf.constant(values) for name, values in data.items()}, tf.constant(0, tf.int64)
    ).key.numpy()
    assert (keys[[3, 9]] == -math.inf).all()
    expected = oracles.reservoir(categories.tolist(), keys.tolist(), 6)
    state = filled(reservoir, data, at_once)
    assert int(state.seen) == 60
    there = state.entries.is_there.numpy()
    for category in range(4):
        kept = state.entries.id.numpy()[category][there[category]].tolist()
        assert kept == expected.get(category, [])
        for place, number in enumerate(kept):
            assert state.entries.item.numpy()[category, place] == data["item"][number]
            assert (state.entries.features.numpy()[category, place] == data["features"][number]).all()
            assert state.entries.total_relevance.numpy()[category, place] == data["total_relevance"][number]


def test_with_room_for_one_each_element_is_kept_in_proportion_to_its_weight():
    weights = np.array([0.5, 1.0, 2.0, 4.0, 0.25, 0.0, 3.0, 8.0])
    streams = 4000
    data = elements(np.repeat(np.arange(streams), 8), np.tile(weights, streams))
    state = filled(Reservoir(SPEC, streams, 1, seed=1), data, 1600)
    counts = np.bincount(state.entries.id.numpy()[:, 0] % 8, minlength=8)
    assert oracles.chi_square_p(counts, weights / weights.sum() * streams) > oracles.UNLIKELY


def test_with_room_for_two_the_second_is_drawn_from_the_rest():
    weights = np.array([1.0, 2.0, 4.0, 8.0])
    streams = 4000
    data = elements(np.repeat(np.arange(streams), 4), np.tile(weights, streams))
    state = filled(Reservoir(SPEC, streams, 2, seed=2), data, 1600)
    counts, expected = np.zeros((4, 4)), np.zeros((4, 4))
    np.add.at(counts, tuple((state.entries.id.numpy() % 4).T), 1)
    for i in range(4):
        for j in set(range(4)) - {i}:
            expected[i, j] = weights[i] / 15 * weights[j] / (15 - weights[i])
    assert oracles.chi_square_p(counts, expected * streams) > oracles.UNLIKELY


def test_one_that_comes_again_takes_the_place_of_its_older_copy():
    data = elements([0] * 6, [1.0] * 6, ids=[10, 11, 10, 12, 11, 10])
    for at_once in (1, 2, 6):
        state = filled(Reservoir(SPEC, 1, 5, seed=0), data, at_once)
        there = state.entries.is_there.numpy()[0]
        items = state.entries.item.numpy()[0][there]
        assert sorted(items) == [b"photo-3", b"photo-4", b"photo-5"]


def test_a_category_that_there_is_not_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError, match="num_categories=2"):
        filled(Reservoir(SPEC, 2, 3, seed=0), elements([0, 2], [1.0, 1.0]), 2)


# Triplets

RANDOM = np.random.default_rng(7)
CATEGORIES = RANDOM.permutation(np.repeat([0, 1, 2], [7, 5, 4]))
FEATURES = RANDOM.random((16, 3)).astype(np.float32)
RELEVANCE = np.asarray(FEATURES @ FEATURES.T, np.float64)
TOTALS = total_relevance(CATEGORIES, RELEVANCE)


def stream(repeats, ids=True):
    base = {"item": np.arange(16), "category": CATEGORIES, "features": FEATURES, "total_relevance": TOTALS}
    if ids:
        base["id"] = np.arange(16)
    return tf.data.Dataset.from_tensor_slices(base).repeat(repeats)


def triplets_of(sampler):
    return np.concatenate([items for items, _ in sampler.indices().as_numpy_iterator()])


def test_with_room_for_everything_the_laws_are_those_of_the_papers_rejection():
    """All items lie in the buffers, so the query is drawn evenly, and positives with min(1, min(T_p, r) / r_j)."""
    cap, gap = 0.8, 0.15
    sampler = OnlineTripletSampler(
        stream(1500), 3, 8, out_of_class=0.3, relevance_cap=cap, relevance_gap=gap, tries=8, elements=500, seed=3
    )
    triplets = triplets_of(sampler)[2000:]
    out = CATEGORIES[triplets[:, 0]] != CATEGORIES[triplets[:, 2]]
    assert abs(out.mean() - 0.3) < 0.02

    weights = np.minimum(np.minimum(oracles.within_category(CATEGORIES, RELEVANCE), cap) / TOTALS, 1)
    outside, inside = np.zeros((2, 16, 16, 16))
    for i in range(16):
        # As many triplets are drawn in a category as it has elements in the stream, so that queries are even over all items.
        other = CATEGORIES[i] != CATEGORIES
        outside[i] = weights[i][:, None] / weights[i].sum() * other / other.sum() / 16
        for p in range(16):
            for n in range(16):
                if weights[i, n] > 0 and RELEVANCE[i, p] - RELEVANCE[i, n] >= gap:
                    inside[i, p, n] = weights[i, p] * weights[i, n]
        assert inside[i].sum() > 0, "no query is left out for want of a negative"
        inside[i] /= inside[i].sum() * 16
    for chosen, law in ((out, outside), (~out, inside)):
        counts = np.zeros((16, 16, 16))
        np.add.at(counts, tuple(triplets[chosen].T), 1)
        assert oracles.chi_square_p(counts, law * chosen.sum()) > oracles.UNLIKELY


def test_every_in_class_triplet_has_the_gap_and_the_queries_category():
    sampler = OnlineTripletSampler(stream(60), 3, 4, out_of_class=0.5, relevance_gap=0.1, elements=16)
    drawn = 0
    for items, labels in sampler.indices().as_numpy_iterator():
        assert (labels == CATEGORIES[items]).all()
        query, positive, negative = items.T
        out = labels[:, 2] != labels[:, 0]
        assert (labels[:, 1] == labels[:, 0]).all()
        assert (query != positive).all()
        gap = RELEVANCE[query, positive] - RELEVANCE[query, negative]
        assert (gap[~out] >= 0.1 - 1e-6).all()
        drawn += len(items)
    assert drawn > 500


def test_the_relevance_may_be_any_function():
    def nearness(queries, candidates):
        return tf.exp(-tf.norm(queries[..., :, None, :] - candidates[..., None, :, :], axis=-1))

    near = np.exp(-np.linalg.norm(FEATURES[:, None] - FEATURES[None], axis=2))
    items = triplets_of(OnlineTripletSampler(stream(30), 3, 8, nearness, relevance_gap=0.05, out_of_class=0.0))
    assert (near[items[:, 0], items[:, 1]] - near[items[:, 0], items[:, 2]] >= 0.05 - 1e-6).all()


def test_the_same_again_and_from_a_later_step_and_other_seeds_differ():
    def batches(seed=0, start=0):
        sampler = OnlineTripletSampler(stream(20), 3, 4, batch_size=8, elements=16, seed=seed)
        return [items.tolist() for items, _ in sampler.indices(start).as_numpy_iterator()]

    first = batches()
    assert first == batches()
    assert first != batches(seed=1)
    assert batches(start=7) == first[7:]
    with pytest.raises(ValueError, match="start_step=-1"):
        batches(start=-1)


def test_an_iterator_is_saved_with_its_buffers(tmp_path):
    sampler = OnlineTripletSampler(stream(40), 3, 4, batch_size=8, elements=16)
    dataset = sampler.dataset(lambda index: tf.gather(FEATURES, index))
    expected = [queries.numpy().tolist() for (queries, _, _), _ in dataset]
    iterator = iter(dataset)
    for _ in range(5):
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "iterator"))
    fresh = iter(dataset)
    tf.train.Checkpoint(iterator=fresh).read(path).assert_consumed()
    assert [queries.numpy().tolist() for (queries, _, _), _ in fresh] == expected[5:]


def test_images_are_loaded_from_whatever_an_item_is():
    names = tf.data.Dataset.from_tensor_slices(
        {
            "item": {"file": [f"{i:02d}.png" for i in range(16)], "number": np.arange(16)},
            "category": CATEGORIES.astype(np.int32),
            "features": FEATURES,
            "total_relevance": TOTALS,
        }
    ).repeat(10)
    sampler = OnlineTripletSampler(names, 3, batch_size=8, elements=20)

    def load(item):
        return tf.strings.to_number(tf.strings.substr(item["file"], 0, 2)) + 100 * tf.cast(item["number"], tf.float32)

    (queries, positives, negatives), labels = next(sampler.dataset(load, augment=lambda x: x + 0.5).as_numpy_iterator())
    items, expected = next(sampler.indices().as_numpy_iterator())
    for part, column in zip((queries, positives, negatives), items["number"].T, strict=True):
        assert (part == 101 * column + 0.5).all()
    assert (labels == expected).all()


def test_a_stream_without_hope_ends_without_a_batch():
    lonely = tf.data.Dataset.range(50).map(
        lambda i: {"item": i, "category": i % 2, "features": tf.zeros([3]), "total_relevance": 1.0}
    )
    assert list(OnlineTripletSampler(lonely, 2).indices()) == []


GOOD = {"item": 1, "category": 1, "features": [1.0], "total_relevance": 1.0}


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"stream": [1]}, TypeError, "expected a tf.data.Dataset"),
        ({"stream": {"item": 1, "category": 1}}, ValueError, "without features, total_relevance"),
        ({"stream": {**GOOD, "features": 1.0}}, ValueError, r"features has shape \(\): expected a vector"),
        ({"stream": {**GOOD, "category": [1]}}, ValueError, r"category has shape \(1,\): expected a number"),
        ({"stream": {**GOOD, "category": 1.0}}, ValueError, "category has dtype float32"),
        ({"num_categories": 0}, ValueError, "num_categories=0"),
        ({"num_categories": 1}, ValueError, "there is one category.*out_of_class=0"),
        ({"capacity": 0}, ValueError, "capacity=0"),
        ({"tries": 0}, ValueError, "tries=0"),
        ({"elements": 0}, ValueError, "elements=0"),
        ({"relevance_gap": 0}, ValueError, "relevance_gap=0"),
        ({"relevance_cap": 0}, ValueError, "relevance_cap=0"),
        ({"out_of_class": -0.1}, ValueError, "out_of_class=-0.1"),
        ({"seed": 1.0}, TypeError, "seed=1.0"),
    ],
)
def test_bad_arguments(keywords, error, message):
    arguments = {"stream": GOOD, "num_categories": 3, **keywords}
    if isinstance(arguments["stream"], dict):
        arguments["stream"] = tf.data.Dataset.from_tensors(arguments["stream"])
    with pytest.raises(error, match=message):
        OnlineTripletSampler(**arguments)
