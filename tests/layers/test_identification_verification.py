"""DeepID2's head: what the softmax weights learn from, and the margin that is set by the latest pairs."""

from __future__ import annotations

import keras
import layers_oracles as oracles
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.layers import IdentificationVerification
from tfdml.layers._thresholds import best_threshold


def threshold(distances, kinds, otherwise=-7.0):
    return float(best_threshold(tf.constant(distances, tf.float64), tf.constant(kinds), tf.constant(otherwise, tf.float64)))


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=2, max_size=25), st.integers(0, 5))
@settings(deadline=None, max_examples=150)
def test_threshold_errs_least(pairs, empty):
    distances, same = [d / 4 for d, _ in pairs], [s for _, s in pairs]
    kinds = [1 if s else -1 for s in same]
    found = threshold(distances + [0.3] * empty, kinds + [0] * empty)
    if len(set(same)) == 1:
        assert found == -7
        return
    # Every way to part these distances: a threshold in each gap. Beyond all of them, and before, half is wrong: 1 in all.
    best = min(oracles.verification_error(d / 8, distances, same) for d in range(1, 100))
    if best < 1:
        assert oracles.verification_error(found, distances, same) == pytest.approx(best)
        assert min(distances) < found < max(distances)
    else:
        assert found == -7


def test_threshold_lies_half_way():
    assert threshold([0.2, 0.4, 1.0, 1.2], [1, 1, -1, -1]) == pytest.approx(0.7)
    assert threshold([1.2, 0.4, 0.2, 1.0], [-1, 1, 1, -1]) == pytest.approx(0.7)


def test_positive_and_negative_pairs_weigh_one_half_each():
    # Counting errors, taking all nine for negative would be best.
    assert threshold([0.5, *np.linspace(0.3, 3.0, 9)], [1, *[-1] * 9]) == pytest.approx(0.5 * (0.5 + 0.6375))


def test_threshold_stays_when_it_cannot_be_known():
    assert threshold([0.2, 0.4], [1, 1]) == -7
    assert threshold([0.2, 0.4], [0, 0]) == -7
    assert threshold([0.2, np.nan], [1, -1]) == -7


def head_and_batch(**kwargs):
    head = IdentificationVerification(2, weight=1.0, **kwargs)
    x = tf.constant([[0.0, 0.0], [0.2, 0.0], [3.0, 0.0], [3.0, 0.4]])
    return head, x, tf.constant([0, 0, 1, 1])


def test_margin_is_set_every_so_many_training_steps():
    head, x, y = head_and_batch(reset_every=3, window=100)
    for step in range(1, 7):
        head(x, y, training=True)
        head(x, y, training=False)
        head(x, y)
        assert int(head.step) == step
        # Positive pairs at 0.2 and 0.4, negative pairs from 2.8 on.
        np.testing.assert_allclose(head.margin, 1.0 if step < 3 else 1.6, rtol=1e-5)


def test_margin_follows_the_latest_pairs_only():
    head, x, y = head_and_batch(reset_every=1, window=32)
    head(x, y, training=True)
    np.testing.assert_allclose(head.margin, 1.6, rtol=1e-5)
    head(10.0 * x, y, training=True)
    mixed = float(head.margin)
    head(10.0 * x, y, training=True)
    np.testing.assert_allclose(head.margin, 16.0, rtol=1e-5)
    assert 1.6 <= mixed < 16


def test_margin_can_be_held_for_good():
    head, x, y = head_and_batch(reset_every=0, margin=0.8)
    for _ in range(3):
        head(x, y, training=True)
    np.testing.assert_allclose(head.margin, 0.8)
    assert len(head.non_trainable_weights) == 1


def test_consecutive_pairs_set_the_margin_too():
    head, x, y = head_and_batch(reset_every=1, pairs="consecutive")
    head(tf.gather(x, [0, 1, 0, 2, 3]), tf.gather(y, [0, 1, 0, 2, 3]), training=True)
    np.testing.assert_allclose(head.margin, 0.5 * (0.2 + 3.0), rtol=1e-5)


@pytest.mark.parametrize("verification", ["l2", "l1", "cosine"])
def test_softmax_weights_learn_from_identification_only(verification):
    rng = np.random.default_rng(0)
    x, y = tf.constant(rng.standard_normal((6, 3)), tf.float32), tf.constant([0, 0, 1, 1, 0, 1])
    kernel = rng.standard_normal((3, 2)).astype(np.float32)
    gradients = {}
    for weight in (0.0, 5.0):
        head = IdentificationVerification(2, verification, weight=weight, margin=3.0)
        head.build((None, 3))
        head.kernel.assign(kernel)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_mean(head(x, y, training=True))
        softmax = head.trainable_variables[:2]
        gradients[weight] = [tf.convert_to_tensor(g).numpy() for g in tape.gradient(value, [x, *softmax])]
    np.testing.assert_allclose(gradients[0.0][1], gradients[5.0][1], rtol=1e-5)
    np.testing.assert_allclose(gradients[0.0][2], gradients[5.0][2], rtol=1e-5)
    assert np.abs(gradients[0.0][0] - gradients[5.0][0]).max() > 0.01


