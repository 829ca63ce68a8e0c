"""k-reciprocal re-ranking against plain loops, and the figures of given distances."""

from __future__ import annotations

import evaluation_oracles as oracles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.evaluation import k_reciprocal_distances, retrieval, retrieval_by_distances

pytestmark = pytest.mark.one_stack


def clusters(count=60, dimension=4, classes=5, spread=0.9, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    x = random.normal(size=(classes, dimension))[labels] + spread * random.normal(size=(count, dimension))
    return x.astype(np.float32), labels


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(6, 30),
    k1=st.integers(1, 5),
    data=st.data(),
    weight=st.sampled_from([0, 0.3, 1]),
    metric=st.sampled_from(["euclidean", "cosine"]),
    block=st.sampled_from([1, 1 << 25]),
)
def test_agrees_with_plain_loops(seed, count, k1, data, weight, metric, block) -> None:
    x, _ = clusters(count, 3, 3, seed=seed)
    k2 = data.draw(st.integers(1, k1 + 1))
    expected = oracles.k_reciprocal(x, k1, k2, weight, metric)
    found = k_reciprocal_distances(x, k1=k1, k2=k2, weight=weight, metric=metric, block=block)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_defaults_on_more_items_with_queries_and_gallery() -> None:
    x, _ = clusters(90)
    found = k_reciprocal_distances(x[:30], x[30:])
    expected = oracles.k_reciprocal(x, 20, 6, 0.3)[:30, 30:]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(k_reciprocal_distances(x)[:30, 30:], expected, atol=2e-6)


def test_copies_and_a_collapsed_embedding() -> None:
    x, _ = clusters(20)
    copies = np.repeat(x, 2, axis=0)
    found = k_reciprocal_distances(copies, k1=5, k2=2)
    np.testing.assert_allclose(found, oracles.k_reciprocal(copies, 5, 2, 0.3), atol=2e-6)
    same = np.full((12, 3), 0.7, np.float32)
    np.testing.assert_allclose(k_reciprocal_distances(same, k1=4, k2=1), oracles.k_reciprocal(same, 4, 1, 0.3), atol=2e-6)


def test_weight_1_keeps_the_order_of_the_distances() -> None:
    x, labels = clusters()
    before = retrieval(x, labels, metric="euclidean")
    after = retrieval_by_distances(k_reciprocal_distances(x, weight=1.0), labels)
    assert after.figures() == pytest.approx(before.figures())


def test_neighbourhoods_bring_in_what_lies_far_off() -> None:
    for seed in range(3):
        labels = np.arange(60) // 20
        x = np.eye(3)[labels] + 0.35 * np.random.default_rng(seed).normal(size=(60, 3))
        before = retrieval(x, labels, metric="euclidean")
        after = retrieval_by_distances(k_reciprocal_distances(x, k1=15), labels)
        assert after.map_at_r > before.map_at_r + 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k1": 0}, "k1=0: expected a whole number from 1 to 59"),
        ({"k1": 60}, "k1=60: expected a whole number from 1 to 59, since there are 60 items in all"),
        ({"k1": 5.0}, "k1=5.0"),
        ({"k2": 22}, "k2=22: expected a whole number from 1 to 21, since k1 is 20"),
        ({"weight": 1.1}, "weight=1.1"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"metric": "dot"}, "metric='dot'"),
        ({"gallery": np.ones((4, 3))}, "gallery: dimension 3, but embeddings have 4"),
        ({"gallery": np.full((4, 4), np.inf)}, "gallery: NaN or infinity"),
    ],
)
def test_bad_input(arguments, message) -> None:
    x, _ = clusters()
    with pytest.raises(ValueError, match=message):
        k_reciprocal_distances(x, **arguments)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 8), whole=st.booleans())
def test_figures_of_given_distances_are_those_of_retrieval(seed, classes, whole) -> None:
    random = np.random.default_rng(seed)
    labels = np.append([0, 0, 1], random.integers(0, classes, 27))
    x = random.integers(-1, 2, (30, 3)) if whole else random.normal(size=(30, 3))
    distances = [[oracles.distance(u, v, "euclidean") for v in x] for u in x]
    expected = retrieval(x, labels, metric="euclidean", ks=(1, 4))
    found = retrieval_by_distances(distances, labels, ks=(1, 4))
    assert found.as_dict() == pytest.approx(expected.as_dict())
    np.testing.assert_array_equal(found.per_query.nearest, expected.per_query.nearest)
    np.testing.assert_array_equal(found.per_query.correct, expected.per_query.correct)
    np.testing.assert_allclose(found.per_query.distances, expected.per_query.distances, atol=1e-6)
    among = retrieval(x[:9], labels[:9], None, x[9:], labels[9:], metric="euclidean", ks=(2,)) if classes < 3 else None
    if among:
        part = np.array(distances)[:9, 9:]
        assert retrieval_by_distances(part, labels[:9], labels[9:], ks=(2,)).as_dict() == pytest.approx(among.as_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"distances": np.zeros(3)}, "expected a matrix"),
        ({"distances": [[0, 1, 2], [1, 0, np.nan], [2, 1, 0]]}, "NaN in row 1 of 3"),
        ({"distances": np.zeros((3, 4))}, "one label for each of the 4 items"),
        ({"labels": [0, 0]}, "expected 3 labels"),
        ({"labels": [0, 1, 2]}, "has an answer"),
        ({"ks": (3,)}, "only 2 items"),
        ({"gallery_labels": [0, 0]}, "gallery_labels: expected 3 labels"),
    ],
)
def test_distances_that_mean_nothing(arguments, message) -> None:
    good = {"distances": np.zeros((3, 3)), "labels": [0, 0, 1], "ks": (1,)}
    assert retrieval_by_distances(**good).queries_without_answer == 1
    with pytest.raises(ValueError, match=message):
        retrieval_by_distances(**{**good, **arguments})
