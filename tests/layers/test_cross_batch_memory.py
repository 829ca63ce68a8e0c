"""Cross-batch memory: first in first out, constants, saved state, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.layers import CrossBatchMemory


def rows(*numbers):
    return tf.constant([[n, -n] for n in numbers], tf.float32)


def pushed(memory, *numbers):
    references, labels, valid = memory(rows(*numbers), tf.constant(numbers, tf.int64), training=True)
    np.testing.assert_array_equal(references[:, 0], tf.cast(labels, tf.float32))
    np.testing.assert_array_equal(references[:, 1], -tf.cast(labels, tf.float32))
    return labels.numpy().tolist(), valid.numpy().tolist()


def test_first_in_first_out():
    memory = CrossBatchMemory(5, 2)
    assert pushed(memory, 1, 2) == ([0, 0, 0, 1, 2], [False] * 3 + [True] * 2)
    assert pushed(memory, 3, 4) == ([0, 1, 2, 3, 4], [False] + [True] * 4)
    assert pushed(memory, 5, 6) == ([2, 3, 4, 5, 6], [True] * 5)
    assert pushed(memory, *range(10, 20)) == ([15, 16, 17, 18, 19], [True] * 5)


def test_a_batch_larger_than_the_memory_fills_it():
    assert pushed(CrossBatchMemory(2, 2), 1, 2, 3) == ([2, 3], [True, True])


def test_reading_stores_nothing():
    memory = CrossBatchMemory(3, 2)
    pushed(memory, 7)
    for training in (False, None):
        _, labels, valid = memory(rows(8), tf.constant([8]), training=training)
        assert labels.numpy().tolist() == [0, 0, 7]
        assert valid.numpy().tolist() == [False, False, True]


@pytest.mark.parametrize("jit", [None, True])
def test_in_a_graph_and_without_gradient(jit):
    memory = CrossBatchMemory(4, 2)

    @tf.function(jit_compile=jit)
    def step(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            references, labels, valid = memory(x, y, training=True)
            total = tf.reduce_sum(tf.matmul(x, references, transpose_b=True))
        return tape.gradient(total, x), references, labels, valid

    step(rows(1, 2), tf.constant([1, 2], tf.int64))
    gradient, references, labels, valid = step(rows(3, 4), tf.constant([3, 4], tf.int64))
    assert labels.numpy().tolist() == [1, 2, 3, 4]
    assert valid.numpy().all()
    # Only the queries' side: were the references variables, the gradient would be larger.
    np.testing.assert_allclose(gradient, np.tile(np.sum(references, 0), (2, 1)))


def test_labels_are_exact_and_half_precision_is_stored_in_float32():
    memory = CrossBatchMemory(2, 2, dtype="mixed_bfloat16")
    references, labels, _ = memory(tf.cast(rows(1, 2), tf.bfloat16), tf.constant([2**60, 2**60 + 1]), training=True)
    assert references.dtype == tf.float32
    assert labels.numpy().tolist() == [2**60, 2**60 + 1]


def test_saved_and_reloaded(tmp_path):
    features, labels = keras.Input((2,)), keras.Input((), dtype="int64")
    model = keras.Model([features, labels], CrossBatchMemory(3, 2)(features, labels))
    model([rows(4, 5), tf.constant([4, 5], tf.int64)], training=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    references, kept, valid = again([rows(9), tf.constant([9], tf.int64)], training=False)
    np.testing.assert_array_equal(references, [[0, 0], [4, -4], [5, -5]])
    assert kept.numpy().tolist() == [0, 4, 5]
    assert valid.numpy().tolist() == [False, True, True]
    assert not again.layers[-1].trainable_weights


def test_bad_input_is_refused_with_a_reason():
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match=r"size=.*expected an integer >= 1"):
            CrossBatchMemory(wrong, 2)
        with pytest.raises(ValueError, match=r"dimension=.*expected an integer >= 1"):
            CrossBatchMemory(2, wrong)
    memory = CrossBatchMemory(4, 2)
    with pytest.raises(ValueError, match=r"\(3, 5\).*expected \[B, 2\]"):
        memory(tf.ones([3, 5]), tf.constant([1, 2, 3]), training=True)
    with pytest.raises(ValueError, match="labels are float32"):
        memory(tf.ones([3, 2]), tf.ones([3]), training=True)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="expected one per embedding"):
        memory(tf.ones([3, 2]), tf.constant([1, 2]), training=True)
