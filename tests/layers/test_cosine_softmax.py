"""NormalizedSoftmax, CosFace and ArcFace: logits, the ends of the angle, sub-centres, when the margin is in force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tfdml.layers import ArcFace, CosFace, NormalizedSoftmax


def on_axes(head, dimension=3):
    head.build((None, dimension))
    head.kernel.assign(3.0 * np.eye(head.num_classes * head.sub_centers, dimension))
    return head


def at_angles(degrees) -> tf.Tensor:
    """Embeddings at these angles from the first axis, of several lengths."""
    angles = np.deg2rad(np.asarray(degrees, np.float64))
    rows = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    return tf.constant(rows * np.linspace(0.1, 30, len(angles))[:, None], tf.float32)


def own_cosines(head, degrees) -> np.ndarray:
    x = at_angles(degrees)
    return head(x, tf.zeros([len(x)], tf.int64), training=True).numpy()[:, 0] / head.scale


def test_arcface_adds_the_margin_to_the_angle():
    degrees = np.array([0, 10, 45, 90, 130, 151])
    head = on_axes(ArcFace(3, margin=0.5, scale=64.0))
    np.testing.assert_allclose(own_cosines(head, degrees), np.cos(np.deg2rad(degrees) + 0.5), atol=1e-5)


def test_arcface_falls_over_all_angles():
    for margin in (0.1, 0.5, 1.0, 1.57):
        values = own_cosines(on_axes(ArcFace(3, margin=margin)), np.arange(0, 180.1, 0.5))
        assert (np.diff(values) <= 1e-6).all()


def test_arcface_beyond_pi_follows_the_tangent_of_the_authors():
    head = on_axes(ArcFace(3, margin=0.5))
    np.testing.assert_allclose(own_cosines(head, [152, 180]), np.cos(np.deg2rad([152, 180])) - 0.5 * math.sin(0.5), atol=1e-5)


def test_easy_margin_leaves_obtuse_angles_alone():
    head = on_axes(ArcFace(3, margin=0.5, easy_margin=True))
    np.testing.assert_allclose(
        own_cosines(head, [89, 91, 180]), [math.cos(math.radians(89) + 0.5), *np.cos(np.deg2rad([91, 180]))], atol=1e-5
    )


def test_cosface_takes_the_margin_from_the_cosine():
    head = on_axes(CosFace(3, margin=0.35))
    np.testing.assert_allclose(own_cosines(head, [0, 60, 180]), [0.65, 0.15, -1.35], atol=1e-5)


@pytest.mark.parametrize("head", [ArcFace(3), ArcFace(3, easy_margin=True), CosFace(3), NormalizedSoftmax(3)])
def test_gradients_are_finite_where_an_embedding_lies_on_its_class_or_opposite(head):
    head = on_axes(head)
    x = tf.constant([[1.0, 0, 0], [-1, 0, 0], [1, 1e-4, 0], [-1, 1e-8, 0], [1e-20, 0, 0]])
    kernel = tf.convert_to_tensor(head.kernel)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(head.per_anchor(x, tf.zeros([5], tf.int64), training=True))
    gradient = tape.gradient(total, x).numpy()
    assert np.isfinite(gradient).all()
    # The slope of sin(theta) at 0 is infinite, times a direction of length 0: none of it may leak out.
    assert np.abs(gradient[:4]).max() <= 2 * head.scale
    assert np.isfinite(kernel).all()


def test_margin_is_in_force_in_training_only():
    x, y = at_angles([10, 50, 100]), tf.constant([0, 1, 0])
    for head in (on_axes(ArcFace(3)), on_axes(CosFace(3))):
        plain = head(x).numpy()
        np.testing.assert_array_equal(head(x, y), plain)
        np.testing.assert_array_equal(head(x, y, training=False), plain)
        changed = head(x, y, training=True).numpy() != plain
        np.testing.assert_array_equal(changed, np.eye(3, dtype=bool)[y])


def test_normalized_softmax_divides_by_its_temperature():
    head = on_axes(NormalizedSoftmax(3, temperature=0.1))
    np.testing.assert_allclose(head(tf.constant([[0.0, 5.0, 0.0]])), [[0, 10, 0]], atol=1e-5)
    np.testing.assert_array_equal(head(at_angles([20]), tf.constant([0]), training=True), head(at_angles([20])))


def test_lengths_of_embeddings_and_of_class_weights_do_not_matter():
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    head = on_axes(ArcFace(3))
    before = head(x).numpy()
    head.kernel.assign(np.diag([1e-12, 1.0, 1e12]))
    np.testing.assert_allclose(head(x * np.float32(1e15)), before, rtol=1e-4, atol=1e-4)


def test_the_nearest_sub_centre_counts_and_only_it_is_trained():
    head = CosFace(2, margin=0.0, scale=1.0, sub_centers=2)
    head.build((None, 2))
    head.kernel.assign([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    x = tf.constant([[0.1, 1.0]])
    np.testing.assert_allclose(head(x), [[1 / math.sqrt(1.01), -0.1 / math.sqrt(1.01)]], rtol=1e-5)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(head.per_anchor(x, tf.constant([0]), training=True))
    gradient = tf.convert_to_tensor(tape.gradient(total, head.trainable_variables[0])).numpy()
    assert gradient[1].any()
    assert gradient[2].any()
    assert not gradient[0].any()
    assert not gradient[3].any()
