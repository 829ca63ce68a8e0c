import numpy as np
import pytest
import tensorflow as tf

from tfdml.mining import ClassGroups, negative_mask, positive_mask, same_class_mask
from tfdml.mining.masks import ClassPairs

LAYOUTS = [
    [3],
    [3, 3],
    [3, 5],
    [5, 3, 5, 4, 3, 5],
    [-1, 0, -1, 2**24, 2**24 + 1, 2**62, -(2**63), -(2**63)],
    list(range(7)),
]


@pytest.mark.parametrize("labels", LAYOUTS)
def test_masks(labels):
    for i, a in enumerate(labels):
        for j, b in enumerate(labels):
            assert same_class_mask(labels)[i, j] == (a == b)
            assert positive_mask(labels)[i, j] == (a == b and i != j)
            assert negative_mask(labels)[i, j] == (a != b)


@pytest.mark.parametrize("labels", LAYOUTS)
def test_groups_number_every_positive_once(labels):
    groups = ClassGroups.of(tf.constant(labels, tf.int64))
    assert groups.size.numpy().tolist() == [labels.count(a) for a in labels]
    for i, a in enumerate(labels):
        found = [int(groups.positive(k)[i]) for k in range(1, int(groups.size[i]))]
        assert sorted(found) == [j for j, b in enumerate(labels) if b == a and j != i]


@pytest.mark.parametrize("dtype", [tf.bool, tf.uint8, tf.int32, tf.uint64, tf.float32])
def test_groups_of_other_types(dtype):
    assert ClassGroups.of(tf.cast([1, 0, 1], dtype)).size.numpy().tolist() == [2, 1, 2]


def test_groups_of_an_empty_batch():
    assert ClassGroups.of(np.zeros(0, np.int64)).size.shape == (0,)


@pytest.mark.parametrize("labels", LAYOUTS)
def test_groups_number_every_negative_once(labels):
    groups = ClassGroups.of(tf.constant(labels, tf.int64))
    for i, a in enumerate(labels):
        others = [j for j, b in enumerate(labels) if b != a]
        assert [int(groups.negative(n)[i]) for n in range(len(others))] == others


@pytest.mark.parametrize("labels", [*LAYOUTS, [2] * 7, [1, 2, 1, 1, 2, 1, 1, 3]])
def test_pairs_of_each_class_in_the_order_of_the_batch(labels):
    pairs = ClassPairs.of(tf.constant(labels, tf.int64))
    assert pairs.first.shape == ((len(labels) + 1) // 2,)
    expected, waiting = [], {}
    for i, label in enumerate(labels):
        if label in waiting:
            expected.append((waiting.pop(label), i, label))
        else:
            waiting[label] = i
    found = zip(*(part.numpy().tolist() for part in (pairs.first, pairs.second, pairs.labels, pairs.exists)), strict=True)
    assert [(a, p, y) for a, p, y, exists in found if exists] == sorted(expected)
