"""Comparing a loss with its definition: values and gradients, in single and double precision."""

import numpy as np
import oracles
import tensorflow as tf

from tfdml.losses.margin import chosen_pairs

# Unit vectors, two to a class: the set on which the papers' formulas were worked out by hand.
TOY = np.array([(1, 0), (0.8, 0.6), (0, 1), (-0.6, 0.8), (-1, 0), (-0.8, -0.6)])
TOY_LABELS = [0, 0, 1, 1, 2, 2]


def random_batch(b=12, d=3, classes=4, seed=0, scale=0.5):
    """Some classes have one item, some have many."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, b), scale * rng.standard_normal((b, d))


def drawn_pairs(mining, labels, x, d):
    """How many times each positive pair and each negative pair counts, as two matrices of integers."""
    counts = chosen_pairs(mining, labels, tf.convert_to_tensor(x), d).numpy().astype(int)
    return np.maximum(counts, 0), np.maximum(-counts, 0)


def values_and_gradient(call, x, weights):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = call(x)
        total = tf.reduce_sum(values * weights.astype(x.dtype.as_numpy_dtype))
    return values.numpy(), tape.gradient(total, x).numpy()


def assert_equals_definition(loss, oracle, labels, x, oracle_for_gradient=None, tolerance=1e-5):
    """`oracle` is a function of x alone. Anchors are weighted unevenly, so that each one's gradient counts by itself."""
    weights = np.random.default_rng(9).random(len(x))
    slope = oracles.numeric_gradient(lambda x: weights @ (oracle_for_gradient or oracle)(x), x)
    expected = oracle(x)
    for dtype, allowed in ((np.float32, tolerance), (np.float64, 1e-7)):
        values, gradient = values_and_gradient(lambda x: loss.call(labels, x), x.astype(dtype), weights)
        assert values.dtype == dtype
        np.testing.assert_allclose(values, expected, atol=allowed, rtol=allowed)
        np.testing.assert_allclose(gradient, slope, atol=allowed, rtol=max(allowed, 1e-6))
