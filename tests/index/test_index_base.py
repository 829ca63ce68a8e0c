"""The checks that every index shares."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tfdml.index import AnnoyIndex, ExactIndex, VectorIndex
from tfdml.index.base import check_ids, check_k, check_queries, check_vectors


def test_the_index_loads_no_tensorflow() -> None:
    program = (
        "import sys, tfdml, tfdml.index, tfdml.evaluation; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_both_indexes_are_vector_indexes() -> None:
    vectors, ids = np.eye(3), ["a", "b", "c"]
    assert isinstance(ExactIndex(vectors, ids), VectorIndex)
    assert isinstance(AnnoyIndex.build(vectors, ids), VectorIndex)
    assert not isinstance(vectors, VectorIndex)


@pytest.mark.parametrize("index", [ExactIndex, AnnoyIndex.build])
@pytest.mark.parametrize(
    ("vectors", "ids", "message"),
    [
        (np.ones(3), ["a"], r"2-D array .* received shape \(3,\)"),
        (np.ones((0, 3)), [], "empty"),
        (np.ones((2, 0)), ["a", "b"], "empty"),
        ([[1.0, np.nan], [1.0, 2.0], [np.inf, 0.0]], ["a", "b", "c"], "NaN or infinity .* in rows 0, 2 of 3"),
        ([[1.0, 1e300]], ["a"], r"NaN or infinity \(in float32\) in row 0 of 1"),
        ([[1.0, 0.0], [0.0, 0.0]], ["a", "b"], "zero vector in row 1 of 2.*metric='euclidean'"),
        (np.ones((2, 2)), ["a"], "1 ids for 2 vectors"),
        (np.ones((2, 2)), ["a", "b", "c"], "3 ids for 2 vectors"),
        (np.ones((3, 2)), ["a", "b", "a"], "'a' is the id of item 0 and of item 2"),
        (np.ones((2, 2)), ["a", 7], r"received int 7 for item 1"),
        (np.ones((2, 2)), "ab", "received a single one"),
        (np.ones((2, 2), bool), ["a", "b"], "received dtype bool"),
        ([["x", "y"]], ["a"], "expected real numbers"),
    ],
)
def test_bad_galleries_are_refused(index, vectors, ids, message) -> None:
    with pytest.raises(ValueError, match=message):
        index(vectors, ids, "cosine")


@pytest.mark.parametrize("index", [ExactIndex, AnnoyIndex.build])
def test_an_unknown_metric_lists_the_known_ones(index) -> None:
    with pytest.raises(ValueError, match=r"metric='dot' is not known. Known: 'cosine', 'euclidean'"):
        index(np.eye(2), ["a", "b"], "dot")


def test_many_bad_rows_are_counted_not_listed() -> None:
    with pytest.raises(ValueError, match="rows 0, 1, 2, 3, 4 and 95 more of 100"):
        check_vectors(np.full((100, 2), np.nan), "euclidean")


def test_finite_rows_whose_sum_is_beyond_float32_are_accepted() -> None:
    assert check_vectors([[3e38, 3e38]], "euclidean").dtype == np.float32


def test_cosine_divides_by_the_length() -> None:
    found = check_vectors([[3.0, 4.0], [1e-30, 0.0], [1e30, 1e30]], "cosine")
    np.testing.assert_allclose(found, [[0.6, 0.8], [1, 0], [0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_vectors_in_bfloat16_are_numbers() -> None:
    half = pytest.importorskip("ml_dtypes").bfloat16
    vectors = np.array([[3, 4], [1, 0]], half)
    np.testing.assert_allclose(check_vectors(vectors, "cosine"), [[0.6, 0.8], [1, 0]], rtol=1e-6)
    assert check_queries(vectors[0], 2, "euclidean").tolist() == [[3, 4]]


def test_ids_become_plain_strings() -> None:
    ids = check_ids(np.array(["a", "ä"]), 2)
    assert ids == ("a", "ä")
    assert all(type(i) is str for i in ids)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (np.ones(3), r"expected shape \[B, 4\] or \[4\], the dimension of this index, received \(3,\)"),
        (np.ones((2, 5)), r"received \(2, 5\)"),
        (np.ones((1, 2, 4)), "expected shape"),
        ([1.0, np.nan, 0.0, 0.0], "queries: NaN or infinity"),
        (np.zeros(4), "queries: zero vector"),
    ],
)
def test_bad_queries_are_refused(queries, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_queries(queries, 4, "cosine")


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "3", None])
def test_k_is_a_whole_number(k) -> None:
    with pytest.raises(ValueError, match="expected a whole number >= 1"):
        check_k(k, 10)


def test_k_larger_than_the_gallery_is_an_error() -> None:
    with pytest.raises(ValueError, match="k=11: only 10 items can be returned"):
        check_k(11, 10)
    assert check_k(np.int64(10), 10) == 10
