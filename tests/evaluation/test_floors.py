"""The floor under every trained model."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfdml.evaluation import raw_pixels


class Images:
    def __init__(self, images):
        self.images = images

    def batches(self, batch_size):
        return tf.data.Dataset.from_tensor_slices(self.images).batch(batch_size)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 8, 12, 3), np.uint8)


def test_every_pixel(images) -> None:
    found = raw_pixels(Images(images), batch_size=3)
    np.testing.assert_array_equal(found, images.reshape(7, -1).astype(np.float32) / 255)
    assert found.dtype == np.float32


def test_boxes_are_averages(images) -> None:
    found = raw_pixels(Images(images), size=(2, 3)).reshape(7, 2, 3, 3)
    expected = images.reshape(7, 2, 4, 3, 4, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_grey_images() -> None:
    found = raw_pixels(Images(np.full((2, 4, 4, 1), 51, np.uint8)), size=(1, 1))
    np.testing.assert_allclose(found, [[0.2], [0.2]], rtol=1e-6)


def test_bad_input(images) -> None:
    with pytest.raises(ValueError, match=r"size=\(0, 4\)"):
        raw_pixels(Images(images), size=(0, 4))
    with pytest.raises(ValueError, match="holds no images"):
        raw_pixels(Images(images[:0]))
    with pytest.raises(ValueError, match=r"expected batches of images"):
        raw_pixels(Images(images[:, :, :, 0]))