def test_l1_over_all_pairs_agrees_with_consecutive_pairs():
    x, y = tf.constant(np.random.default_rng(0).standard_normal((2, 5)), tf.float32), tf.constant([0, 1])
    kwargs = {"verification": "l1", "weight": 1.0, "margin": 20.0}
    every, consecutive = (IdentificationVerification(2, pairs=pairs, **kwargs) for pairs in ("all", "consecutive"))
    for head in (every, consecutive):
        head.build((None, 5))
        head.kernel.assign(np.zeros((5, 2)))
    # One negative pair and no positive one: with all pairs it weighs one half.
    ln2 = np.log(2)
    np.testing.assert_allclose(2 * (every(x, y) - ln2), consecutive(x, y) - ln2, rtol=1e-5)


def test_margin_pairs_and_step_are_saved(tmp_path):
    features, labels = keras.Input((2,)), keras.Input((), dtype="int64")
    head, x, y = head_and_batch(reset_every=2, window=20)
    model = keras.Model([features, labels], head(features, labels))
    for _ in range(3):
        model([x, y], training=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    np.testing.assert_allclose(again.margin, 1.6, rtol=1e-5)
    assert int(again.step) == 3
    np.testing.assert_array_equal(again.pair_distances, head.pair_distances)
    np.testing.assert_array_equal(again.pair_kinds, head.pair_kinds)
    again(10.0 * x, y, training=True)
    again(10.0 * x, y, training=True)
    again(10.0 * x, y, training=True)
    np.testing.assert_allclose(again.margin, 16.0, rtol=1e-5)


def test_both_halves_make_the_whole_signal():
    rng = np.random.default_rng(1)
    x, y = tf.constant(rng.standard_normal((7, 3)), tf.float32), tf.constant([0, 0, 1, 1, 0, 1, 1])
    values = {}
    for form in ("l2", "l2+", "l2-"):
        head = IdentificationVerification(2, form, weight=1.0, margin=2.5)
        head.build((None, 3))
        head.kernel.assign(np.zeros((3, 2)))
        values[form] = head(x, y) - np.log(2)
    np.testing.assert_allclose(values["l2+"] + values["l2-"], values["l2"], rtol=1e-4)
    assert float(tf.reduce_sum(values["l2+"])) > 0
    assert float(tf.reduce_sum(values["l2-"])) > 0


@pytest.mark.parametrize("verification", ["l2", "l1"])
def test_the_margin_is_set_and_not_learned(verification):
    head, x, y = head_and_batch(verification=verification, reset_every=0, margin=5.0)
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(head(x, y, training=True))
    assert len(head.trainable_variables) == 2
    assert all(g is not None for g in tape.gradient(value, head.trainable_variables))
    np.testing.assert_allclose(head.margin, 5.0)


def test_the_slope_and_offset_of_the_cosine_form_are_learned():
    head, x, y = head_and_batch(verification="cosine")
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(head(x + 0.1, y, training=True))
    assert len(head.trainable_variables) == 4
    assert all(float(tf.reduce_sum(tf.abs(g))) > 0 for g in tape.gradient(value, head.trainable_variables[2:]))
    assert not head.non_trainable_variables


def trained(path=None, steps=()):
    keras.utils.set_random_seed(0)
    images, labels = keras.Input((6,)), keras.Input((), dtype="int64")
    head = IdentificationVerification(3, reset_every=3, window=40, weight=1.0)
    model = keras.Model([images, labels], head(keras.layers.Dense(4)(images), labels))
    model.compile(keras.optimizers.SGD(0.05), loss=lambda _, values: values)
    if path:
        model.load_weights(path)
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((80, 6)).astype(np.float32), rng.integers(0, 3, 80)
    margins = []
    for step in steps:
        batch = slice(8 * step, 8 * step + 8)
        model.fit([x[batch], y[batch]], y[batch], batch_size=8, shuffle=False, verbose=0)
        model.evaluate([x, y], y, verbose=0)
        margins.append(float(head.margin))
    return model, margins


def test_training_that_goes_on_from_saved_weights_sets_the_same_margins(tmp_path):
    _, uninterrupted = trained(steps=range(10))
    model, first = trained(steps=range(5))
    model.save_weights(tmp_path / "model.weights.h5")
    _, second = trained(tmp_path / "model.weights.h5", steps=range(5, 10))
    np.testing.assert_allclose(first + second, uninterrupted, rtol=1e-6)
    # It is set after the steps 3, 6 and 9, and not by what is only evaluated.
    assert [before != after for before, after in zip([1.0, *uninterrupted], uninterrupted, strict=False)] == [
        step % 3 == 0 for step in range(1, 11)
    ]
