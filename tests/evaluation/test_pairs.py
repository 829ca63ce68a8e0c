"""Which pairs are compared: none twice, none across folds, every one equally likely."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.evaluation import VerificationPairs, verification_pairs

pytestmark = pytest.mark.one_stack


def as_sets(pairs):
    return [frozenset((int(i), int(j))) for i, j in zip(pairs.left, pairs.right, strict=True)]


@settings(max_examples=40, deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=4, max_size=25))
def test_without_numbers_every_pair_is_there_once(labels) -> None:
    labels = [0, 0, 1, *labels]
    pairs = verification_pairs(labels, None, None, folds=None)
    expected = {frozenset((i, j)): labels[i] == labels[j] for j in range(len(labels)) for i in range(j)}
    assert dict(zip(as_sets(pairs), pairs.same.tolist(), strict=True)) == expected
    assert len(pairs) == len(expected)
    assert pairs.folds is None


def test_pairs_in_the_manner_of_lfw() -> None:
    labels = np.random.default_rng(0).integers(0, 50, 800)
    names = np.array([f"person {label}" for label in labels])
    pairs = verification_pairs(names, seed=4)
    assert repr(pairs) == "VerificationPairs(3,000 positive, 3,000 negative, 10 folds)"
    assert Counter(zip(pairs.folds.tolist(), pairs.same.tolist(), strict=True)) == {
        (fold, same): 300 for fold in range(10) for same in (True, False)
    }
    assert len(set(as_sets(pairs))) == 6000
    np.testing.assert_array_equal(labels[pairs.left] == labels[pairs.right], pairs.same)
    fold_of_class = {}
    for i, j, fold in zip(pairs.left, pairs.right, pairs.folds, strict=True):
        for label in (labels[i], labels[j]):
            assert fold_of_class.setdefault(label, fold) == fold
    again, other = verification_pairs(labels, seed=4), verification_pairs(labels, seed=5)
    assert set(as_sets(again)) != set(as_sets(other))


def test_the_same_seed_gives_the_same_pairs_everywhere() -> None:
    pairs = verification_pairs(np.arange(40) // 4, 4, 4, folds=2, seed=1)
    assert list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == [
        (20, 22),
        (16, 17),
        (17, 36),
        (18, 23),
        (28, 31),
        (1, 2),
        (6, 24),
        (5, 11),
    ]


def test_every_pair_is_equally_likely() -> None:
    labels = [0, 0, 0, 1, 1, 2]
    positive, negative = Counter(), Counter()
    for seed in range(600):
        pairs = verification_pairs(labels, 1, 3, folds=None, seed=seed)
        for pair, same in zip(as_sets(pairs), pairs.same, strict=True):
            (positive if same else negative)[pair] += 1
    for counts, kinds in ((positive, 4), (negative, 11)):
        assert len(counts) == kinds
        expected = sum(counts.values()) / kinds
        # Chi-square, 3 and 10 degrees of freedom: beyond 40 once in 10,000 runs; seeds are fixed.
        assert sum((n - expected) ** 2 / expected for n in counts.values()) < 30


def test_a_few_of_many_pairs_are_drawn_without_listing_them() -> None:
    labels = np.arange(200_000) // 2
    pairs = verification_pairs(labels, 500, 5000, folds=None)
    assert len(set(as_sets(pairs))) == 5500
    assert (labels[pairs.left] == labels[pairs.right]).sum() == 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positives": 9}, r"positives=9: fold 0 has 5 of them to draw, and 4 pairs in all"),
        ({"negatives": 1}, r"negatives=1: fold 1 has 0 of them to draw"),
        ({"positives": 9, "folds": None}, "positives=9: there are 8 pairs"),
        ({"positives": 0}, "positives=0"),
        ({"negatives": -1}, "negatives=-1"),
        ({"folds": 5}, "folds=5: folds share no class"),
        ({"folds": 2.0}, "folds=2.0: expected a whole number"),
        ({"labels": [[0, 1], [1, 0]]}, "labels: expected"),
    ],
)
def test_more_than_there_is(arguments, message) -> None:
    good = {"labels": np.arange(16) // 2, "positives": 8, "negatives": 20, "folds": 2}
    assert len(verification_pairs(**good)) == 28
    with pytest.raises(ValueError, match=message):
        verification_pairs(**{**good, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"right": [1]}, "right: expected 2 integers"),
        ({"right": [1.0, 2.0]}, "right: expected 2 integers"),
        ({"left": [-1, 0]}, "left: received -1"),
        ({"same": [True]}, "same: expected 2 booleans"),
        ({"same": [2, 0]}, "same: expected 2 booleans"),
        ({"folds": [0]}, "folds: expected 2 integers"),
        ({"right": [0, 2]}, "pair 0 compares item 0 with itself"),
    ],
)
def test_lists_that_are_none(arguments, message) -> None:
    good = {"left": [0, 0], "right": [1, 2], "same": [1, 0]}
    assert VerificationPairs(**good).same.dtype == bool
    with pytest.raises(ValueError, match=message):
        VerificationPairs(**{**good, **arguments})
