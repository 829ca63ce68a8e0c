from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.integrations import DistanceContrastiveLoss
from tfdml.losses import ContrastiveLoss


def oracle(similar, distances, margin):
    return np.array([0.5 * d**2 if s else 0.5 * max(margin - d, 0.0) ** 2 for s, d in zip(similar, distances, strict=True)])


@pytest.mark.parametrize("similar_label", [0, 1])
@pytest.mark.parametrize("margin", [0.5, 1.5])
@pytest.mark.parametrize("column", [False, True])
def test_equals_its_definition(similar_label, margin, column):
    rng = np.random.default_rng(0)
    labels, distances = rng.integers(0, 2, 20), rng.uniform(0.0, 2.0, 20)
    shape = [-1, 1] if column else [-1]
    loss = DistanceContrastiveLoss(margin, similar_label=similar_label)
    x = tf.constant(distances.reshape(shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = loss.call(labels.reshape(shape), x)
    similar = labels == similar_label
    np.testing.assert_allclose(values, oracle(similar, distances, margin))
    slopes = np.where(similar, distances, -np.maximum(margin - distances, 0.0))
    np.testing.assert_allclose(np.ravel(tape.gradient(values, x)), slopes)


def test_a_pair_of_equal_embeddings_is_pushed_apart():
    x = tf.zeros([1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = DistanceContrastiveLoss(1.0, similar_label=1)([0], x)
    assert tape.gradient(value, x).numpy().tolist() == [-1.0]


def test_is_the_contrastive_loss_of_the_pairs():
    pairs = tf.random.stateless_normal([12, 2, 4], [0, 1])
    labels = [0, 1] * 6
    expected = ContrastiveLoss(2.0, pairs="explicit", similar_label=1)(labels, pairs)
    distances = tf.norm(pairs[:, 0] - pairs[:, 1], axis=1)
    np.testing.assert_allclose(DistanceContrastiveLoss(2.0, similar_label=1)(labels, distances), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_precision(dtype):
    loss = DistanceContrastiveLoss(1.0, similar_label=0)
    value = loss([0, 1], tf.constant([0.5, 0.25], dtype))
    assert value.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(value, (0.125 + 0.28125) / 2)


def test_trains_a_model_whose_output_is_a_distance(tmp_path):
    first, second = keras.Input((3,)), keras.Input((3,))
    encoder = keras.layers.Dense(2)
    difference = keras.layers.Subtract()([encoder(first), encoder(second)])
    model = keras.Model([first, second], DistanceLayer()(difference))
    model.compile("sgd", loss=DistanceContrastiveLoss(similar_label=1), jit_compile=True)
    rng = np.random.default_rng(0)
    model.fit([rng.random((8, 3)), rng.random((8, 3))], rng.integers(0, 2, 8), verbose=0)
    assert np.isfinite(model.get_weights()[0]).all()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", custom_objects={"DistanceLayer": DistanceLayer})
    assert again.loss.get_config() == model.loss.get_config()


class DistanceLayer(keras.layers.Layer):
    def call(self, x):
        return tf.norm(x, axis=-1, keepdims=True)

    def compute_output_shape(self, shape):
        return (shape[0], 1)


def test_the_convention_must_be_named():
    with pytest.raises(TypeError, match="similar_label"):
        DistanceContrastiveLoss(1.0)


@pytest.mark.parametrize(
    ("options", "words"), [({"similar_label": 2}, "expected 1 .*or 0"), ({"similar_label": 1, "margin": 0.0}, "margin=0.0")]
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        DistanceContrastiveLoss(**options)


def test_embeddings_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 2, 3\).*ContrastiveLoss\(pairs='explicit'\)"):
        DistanceContrastiveLoss(similar_label=1)([0, 1, 0, 1], tf.zeros([4, 2, 3]))
