"""Exact search: agrees with brute force in float64, near-duplicates and ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from index_checks import assert_threads_agree
from sklearn.neighbors import NearestNeighbors

from tfdml.index import ExactIndex
from tfdml.index._nearest import NearestRows, k_smallest
from tfdml.index.base import check_vectors


def ids_of(vectors) -> list[str]:
    return [f"item-{number}" for number in range(len(vectors))]


def brute_force(vectors, queries, k, exclude=None):
    """Numbers and squared distances by loops over rows, ordered by (distance, number)."""
    numbers, squares = [], []
    for row, query in enumerate(queries):
        distances = ((vectors.astype(np.float64) - query.astype(np.float64)) ** 2).sum(axis=1)
        order = [n for n in np.argsort(distances, kind="stable") if exclude is None or n != exclude[row]][:k]
        numbers.append(order)
        squares.append(distances[order])
    return np.array(numbers), np.array(squares)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_agrees_with_scikit_learn(metric) -> None:
    random = np.random.default_rng(0)
    vectors, queries = random.normal(size=(700, 24)), random.normal(size=(90, 24))
    found = ExactIndex(vectors, ids_of(vectors), metric).search(queries, k=7)
    distances, numbers = NearestNeighbors(n_neighbors=7, metric=metric, algorithm="brute").fit(vectors).kneighbors(queries)
    np.testing.assert_array_equal(found.numbers, numbers)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5, atol=1e-6)
    assert found.ids[3, 2] == f"item-{numbers[3, 2]}"
    assert (found.numbers.dtype, found.distances.dtype, len(found)) == (np.int64, np.float32, 90)


@settings(max_examples=80, deadline=None)
@example(  # squares of 1e-12 beside squares of 1
    seed=1302, count=275, dimension=2, copies=False, spread=1e-6, shift=1.0, exact_distances=False, block_bytes=1
)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 400),
    dimension=st.integers(1, 40),
    copies=st.booleans(),
    spread=st.sampled_from([1.0, 1e-3, 1e-6, 0.0]),
    shift=st.sampled_from([0.0, 1.0, 1e3]),
    exact_distances=st.booleans(),
    block_bytes=st.sampled_from([1, 5000, 1 << 20]),
)
def test_the_order_is_exact(seed, count, dimension, copies, spread, shift, exact_distances, block_bytes) -> None:
    random = np.random.default_rng(seed)
    centers = random.normal(size=(max(1, count // 8), dimension)) + shift
    vectors = centers[random.integers(0, len(centers), count)] + spread * random.normal(size=(count, dimension))
    if copies:
        vectors = vectors[random.integers(0, count, count)]
    vectors = vectors.astype(np.float32)
    k = int(random.integers(1, count))
    own = np.arange(count)
    _, expected_squares = brute_force(vectors, vectors, k, own)
    search = NearestRows(vectors).search(vectors, k, own, exact_distances=exact_distances, block_bytes=block_bytes)
    blocks = list(search)
    assert [block.start for block in blocks] == list(np.cumsum([0, *[len(block.numbers) for block in blocks[:-1]]]))
    numbers = np.concatenate([block.numbers for block in blocks])
    squares = np.concatenate([block.squared_distances for block in blocks])
    if exact_distances:
        np.testing.assert_allclose(squares, expected_squares, rtol=1e-12)
    # Two summation orders may part distances that agree to the last bits, so the order is judged by the distances themselves.
    chosen = ((vectors[numbers].astype(np.float64) - vectors[:, None].astype(np.float64)) ** 2).sum(axis=2)
    np.testing.assert_allclose(chosen, expected_squares, rtol=1e-12)
    assert (numbers != own[:, None]).all()
    assert all(len(set(row)) == k for row in numbers.tolist())


def test_near_duplicates_come_in_the_right_order() -> None:
    random = np.random.default_rng(1)
    base = random.normal(size=512)
    base /= np.linalg.norm(base)
    offset = random.normal(size=512)
    offset /= np.linalg.norm(offset)
    steps = np.array([3, 1, 4, 2, 5]) * 1e-4
    vectors = np.concatenate([base + steps[:, None] * offset, random.normal(size=(500, 512))]).astype(np.float32)
    index = ExactIndex(vectors, ids_of(vectors), "euclidean")
    found = index.search(base, k=5)
    assert found.numbers[0].tolist() == [1, 3, 0, 2, 4]
    np.testing.assert_allclose(found.distances[0], np.array([1, 2, 3, 4, 5]) * 1e-4, rtol=1e-2)


def test_equal_distances_are_ordered_by_number() -> None:
    vectors = np.tile([[1.0, 0.0], [0.0, 1.0]], (50, 1))
    found = ExactIndex(vectors, ids_of(vectors)).search([[1.0, 0.0], [0.0, 1.0]], k=3)
    assert found.numbers.tolist() == [[0, 2, 4], [1, 3, 5]]
    assert found.distances.max() == 0


def test_a_collapsed_gallery_is_searched_too() -> None:
    vectors = np.tile(np.random.default_rng(0).normal(size=8), (3000, 1)).astype(np.float32)
    found = ExactIndex(vectors, ids_of(vectors)).search(vectors[:5], k=4, exclude=[0, 1, 2, 3, 2999])
    assert found.numbers.tolist() == [[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 4], [0, 1, 2, 3]]


def test_an_outlier_does_not_blur_the_rest() -> None:
    vectors = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    vectors[500] = 1e12
    numbers, _ = brute_force(vectors, vectors[:20], 6)
    found = ExactIndex(vectors, ids_of(vectors), "euclidean").search(vectors[:20], k=6)
    np.testing.assert_array_equal(found.numbers, numbers)


def test_a_query_beyond_float32_squares_is_answered() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    query = np.array([3e38, -1e38, 0], np.float32)
    found = ExactIndex(vectors, ids_of(vectors), "euclidean").search(query, k=40)
    # From there all items are equally far, in float64 too.
    assert found.numbers[0].tolist() == list(range(40))
    assert ExactIndex(vectors, ids_of(vectors), "euclidean").search(query, k=3).numbers[0].tolist() == [0, 1, 2]
    assert np.isfinite(found.distances).all()


def test_exclude_leaves_out_one_item_per_query() -> None:
    vectors = np.eye(4)
    index = ExactIndex(vectors, ids_of(vectors))
    assert index.search(vectors, k=1, exclude=[-1, 1, 0, 3]).numbers[:, 0].tolist() == [0, 0, 2, 0]
    with pytest.raises(ValueError, match="only 3 items can be returned"):
        index.search(vectors, k=4, exclude=np.arange(4))
    for exclude in ([0, 1], [0.0] * 4, [4, 0, 0, 0], [-2, 0, 0, 0]):
        with pytest.raises(ValueError, match="exclude: expected"):
            index.search(vectors, k=1, exclude=exclude)


def test_one_query_counts_as_a_batch_of_one_and_none_as_none() -> None:
    index = ExactIndex(np.eye(3), ["a", "b", "c"])
    assert index.search([0, 1, 0], k=2).ids.shape == (1, 2)
    assert index.search(np.zeros((0, 3)), k=2).numbers.shape == (0, 2)
    assert (len(index), index.dimension, index.metric, index.ids) == (3, 3, "cosine", ("a", "b", "c"))


def test_many_threads_get_the_same_answers() -> None:
    vectors = np.random.default_rng(0).normal(size=(600, 16))
    assert_threads_agree(ExactIndex(vectors, ids_of(vectors)), vectors)


def test_k_smallest_breaks_ties_by_position() -> None:
    numbers, values = k_smallest(np.array([2.0, 1.0, 2.0, 0.0, 1.0, 2.0]), 4)
    assert numbers.tolist() == [3, 1, 4, 0]
    assert values.tolist() == [0, 1, 1, 2]


def test_far_from_the_origin_distances_stay_exact() -> None:
    vectors = (np.random.default_rng(0).normal(size=(300, 6)) + 1e4).astype(np.float32)
    numbers, squares = brute_force(vectors, vectors[:9], 8)
    found = ExactIndex(vectors, ids_of(vectors), "euclidean").search(vectors[:9], k=8)
    np.testing.assert_array_equal(found.numbers, numbers)
    np.testing.assert_allclose(found.distances, np.sqrt(squares), rtol=1e-6)


def test_stored_vectors_can_be_read() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    index = ExactIndex(vectors, ids_of(vectors))
    np.testing.assert_array_equal(index.vectors([3, 1]), check_vectors(vectors, "cosine")[[3, 1]])
    assert index.vectors().shape == (5, 3)
