"""The learning rate's definition; the switch of beta_1 in eager, compiled, saved, resumed and distributed training."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.schedules import BetaSwitchAdam, HoldThenDecay

GRADIENTS = np.array([1.0, -2.0, 0.5, 3.0, -1.0, 0.25, 4.0])


def adam_by_hand(gradients, rate, betas, beta_2=0.999, epsilon=1e-7, start=1.0):
    """Kingma and Ba's Adam in Keras's form (epsilon beside the uncorrected root), with one beta_1 for each step."""
    x, m, v, path = start, 0.0, 0.0, []
    for t, (g, beta_1) in enumerate(zip(gradients, betas, strict=True), start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g * g
        x -= rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon)
        path.append(x)
    return np.array(path)


def betas(switch_at):
    return [0.5 if step >= switch_at else 0.9 for step in range(len(GRADIENTS))]


class Slope(keras.layers.Layer):
    """One weight w; the output of gradient g is w g."""

    def build(self, input_shape):
        self.w = self.add_weight(name="w", shape=(), initializer="ones")
        self.built = True

    def call(self, inputs):
        return inputs * tf.convert_to_tensor(self.w)


def slope_model(optimizer, **options):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, Slope()(inputs))
    model.compile(optimizer, loss=lambda _, y: tf.reduce_sum(y, -1), **options)
    return model


def fitted_path(model, gradients):
    """The weight after each step of `fit`: one compiled training step, called again and again."""
    path = []
    for g in gradients:
        model.train_on_batch(np.array([[g]], np.float32), np.zeros([1, 1], np.float32))
        path.append(float(np.asarray(model.get_weights()[0])))
    return np.array(path)


def test_the_rate_is_the_papers():
    rate = HoldThenDecay(1e-3, hold=15_000, end=25_000)
    for step, expected in (
        (0, 1e-3),
        (14_999, 1e-3),
        (15_000, 1e-3),
        (20_000, 1e-3 * 0.001**0.5),
        (25_000, 1e-6),
        (10**8, 1e-6),
    ):
        np.testing.assert_allclose(float(rate(step)), expected, rtol=1e-6)
        np.testing.assert_allclose(float(rate(tf.constant(step, tf.int64))), expected, rtol=1e-6)


def test_the_rate_never_rises_or_jumps():
    rate = HoldThenDecay(1.0, hold=10, end=50)
    values = np.array([float(rate(step)) for step in range(60)])
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(values[11:51] / values[10:50], 0.001 ** (1 / 40), rtol=1e-5)


def test_the_rate_is_in_force_in_a_compiled_step():
    model = slope_model(keras.optimizers.SGD(HoldThenDecay(0.1, hold=2, end=4, factor=0.01)))
    steps = np.diff(np.append(1.0, fitted_path(model, np.ones(6))))
    np.testing.assert_allclose(-steps, [0.1, 0.1, 0.1, 0.01, 0.001, 0.001], rtol=1e-3)


@pytest.mark.parametrize("switch_at", [0, 3, 100])
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=["graph", "eager", "xla"])
def test_updates_after_the_switch_use_the_later_beta(switch_at, options):
    model = slope_model(BetaSwitchAdam(0.1, switch_at=switch_at), **options)
    expected = adam_by_hand(GRADIENTS, 0.1, betas(switch_at))
    np.testing.assert_allclose(fitted_path(model, GRADIENTS), expected, rtol=1e-5, atol=1e-6)


def test_the_switch_makes_a_difference_only_from_its_step_on():
    switched, plain = (adam_by_hand(GRADIENTS, 0.1, betas(s)) for s in (3, 100))
    np.testing.assert_array_equal(switched[:3], plain[:3])
    assert (np.abs(switched[3:] - plain[3:]) > 1e-3).any()


@pytest.mark.parametrize("switch_at", [0, 100])
def test_without_a_switch_it_is_kerass_adam(switch_at):
    beta = betas(switch_at)[0]
    ours = fitted_path(slope_model(BetaSwitchAdam(0.1, switch_at=switch_at, amsgrad=True)), GRADIENTS)
    keras_own = fitted_path(slope_model(keras.optimizers.Adam(0.1, beta_1=beta, amsgrad=True)), GRADIENTS)
    np.testing.assert_allclose(ours, keras_own, rtol=1e-6)


@pytest.mark.parametrize("stopped_after", [2, 3, 5])
def test_a_training_that_goes_on_after_reloading_is_the_same(tmp_path, stopped_after):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(inputs))
    model.compile(BetaSwitchAdam(HoldThenDecay(0.1, hold=3, end=6), switch_at=3), loss="mean_absolute_error")
    whole, parts = keras.models.clone_model(model), model
    whole.compile(BetaSwitchAdam(HoldThenDecay(0.1, hold=3, end=6), switch_at=3), loss="mean_absolute_error")
    expected = _absolute_path(whole, GRADIENTS)
    before = _absolute_path(parts, GRADIENTS[:stopped_after])
    parts.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is BetaSwitchAdam
    assert int(np.asarray(again.optimizer.iterations)) == stopped_after
    np.testing.assert_allclose(float(again.optimizer.beta_1), 0.5 if stopped_after >= 3 else 0.9)
    after = _absolute_path(again, GRADIENTS[stopped_after:])
    np.testing.assert_allclose(np.append(before, after), expected, rtol=1e-6)


def _absolute_path(model, gradients):
    """As `fitted_path`, for a loss that Keras knows by name: |g w - 1000| has the gradient -g or g."""
    path = []
    for g in gradients:
        model.train_on_batch(np.array([[g]], np.float32), np.array([[1000.0]], np.float32))
        path.append(float(model.get_weights()[0][0, 0]))
    return np.array(path)


def test_config_makes_the_same_optimiser():
    optimizer = BetaSwitchAdam(HoldThenDecay(2e-4, 5, 9, 0.1), beta_1=0.8, late_beta_1=0.3, switch_at=5, epsilon=1e-8)
    again = BetaSwitchAdam.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert (again.early_beta_1, again.late_beta_1, again.switch_at) == (0.8, 0.3, 5)


def test_float64_weights():
    w = tf.Variable(1.0, dtype=tf.float64)
    optimizer = BetaSwitchAdam(0.1, switch_at=3)
    path = []
    for g in GRADIENTS:
        optimizer.apply_gradients([(tf.constant(g, tf.float64), w)])
        path.append(float(w))
    np.testing.assert_allclose(path, adam_by_hand(GRADIENTS, 0.1, betas(3)), rtol=1e-5)


def test_rows_that_have_no_gradient_still_move():
    """A gathered weight has a sparse gradient; Keras 2 gives it a path of its own."""
    table = keras.layers.Embedding(3, 1, embeddings_initializer="ones")
    model = keras.Sequential([keras.Input((1,), dtype="int32"), table, keras.layers.Flatten()])
    model.compile(BetaSwitchAdam(0.1, switch_at=1), loss=lambda _, y: tf.reduce_sum(y, -1))
    for row in (0, 1):
        model.train_on_batch(np.array([[row]]), np.zeros([1, 1], np.float32))
    first = adam_by_hand([1.0, 0.0], 0.1, [0.9, 0.5])[-1]
    second = adam_by_hand([0.0, 1.0], 0.1, [0.9, 0.5])[-1]
    np.testing.assert_allclose(model.get_weights()[0][:, 0], [first, second, 1.0], rtol=1e-5)


def test_two_replicas_take_the_same_step():
    # In a process of its own: devices can only be split before TensorFlow is used.
    script = """
        import keras, numpy as np, tensorflow as tf
        import tfdml.models  # all that Keras must know of to load a model
        names = ("LazyAdam", "HoldThenDecay", "TripletLoss", "DistanceContrastiveLoss", "SemiHard", "ArcFace", "BetaSwitchAdam")
        *others, BetaSwitchAdam = [keras.saving.get_registered_object(f"tfdml>{name}") for name in names]
        assert all(others), others
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
            model.compile(BetaSwitchAdam(0.1, switch_at=3), loss="mean_absolute_error")
        slopes = np.array(GRADIENTS, np.float32).repeat(2)[:, None]
        data = tf.data.Dataset.from_tensor_slices((slopes, np.full_like(slopes, 1000))).batch(2)
        model.fit(data, epochs=1, verbose=0)
        print("weight", float(model.get_weights()[0][0, 0]))
    """
    script = textwrap.dedent(script).replace("GRADIENTS", str(GRADIENTS.tolist()))
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert "weight" in run.stdout, run.stderr[-2000:]
    expected = adam_by_hand(-GRADIENTS, 0.1, betas(3))[-1]
    np.testing.assert_allclose(float(run.stdout.split()[-1]), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HoldThenDecay(0.0), "learning_rate=0.0"),
        (lambda: HoldThenDecay(hold=10, end=10), "end=10: expected a step after hold=10"),
        (lambda: HoldThenDecay(hold=-1), "hold=-1"),
        (lambda: HoldThenDecay(factor=0), "factor=0"),
        (lambda: BetaSwitchAdam(beta_1=1.0), "beta_1=1.0: expected a number from 0 to below 1"),
        (lambda: BetaSwitchAdam(late_beta_1=-0.1), "late_beta_1=-0.1"),
        (lambda: BetaSwitchAdam(switch_at=-5), "switch_at=-5"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
