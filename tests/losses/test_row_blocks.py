"""Losses in blocks of rows: the same value and gradient as without, whatever the block, and only one block in memory."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from losses_helpers import random_batch
from test_between import LOSSES as BETWEEN
from test_between import RANDOM, two_sides

from tfdml.layers import CrossBatchMemory
from tfdml.losses import (
    ContrastiveLoss,
    LiftedStructureLoss,
    MarginLoss,
    NPairLoss,
    NTXentLoss,
    PairLoss,
    RowBlocks,
    TripletLoss,
    TwoTowerLoss,
)

LOSSES = {name: loss for name, (loss, _) in BETWEEN.items() if name != "lifted"} | {
    "margin semi-hard": MarginLoss(0.3, 1.0, "semi_hard", average="valid"),
    "triplet hard active": TripletLoss(0.4, "hard", average="active"),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
# One for each path through the code.
some_losses = pytest.mark.parametrize("name", ["contrastive balanced", "semi-hard", "hard", "n-pair", "sup-con"])


def value_and_gradients(call, *inputs):
    inputs = [tf.convert_to_tensor(x) for x in inputs]
    weights = np.random.default_rng(9).random(int(inputs[0].shape[0]))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = call(*inputs)
        total = tf.reduce_sum(values * tf.cast(weights, values.dtype))
    return [values, *(tf.convert_to_tensor(g) for g in tape.gradient(total, inputs))]


def assert_same(found, expected, rtol=1e-9):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * np.abs(other).max())


@every_loss
@pytest.mark.one_stack
def test_within_a_batch_it_is_the_loss(name):
    labels, x = random_batch(b=13, d=4)
    loss = LOSSES[name]
    expected = value_and_gradients(lambda x: loss.call(labels, x), x)
    assert_same(value_and_gradients(lambda x: RowBlocks(loss, 4).call(labels, x), x), expected)


@some_losses
@pytest.mark.parametrize("rows", [5, 1000])
@pytest.mark.one_stack
def test_in_single_precision(name, rows):
    labels, x = random_batch(b=32, d=8)
    x = x.astype(np.float32)
    loss = LOSSES[name]
    expected = value_and_gradients(lambda x: loss.call(labels, x), x)
    assert_same(value_and_gradients(lambda x: RowBlocks(loss, rows).call(labels, x), x), expected, 1e-5)


@every_loss
def test_between_it_is_the_loss(name):
    labels, x, others, r, valid, itself = two_sides()
    r = np.where(valid[:, None], r, np.nan)
    loss = LOSSES[name]
    expected = value_and_gradients(lambda x, r: loss.between(labels, x, others, r, valid, itself), x, r)
    found = value_and_gradients(lambda x, r: RowBlocks(loss, 3).between(labels, x, others, r, valid, itself), x, r)
    assert_same(found, expected)


@some_losses
@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
def test_in_a_graph_of_unknown_size_and_compiled(name, compiled):
    labels, x = random_batch(b=13, d=4)
    loss = LOSSES[name]
    expected = value_and_gradients(lambda x: loss.call(labels, x), x)

    def run(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = RowBlocks(loss, 5).call(labels, x)
            total = tf.reduce_sum(values * np.random.default_rng(9).random(13))
        return values, tape.gradient(total, x)

    if compiled:
        step = tf.function(run, jit_compile=True)
    else:
        specs = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 4], tf.float64)]
        step = tf.function(run, input_signature=specs)
    assert_same(step(tf.constant(labels, tf.int64), tf.constant(x)), expected, 1e-7)


@pytest.mark.parametrize("labels", [[[True, False, False], [True, True, False], [False, False, True], [False, True, True]]])
def test_several_labels_for_each_item(labels):
    x = np.random.default_rng(0).standard_normal((4, 3))
    loss = NTXentLoss(0.3)
    expected = value_and_gradients(lambda x: loss.call(labels, x), x)
    assert_same(value_and_gradients(lambda x: RowBlocks(loss, 3).call(labels, x), x), expected)


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_drawn_is_drawn_again_for_the_gradient(name):
    """The gradient is that of the value: by differences, while the draw stays the same."""
    loss = RowBlocks({"random": TripletLoss(0.4, "all")}.get(name, RANDOM[name]), 4)
    labels, x = random_batch(b=12, d=4)
    first, second = (value_and_gradients(lambda x: loss.call(labels, x), x) for _ in range(2))
    assert_same(first, second, 0)
    assert np.isfinite(first[0]).all()
    assert np.abs(first[1]).max() > 0


@some_losses
def test_hostile_batches(name):
    loss = RowBlocks(LOSSES[name], 2)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    for labels, embeddings in (
        ([1], x[:1]),
        ([1] * 5, x),
        (range(5), x),
        ([1, 1, 2, 2, 3], np.zeros_like(x)),
        ([1, 1, 2, 2, 3], np.ones_like(x)),
    ):
        values, gradient = value_and_gradients(lambda x, labels=labels: loss.call(list(labels), x), embeddings)
        assert values.shape == (len(embeddings),)
        assert np.isfinite(values).all()
        assert np.isfinite(gradient).all()
    assert loss.call(np.zeros(0, int), x[:0]).shape == (0,)
    x[3, 1] = np.nan
    assert np.isnan(loss.call([1, 1, 2, 2, 3], x)).all()
    half = loss.call([1, 1, 2, 2, 3], tf.cast(x[[0, 1, 2, 4, 4]], tf.float16))
    assert half.dtype == tf.float32


def test_saved_reloaded_and_trained(tmp_path):
    keras.utils.set_random_seed(0)
    x, y = np.random.default_rng(0).standard_normal((16, 5)).astype(np.float32), np.repeat(np.arange(4), 4)
    models = []
    for loss in (TripletLoss(0.3), RowBlocks(TripletLoss(0.3), rows=3, reduction="sum_over_batch_size")):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)])
        model.compile(keras.optimizers.SGD(0.1), loss=loss)
        model.fit(x, y, batch_size=16, epochs=3, verbose=0)
        models.append(model)
    for one, other in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    models[1].save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.loss, RowBlocks)
    assert again.loss.get_config() == models[1].loss.get_config()
    assert again.evaluate(x, y, batch_size=16, verbose=0) == pytest.approx(
        models[0].evaluate(x, y, batch_size=16, verbose=0), rel=1e-4
    )


def test_inside_a_memory_and_between_two_towers():
    labels, x = random_batch(b=12, d=4)
    plain, blocks = NTXentLoss(0.3), RowBlocks(NTXentLoss(0.3), 5)
    towers = np.stack([x, x[::-1]], 1)
    assert_same(
        value_and_gradients(lambda x: TwoTowerLoss(blocks).call(labels, x), towers),
        value_and_gradients(lambda x: TwoTowerLoss(plain).call(labels, x), towers),
    )
    results = []
    for loss in (plain, blocks):
        memory = CrossBatchMemory(loss, size=20, dtype="float64")
        memory.build((None, 4))
        for seed in range(3):
            batch_labels, batch = random_batch(b=12, d=4, seed=seed)
            found = value_and_gradients(
                lambda x, memory=memory, labels=batch_labels: memory.per_anchor(x, tf.constant(labels), training=True), batch
            )
        results.append(found)
    assert_same(*results)


class _Own(PairLoss):
    def compare(self, pairs, anchors, references):
        return tf.reduce_sum(anchors, 1)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (LiftedStructureLoss(), r"LiftedStructureLoss.*cannot be taken one after the other.*take variant='generalized'"),
        (NPairLoss(), "take positives='all'"),
        (TripletLoss(mining="explicit"), "mining='explicit'"),
        (ContrastiveLoss(pairs="explicit"), "pairs='explicit'"),
        (_Own(), "derive it from that"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        RowBlocks(loss)


def test_bad_arguments():
    with pytest.raises(TypeError, match="expected a loss on pairs"):
        RowBlocks("triplet")
    for rows in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=r"rows=.*expected an integer >= 1"):
            RowBlocks(TripletLoss(), rows=rows)
