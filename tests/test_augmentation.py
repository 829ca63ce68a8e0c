"""RandomCropFlip: every result is a crop of its own image, mirrored or not, and places vary."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfdml.augmentation import RandomCropFlip


def crops_of(image: np.ndarray, height: int, width: int) -> dict[bytes, tuple[int, int, bool]]:
    found = {}
    for top in range(image.shape[0] - height + 1):
        for left in range(image.shape[1] - width + 1):
            crop = image[top : top + height, left : left + width]
            found[crop.tobytes()] = (top, left, False)
            found[crop[:, ::-1].tobytes()] = (top, left, True)
    return found


def test_each_image_gets_its_own_crop():
    images = np.random.default_rng(0).integers(0, 256, (64, 7, 6, 3)).astype(np.uint8)
    places = [
        crops_of(image, 5, 4)[crop.tobytes()]
        for image, crop in zip(images, RandomCropFlip(5, 4)(tf.constant(images)).numpy(), strict=True)
    ]
    assert {p[0] for p in places} == {0, 1, 2}
    assert {p[1] for p in places} == {0, 1, 2}
    assert {p[2] for p in places} == {True, False}


def test_no_flip_and_same_size_change_nothing():
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (4, 5, 5, 1)), tf.uint8)
    np.testing.assert_array_equal(RandomCropFlip(5, 5, flip=False)(images), images)


def test_light_varies_by_image_within_its_bounds():
    images = tf.fill([200, 2, 2, 3], tf.constant(100, tf.uint8))
    values = RandomCropFlip(2, 2, light=0.1)(images).numpy()
    assert values.min() >= 80
    assert values.max() <= 121
    assert len(np.unique(values[:, 0, 0, 0])) > 10


def test_images_smaller_than_the_crop_are_refused():
    with pytest.raises(ValueError, match="at least the crop of 64 x 64"):
        RandomCropFlip(64, 64)(tf.zeros([2, 32, 32, 3], tf.uint8))


def test_what_is_no_batch_of_images_is_refused():
    with pytest.raises(ValueError, match=r"shape \(32, 32, 3\): expected a batch"):
        RandomCropFlip(8, 8)(tf.zeros([32, 32, 3], tf.uint8))
    unknown = tf.function(RandomCropFlip(8, 8), input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    with pytest.raises(ValueError, match="expected a batch"):
        unknown(tf.zeros([2, 32, 32, 3], tf.uint8))
    for wrong in ({"height": 0}, {"width": -1}, {"light": 1.5}, {"light": -0.1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
            RandomCropFlip(**{"height": 8, "width": 8, **wrong})


def test_a_seed_decides_everything():
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (16, 9, 9, 3)), tf.uint8)
    augment = RandomCropFlip(5, 5, light=0.2)
    np.testing.assert_array_equal(augment(images, seed=tf.constant([1, 2])), augment(images, seed=tf.constant([1, 2])))
    assert (augment(images, seed=tf.constant([1, 2])) != augment(images, seed=tf.constant([1, 3]))).numpy().any()
