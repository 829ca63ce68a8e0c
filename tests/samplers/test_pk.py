"""P x K batches: what a batch and a round hold, that they never change, and what bad arguments say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.samplers import PKSampler


def labels_of_sizes(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Shuffled labels: class number c (times 3, minus 4) has sizes[c] items."""
    labels = np.repeat(np.arange(len(sizes)) * 3 - 4, sizes)
    return np.random.default_rng(seed).permutation(labels)


def batches(sampler: PKSampler, count: int, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    indices, labels = zip(*sampler.indices(start_step=start).take(count).as_numpy_iterator(), strict=True)
    return np.stack(indices), np.stack(labels)


def chi_square_p(observed: np.ndarray, expected: np.ndarray) -> float:
    """The normal approximation of Wilson and Hilferty to the chi-square tail."""
    degrees = observed.size - 1
    statistic = ((observed - expected) ** 2 / expected).sum()
    z = ((statistic / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))
    return math.erfc(z / math.sqrt(2)) / 2


@st.composite
def settings_of_a_sampler(draw):
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    classes, examples = draw(st.integers(1, len(sizes))), draw(st.integers(1, 5))
    return sizes, classes, examples, draw(st.integers(0, 2**64 - 1))


@settings(deadline=None, max_examples=8)
@given(case=settings_of_a_sampler())
def test_what_batches_and_rounds_hold(case):
    sizes, classes, examples, seed = case
    labels = labels_of_sizes(sizes)
    sampler = PKSampler(labels, classes, examples, seed)
    assert sampler.steps_per_epoch == len(sampler) == math.ceil(len(sizes) / classes)
    rounds = 2 * max(math.ceil(size / examples) for size in sizes)
    indices, batch_labels = batches(sampler, rounds * len(sampler))
    assert indices.dtype == batch_labels.dtype == np.int64
    assert (labels[indices] == batch_labels).all()

    by_class = batch_labels.reshape(rounds, -1, classes, examples)
    by_item = indices.reshape(by_class.shape)
    assert (by_class == by_class[..., :1]).all(), "rows are ordered by class"
    for class_number, size in enumerate(sizes):
        label = class_number * 3 - 4
        own = by_class[..., 0] == label
        assert (own.sum(axis=2) <= 1).all(), "the classes of a batch are distinct"
        visits_of_a_round = own.sum(axis=(1, 2))
        assert visits_of_a_round.min() >= 1, "every round visits every class"
        assert visits_of_a_round.max() <= 2
        for row in by_item[own]:
            assert len(set(row)) == min(size, examples), "items are distinct as far as there are enough"
            assert np.unique(row, return_counts=True)[1].max() == math.ceil(examples / min(size, examples))
        visits = math.ceil(size / examples)
        for first in range(0, rounds - visits + 1, visits):
            seen = by_item[first : first + visits][own[first : first + visits]]
            assert set(seen.ravel()) == set(np.flatnonzero(labels == label)), "an item round shows every item"
        if size >= 2 * examples:
            for number in np.flatnonzero(visits_of_a_round == 2):
                once, again = by_item[number][own[number]]
                assert not set(once) & set(again) or size % examples, "the second visit of a round brings other items"


def test_the_extra_visit_brings_other_items_when_k_divides_n():
    sampler = PKSampler(np.repeat([0, 1, 2], 8), classes=2, examples=4)
    indices, labels = batches(sampler, 100)
    twice = 0
    for items, own in zip(indices.reshape(50, 16), labels.reshape(50, 16), strict=True):
        (label,) = [label for label in range(3) if (own == label).sum() == 8]
        assert len(set(items[own == label])) == 8
        twice += 1
    assert twice == 50


def test_classes_and_items_are_drawn_evenly():
    sizes = [3, 4, 5, 6, 7, 9, 20]
    labels = labels_of_sizes(sizes)
    sampler = PKSampler(labels, classes=4, examples=3, seed=5)
    indices, batch_labels = batches(sampler, 6000)
    # Of 8 places in a round one is extra: every class comes once and, one time in seven, once more.
    classes = np.unique(batch_labels, return_counts=True)[1] / 3
    assert chi_square_p(classes - 3000, np.full(7, 3000 / 7)) > 1e-6
    for class_number in range(7):
        own = batch_labels == class_number * 3 - 4
        items = np.unique(indices[own], return_counts=True)[1]
        assert len(items) == sizes[class_number]
        assert chi_square_p(items, np.full(items.size, items.mean())) > 1e-6


def test_every_pair_of_classes_meets_equally_often():
    sampler = PKSampler(np.arange(8), classes=3, examples=1)
    _, labels = batches(sampler, 3 * 1500)
    meetings = np.zeros((8, 8))
    for batch in labels:
        meetings[np.ix_(batch, batch)] += 1
    pairs = meetings[np.triu_indices(8, 1)]
    assert pairs.sum() == 3 * 4500
    assert chi_square_p(pairs, np.full(pairs.size, pairs.mean())) > 1e-6


def test_rounds_differ_and_seeds_differ():
    labels = np.repeat(np.arange(50), 6)
    one, other = PKSampler(labels, 10, 3, seed=1), PKSampler(labels, 10, 3, seed=2)
    rounds = batches(one, 20)[1].reshape(4, -1)
    assert len({tuple(a_round) for a_round in rounds}) == 4
    assert (batches(one, 5)[0] != batches(other, 5)[0]).any()
    assert (batches(one, 5)[0] == batches(PKSampler(labels, 10, 3, seed=1), 5)[0]).all()


def test_batches_are_those_of_every_version():
    """Resuming a run on another machine or TensorFlow must give the same batches: these numbers may never change."""
    sampler = PKSampler([5, 5, 5, -1, -1, 9, 9, 9, 9, 9, 2, 2, 2], classes=3, examples=2, seed=3)
    drawn = [[part.tolist() for part in sampler.batch_at(step)] for step in range(3)]
    assert drawn == [
        [[4, 3, 0, 2, 12, 10], [-1, -1, 5, 5, 2, 2]],
        [[2, 1, 10, 11, 7, 9], [5, 5, 2, 2, 9, 9]],
        [[6, 5, 4, 3, 10, 11], [9, 9, -1, -1, 2, 2]],
    ]


def test_any_step_can_be_reached_at_once():
    sampler = PKSampler(labels_of_sizes([4] * 11), classes=4, examples=2)
    far = 10**15
    indices, labels = batches(sampler, 3, start=far)
    for offset in range(3):
        expected_indices, expected_labels = sampler.batch_at(far + offset)
        assert (indices[offset] == expected_indices).all()
        assert (labels[offset] == expected_labels).all()


@pytest.mark.parametrize("num_shards", [2, 3])
def test_shards_together_are_the_whole_batch(num_shards):
    sampler = PKSampler(labels_of_sizes([5] * 14), classes=6, examples=3)
    whole_indices, whole_labels = batches(sampler, 7, start=2)
    parts = [
        np.stack(list(sampler.indices(2, shard_index=i, num_shards=num_shards).take(7).as_numpy_iterator()), axis=1)
        for i in range(num_shards)
    ]
    assert {part.shape for part in parts} == {(2, 7, 18 // num_shards)}
    assert (np.concatenate(parts, axis=2) == [whole_indices, whole_labels]).all()


def test_labels_come_back_exactly():
    labels = np.repeat([-(2**63), -1, 2**24, 2**24 + 1, 2**53 + 1, 2**63 - 1], 2)
    _, drawn = PKSampler(labels, classes=6, examples=2).batch_at(0)
    assert sorted(drawn) == sorted(labels)


def test_string_labels_come_back_as_numbers_of_names():
    names = np.array(["tea", "milk", "rye", "tea", "milk", "rye"])
    sampler = PKSampler(names, classes=2, examples=2)
    indices, labels = sampler.batch_at(0)
    assert sampler.class_names == ("milk", "rye", "tea")
    assert [sampler.class_names[label] for label in labels] == names[indices].tolist()
    assert PKSampler([1, 2], classes=2).class_names is None


@pytest.mark.parametrize(("classes", "examples"), [(1, 1), (1, 4), (5, 1), (5, 2)])
def test_smallest_and_largest_batches(classes, examples):
    sampler = PKSampler(labels_of_sizes([2] * 5), classes=classes, examples=examples)
    indices, labels = sampler.batch_at(sampler.steps_per_epoch)
    assert indices.shape == labels.shape == (classes * examples,)
    assert len(set(labels)) == classes


def test_one_class_with_many_items():
    drawn, _ = batches(PKSampler(np.zeros(1000, np.int64), classes=1, examples=8), 125)
    assert sorted(drawn.ravel()) == list(range(1000))


SMALL = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3]


def test_small_classes_repeat():
    sampler = PKSampler(SMALL, classes=4, examples=3)
    indices, labels = sampler.batch_at(0)
    counts = {label: sorted(np.unique(indices[labels == label], return_counts=True)[1]) for label in range(4)}
    assert counts == {0: [1, 1, 1], 1: [1, 2], 2: [3], 3: [1, 1, 1]}


def test_small_classes_drop():
    sampler = PKSampler(SMALL, classes=2, examples=3, small_classes="drop")
    assert (sampler.num_classes, sampler.num_items) == (2, 7)
    indices, labels = batches(sampler, 20)
    assert set(labels.ravel()) == {0, 3}
    assert (np.asarray(SMALL)[indices] == labels).all()
    assert set(indices.ravel()) == {0, 1, 2, 6, 7, 8, 9}


def test_dropping_keeps_the_numbers_of_names():
    sampler = PKSampler(["a", "b", "b", "c", "c"], classes=2, examples=2, small_classes="drop")
    assert sampler.class_names == ("a", "b", "c")
    assert set(sampler.batch_at(0)[1]) == {1, 2}


def test_small_classes_error():
    with pytest.raises(ValueError, match=r"2 classes have fewer than examples=3 items, class 1 for one: it has 2.*'repeat'"):
        PKSampler(SMALL, classes=2, examples=3, small_classes="error")
    with pytest.raises(ValueError, match=r"class 'b' for one"):
        PKSampler(["a", "a", "b"], classes=1, examples=2, small_classes="error")
    assert PKSampler(SMALL, classes=4, examples=1, small_classes="error").num_classes == 4


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"classes": 5}, ValueError, "classes=5: there are only 4 classes.*classes=4 or less"),
        ({"classes": 3, "small_classes": "drop"}, ValueError, "only 2 classes with at least examples=3 items.*'repeat'"),
        ({"classes": 0}, ValueError, "classes=0: expected an integer of at least 1"),
        ({"classes": 2.0}, TypeError, "classes=2.0 is a float"),
        ({"classes": True}, TypeError, "classes=True is a bool"),
        ({"classes": 2, "examples": 0}, ValueError, "examples=0"),
        ({"classes": 2, "seed": -1}, ValueError, "seed=-1: expected an integer from 0 to"),
        ({"classes": 2, "seed": 2**64}, ValueError, "seed=18446744073709551616"),
        ({"classes": 2, "seed": None}, TypeError, "seed=None"),
        ({"classes": 2, "small_classes": "dorp"}, ValueError, "small_classes='dorp'.*'repeat', 'drop', 'error'"),
    ],
)
def test_bad_arguments(keywords, error, message):
    with pytest.raises(error, match=message):
        PKSampler(SMALL, **{"examples": 3, **keywords})


