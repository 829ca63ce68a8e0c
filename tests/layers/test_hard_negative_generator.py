"""HardNegativeGenerator: its formula and gradients, where it begins, dtypes, XLA, saving, bad input."""

from __future__ import annotations

import daml_oracles as oracles
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.layers import HardNegativeGenerator


def features(rows=5, width=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((rows, width)) for _ in range(3)]


def built(width=4, seed=1, **kwargs):
    """A generator whose weights are random but always the same."""
    layer = HardNegativeGenerator(**{"units": (6, 5), **kwargs})
    layer.build((None, width))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.standard_normal(w.shape) * 0.5 for w in layer.get_weights()])
    return layer


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("units", [(6,), (6, 5)])
def test_values_and_gradients_are_those_of_the_definition(residual, units):
    layer = built(units=units, residual=residual, dtype="float64")
    anchors, positives, negatives = features()
    weights = [np.asarray(w, np.float64) for w in layer.get_weights()]
    pull = np.random.default_rng(2).standard_normal(anchors.shape)

    def definition(weights):
        rows = zip(anchors, positives, negatives, strict=True)
        return np.array([oracles.generate(*row, weights, residual) for row in rows])

    with tf.GradientTape() as tape:
        made = layer(anchors, positives, negatives)
        total = tf.reduce_sum(made * pull)
    gradients = tape.gradient(total, layer.trainable_weights)
    assert made.dtype == tf.float64
    np.testing.assert_allclose(made, definition(weights), rtol=1e-9)
    for number, gradient in enumerate(gradients):

        def moved(w, number=number):
            return float(np.sum(pull * definition([*weights[:number], w, *weights[number + 1 :]])))

        np.testing.assert_allclose(gradient, oracles.slopes(moved, weights[number]), rtol=1e-5, atol=1e-7)


def test_it_begins_at_the_real_negative_whatever_the_scale():
    for scale in (1e-20, 1.0, 1e15):
        anchors, positives, negatives = (tf.constant(x * scale, tf.float32) for x in features())
        layer = HardNegativeGenerator(units=(8,))
        np.testing.assert_array_equal(layer(anchors, positives, negatives), negatives)
    assert np.abs(HardNegativeGenerator(units=(8,), residual=False)(anchors, positives, negatives) - negatives).max() > 0


def test_it_scales_with_its_features():
    layer = built()
    one = layer(*(tf.constant(x, tf.float32) for x in features()))
    large = layer(*(tf.constant(1000 * x, tf.float32) for x in features()))
    np.testing.assert_allclose(large, 1000 * one, rtol=1e-4)


def test_features_in_groups_are_each_made_alone():
    layer = built()
    anchors, positives, negatives = (tf.constant(x, tf.float32) for x in features(rows=6))
    flat = layer(anchors, positives, negatives)
    grouped = layer(*(tf.reshape(x, [2, 3, 4]) for x in (anchors, positives, negatives)))
    assert grouped.shape == (2, 3, 4)
    np.testing.assert_allclose(tf.reshape(grouped, [6, 4]), flat, rtol=1e-5)


def test_the_authors_form_makes_nothing_negative():
    layer = built(units=(6,), residual=False, output_activation="relu")
    made = layer(*features(rows=40))
    assert np.min(made) == 0
    assert np.max(made) > 0


def test_zero_features_and_equal_features_are_finite():
    layer = built()
    for x in (np.zeros((3, 4)), np.ones((3, 4)), np.full((3, 4), 1e18)):
        x = tf.constant(x, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(x)
            made = layer(x, x, x)
        assert np.isfinite(made).all()
        assert np.isfinite(tape.gradient(made, x)).all()
    assert layer(*(tf.zeros([0, 4]),) * 3).shape == (0, 4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_computed_in_float32(policy):
    half = [tf.cast(x, tf.float16 if policy == "mixed_float16" else tf.bfloat16) for x in features()]
    made = built(dtype=policy)(*half)
    assert made.dtype == tf.float32
    np.testing.assert_array_equal(made, built()(*(tf.cast(x, tf.float32) for x in half)))


def test_graph_and_xla_give_the_same():
    layer = built()
    x = [tf.constant(x, tf.float32) for x in features()]
    expected = layer(*x)
    for compiled in (None, True):
        np.testing.assert_allclose(tf.function(layer, jit_compile=compiled)(*x), expected, rtol=1e-5, atol=1e-6)


def test_saved_and_reloaded_in_a_functional_model(tmp_path):
    inputs = [keras.Input((4,), name=name) for name in ("anchor", "positive", "negative")]
    layer = HardNegativeGenerator(units=(6, 5), residual=False, output_activation="relu")
    model = keras.Model(inputs, layer(*inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[-1].get_config() == layer.get_config()
    x = [x.astype(np.float32) for x in features()]
    np.testing.assert_allclose(again(x), model(x), rtol=1e-6)
    assert len(again.get_weights()) == 6


@pytest.mark.parametrize("units", [(), 5, "512", (0,), (8, -1), (2.5,)])
def test_units_are_checked(units):
    with pytest.raises(ValueError, match="units="):
        HardNegativeGenerator(units=units)


def test_features_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"negatives have shape \(5, 3\): expected that of anchors, \(5, 4\)"):
        HardNegativeGenerator()(tf.zeros([5, 4]), tf.zeros([5, 4]), tf.zeros([5, 3]))
