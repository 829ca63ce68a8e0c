"""A-Softmax: psi, annealing as saved state, the paper's numbers, when the margin is in force."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.layers import ASoftmax
from tfdml.layers.a_softmax import psi

ANGLES = (0, 30, 45, 60, 90, 120, 135, 180)


def psi_at(degrees, m):
    return psi(tf.cos(tf.constant(np.deg2rad(degrees), tf.float64)), m).numpy()


def head_on_axes(**kwargs) -> ASoftmax:
    head = ASoftmax(3, **kwargs)
    head.build((None, 3))
    head.kernel.assign(2.0 * np.eye(3))
    return head


def loss_of(head):
    return head.per_anchor(tf.constant([[2.0, 1.0, 0.0]]), tf.constant([0]), training=True).numpy()[0]


def test_psi_of_margin_4():
    np.testing.assert_allclose(psi_at(ANGLES, 4), [1, -0.5, -1, -1.5, -3, -4.5, -5, -7], atol=1e-9)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_psi_at_the_ends(m):
    np.testing.assert_allclose(psi_at([0, 180], m), [1, 1 - 2 * m], atol=1e-12)


@given(st.integers(1, 4), st.floats(0, 180), st.floats(0, 180))
@settings(deadline=None, max_examples=200)
def test_psi_falls_and_never_jumps(m, a, b):
    low, high = sorted((a, b))
    at_low, at_high = psi_at([low, high], m)
    assert at_high <= at_low + 1e-12
    # |d psi / d theta| = m |sin(m theta)| <= m
    assert at_low - at_high <= m * np.deg2rad(high - low) + 1e-9


@pytest.mark.parametrize("m", [2, 3, 4])
def test_psi_is_continuous_where_its_intervals_meet(m):
    for k in range(1, m):
        edge = k * 180 / m
        before, after = psi_at([edge - 1e-6, edge + 1e-6], m)
        assert 0 <= before - after < 1e-6


@pytest.mark.parametrize(
    ("annealing", "expected"),
    [
        ({"base": 0, "lambda_min": 0}, 2.073713),
        ({"base": 0, "lambda_min": 5}, 0.576353),
        ({}, 0.408485),
    ],
)
def test_losses_of_the_worked_example(annealing, expected):
    np.testing.assert_allclose(loss_of(head_on_axes(**annealing)), expected, atol=1e-6)


def test_lambda_falls_to_its_least_at_step_1659():
    head = head_on_axes()
    for step, expected in ((0, 1000.0), (1, 1000 / 1.12), (1658, 1000 / (1 + 0.12 * 1658)), (1659, 5.0), (10**6, 5.0)):
        head.step.assign(step)
        np.testing.assert_allclose(head.current_lambda(), expected, rtol=1e-6)
    head.step.assign(1658)
    assert head.current_lambda() > 5


def test_only_training_calls_with_labels_count():
    head, x, y = head_on_axes(), tf.ones([2, 3]), tf.constant([0, 1])
    head(x)
    head(x, y)
    head(x, y, training=False)
    head(x, training=True)
    assert int(head.step) == 0
    head(x, y, training=True)
    head(x, y, training=True)
    assert int(head.step) == 2


def test_without_training_logits_are_lengths_times_cosines():
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    expected = x  # the class weights are the axes, whatever their length
    head = head_on_axes(base=0, lambda_min=0)
    for logits in (head(x), head(x, np.arange(5) % 3), head(x, np.arange(5) % 3, training=False)):
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_the_margin_changes_the_own_class_only_and_makes_it_harder():
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    y = np.arange(20) % 3
    head = head_on_axes(base=0, lambda_min=0)
    change = (head(x, y, training=True) - head(x)).numpy()
    own = np.eye(3, dtype=bool)[y]
    assert not change[~own].any()
    assert (change[own] < 0).all()


def test_step_is_saved_and_goes_on(tmp_path):
    x, y = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32), np.arange(8) % 3
    features, labels = keras.Input((5,)), keras.Input((), dtype="int32")
    model = keras.Model([features, labels], ASoftmax(3)(keras.layers.Dense(4)(features), labels))
    model.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit([x, y], y, batch_size=2, epochs=3, verbose=0, validation_data=([x, y], y))
    assert int(model.layers[-1].step) == 12
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert int(again.layers[-1].step) == 12
    again.fit([x, y], y, batch_size=8, verbose=0)
    assert int(again.layers[-1].step) == 13
    np.testing.assert_allclose(again.layers[-1].current_lambda(), 1000 / (1 + 0.12 * 13), rtol=1e-6)


def test_gradients_are_finite_at_every_cosine():
    angles = np.deg2rad(np.arange(0, 181, 15))
    x = tf.constant(np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1), tf.float32)
    for m in (1, 2, 3, 4):
        head = head_on_axes(margin=m, base=0, lambda_min=0)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(head.per_anchor(x, tf.zeros([13], tf.int64), training=True))
        assert np.isfinite(tape.gradient(total, x)).all()
    assert math.isfinite(float(total))