def test_bad_labels_are_refused():
    with pytest.raises(TypeError, match="float64"):
        PKSampler([0.0, float("nan")])
    with pytest.raises(ValueError, match="empty"):
        PKSampler([])


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"start_step": -1}, ValueError, "start_step=-1"),
        ({"start_step": 1.5}, TypeError, "start_step=1.5"),
        ({"num_shards": 3}, ValueError, "num_shards=3 does not divide classes=4.*classes=6"),
        ({"num_shards": 0}, ValueError, "num_shards=0"),
        ({"num_shards": 2, "shard_index": 2}, ValueError, "shard_index=2: expected an integer from 0 to 1"),
    ],
)
def test_bad_dataset_arguments(keywords, error, message):
    sampler = PKSampler(SMALL, classes=4)
    with pytest.raises(error, match=message):
        sampler.indices(**keywords)
    with pytest.raises(error, match=message):
        sampler.dataset(lambda index: index, **keywords)


def test_batch_at_refuses_a_negative_step():
    with pytest.raises(ValueError, match="step=-1"):
        PKSampler(SMALL, classes=4).batch_at(-1)


def test_the_graph_does_not_grow_with_the_classes():
    def graph_of(num_classes: int):
        sampler = PKSampler(np.arange(num_classes * 20) % num_classes, classes=8)
        graph = tf.function(lambda: next(iter(sampler.indices()))).get_concrete_function().graph.as_graph_def()
        return len(graph.node) + sum(len(part.node_def) for part in graph.library.function), graph.ByteSize()

    small, large = graph_of(10), graph_of(20_000)
    assert small[0] == large[0] > 100
    assert large[1] < 200_000, "no table of labels is part of the graph"
