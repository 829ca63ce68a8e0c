"""The trained boundary of the margin loss: offsets, gradients, regulariser, agreement with the fixed boundary."""

from __future__ import annotations

import keras
import layers_oracles as oracles
import numpy as np
import pytest
import tensorflow as tf

from tfdml.layers import MarginBeta, MarginHead
from tfdml.losses import MarginLoss

X = np.array([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8], [-1, 0], [-0.8, -0.6]], np.float32)
Y = np.array([0, 0, 1, 1, 2, 2])


def test_boundaries_are_sums_of_their_parts():
    layer = MarginBeta(1.2, num_classes=3, num_images=6)
    layer.build((None,))
    layer.class_offsets.assign([0.0, 0.1, 0.2])
    layer.image_offsets.assign([0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
    np.testing.assert_allclose(layer(tf.constant([2, 0, 2]), tf.constant([5, 1, 0])), [1.45, 1.21, 1.4], rtol=1e-6)
    assert len(layer.trainable_weights) == 3
    alone = MarginBeta(0.7)
    np.testing.assert_allclose(alone(tf.constant([123456, -5])), [0.7, 0.7], rtol=1e-6)
    assert len(alone.trainable_weights) == 1


def test_starts_at_the_fixed_boundary():
    for mining in ("all", "semi_hard"):
        fixed = MarginLoss(mining=mining).call(Y, X)
        np.testing.assert_allclose(MarginHead(3, mining=mining)(X, Y), fixed, rtol=1e-5)
    # All 15 pairs of the toy set: 1.011146 over 2 active ones.
    np.testing.assert_allclose(np.mean(MarginHead(3, mining="all")(X, Y)), 0.505573, atol=1e-6)


def test_image_offsets_are_trained_where_their_images_are():
    head = MarginHead(3, alpha=0.3, mining="all", num_images=10, dtype="float64")
    images = np.array([9, 8, 7, 6, 5, 4])
    x = tf.constant(X * 1.1, tf.float64)
    head.build((None, 2))
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(head(x, Y, images))
    by_name = dict(
        zip([w.name.split("/")[-1].split(":")[0] for w in head.trainable_variables], head.trainable_variables, strict=True)
    )
    gradient = tf.convert_to_tensor(tape.gradient(value, by_name["image_offsets"])).numpy()

    # Keras 3 rounds the first value to float32.
    beta = float(np.asarray(head.beta_layer.beta))

    def moved(offsets):
        return oracles.margin_all_pairs(x.numpy(), Y, beta + offsets[images], 0.3, 0.0)

    np.testing.assert_allclose(value, moved(np.zeros(10)), rtol=1e-9)
    np.testing.assert_allclose(gradient, oracles.slopes(moved, np.zeros(10)), atol=1e-6)
    assert gradient.any()


def test_a_positive_nu_pushes_the_boundary_down():
    slopes = []
    for nu in (0.0, 0.5):
        head = MarginHead(nu=nu, mining="all")
        head.build((None, 2))
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(head(X, Y))
        slopes.append(float(tf.convert_to_tensor(tape.gradient(value, head.trainable_variables[0]))))
    # 6 anchors, 4 active terms: the two active pairs, each from both of its ends.
    np.testing.assert_allclose(slopes[1] - slopes[0], 0.5 * 6 / 4, rtol=1e-5)


def test_image_numbers_are_asked_for_and_checked():
    head = MarginHead(3, num_images=6, mining="all")
    with pytest.raises(ValueError, match="images=None: with num_images=6"):
        head(X, Y)
    with pytest.raises(ValueError, match="images contain 6: expected integers from 0 to 5"):
        head(X, Y, np.arange(1, 7))


def test_boundaries_are_saved_with_a_model_of_three_inputs(tmp_path):
    features, labels, numbers = keras.Input((2,)), keras.Input((), dtype="int64"), keras.Input((), dtype="int64")
    head = MarginHead(3, num_images=6, mining="all")
    model = keras.Model([features, labels, numbers], head(features, labels, numbers))
    model.compile("sgd", loss=lambda _, values: values)
    data = [X, Y, np.arange(6)]
    before = float(head.beta_layer.beta)
    model.fit(data, Y, batch_size=6, epochs=2, shuffle=False, verbose=0)
    assert float(head.beta_layer.beta) != before
    # A loss without a name in the registry is not saved; the model is.
    path = tmp_path / "model.keras"
    keras.Model(model.inputs, model.outputs).save(path)
    again = keras.models.load_model(path)
    np.testing.assert_allclose(again(data), model(data), rtol=1e-6)
