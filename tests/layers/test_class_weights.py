"""How long class weights are when training begins, and what that changes: no value, but how far a step turns them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.layers import ArcFace, ASoftmax, CosFace, NormalizedSoftmax, ProxyAnchor, ProxyNCA

HEADS = (ASoftmax, ArcFace, CosFace, NormalizedSoftmax, ProxyAnchor, ProxyNCA)
C, D = 400, 64


def weights(head):
    return np.asarray(head.trainable_weights[0])


def built(head, seed=0):
    keras.utils.set_random_seed(seed)
    head.build((None, D))
    return head


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("options", [{}, {"initial_length": 1.0}, {"initial_length": 0.02}])
def test_they_begin_as_long_as_asked_for(head, options):
    lengths = np.linalg.norm(weights(built(head(C, **options))), axis=1)
    np.testing.assert_allclose(lengths.mean(), options.get("initial_length", 0.1), rtol=0.02)


@pytest.mark.parametrize("head", HEADS)
def test_values_do_not_depend_on_their_length(head):
    x = np.random.default_rng(0).standard_normal((8, D)).astype(np.float32)
    y = np.arange(8)
    short, long = (built(head(C, initial_length=length)) for length in (0.05, 1.0))
    np.testing.assert_allclose(weights(long), 20 * weights(short), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        short.per_anchor(x, y, training=True), long.per_anchor(x, y, training=True), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("length", [0.1, 1.0])
def test_a_step_of_adam_turns_them_by_rate_times_root_of_d_over_length(length):
    keras.utils.set_random_seed(0)
    features, labels = keras.Input((D,)), keras.Input((), dtype="int64")
    head = NormalizedSoftmax(C, initial_length=length)
    model = keras.Model([features, labels], head(features, labels))
    model.compile(keras.optimizers.Adam(1e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = weights(head)
    x = np.random.default_rng(0).standard_normal((64, D)).astype(np.float32)
    y = np.arange(64)
    model.train_on_batch([x, y], y)
    after = weights(head)
    cosine = np.sum(before * after, 1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    np.testing.assert_allclose(np.tan(np.arccos(cosine)).mean(), 1e-3 * np.sqrt(D) / length, rtol=0.1)


def test_the_length_is_in_the_config():
    head = ArcFace.from_config(ArcFace(3, initial_length=0.3).get_config())
    assert head.initial_length == 0.3


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), "0.1"])
def test_a_bad_length_is_refused(wrong):
    with pytest.raises(ValueError, match=r"initial_length=.*expected a number > 0"):
        ArcFace(3, initial_length=wrong)


def test_a_class_that_is_seen_twice_is_found():
    """With Keras's default optimiser, two passes over the data suffice to tell 100 easy classes apart."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(100), 20)
    x = (rng.standard_normal((100, D))[y] + 0.3 * rng.standard_normal((len(y), D))).astype(np.float32)
    shares = []
    for length in (0.1, 1.0):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((D,)), NormalizedSoftmax(100, initial_length=length)])
        model.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x, y, batch_size=50, epochs=2, verbose=0)
        shares.append(float(tf.reduce_mean(tf.cast(tf.argmax(model(x), 1) == y, tf.float32))))
    assert shares[0] > 0.95
    assert shares[1] < 0.8
