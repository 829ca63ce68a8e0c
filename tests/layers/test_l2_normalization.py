"""L2 normalisation: lengths, zero vectors, mixed precision, saving."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfdml.layers import L2Normalization


def test_lengths_and_zero_vectors():
    x = tf.constant([[3.0, 4.0], [1e-3, 0.0], [0.0, 0.0], [1e18, 1e18]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = L2Normalization()(x)
        total = tf.reduce_sum(y)
    np.testing.assert_allclose(y[:3], [[0.6, 0.8], [1.0, 0.0], [0.0, 0.0]], rtol=1e-5)
    assert np.isfinite(tape.gradient(total, x)).all()


def test_half_precision_does_not_overflow():
    y = L2Normalization(dtype="mixed_float16")(tf.constant([[300.0, 400.0]], tf.float16))
    assert y.dtype == tf.float32
    np.testing.assert_allclose(y, [[0.6, 0.8]], rtol=1e-3)


def test_saved_and_reloaded(tmp_path):
    model = keras.Sequential([keras.Input((3,)), L2Normalization(epsilon=1e-3)])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[-1].epsilon == 1e-3
    np.testing.assert_allclose(again(tf.ones([2, 3])), model(tf.ones([2, 3])))


def test_a_policy_of_half_precision_rounds_nothing():
    x = tf.constant(np.random.default_rng(0).standard_normal((5, 8)), tf.float32)
    for dtype in ("mixed_bfloat16", "mixed_float16"):
        np.testing.assert_array_equal(L2Normalization(dtype=dtype)(x), L2Normalization()(x))
    assert L2Normalization(dtype="float64")(tf.cast(x, tf.float64)).dtype == tf.float64
