"""Shards searched as one: over exact shards, the answers of one exact index."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfdml.index import AnnoyIndex, ExactIndex, ShardedIndex, VectorIndex

RNG = np.random.default_rng(4)
# Whole numbers: many equal distances, whose order must be that of the item numbers.
VECTORS = np.concatenate([RNG.normal(size=(150, 6)), RNG.integers(1, 3, size=(150, 6))]).astype(np.float32)
IDS = [f"item-{number}" for number in range(300)]


def sharded(cuts: list[int], metric: str = "cosine") -> ShardedIndex:
    ends = [0, *cuts, len(VECTORS)]
    return ShardedIndex([ExactIndex(VECTORS[a:b], IDS[a:b], metric) for a, b in itertools.pairwise(ends)])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 10, 299, 300])
@pytest.mark.parametrize("cuts", [[], [1], [100, 200], [3, 150, 290]])
def test_exact_shards_answer_as_one_exact_index(metric, k, cuts):
    queries = np.concatenate([VECTORS[::29], RNG.normal(size=(5, 6))])
    index, whole = sharded(cuts, metric), ExactIndex(VECTORS, IDS, metric)
    found, expected = index.search(queries, k), whole.search(queries, k)
    np.testing.assert_array_equal(found.numbers, expected.numbers)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-6)  # NumPy sums a single row in another order
    assert found.ids.tolist() == expected.ids.tolist()


def test_near_duplicates_that_float32_cannot_tell_apart_come_in_the_true_order():
    steps = 1.0 + 1e-7 * np.array([3, 1, 2, 0])
    vectors = np.stack([1000 * steps, np.zeros(4)], axis=1).astype(np.float32)
    whole = ExactIndex(vectors, IDS[:4], "euclidean")
    index = ShardedIndex([ExactIndex(vectors[:2], IDS[:2], "euclidean"), ExactIndex(vectors[2:], IDS[2:4], "euclidean")])
    np.testing.assert_array_equal(index.search([0.0, 1e5], 4).numbers, whole.search([0.0, 1e5], 4).numbers)


def test_it_is_a_vector_index_over_all_items():
    index = sharded([100, 200])
    assert isinstance(index, VectorIndex)
    assert (len(index), index.dimension, index.metric, list(index.ids)) == (300, 6, "cosine", IDS)
    numbers = np.array([[299, 0], [100, 99]])
    np.testing.assert_array_equal(index.vectors(numbers), ExactIndex(VECTORS, IDS).vectors()[numbers])
    assert "300 items in 3 shards of exact" in repr(index)
    assert index.search(np.zeros((0, 6)), 3).numbers.shape == (0, 3)


def test_approximate_shards_keep_their_recall():
    vectors = np.random.default_rng(1).normal(size=(1200, 16))
    ids = [str(number) for number in range(1200)]
    index = ShardedIndex([AnnoyIndex.build(vectors[a : a + 400], ids[a : a + 400], recall=0.9) for a in (0, 400, 800)])
    queries = np.random.default_rng(2).normal(size=(60, 16))
    found, expected = index.search(queries, 10), ExactIndex(vectors, ids).search(queries, 10)
    share = np.mean([len(set(a) & set(b)) for a, b in zip(found.numbers, expected.numbers, strict=True)]) / 10
    assert share >= 0.85
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_shards_that_do_not_go_together_are_refused():
    one = ExactIndex(VECTORS[:5], IDS[:5])
    for shards, words in [
        ([], "received none"),
        ([one, ExactIndex(VECTORS[5:9], IDS[5:9], "euclidean")], "shard 1 has dimension=6 and metric='euclidean'"),
        ([one, ExactIndex(VECTORS[5:9, :4], IDS[5:9])], "shard 1 has dimension=4"),
        ([one, ExactIndex(VECTORS[5:9], IDS[4:8])], "'item-4' is the id of item 4 and of item 5"),
    ]:
        with pytest.raises(ValueError, match=words):
            ShardedIndex(shards)
    with pytest.raises(ValueError, match="k=301"):
        sharded([7]).search(VECTORS[0], 301)
    with pytest.raises(ValueError, match="expected shape"):
        sharded([7]).search([1.0, 2.0], 1)
