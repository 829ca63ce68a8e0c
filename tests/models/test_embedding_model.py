"""EmbeddingModel: shapes, training on both Keras versions, save and reload."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdml
from tfdml.models import conv_encoder, siamese
from tfdml.preprocessing import ImagePreprocessing

SHAPE = (16, 16, 3)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, *SHAPE)).astype(np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.repeat(np.arange(4), 3)


def small_encoder() -> keras.Model:
    return conv_encoder(SHAPE, filters=(8, 8), dimension=5)


def test_embeddings_have_length_one_only_when_normalised(images):
    encoder = small_encoder()
    unit, raw = tfdml.EmbeddingModel(encoder), tfdml.EmbeddingModel(encoder, normalize=False)
    lengths = np.linalg.norm(raw.embed(images), axis=1)
    np.testing.assert_allclose(np.linalg.norm(unit.embed(images), axis=1), 1.0, rtol=1e-5)
    assert np.abs(lengths - 1).max() > 1e-3
    np.testing.assert_allclose(raw.embed(images) / lengths[:, None], unit.embed(images), rtol=1e-4, atol=1e-6)


def test_uint8_and_float_images_give_the_same_embeddings(images):
    model = tfdml.EmbeddingModel(small_encoder())
    np.testing.assert_allclose(model(images), model(images.astype(np.float32)), rtol=1e-6)


def test_fit_lowers_the_loss_and_reload_keeps_everything(images, labels, tmp_path):
    keras.utils.set_random_seed(0)
    model = tfdml.EmbeddingModel(small_encoder(), preprocessing=ImagePreprocessing(SHAPE[:2], fit="pad"))
    model.compile(keras.optimizers.Adam(1e-2), loss=tfdml.losses.TripletLoss(margin=0.3, mining="hard"))
    history = model.fit(images, labels, batch_size=12, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]

    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    assert isinstance(again, tfdml.EmbeddingModel)
    again.export(str(tmp_path / "saved"))  # before it was called with anything
    served = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(served.serve(tf.constant(images, tf.float32)), model(images), rtol=1e-4, atol=1e-5)
    assert again.preprocessing == model.preprocessing
    assert again.normalize is True
    assert isinstance(again.loss, tfdml.losses.TripletLoss)
    np.testing.assert_allclose(again.embed(images), model.embed(images), rtol=1e-5, atol=1e-6)
    again.fit(images, labels, batch_size=12, verbose=0)


def test_a_plain_keras_model_trains_with_the_same_loss(images, labels):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([small_encoder(), tfdml.layers.L2Normalization()])
    model.compile(keras.optimizers.Adam(1e-2), loss=tfdml.losses.TripletLoss(margin=0.3, mining="hard"))
    history = model.fit(images, labels, batch_size=12, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


def test_mixed_precision_still_gives_float32_embeddings(images):
    policy = keras.mixed_precision.global_policy() if hasattr(keras.mixed_precision, "global_policy") else None
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = tfdml.EmbeddingModel(small_encoder())
        embeddings = model(images)
    finally:
        keras.mixed_precision.set_global_policy(policy or "float32")
    assert embeddings.dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)


def test_embed_takes_arrays_batches_and_datasets_alike(images, labels):
    model = tfdml.EmbeddingModel(small_encoder())
    data = tfdml.datasets.Dataset.from_arrays(images, labels)
    expected = model.embed(images)
    np.testing.assert_allclose(model.embed(data, batch_size=5), expected, rtol=1e-5, atol=1e-6)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(7)
    np.testing.assert_allclose(model.embed(batches), expected, rtol=1e-5, atol=1e-6)


def test_batches_without_end_are_refused(images, labels):
    sampler = tfdml.samplers.PKSampler(labels, classes=2, examples=2)
    batches = sampler.dataset(lambda index: tf.gather(images, index))
    model = tfdml.EmbeddingModel(small_encoder())
    with pytest.raises(ValueError, match="data has no end"):
        model.embed(batches)
    assert model.embed(batches.take(2)).shape == (8, 5)


def test_evaluate_gives_retrieval_figures_for_a_dataset_and_keras_figures_otherwise(images, labels):
    model = tfdml.EmbeddingModel(small_encoder())
    model.compile("sgd", loss=tfdml.losses.TripletLoss())
    figures = model.evaluate(tfdml.datasets.Dataset.from_arrays(images, labels), ks=(1, 3))
    assert {"recall_at_1", "recall_at_3", "r_precision", "map_at_r"} <= set(figures)
    assert figures["queries"] == 12
    loss = model.evaluate(images, labels, batch_size=12, verbose=0)
    assert np.isscalar(loss)
    assert np.isfinite(loss)


def test_fit_refuses_a_dataset_and_names_what_to_give_instead(images, labels):
    model = tfdml.EmbeddingModel(small_encoder())
    model.compile("sgd", loss=tfdml.losses.TripletLoss())
    data = tfdml.datasets.Dataset.from_arrays(images, labels)
    with pytest.raises(ValueError, match=r"x is a tfdml.datasets.Dataset.*PKSampler"):
        model.fit(data)
    for way in (
        lambda: model.fit(images, labels, validation_data=data),
        lambda: model.fit(images, labels, 12, 1, 0, None, 0.0, data),
    ):
        with pytest.raises(ValueError, match=r"validation_data is a tfdml.datasets.Dataset.*RetrievalCallback"):
            way()
    model.fit(images, labels, batch_size=12, validation_data=(images, labels), verbose=0)


def test_an_encoder_that_gives_maps_is_refused():
    encoder = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match=r"expected one output \[B, D\]"):
        tfdml.EmbeddingModel(encoder)


def test_an_encoder_without_shapes_is_refused():
    with pytest.raises(ValueError, match="does not know its shapes"):
        tfdml.EmbeddingModel(keras.Sequential([keras.layers.Dense(4)]))


def test_conv_encoder_refuses_images_too_small_for_its_blocks():
    with pytest.raises(ValueError, match="at least 16 pixels"):
        conv_encoder((8, 8, 3))
    with pytest.raises(ValueError, match="pooling='max' is not known"):
        conv_encoder(pooling="max")


def test_siamese_stacks_the_two_embeddings(images):
    encoder = small_encoder()
    stacked = siamese(encoder)([images[:4], images[4:8]])
    np.testing.assert_allclose(stacked[:, 0], encoder(images[:4].astype(np.float32)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stacked[:, 1], encoder(images[4:8].astype(np.float32)), rtol=1e-5, atol=1e-6)


def test_siamese_rounds_no_embedding_under_mixed_precision():
    policy = keras.mixed_precision.global_policy() if hasattr(keras.mixed_precision, "global_policy") else None
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, dtype="float32")])
        model = siamese(encoder)
    finally:
        keras.mixed_precision.set_global_policy(policy or "float32")
    x = np.array([[1.0, 2.0, 4.0]], np.float32)  # which bfloat16 holds
    np.testing.assert_array_equal(model([x, -x])[:, 0], encoder(x))


def test_siamese_shows_all_images_of_a_step_to_batch_normalisation_as_one_batch(images, tmp_path):
    encoder = conv_encoder((16, 16, 3), filters=(4,), dimension=5)
    model = siamese(encoder, images=3)
    parts = [images[:2], images[2:4], images[4:6]]
    together = encoder(images[:6].astype(np.float32), training=True)
    np.testing.assert_allclose(model(parts, training=True), np.asarray(together).reshape(3, 2, 5).swapaxes(0, 1), atol=1e-5)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded.predict(parts, verbose=0), model.predict(parts, verbose=0), atol=1e-6)
    with pytest.raises(ValueError, match="images"):
        siamese(encoder, images=0)
