"""Any figure during `fit`, on whatever Keras is installed: in the logs, in TensorBoard, and for callbacks that act on them."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.evaluation import EvaluationCallback, clustering, retrieval, verification


def data(count=40, classes=5, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return (random.normal(size=(classes, 6))[labels] + 0.7 * random.normal(size=(count, 6))).astype(np.float32), labels


def fit(callbacks, epochs=2):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3)])
    model.compile("sgd", loss="mse")
    x, y = data(seed=7)
    return model, model.fit(x, np.eye(5, dtype=np.float32)[y][:, :3], epochs=epochs, verbose=0, callbacks=callbacks).history


def test_figures_of_several_kinds_are_in_the_history() -> None:
    images, labels = data()
    measures = [
        functools.partial(retrieval, also=["mrr"], ks=(1,)),
        "clustering",
        "verification",
        lambda embeddings, labels, metric: {"spread": float(np.std(embeddings))},
    ]
    callback = EvaluationCallback((images, labels), measures, verbose=0)
    model, history = fit([callback])
    embeddings = model.predict(images, verbose=0)
    expected = retrieval(embeddings, labels, ks=(1,), also=["mrr"]).figures("val_")
    expected |= clustering(embeddings, labels).figures("val_") | verification(embeddings, labels).figures("val_")
    expected["val_spread"] = embeddings.std()
    for name, value in expected.items():
        assert len(history[name]) == 2
        assert history[name][-1] == pytest.approx(value, abs=1e-5)
    assert callback.results[0].map_at_r == history["val_map_at_r"][-1]


def test_figures_are_in_tensorboard(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(str(tmp_path), write_graph=False)
    _, history = fit([EvaluationCallback(data(), ["retrieval", "clustering"], verbose=0), board])
    seen = {}
    for file in tmp_path.rglob("events*"):
        for record in tf.data.TFRecordDataset(str(file)):
            for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
                seen[value.tag] = float(tf.make_ndarray(value.tensor)) if value.tensor.dtype == 1 else None
    for name in ("map_at_r", "recall_at_1", "nmi", "ami"):
        assert seen[f"epoch_{name}"] == pytest.approx(history[f"val_{name}"][-1])


def test_the_best_epoch_by_map_at_r_is_kept(tmp_path) -> None:
    images, labels = data()
    path = tmp_path / "best.keras"
    callbacks = [
        EvaluationCallback((images, labels), verbose=0),
        keras.callbacks.ModelCheckpoint(str(path), "val_map_at_r", mode="max", save_best_only=True),
        keras.callbacks.EarlyStopping("val_map_at_r", mode="max", patience=3, restore_best_weights=True),
        # Every epoch further from anything useful, so that the first is the best.
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch and scramble(callbacks[0].model)),
    ]

    def scramble(model):
        model.set_weights([np.zeros_like(w) + 1e-3 * np.arange(w.size).reshape(w.shape) for w in model.get_weights()])

    model, history = fit(callbacks, epochs=8)
    assert len(history["val_map_at_r"]) < 8
    best = max(history["val_map_at_r"])
    for kept in (model, keras.models.load_model(path)):
        assert retrieval(kept.predict(images, verbose=0), labels).map_at_r == pytest.approx(best, abs=1e-6)


def test_open_set_identification_the_line_and_epochs_in_between(capsys) -> None:
    _, history = fit([EvaluationCallback(data(), "identification", every=2, prefix="new_")], epochs=3)
    assert len(history["new_rank_1"]) == 1
    assert 0 <= history["new_known_auc"][0] <= 1
    printed = capsys.readouterr().out
    assert "Epoch 2: rank_1 " in printed
    assert "(40 images)" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ["recall"]}, "measures='recall' is not known. Known: 'retrieval'"),
        ({"measures": []}, "measures: received none"),
        ({"measures": ["retrieval", retrieval]}, "a figure named 'map_at_r'"),
        ({"dataset": (np.zeros((4, 6)), [0, 1, 2, 3])}, "has an answer"),
        ({"dataset": (np.zeros((4, 6)), [0, 0, 0, 0])}, "of one class"),
        ({"every": 0}, "every=0"),
        ({"metric": "dot"}, "metric='dot'"),
    ],
)
def test_bad_input_is_refused_before_training(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationCallback(**{"dataset": data(), **options})
