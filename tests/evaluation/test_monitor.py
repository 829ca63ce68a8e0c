"""The monitor during `fit`: its figures by plain loops, its sample, and what it says of a collapse."""

from __future__ import annotations

import itertools

import evaluation_oracles as oracles
import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdml
from tfdml.evaluation import EmbeddingMonitor
from tfdml.evaluation.monitor import _sample

FIGURES = [
    "active_triplets",
    "distance_p5",
    "distance_p50",
    "distance_p95",
    "positives_per_anchor",
    "collapsed",
    "norm_p5",
    "norm_p50",
    "norm_p95",
]


def data(count=24, classes=4, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 6)).astype(np.float32), np.arange(count) % classes


def linear(scale=1.0):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.0), loss="mse")
    model.set_weights([scale * weight for weight in model.get_weights()])
    return model


def fit(model, callbacks, epochs=1):
    images, _ = data(40, seed=1)
    return model.fit(images, images[:, :3], batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks).history


@pytest.mark.parametrize(
    ("distance", "margin"), [("euclidean", 0.3), ("squared_euclidean", 0.2), ("cosine", 0.1), ("euclidean", "soft")]
)
def test_the_figures_by_plain_loops(distance, margin) -> None:
    model, (images, labels) = linear(), data()
    history = fit(model, [EmbeddingMonitor((images, labels), margin, distance)])
    assert [name.removeprefix("monitor_") for name in history if name != "loss"] == FIGURES
    x = model.predict(images, verbose=0)

    def d(i, j):
        return (
            oracles.distance(x[i], x[j], "euclidean") ** 2
            if distance == "squared_euclidean"
            else oracles.distance(x[i], x[j], distance)
        )

    triplets = [
        d(a, p) - d(a, n) + (0 if margin == "soft" else margin) > 0
        for a, p, n in itertools.permutations(range(24), 3)
        if labels[a] == labels[p] != labels[n]
    ]
    assert history["monitor_active_triplets"] == [pytest.approx(np.mean(triplets))]
    distances = [d(i, j) for i, j, _ in oracles.all_pairs(labels)]
    norms = [np.sqrt(np.sum(v**2)) for v in x.astype(np.float64)]
    for p in (5, 50, 95):
        assert history[f"monitor_distance_p{p}"] == [pytest.approx(np.percentile(distances, p), rel=1e-5)]
        assert history[f"monitor_norm_p{p}"] == [pytest.approx(np.percentile(norms, p), rel=1e-5)]
    assert history["monitor_positives_per_anchor"] == [5]
    assert history["monitor_collapsed"] == [0]


def test_every_so_many_steps_and_at_the_end_of_epochs() -> None:
    monitor = EmbeddingMonitor(data(), every=2, prefix="m_")
    history = fit(linear(), [monitor], epochs=2)  # 5 steps an epoch
    assert [figures["step"] for figures in monitor.history] == [2, 4, 5, 6, 8, 10]
    assert history["m_norm_p50"] == [monitor.history[2]["norm_p50"], monitor.history[5]["norm_p50"]]
    assert "m_step" not in history


def test_steps_are_counted_where_an_execution_has_several() -> None:
    model, (images, _) = linear(), data(40, seed=1)
    model.compile(keras.optimizers.SGD(0.0), loss="mse", steps_per_execution=2)
    monitor = EmbeddingMonitor(data(), every=3)
    model.fit(images, images[:, :3], batch_size=10, epochs=2, verbose=0, callbacks=[monitor])
    assert [figures["step"] for figures in monitor.history] == [4, 6, 8]


