"""Figures during `fit`, on whatever Keras is installed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.evaluation import RetrievalCallback, evaluate_dataset, retrieval


class Images:
    """As much of a Dataset as evaluation needs."""

    def __init__(self, images, labels, names=None, prefix="image"):
        self._images, self.labels = images, labels
        self.ids = np.array([f"{prefix}-{number}" for number in range(len(labels))])
        self.class_names = names or tuple(f"class-{number}" for number in range(labels.max() + 1))

    def __len__(self):
        return len(self.labels)

    def batches(self, batch_size):
        return tf.data.Dataset.from_tensor_slices(self._images).batch(batch_size)


def data(count=40, classes=5, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    noise = 60 * random.normal(size=(count, 4, 4, 1))
    return np.clip(random.integers(0, 255, (classes, 4, 4, 1))[labels] + noise, 0, 255).astype(np.uint8), labels


def encoder(dimension=3):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.layers.Input((4, 4, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(dimension)]
    )
    model.compile("sgd", loss="mse")
    return model


def fit(model, callbacks, epochs=2, verbose=0):
    images, labels = data(seed=7)
    targets = np.eye(5, dtype=np.float32)[labels][:, : model.output_shape[-1]]
    return model.fit(images, targets, epochs=epochs, verbose=verbose, callbacks=callbacks).history


def test_the_figures_are_those_of_the_model_and_in_the_history() -> None:
    model, (images, labels) = encoder(), data()
    callback = RetrievalCallback(Images(images, labels), ks=(1, 3), batch_size=16, verbose=0)
    history = fit(model, [callback])
    expected = retrieval(model.predict(images, verbose=0), labels, ks=(1, 3)).figures("val_")
    assert list(expected) == ["val_recall_at_1", "val_recall_at_3", "val_r_precision", "val_map_at_r"]
    for name, value in expected.items():
        assert len(history[name]) == 2
        assert history[name][-1] == pytest.approx(value, abs=1e-6)
    assert callback.result.queries == 40


def test_arrays_prefix_and_metric() -> None:
    model, (images, labels) = encoder(), data()
    history = fit(model, [RetrievalCallback((images, labels), metric="euclidean", prefix="new_", verbose=0)])
    expected = retrieval(model.predict(images, verbose=0), labels, metric="euclidean", ks=(1,)).map_at_r
    assert history["new_map_at_r"][-1] == pytest.approx(expected, abs=1e-6)
    assert "val_map_at_r" not in history


def test_later_callbacks_act_on_the_figures(tmp_path) -> None:
    model = encoder()
    path = tmp_path / "best.keras"
    callbacks = [
        RetrievalCallback(Images(*data()), verbose=0),
        keras.callbacks.ModelCheckpoint(str(path), monitor="val_map_at_r", mode="max", save_best_only=True),
        keras.callbacks.EarlyStopping("val_map_at_r", mode="max", min_delta=1.0, patience=1),
    ]
    history = fit(model, callbacks, epochs=6)
    # The first epoch counts as the best; no later one can be better by 1.
    assert len(history["val_map_at_r"]) == 2
    assert path.exists()


def test_epochs_in_between_have_no_figures() -> None:
    history = fit(encoder(), [RetrievalCallback(Images(*data()), every=2, verbose=0)], epochs=5)
    assert len(history["val_map_at_r"]) == 2
    assert len(history["loss"]) == 5


def test_the_line_that_is_printed(capsys) -> None:
    images, labels = data(41, 5)
    labels = np.concatenate([labels[:-1], [5]])
    fit(encoder(), [RetrievalCallback(Images(images, labels))], epochs=1)
    printed = capsys.readouterr().out
    assert "Epoch 1: Recall@1 " in printed
    assert "(40 queries, 1 more without an answer)" in printed
    fit(encoder(), [RetrievalCallback(Images(images, labels), verbose=0)], epochs=1)
    assert capsys.readouterr().out == ""


def test_the_encoder_below_a_head() -> None:
    inputs = keras.Input((4, 4, 1))
    embedding = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    below = keras.Model(inputs, embedding)
    model = keras.Model(inputs, keras.layers.Dense(5)(embedding))
    model.compile("sgd", loss="mse")
    images, labels = data()
    history = fit(model, [RetrievalCallback((images, labels), embedder=below, verbose=0)], epochs=1)
    expected = retrieval(below.predict(images, verbose=0), labels, ks=(1,)).map_at_r
    assert history["val_map_at_r"] == pytest.approx([expected], abs=1e-6)


def test_models_that_do_not_give_one_vector_per_image() -> None:
    inputs = keras.Input((4, 4, 1))
    flat = keras.layers.Flatten()(inputs)
    callback = RetrievalCallback(Images(*data()), verbose=0)
    for model, message in [
        (keras.Model(inputs, [flat, keras.layers.Dense(2)(flat)]), "returns 2 outputs, expected one array"),
        (keras.Model(inputs, {"a": flat, "b": flat}), r"returns 2 outputs \(a, b\)"),
        (keras.Model(inputs, inputs), r"returns shape \(40, 4, 4, 1\) for 40 images"),
    ]:
        callback.set_model(model)
        with pytest.raises(ValueError, match=message):
            callback.on_epoch_end(0, {})


def test_a_model_that_has_gone_wrong_is_reported() -> None:
    model = encoder()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    callback = RetrievalCallback(Images(*data()), verbose=0)
    callback.set_model(model)
    with pytest.raises(ValueError, match="embeddings: NaN"):
        callback.on_epoch_end(0, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"metric": "dot"}, "metric='dot'"),
        ({"ks": (40,)}, "only 39 items"),
        ({"dataset": np.zeros((3, 4, 4, 1))}, "a pair .images, labels. of arrays, received ndarray"),
        ({"dataset": (np.zeros((3, 4, 4, 1)), [0, 0])}, "labels: expected 3 labels"),
        ({"dataset": (np.zeros((3, 4, 4, 1)), [0, 0, 0])}, "of one class"),
        ({"dataset": (np.zeros((3, 4, 4, 1)), [0, 1, 2])}, "has an answer"),
    ],
)
def test_bad_input_is_refused_before_training(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        RetrievalCallback(**{"dataset": Images(*data()), **options})


def test_evaluate_dataset_compares_classes_by_name() -> None:
    model, (images, labels) = encoder(), data()
    alone = evaluate_dataset(model, Images(images, labels), ks=(1,))
    assert alone == retrieval(model.predict(images, verbose=0), labels, ks=(1,))
    # The same classes, numbered the other way round.
    queries = Images(images[:10], labels[:10], tuple("abcde"), prefix="query")
    gallery = Images(images[10:], 4 - labels[10:], tuple("edcba"))
    found = evaluate_dataset(model, queries, gallery, ks=(1,))
    expected = retrieval(
        model.predict(images[:10], verbose=0), labels[:10], None, model.predict(images[10:], verbose=0), labels[10:], ks=(1,)
    )
    assert found.figures() == pytest.approx(expected.figures())
    assert (found.queries, found.gallery) == (10, 30)


def test_evaluate_dataset_leaves_out_the_image_with_the_querys_id() -> None:
    model, (images, labels) = encoder(), data()
    everything = Images(images, labels)
    found = evaluate_dataset(model, everything, everything, ks=(1,))
    assert found.figures() == evaluate_dataset(model, everything, ks=(1,)).figures()


def test_the_default_metric_follows_an_embedding_model_that_does_not_normalise() -> None:
    from tfdml.models import EmbeddingModel

    images, labels = data()
    below = encoder()
    for normalize, metric in ((True, "cosine"), (False, "euclidean")):
        model = EmbeddingModel(below, normalize=normalize)
        callback = RetrievalCallback(Images(images, labels), verbose=0)
        callback.set_model(model)
        callback.on_epoch_end(0, {})
        assert callback.result.metric == metric
        assert evaluate_dataset(model, Images(images, labels)).metric == metric
