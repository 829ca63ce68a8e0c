"""Items with several labels each: boolean rows. Two items that share a label are a positive pair."""

import between_oracles as oracles
import keras
import numpy as np
import pytest
import tensorflow as tf
from losses_helpers import drawn_pairs
from oracles import numeric_gradient
from test_between import LOSSES, RANDOM

from tfdml.losses import MarginLoss, NPairLoss, TripletLoss
from tfdml.mining import Pairs

# Some share none, one or two labels; sharing is not transitive; one item has no label at all.
ROWS = np.array(
    [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0]], bool
)
SETS = [set(np.flatnonzero(row).tolist()) for row in ROWS]
X = 0.6 * np.random.default_rng(5).standard_normal((8, 3))
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
def test_equals_the_definition(name):
    loss, definition = LOSSES[name]
    kinds = oracles.kinds_of(SETS, SETS, itself=np.arange(8))
    assert {(kinds == k).sum() for k in (1, -1)} == {20, 36}
    weights = np.random.default_rng(9).random(8)
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = loss.call(ROWS, x)
        total = tf.reduce_sum(values * weights)
    np.testing.assert_allclose(values, definition(kinds, X, X, (X, X)), atol=1e-7)
    slope = numeric_gradient(lambda z: weights @ definition(kinds, z, z, (X, X)), X)
    np.testing.assert_allclose(tape.gradient(total, x), slope, atol=1e-6)


@pytest.mark.parametrize("loss", [loss for loss, _ in LOSSES.values()] + list(RANDOM.values()))
def test_one_label_each_is_the_plain_loss(loss):
    y = np.random.default_rng(1).integers(0, 4, 12)
    x = np.random.default_rng(2).standard_normal((12, 3))
    np.testing.assert_allclose(loss.call(np.eye(4, dtype=bool)[y], x), loss.call(y, x), rtol=1e-6, atol=1e-9)


def test_between_items_with_several_labels():
    valid, itself = np.arange(8) != 2, np.array([-1, 1, -1])
    kinds = oracles.kinds_of(SETS[:3], SETS, valid, itself)
    for loss, definition in LOSSES.values():
        values = loss.between(ROWS[:3], X[:3], ROWS, X, valid, itself)
        np.testing.assert_allclose(values, definition(kinds, X[:3], X, (X[:3], X)), atol=1e-7)


def test_draws_are_negatives():
    kinds = oracles.kinds_of(SETS, SETS, itself=np.arange(8))
    d = tf.constant(oracles.distances(X, X))
    for loss in RANDOM.values():
        positives, negatives = drawn_pairs(loss.mining, Pairs.within(ROWS, tf.constant(X)), X, d)
        np.testing.assert_array_equal(positives, kinds == 1)
        assert not negatives[kinds != -1].any()


@pytest.mark.parametrize("loss", [TripletLoss(), TripletLoss("soft", "all"), MarginLoss(mining="random")])
def test_graph_and_xla_give_the_same(loss):
    def step(y, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = loss.call(y, x)
        return values, tape.gradient(values, x)

    batch = tf.constant(ROWS), tf.constant(X, tf.float32)
    open_shapes = [tf.TensorSpec([None, None], part.dtype) for part in batch]
    for compiled in (tf.function(step, input_signature=open_shapes), tf.function(step, jit_compile=True)):
        for one, other in zip(step(*batch), compiled(*batch), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_through_fit(jit):
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.0), loss=TripletLoss(0.4, "all"), jit_compile=jit)
    x = X.astype(np.float32)
    expected = TripletLoss(0.4, "all")(ROWS, model(x))
    data = tf.data.Dataset.from_tensor_slices((x, ROWS)).batch(8)
    np.testing.assert_allclose(model.fit(data, shuffle=False, verbose=0).history["loss"][0], expected, rtol=1e-5)
    np.testing.assert_allclose(
        model.fit(x, ROWS, batch_size=8, shuffle=False, verbose=0).history["loss"][0], expected, rtol=1e-5
    )


def test_what_is_not_boolean_is_refused_with_a_reason():
    for rows in (ROWS.astype(int), ROWS.astype(np.float32)):
        with pytest.raises(
            ValueError, match=r"y_true has shape \(8, 4\).*argmax.*Several labels.*tf\.cast\(y_true, tf\.bool\)"
        ):
            TripletLoss()(rows, X)
    with pytest.raises(ValueError, match=r"positives='one'.*NPairLoss\(positives='all'\)"):
        NPairLoss()(ROWS, X)
    # One column is one label, true or false, as it was before.
    np.testing.assert_array_equal(TripletLoss().call(ROWS[:, :1], X), TripletLoss().call(ROWS[:, 0].astype(int), X))
