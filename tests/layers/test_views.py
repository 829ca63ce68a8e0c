"""ImageViews and MergeViews: which view is where, and that they undo each other's order."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.layers import ImageViews, MergeViews


def images(batch=2, height=6, width=5):
    return np.arange(batch * height * width * 2, dtype=np.float32).reshape(batch, height, width, 2)


@pytest.mark.parametrize("dtype", [tf.float32, tf.uint8])
def test_five_crops_and_their_mirror_images(dtype):
    x = images()
    views = ImageViews((4, 3))(tf.cast(x, dtype))
    # In Keras 2 a layer casts nothing but floats, in Keras 3 it casts all to its own dtype.
    views = tf.cast(views, tf.float32).numpy().reshape(10, 2, 4, 3, 2)
    corners = [x[:, :4, :3], x[:, :4, 2:], x[:, 2:, :3], x[:, 2:, 2:], x[:, 1:5, 1:4]]
    np.testing.assert_array_equal(views[:5], corners)
    np.testing.assert_array_equal(views[5:], [crop[:, :, ::-1] for crop in corners])


@pytest.mark.parametrize(
    ("crops", "flip", "count"), [("none", True, 2), ("center", False, 1), ("center", True, 2), ("five", False, 5)]
)
def test_fewer_views(crops, flip, count):
    x = images()
    layer = ImageViews((6, 5) if crops == "none" else (4, 3), crops, flip)
    views = layer(x).numpy()
    assert layer.count == count
    assert len(views) == 2 * count
    assert tuple(layer.compute_output_shape(x.shape)) == views.shape
    assert tuple(layer.compute_output_shape((None, 6, 5, 2))) == (None, *views.shape[1:])
    if crops == "none":
        np.testing.assert_array_equal(views, np.concatenate([x, x[:, :, ::-1]]))


@pytest.mark.parametrize("combine", ["average", "concatenate"])
def test_merging_gives_each_image_its_own_views(combine):
    x = np.random.default_rng(0).standard_normal((3, 6, 5, 2)).astype(np.float32)
    views = ImageViews((4, 3))
    embed = keras.layers.Flatten()
    merged = MergeViews(views.count, combine)(embed(views(x))).numpy()
    for image, row in zip(x, merged, strict=True):
        alone = embed(views(image[None])).numpy()
        expected = alone.mean(0) if combine == "average" else alone.ravel()
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_saved_and_reloaded_and_any_batch_size(tmp_path):
    inputs = keras.Input((6, 5, 2))
    views = ImageViews((4, 3), "five", flip=True)
    outputs = MergeViews(views.count, "concatenate")(keras.layers.Flatten()(views(inputs)))
    model = keras.Model(inputs, outputs)
    assert tuple(model.output_shape) == (None, 10 * 4 * 3 * 2)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for count in (1, 4):
        np.testing.assert_array_equal(again(images(count)), model(images(count)))


def test_halves_are_averaged_in_float32():
    merge = MergeViews(2)
    values = merge(tf.constant([[1.0], [1.0 + 2**-10]], tf.float16))
    assert values.dtype == tf.float32
    np.testing.assert_array_equal(values, [[1.0 + 2**-11]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageViews((4, 3), crops="ten"), "crops='ten' is not known. Known: 'none', 'center', 'five'"),
        (lambda: ImageViews((4, 0)), "size=0"),
        (lambda: MergeViews(0), "count=0"),
        (lambda: MergeViews(2, "sum"), "combine='sum' is not known"),
        (lambda: ImageViews((7, 3))(images()), r"images of 6 x 5 pixels, crops='five': expected images of at least 7 x 3"),
        (lambda: ImageViews((4, 3), "none")(images()), "expected images of exactly 4 x 3"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
