"""Cross-batch memory: its loss by hand, first in first out, warm-up, constants, saved state, replicas, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdml
from tfdml.layers import CrossBatchMemory
from tfdml.losses import (
    CircleLoss,
    ContrastiveLoss,
    LiftedStructureLoss,
    MarginLoss,
    MultiSimilarityLoss,
    NPairLoss,
    NTXentLoss,
    SupConLoss,
    TripletLoss,
    TwoTowerLoss,
)

LOSSES = {
    "contrastive": ContrastiveLoss(1.5),
    "semi-hard": TripletLoss(0.4),
    "hard": TripletLoss("soft", "hard"),
    "all": TripletLoss(0.4, "all"),
    "random": TripletLoss(0.4, "random"),
    "n-pair": NPairLoss(positives="all"),
    "lifted": LiftedStructureLoss(),
    "lifted generalized": LiftedStructureLoss(variant="generalized"),
    "margin": MarginLoss(),
    "multi-similarity": MultiSimilarityLoss(),
    "circle": CircleLoss(0.3, 10.0),
    "nt-xent": NTXentLoss(0.3),
    "sup-con": SupConLoss(0.3),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def batches(count=4, b=6, d=3, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield tf.constant(rng.standard_normal((b, d)), tf.float32), tf.constant(rng.integers(0, 3, b))


def rows(*numbers):
    return tf.constant([[n, -n] for n in numbers], tf.float32)


def made(size=4, loss=None, dimension=2, **kwargs):
    memory = CrossBatchMemory(loss or ContrastiveLoss(), size, **kwargs)
    memory.build((None, dimension))
    return memory


def pushed(memory, *numbers):
    memory.push(rows(*numbers), tf.constant(numbers, tf.int64))
    references, labels, valid = memory.read()
    np.testing.assert_array_equal(references[:, 0], tf.cast(labels, tf.float32))
    np.testing.assert_array_equal(references[:, 1], -tf.cast(labels, tf.float32))
    return labels.numpy().tolist(), valid.numpy().tolist()


@every_loss
def test_the_loss_is_that_of_the_batch_and_that_of_the_memory(loss):
    memory, weight, start, size = CrossBatchMemory(loss, 13, weight=0.7, start=1), 0.7, 1, 13
    kept_x, kept_y = np.zeros((0, 3), np.float32), np.zeros(0, int)
    for step, (x, y) in enumerate(batches()):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = memory(x, y, training=True)
        with tf.GradientTape() as tape_of_expected:
            tape_of_expected.watch(x)
            expected = loss.call(y, x)
            if step >= start:
                kept_x, kept_y = np.concatenate([kept_x, x])[-size:], np.concatenate([kept_y, y])[-size:]
                itself = len(kept_y) - 6 + np.arange(6)
                expected += weight * loss.between(y, x, kept_y, kept_x, itself=itself)
        assert values.shape == (6,)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(tape.gradient(values, x), tape_of_expected.gradient(expected, x), rtol=1e-4, atol=1e-5)
    assert memory.read()[2].numpy().all()
    assert int(memory.step) == 4


def test_no_anchor_is_its_own_positive():
    # All different: there are no positive pairs, and all are far apart.
    memory = made(16, TripletLoss(0.2, "hard"))
    for step in range(3):
        x = 100.0 * rows(*range(4 * step, 4 * step + 4))
        assert not memory(x, tf.range(4 * step, 4 * step + 4), training=True).numpy().any()


def test_first_in_first_out():
    memory = made(5)
    assert pushed(memory, 1, 2) == ([0, 0, 0, 1, 2], [False] * 3 + [True] * 2)
    assert pushed(memory, 3, 4) == ([0, 1, 2, 3, 4], [False] + [True] * 4)
    assert pushed(memory, 5, 6) == ([2, 3, 4, 5, 6], [True] * 5)
    assert pushed(memory, *range(10, 20)) == ([15, 16, 17, 18, 19], [True] * 5)


def test_a_batch_larger_than_the_memory():
    assert pushed(made(2), 1, 2, 3) == ([2, 3], [True, True])
    # Those of the batch that are not kept have the kept ones to compare with.
    (x, y), loss = next(batches()), ContrastiveLoss(1.5)
    values = CrossBatchMemory(loss, 2)(x, y, training=True)
    expected = loss.call(y, x) + loss.between(y, x, y[-2:], x[-2:], itself=[-1, -1, -1, -1, 0, 1])
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_evaluation_neither_stores_nor_reads():
    memory, loss = made(6, dimension=3, loss=TripletLoss(0.4)), TripletLoss(0.4)
    first, second = batches(2)
    memory(*first, training=True)
    before = [w.numpy() for w in memory.read()]
    for training in (False, None):
        np.testing.assert_array_equal(memory(*second, training=training), loss.call(second[1], second[0]))
    for one, other in zip(before, memory.read(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(memory.step) == 1


def test_before_the_start_nothing_is_kept():
    memory = made(6, dimension=3, start=2)
    seen = []
    for x, y in batches(3):
        memory(x, y, training=True)
        seen.append(int(memory.read()[2].numpy().sum()))
    assert seen == [0, 0, 6]


@pytest.mark.parametrize("jit", [None, True], ids=["graph", "xla"])
def test_in_a_graph(jit):
    results = []
    for compiled in (False, True):
        memory = made(14, TripletLoss(0.4), 3, start=1)

        def step(x, y, memory=memory):
            with tf.GradientTape() as tape:
                tape.watch(x)
                values = memory(x, y, training=True)
            return values, tape.gradient(values, x)

        run = tf.function(step, jit_compile=jit) if compiled else step
        results.append([part for x, y in batches() for part in run(x, y)] + list(memory.read()))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_half_precision_and_exact_labels():
    memory = made(2, dtype="mixed_bfloat16")
    values = memory(tf.cast(rows(1, 2), tf.bfloat16), tf.constant([2**60, 2**60 + 1]), training=True)
    references, labels, _ = memory.read()
    assert values.dtype == references.dtype == tf.float32
    assert labels.numpy().tolist() == [2**60, 2**60 + 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_overflowed_leaves_nothing_in_memory(bad):
    memory = made(8)
    pushed(memory, 1, 2)
    x = rows(3, 4, 5).numpy()
    x[1, 0] = bad
    assert np.isnan(memory(tf.constant(x), tf.constant([3, 4, 5]), training=True)).all()
    references, _, valid = memory.read()
    assert valid.numpy().tolist() == [False] * 3 + [True, True, True, False, True]
    assert np.isfinite(references).all()
    assert np.isfinite(memory(rows(6, 7), tf.constant([6, 7]), training=True)).all()


def test_items_with_several_labels():
    memory, loss = CrossBatchMemory(TripletLoss(0.4, "all"), 9, num_classes=4), TripletLoss(0.4, "all")
    rng = np.random.default_rng(0)
    (x1, _), (x2, _) = batches(2)
    y1, y2 = rng.random((6, 4)) < 0.4, rng.random((6, 4)) < 0.4
    memory(x1, tf.constant(y1), training=True)
    values = memory(x2, tf.constant(y2), training=True)
    y, x = np.concatenate([y1, y2])[-9:], np.concatenate([x1, x2])[-9:]
    expected = loss.call(y2, x2) + loss.between(y2, x2, y, x, itself=3 + np.arange(6))
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def images_and_labels():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 4)
    colours = rng.integers(60, 200, (8, 1, 1, 3))[labels]
    return np.clip(colours + rng.integers(-40, 40, (32, 8, 8, 3)), 0, 255).astype(np.uint8), labels


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_one_line_in_an_embedding_model(jit, tmp_path):
    keras.utils.set_random_seed(0)
    images, labels = images_and_labels()
    encoder = tfdml.models.conv_encoder((8, 8, 3), filters=(8,), dimension=5)
    model = tfdml.EmbeddingModel(encoder, head=CrossBatchMemory(TripletLoss(0.2, "all"), size=24, start=3))
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=jit)
    history = model.fit(images, labels, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert history[-1] < history[2]
    assert int(model.head.step) == 24
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.head.get_config() == model.head.get_config()
    for one, other in zip(again.head.get_weights(), model.head.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not again.head.trainable_weights
    # Both go on alike.
    losses = [m.fit(images, labels, batch_size=16, epochs=2, shuffle=False, verbose=0).history["loss"] for m in (model, again)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert model.without_head().embed(images).shape == (32, 5)


def test_in_a_functional_model_with_a_checkpoint(tmp_path):
    images, labels = images_and_labels()
    pictures, numbers = keras.Input((8, 8, 3)), keras.Input((), dtype="int64")
    embedding = tfdml.models.conv_encoder((8, 8, 3), filters=(8,), dimension=5)(pictures)
    model = keras.Model([pictures, numbers], CrossBatchMemory(ContrastiveLoss(1.0), 24, name="memory")(embedding, numbers))
    model.compile(keras.optimizers.Adam(1e-2), loss=lambda _, values: values)
    x = images.astype(np.float32)
    history = model.fit([x, labels], labels, batch_size=16, epochs=8, verbose=0).history["loss"]
    assert history[-1] < history[1]
    model.save_weights(tmp_path / "model.weights.h5")
    kept = [w.numpy() for w in model.get_layer("memory").read()]
    assert kept[2].all()
    model.fit([x, labels], labels, batch_size=16, verbose=0)
    model.load_weights(tmp_path / "model.weights.h5")
    for one, other in zip(kept, model.get_layer("memory").read(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_mixed_precision_through_fit():
    images, labels = images_and_labels()
    before = keras.mixed_precision.global_policy() if hasattr(keras.mixed_precision, "global_policy") else "float32"
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        encoder = tfdml.models.conv_encoder((8, 8, 3), filters=(8,), dimension=5)
        model = tfdml.EmbeddingModel(encoder, head=CrossBatchMemory(ContrastiveLoss(1.0), 24))
        model.compile(keras.optimizers.Adam(1e-2))
        history = model.fit(images, labels, batch_size=16, epochs=3, verbose=0).history["loss"]
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert np.isfinite(history).all()
    assert model.head.read()[2].numpy().all()


def test_a_memory_can_be_filled_by_hand_before_any_step():
    memory = CrossBatchMemory(ContrastiveLoss(), 4)
    with pytest.raises(ValueError, match="does not know the length of embeddings"):
        memory.read()
    assert pushed(memory, 5, 6) == ([0, 0, 5, 6], [False, False, True, True])


def test_bad_input_is_refused_with_a_reason():
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match=r"size=.*expected an integer >= 1"):
            CrossBatchMemory(ContrastiveLoss(), wrong)
    with pytest.raises(ValueError, match=r"start=-1: expected an integer >= 0"):
        CrossBatchMemory(ContrastiveLoss(), 4, start=-1)
    with pytest.raises(ValueError, match=r"weight=0"):
        CrossBatchMemory(ContrastiveLoss(), 4, weight=0)
    for loss in ("contrastive", None, TwoTowerLoss(NTXentLoss())):
        with pytest.raises(TypeError, match="expected a loss on pairs"):
            CrossBatchMemory(loss, 4)
    with pytest.raises(ValueError, match="positives='one'"):
        made(4, NPairLoss())(rows(1, 2), tf.constant([1, 2]), training=True)
    memory = made(4)
    with pytest.raises(ValueError, match=r"\(3, 5\).*expected \[B, 2\]"):
        memory.per_anchor(tf.ones([3, 5]), tf.constant([1, 2, 3]), training=True)
    with pytest.raises(ValueError, match="labels are float32"):
        memory(tf.ones([3, 2]), tf.ones([3]), training=True)
    with pytest.raises(ValueError, match=r"booleans of shape \(3, 4\).*num_classes=4"):
        memory(tf.ones([3, 2]), tf.ones([3, 4], tf.bool), training=True)
    with pytest.raises(ValueError, match=r"labels are int64.*num_classes=4.*booleans \[B, 4\]"):
        made(4, num_classes=4)(tf.ones([3, 2]), tf.constant([1, 2, 3], tf.int64), training=True)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="expected one per embedding"):
        memory(tf.ones([3, 2]), tf.constant([1, 2]), training=True)
