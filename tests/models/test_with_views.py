"""with_views: the paper's two forms by hand; preprocessing, evaluation, saving and serving of the wrapped model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdml
from tfdml.models import conv_encoder, with_views
from tfdml.preprocessing import ImagePreprocessing


def encoder(shape=(16, 16, 3)):
    keras.utils.set_random_seed(0)
    return conv_encoder(shape, filters=(4, 6), dimension=5, pooling="flatten")


def photos(count=3, height=18, width=18):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def ten_views(x, height, width):
    down, across = x.shape[1] - height, x.shape[2] - width
    places = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
    crops = [x[:, top : top + height, left : left + width] for top, left in places]
    return crops + [crop[:, :, ::-1] for crop in crops]


@pytest.mark.parametrize("normalize", [False, True])
def test_five_crops_and_flips_averaged(normalize):
    model = tfdml.EmbeddingModel(encoder(), normalize=normalize)
    x = photos()
    expected = np.mean([model.embed(view) for view in ten_views(x, 16, 16)], 0)
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    better = with_views(model)
    assert isinstance(better, tfdml.EmbeddingModel)
    assert better.normalize == normalize
    np.testing.assert_allclose(better.embed(x), expected, rtol=1e-4, atol=1e-5)


def test_image_and_flip_concatenated():
    model = encoder()
    x = photos(height=16, width=16).astype(np.float32)
    both = with_views(model, crops="none", combine="concatenate")
    assert tuple(both.output_shape) == (None, 10)
    np.testing.assert_allclose(both(x), np.concatenate([model(x), model(x[:, :, ::-1])], 1), rtol=1e-4, atol=1e-5)


def test_weights_are_shared_and_a_head_is_left_out():
    model = tfdml.EmbeddingModel(encoder(), head=tfdml.layers.ArcFace(3))
    better = with_views(model, crops="none")
    assert better.head is None
    x = photos(height=16, width=16)
    before = better.embed(x)
    model.encoder.layers[-1].kernel.assign(2 * np.asarray(model.encoder.layers[-1].kernel)[:, ::-1])
    assert np.abs(better.embed(x) - before).max() > 1e-3


@pytest.mark.parametrize(
    ("preprocessing", "crops", "expected"),
    [
        (ImagePreprocessing(16), "five", (18, 18)),
        (ImagePreprocessing((16, 32), fit="stretch"), "center", (18, 36)),
        (ImagePreprocessing(16, resize=20), "five", (20, 20)),
        (ImagePreprocessing(16, resize=20), "none", (16, 16)),
    ],
)
def test_preprocessing_keeps_what_crops_are_taken_from(preprocessing, crops, expected):
    model = tfdml.EmbeddingModel(encoder(preprocessing.shape), preprocessing=preprocessing)
    better = with_views(model, crops)
    assert better.preprocessing.size == expected
    assert better.preprocessing.fit == preprocessing.fit
    assert better.input_shape[1:3] == expected


def test_enlarge_says_how_large_images_are():
    assert with_views(encoder((16, 24, 3)), enlarge=1.5).input_shape == (None, 24, 36, 3)


def data(size):
    return tfdml.datasets.rendered_catalogue(classes=4, views=3, image_size=size)


def test_judged_like_any_model():
    test = data(18)
    better = with_views(tfdml.EmbeddingModel(encoder(), normalize=False))
    figures = better.evaluate(test)
    expected = tfdml.evaluation.retrieval(better.embed(test), test.labels, metric="euclidean").as_dict()
    assert figures["map_at_r"] == pytest.approx(expected["map_at_r"])


def test_saved_and_reloaded(tmp_path):
    model = tfdml.EmbeddingModel(encoder(), preprocessing=ImagePreprocessing(16))
    better = with_views(model)
    better.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.embed(photos()), better.embed(photos()), rtol=1e-5, atol=1e-6)
    assert again.preprocessing == better.preprocessing


def test_exported_as_a_bundle_that_crops_by_itself(tmp_path):
    better = with_views(tfdml.EmbeddingModel(encoder(), preprocessing=ImagePreprocessing(16)))
    gallery = data(40).with_preprocessing(better.preprocessing)
    bundle = tfdml.bundle.export(better, gallery, to=tmp_path / "products")
    embedder = tfdml.bundle.Embedder(bundle.path)
    files = [gallery.image_bytes(number) for number in range(3)]
    expected = better.embed(gallery)[:3]
    np.testing.assert_allclose(embedder.embed(files), expected, rtol=1e-3, atol=1e-4)


def test_in_a_graph_and_under_xla():
    better = with_views(encoder())
    x = tf.constant(photos(), tf.float32)
    for compiled in (None, True):
        np.testing.assert_allclose(tf.function(better, jit_compile=compiled)(x), better(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: with_views(encoder(), crops="ten"), "crops='ten' is not known"),
        (lambda: with_views(encoder(), combine="sum"), "combine='sum' is not known"),
        (lambda: with_views(encoder(), enlarge=0.9), "enlarge=0.9: expected at least 1"),
        (lambda: with_views(keras.Sequential([keras.layers.Flatten()])), "expected one input"),
        (lambda: with_views(keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)])), "known sizes"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