def test_measuring_within_an_epoch_does_not_disturb_the_training() -> None:
    weights = []
    for every in (0, 1):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
        model.compile(keras.optimizers.Adam(0.01), loss="mse")
        images, _ = data(40, seed=1)
        batches = tf.data.Dataset.from_tensor_slices((images, images[:, :3])).batch(8).repeat()
        callbacks = [EmbeddingMonitor(data(), every=every)] if every else []
        model.fit(batches, steps_per_epoch=7, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
    for plain, watched in zip(*weights, strict=True):
        np.testing.assert_allclose(watched, plain, rtol=1e-6)


def test_a_collapse_is_said_once_in_a_sentence(capsys) -> None:
    model = linear(scale=1e-4)
    history = fit(model, [EmbeddingMonitor(data(), margin=0.2)], epochs=3)
    assert history["monitor_collapsed"] == [1, 1, 1]
    assert history["monitor_active_triplets"][-1] == 1
    printed = capsys.readouterr().out
    assert printed.count("the embedding has collapsed") == 1
    assert "After 5 steps the embedding has collapsed: 95% of the distances between 24 images are below" in printed
    assert "stays at the margin, 0.2." in printed
    fit(model, [EmbeddingMonitor(data(), margin="soft")])
    assert "stays at ln 2." in capsys.readouterr().out
    fit(linear(), [EmbeddingMonitor(data())])
    assert "collapsed" not in capsys.readouterr().out


@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean", "cosine"])
def test_an_embedding_of_zeros_is_a_collapse_and_no_error(distance) -> None:
    history = fit(linear(scale=0.0), [EmbeddingMonitor(data(), distance=distance)])
    assert history["monitor_collapsed"] == [1]
    assert history["monitor_norm_p95"] == [0]


def test_norms_are_those_before_the_model_normalises() -> None:
    inputs = keras.Input((6,))
    encoder = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    images, labels = data()
    for normalize in (True, False):
        monitor = EmbeddingMonitor((images, labels))
        monitor.set_model(tfdml.EmbeddingModel(encoder, normalize=normalize))
        monitor.on_epoch_end(0, {})
        x = encoder.predict(images, verbose=0)
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        assert monitor.history[0]["norm_p50"] == pytest.approx(np.median(norms), rel=1e-5)
        seen = x / norms if normalize else x
        distances = [oracles.distance(seen[i], seen[j], "euclidean") for i, j, _ in oracles.all_pairs(labels)]
        assert monitor.history[0]["distance_p50"] == pytest.approx(np.median(distances), rel=1e-4)


def test_a_dataset_and_its_sample() -> None:
    catalogue = tfdml.datasets.rendered_catalogue(classes=6, views=5, image_size=16)
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))))
    monitor = EmbeddingMonitor(catalogue, items=9, examples=3)
    monitor.set_model(model)
    logs: dict = {}
    monitor.on_epoch_end(0, logs)
    assert logs["monitor_positives_per_anchor"] == 2


def test_the_sample_takes_classes_with_positives_first() -> None:
    classes = np.array([0, 1, 2, 2, 3, 4, 4, 4, 4, 5])
    for seed in range(20):
        chosen = _sample(classes, 5, 3, seed)
        assert sorted(classes[chosen].tolist()) == [2, 2, 4, 4, 4]
        assert len(set(chosen.tolist())) == 5
    assert len({tuple(_sample(classes, 5, 3, seed).tolist()) for seed in range(20)}) > 1
    np.testing.assert_array_equal(_sample(classes, 100, 100, 0), np.arange(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -1}, "margin=-1"),
        ({"margin": "hard"}, "margin='hard': expected a number >= 0, or 'soft'"),
        ({"distance": "dot"}, "distance='dot'"),
        ({"items": 0}, "items=0"),
        ({"examples": 1}, "has no triplet"),
        ({"items": 6, "examples": 6}, "a sample of 6 images, of 1 classes, has no triplet"),
        ({"every": -1}, "every=-1"),
        ({"dataset": np.zeros((3, 6))}, "a pair .images, labels. of arrays"),
        ({"dataset": (np.zeros((3, 6)), [0, 1, 2])}, "has no triplet"),
        ({"dataset": (np.zeros((3, 6)), [0, 0, 0])}, "has no triplet"),
    ],
)
def test_bad_input_is_refused_before_training(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingMonitor(**{"dataset": data(), **options})


def test_a_model_that_has_gone_wrong_is_reported() -> None:
    with pytest.raises(ValueError, match="embeddings: NaN"):
        fit(linear(scale=np.nan), [EmbeddingMonitor(data())])
