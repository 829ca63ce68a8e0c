"""Diagnose during `fit`: its figures, and one sentence for each thing that is wrong."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.evaluation import Diagnose

RANDOM = np.random.default_rng(0)
IMAGES, LABELS = RANDOM.normal(size=(24, 6)).astype(np.float32), np.arange(24) // 4


def run(diagnose, batches, epochs=1, rate=0.0, scale=1.0):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(24)])
    model.compile(keras.optimizers.SGD(rate), loss="sparse_categorical_crossentropy")
    model.set_weights([scale * weight for weight in model.get_weights()])
    history = model.fit(diagnose.watch(batches), epochs=epochs, verbose=0, callbacks=[diagnose]).history
    return model, history


def batches(labels=LABELS, size=8):
    return tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(size)


def test_figures_by_plain_counting(capsys) -> None:
    diagnose = Diagnose((IMAGES, LABELS), margin=1.0, items=24, loss_every=1)
    model, history = run(diagnose, batches(), epochs=2)
    x = model.predict(IMAGES, verbose=0)
    negatives = [float(np.linalg.norm(x[i] - x[j])) for i in range(24) for j in range(24) if LABELS[i] != LABELS[j]]
    assert history["diagnose_active_pairs"] == pytest.approx([np.mean([d < 1.0 for d in negatives])] * 2)
    assert history["diagnose_batch_positives"] == [3.0, 3.0]
    assert history["diagnose_batch_alone"] == [0.0, 0.0]
    assert [step for step, _ in diagnose.losses] == [1, 2, 3, 4, 5, 6]
    # At rest, the loss of an epoch is the mean of its steps.
    assert np.mean([loss for _, loss in diagnose.losses[:3]]) == pytest.approx(history["loss"][0], rel=1e-5)
    assert diagnose.sentences == []
    assert capsys.readouterr().out == ""


def test_a_slow_input_is_named_and_a_fast_one_is_not(capsys) -> None:
    diagnose = Diagnose((IMAGES, LABELS))

    def slow(image, label):
        import time

        return tf.numpy_function(lambda one: (time.sleep(0.25), one)[1], [image], tf.float32), label

    def shaped(image, label):
        return tf.ensure_shape(image, [None, 6]), label

    run(diagnose, batches(size=4).map(slow).map(shaped))
    (sentence,) = [each for each in diagnose.sentences if "waits" in each]
    assert "the input pipeline is the bottleneck" in capsys.readouterr().out
    assert "ms for its batch" in sentence
    assert diagnose.history[-1]["seconds_input"] >= 0.2
    assert diagnose.history[-1]["seconds_step"] > 0


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"margin": 1e-9, "distance": "euclidean"}, {"near": True}, "of the triplets break the margin"),
        ({}, {"labels": np.arange(24)}, "100% of the anchors have no positive in their batch"),
        ({}, {"lengths": True}, "differ in length"),
        ({}, {"scale": np.nan}, "The loss is nan"),
    ],
)
def test_each_fault_gets_its_sentence_once(options, change, message) -> None:
    images = IMAGES.copy()
    if "near" in change:
        images = np.eye(6, dtype=np.float32)[LABELS]
    if "lengths" in change:
        images[::3] *= 1e4
    diagnose = Diagnose((images, LABELS), verbose=0, **options)
    data = tf.data.Dataset.from_tensor_slices((IMAGES, change.get("labels", LABELS))).batch(8)
    if "scale" in change:
        with pytest.raises(ValueError, match="NaN or infinity"):
            run(diagnose, data, scale=change["scale"])
    else:
        run(diagnose, data, epochs=2)
        assert len([each for each in diagnose.sentences if message in each]) == 1


def test_a_collapse_is_kept_as_a_sentence() -> None:
    diagnose = Diagnose((IMAGES, LABELS), every=1, prefix=None)
    _, history = run(diagnose, batches(), scale=0.0)
    assert list(history) == ["loss"]
    assert diagnose.history[0]["collapsed"] == 1
    assert sum("collapsed" in sentence for sentence in diagnose.sentences) == 1


def test_batches_of_another_structure_pass_unchanged() -> None:
    diagnose = Diagnose((IMAGES, LABELS))
    plain = tf.data.Dataset.from_tensor_slices(IMAGES).batch(5)
    for before, after in zip(plain, diagnose.watch(plain), strict=True):
        assert (before.numpy() == after.numpy()).all()
    several = tf.data.Dataset.from_tensor_slices(({"image": IMAGES}, LABELS, np.ones(24, np.float32))).batch(5)
    for before, after in zip(several, diagnose.watch(several), strict=True):
        assert [part.shape for part in tf.nest.flatten(before)] == [part.shape for part in tf.nest.flatten(after)]
    with pytest.raises(ValueError, match="loss_every=0"):
        Diagnose((IMAGES, LABELS), loss_every=0)
