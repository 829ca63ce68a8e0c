"""The fused batch normalisation against Keras's own: values, gradients, moving averages, saving."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.layers import BatchNormalization


def pair(**kwargs) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    layers = BatchNormalization(**kwargs), keras.layers.BatchNormalization(**kwargs)
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.5, 1.5, 6).astype(np.float32) for _ in range(4)]
    for layer in layers:
        layer.build((None, 5, 4, 6))
        layer.set_weights(weights)
    return layers


@pytest.fixture
def maps() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(2.0, 3.0, (7, 5, 4, 6)), tf.float32)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("in_graph", [True, False])
def test_equals_keras_in_values_gradients_and_averages(maps, training, in_graph):
    results = []
    for layer in pair(momentum=0.9, epsilon=1e-3):

        def step(x, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=training)
                total = tf.reduce_sum(tf.square(y) * tf.linspace(0.0, 1.0, 6))
            return y, tape.gradient(total, x)

        y, gradient = tf.function(step)(maps) if in_graph else step(maps)
        results.append((y.numpy(), gradient.numpy(), *layer.get_weights()))
    for ours, keras_own in zip(*results, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-4, atol=1e-5)


def test_frozen_layer_uses_and_keeps_its_averages(maps):
    ours, keras_own = pair()
    ours.trainable = keras_own.trainable = False
    before = [w.copy() for w in ours.get_weights()]
    np.testing.assert_allclose(ours(maps, training=True), keras_own(maps, training=True), rtol=1e-4, atol=1e-5)
    for old, new in zip(before, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# Keras 3.15 has batch renormalisation.
RENORM = [{"renorm": True, "renorm_clipping": {"rmax": 1.1}}] if "renorm" in BatchNormalization().get_config() else []


@pytest.mark.parametrize("kwargs", [{"axis": 1}, {"scale": False}, {"center": False}, *RENORM])
def test_what_the_kernel_cannot_take_goes_to_keras(maps, kwargs):
    ours, keras_own = BatchNormalization(**kwargs), keras.layers.BatchNormalization(**kwargs)
    np.testing.assert_allclose(ours(maps, training=True), keras_own(maps, training=True), rtol=1e-4, atol=1e-5)


def test_vectors_go_to_keras():
    vectors = tf.constant(np.random.default_rng(3).normal(size=(9, 8)), tf.float32)
    np.testing.assert_allclose(
        BatchNormalization()(vectors, training=True),
        keras.layers.BatchNormalization()(vectors, training=True),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(maps, policy):
    ours, keras_own = BatchNormalization(dtype=policy), keras.layers.BatchNormalization(dtype=policy)
    outputs = ours(maps, training=True)
    assert outputs.dtype == (tf.float16 if policy == "mixed_float16" else tf.bfloat16)
    np.testing.assert_allclose(
        tf.cast(outputs, tf.float32), tf.cast(keras_own(maps, training=True), tf.float32), rtol=0.05, atol=0.05
    )


def test_saved_and_reloaded(maps, tmp_path):
    model = keras.Sequential([keras.Input((5, 4, 6)), BatchNormalization(momentum=0.8)])
    model.compile("sgd", "mse")
    model.fit(maps, maps, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.layers[-1], BatchNormalization)
    np.testing.assert_allclose(again(maps), model(maps), rtol=1e-6)
