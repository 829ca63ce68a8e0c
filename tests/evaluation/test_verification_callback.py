"""Verification figures during `fit`, on whatever Keras is installed."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfdml.evaluation import VerificationCallback, VerificationPairs, verification, verification_pairs


def data(count=60, classes=12, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return (random.normal(size=(classes, 6))[labels] + 0.5 * random.normal(size=(count, 6))).astype(np.float32), labels


def fit(callback, epochs=2):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile("sgd", loss="mse")
    images, _ = data(seed=1)
    history = model.fit(images, images[:, :3], epochs=epochs, verbose=0, callbacks=[callback])
    return model, history.history


def test_the_figures_are_those_of_the_model_and_in_the_history() -> None:
    images, labels = data()
    pairs = verification_pairs(labels, 20, 40, folds=3)
    callback = VerificationCallback((images, labels), pairs, metric="euclidean", fars=(0.05,), verbose=0)
    model, history = fit(callback)
    expected = verification(model.predict(images, verbose=0), pairs=pairs, metric="euclidean", fars=(0.05,)).figures("val_")
    assert list(expected) == ["val_auc", "val_eer", "val_tar_at_far_5e-2", "val_accuracy", "val_val_at_far_5e-2"]
    for name, value in expected.items():
        assert len(history[name]) == 2
        assert history[name][-1] == pytest.approx(value, abs=1e-6)
    assert callback.result.positive_pairs == 20


def test_all_pairs_every_second_epoch() -> None:
    images, labels = data()
    _, history = fit(VerificationCallback((images, labels), "all", every=2, prefix="new_", verbose=0), epochs=3)
    assert len(history["new_eer"]) == 1
    assert "val_eer" not in history


def test_the_line_that_is_printed(capsys) -> None:
    images, labels = data()
    fit(VerificationCallback((images, labels), "all", fars=(0.01,)), epochs=1)
    printed = capsys.readouterr().out
    assert "Epoch 1: auc " in printed
    assert "tar_at_far_1e-2 " in printed
    assert "(120 positive, 1,650 negative pairs)" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "folds=10: folds share no class"),  # too few classes for the pairs of LFW
        ({"pairs": "every"}, "pairs='every' is not known. Known: 'all'"),
        ({"pairs": "all", "fars": (1e-5,)}, "fars: 1e-05 cannot be resolved"),
        ({"pairs": VerificationPairs([0], [60], [True])}, "item 60 is compared"),
        ({"pairs": "all", "every": 0}, "every=0"),
        ({"pairs": "all", "metric": "dot"}, "metric='dot'"),
        ({"dataset": np.zeros((3, 4))}, "a pair .images, labels. of arrays"),
        ({"dataset": (np.zeros((4, 2)), [0, 0, 0, 0]), "pairs": "all"}, "no negative pair"),
    ],
)
def test_bad_input_is_refused_before_training(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        VerificationCallback(**{"dataset": data(), **options})
