import numpy as np
import pytest
import tensorflow as tf

from tfdml.mining import Pairs
from tfdml.mining.pairs import as_pairs

LAYOUTS = [
    [3],
    [3, 3],
    [3, 5],
    [5, 3, 5, 4, 3, 5, 5],
    [-1, 0, -1, 2**24, 2**24 + 1, 2**62, -(2**63), -(2**63)],
    list(range(7)),
    [0] * 9 + [1] + [2] * 3,
]
SETS = [{0, 1}, {1}, {0}, {2}, {1, 2, 3}, set(), {3}, {0, 1}]
ROWS = np.array([[k in row for k in range(4)] for row in SETS])


def kinds(labels, others, valid, itself):
    return [
        [
            0 if not valid[j] or itself[i] == j else 1 if (a & b if isinstance(a, set) else a == b) else -1
            for j, b in enumerate(others)
        ]
        for i, a in enumerate(labels)
    ]


def assert_holds(pairs, expected):
    """Masks and counts, and that the searches find each one once, in order."""
    expected = np.array(expected)
    for kind, mask, count, nth in (
        (1, pairs.positive, pairs.positive_count, pairs.nth_positive()),
        (-1, pairs.negative, pairs.negative_count, pairs.nth_negative()),
    ):
        np.testing.assert_array_equal(mask, expected == kind)
        np.testing.assert_array_equal(count, (expected == kind).sum(1))
        width = expected.shape[1]
        together = nth(tf.range(width)[:, None]).numpy()
        for a in range(len(expected)):
            columns = np.flatnonzero(expected[a] == kind).tolist()
            assert [int(nth(n)[a]) for n in range(len(columns))] == columns
            assert together[: len(columns), a].tolist() == columns
        assert together.min() >= 0
        assert together.max() < width
    np.testing.assert_array_equal(pairs.complete, (expected == 1).any(1) & (expected == -1).any(1))


@pytest.mark.parametrize("labels", LAYOUTS)
def test_within_a_batch(labels):
    itself = range(len(labels))
    expected = kinds(labels, labels, [True] * len(labels), itself)
    labels = tf.constant(labels, tf.int64)
    assert_holds(Pairs.within(labels), expected)
    assert_holds(Pairs.between(labels, labels, itself=itself), expected)


def test_items_with_several_labels():
    assert_holds(Pairs.within(ROWS), kinds(SETS, SETS, [True] * 8, range(8)))


def test_between_anchors_and_references():
    valid, itself = [True] * 6 + [False, True], [3, -1, 7]
    expected = kinds(SETS[:3], SETS, valid, itself)
    assert_holds(Pairs.between(ROWS[:3], ROWS, valid, itself), expected)
    numbers = [5, 3, 5, 4, 3, 5, 5, 3]
    assert_holds(Pairs.between([5, 3, 8], numbers, valid, itself), kinds([5, 3, 8], numbers, valid, itself))
    assert_holds(Pairs.between([5, 3, 8], numbers), kinds([5, 3, 8], numbers, [True] * 8, [-1] * 3))


@pytest.mark.parametrize(("one", "other"), [("int16", "int64"), ("uint8", "int32"), ("int64", "float32"), ("bool", "int32")])
def test_labels_of_different_types(one, other):
    positive = Pairs.between(tf.cast([0, 1], one), tf.cast([1, 0, 2], other)).positive
    assert positive.numpy().tolist() == [[False, True, False], [True, False, False]]
    wide = Pairs.between(tf.constant([1], tf.int16), tf.constant([1 + 2**16], tf.int64))
    assert not wide.positive.numpy().any()


@pytest.mark.parametrize("make", [lambda y: Pairs.within(y), lambda y: Pairs.within(y[:, None] == tf.range(5))])
def test_the_same_under_xla_with_a_batch_size_left_open(make):
    labels = tf.constant([1, 0, 3, 1, 1, 0, 4])

    def found(y):
        pairs = make(y)
        return pairs.positive_count, pairs.nth_positive()(tf.range(2)[:, None]), pairs.nth_negative()(tf.range(4)[:, None])

    open_size = tf.function(found, input_signature=[tf.TensorSpec([None], tf.int32)])
    for one, other, third in zip(found(labels), tf.function(found, jit_compile=True)(labels), open_size(labels), strict=True):
        np.testing.assert_array_equal(one, third)
        # Beyond the last positive anything may stand.
        np.testing.assert_array_equal(one[..., 3:5], other[..., 3:5])


def test_labels_stand_for_the_pairs_of_their_batch():
    pairs = Pairs.within([1, 1, 2])
    assert as_pairs(pairs) is pairs
    np.testing.assert_array_equal(as_pairs([1, 1, 2]).positive, pairs.positive)
