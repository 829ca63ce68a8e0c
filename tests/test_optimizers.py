"""Optimizers that touch the rows of a sparse gradient only: by hand, beside Keras's and TF Addons' own, saved, replicated."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.optimizers import LazyAdam, LazySGD

ROWS, WIDTH = 9, 3


def steps(count=6, seed=0, all_rows=False):
    """Gradients of some rows each, one of them twice."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = rng.permutation(ROWS) if all_rows else rng.choice(ROWS, 3, replace=False)
        rows = np.append(rows, rows[0])
        yield rows, rng.standard_normal((len(rows), WIDTH))


def start(seed=5):
    return np.random.default_rng(seed).standard_normal((ROWS, WIDTH))


def run(optimizer, gradients, sparse=True, compiled=None):
    table = tf.Variable(start(), dtype=tf.float64)
    optimizer.build([table])

    def apply(rows, values):
        gradient = tf.IndexedSlices(values, rows, tf.constant([ROWS, WIDTH], tf.int64))
        optimizer.apply_gradients([(gradient if sparse else tf.convert_to_tensor(gradient), table)])

    step = apply if compiled is None else tf.function(apply, jit_compile=compiled)
    for rows, values in gradients:
        step(tf.constant(rows), tf.constant(values))
    return table.numpy()


def adam_by_hand(gradients, rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    w, m, v = start(), np.zeros((ROWS, WIDTH)), np.zeros((ROWS, WIDTH))
    for t, (rows, values) in enumerate(gradients, 1):
        for row in set(rows):
            for k in range(WIDTH):
                g = sum(values[i][k] for i in range(len(rows)) if rows[i] == row)
                m[row, k] = beta_1 * m[row, k] + (1 - beta_1) * g
                v[row, k] = beta_2 * v[row, k] + (1 - beta_2) * g * g
                w[row, k] -= rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m[row, k] / (np.sqrt(v[row, k]) + epsilon)
    return w


def sgd_by_hand(gradients, rate=0.1, momentum=0.9, nesterov=False):
    w, m = start(), np.zeros((ROWS, WIDTH))
    for rows, values in gradients:
        for row in set(rows):
            g = sum(values[i] for i in range(len(rows)) if rows[i] == row)
            m[row] = momentum * m[row] - rate * g
            w[row] += momentum * m[row] - rate * g if nesterov else m[row]
    return w


# Keras 3 takes the rate and Adam's numbers in float32 first.
CLOSE = {"rtol": 1e-6, "atol": 1e-7}
MADE = {
    "adam": (lambda: LazyAdam(0.01), adam_by_hand),
    "sgd": (lambda: LazySGD(0.1, momentum=0.0), lambda steps: sgd_by_hand(steps, momentum=0.0)),
    "momentum": (lambda: LazySGD(0.1, momentum=0.9), sgd_by_hand),
    "nesterov": (lambda: LazySGD(0.1, momentum=0.9, nesterov=True), lambda steps: sgd_by_hand(steps, nesterov=True)),
}
every_optimizer = pytest.mark.parametrize("name", MADE)


@every_optimizer
@pytest.mark.parametrize("compiled", [None, False, True])
def test_equals_the_definition(name, compiled):
    make, by_hand = MADE[name]
    np.testing.assert_allclose(run(make(), steps(), compiled=compiled), by_hand(list(steps())), **CLOSE)


@every_optimizer
def test_with_all_rows_in_each_step_it_is_that_of_keras(name):
    make, _ = MADE[name]
    plain = type(make()).__mro__[1].from_config(make().get_config())
    expected = run(plain, steps(all_rows=True), sparse=False)
    np.testing.assert_allclose(run(make(), steps(all_rows=True)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run(make(), steps(all_rows=True), sparse=False), expected)


def test_equals_lazy_adam_of_tf_addons():
    addons = pytest.importorskip("tensorflow_addons.optimizers")
    table = tf.Variable(start())
    theirs = addons.LazyAdam(0.01)
    for rows, values in steps():
        theirs.apply_gradients([(tf.IndexedSlices(tf.constant(values), tf.constant(rows)), table)])
    np.testing.assert_allclose(run(LazyAdam(0.01), steps()), table.numpy(), **CLOSE)


@every_optimizer
def test_saved_and_reloaded_it_goes_on(name, tmp_path):
    make, _ = MADE[name]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(ROWS, WIDTH), keras.layers.Flatten()])
    model.compile(make(), loss="mse")
    x, y = np.array([[1, 2], [2, 5]]), np.ones((2, 2 * WIDTH), np.float32)
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is type(model.optimizer)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    before = model.get_weights()[0].copy()
    for m in (model, again):
        m.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_allclose(again.get_weights()[0], model.get_weights()[0], **CLOSE)
    changed = (model.get_weights()[0] != before).any(1)
    np.testing.assert_array_equal(np.flatnonzero(changed), [1, 2, 5])


@every_optimizer
def test_a_schedule(name):
    make, _ = MADE[name]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.0])
    optimizer = type(make()).from_config({**make().get_config(), "learning_rate": schedule})
    moved = run(optimizer, steps(3)) - start()
    assert np.abs(moved).max() > 0.01
    # From the fourth step on the rate is 0, and only momentum is left.
    if name in ("adam", "sgd"):
        again = type(make()).from_config({**make().get_config(), "learning_rate": schedule})
        np.testing.assert_array_equal(run(again, steps(6)) - start(), moved)


@every_optimizer
@pytest.mark.parametrize("option", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping_leaves_other_rows_alone(name, option):
    def clipped():
        for rows, values in steps():
            whole = np.zeros((ROWS, WIDTH))
            np.add.at(whole, rows, values)
            whole = np.clip(whole, -0.5, 0.5) if option == "clipvalue" else whole * min(1, 0.5 / np.linalg.norm(whole))
            yield np.unique(rows), whole[np.unique(rows)]

    make, by_hand = MADE[name]
    optimizer = type(make()).from_config({**make().get_config(), option: 0.5})
    np.testing.assert_allclose(run(optimizer, steps()), by_hand(list(clipped())), **CLOSE)


def test_amsgrad_is_refused():
    with pytest.raises(ValueError, match="amsgrad=True: expected False"):
        LazyAdam(amsgrad=True)
