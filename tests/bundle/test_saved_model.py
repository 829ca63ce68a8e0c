"""What is written as a SavedModel, and what is refused."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from bundle_helpers import SIDE, encoded, gallery_images, tiny_model

from tfdml.bundle import BundleError
from tfdml.bundle.decoding import decode_batch
from tfdml.bundle.operations import check_operations
from tfdml.bundle.saved_model import write_saved_model
from tfdml.preprocessing import ImagePreprocessing

PREPROCESSING = ImagePreprocessing(size=SIDE)


def images_to(*layers) -> keras.Model:
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])


def run(directory, signature, **inputs):
    loaded = tf.saved_model.load(str(directory))
    result = loaded.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    return result["embedding"].numpy(), result["valid"].numpy()


def test_both_signatures_agree_with_the_model(tmp_path):
    model, images = tiny_model(), gallery_images()
    info = write_saved_model(model, tmp_path / "m", PREPROCESSING)
    assert (info.dimension, info.input_shape, info.signatures) == (6, (SIDE, SIDE, 3), ("serving_default", "embed_images"))
    expected = model.embed(images)
    for signature, inputs in {
        "serving_default": {"image_bytes": [encoded(image) for image in images]},
        "embed_images": {"images": images},
    }.items():
        embedding, valid = run(tmp_path / "m", signature, **inputs)
        assert embedding.dtype == np.float32
        assert valid.all()
        np.testing.assert_allclose(embedding, expected, atol=1e-5)


def test_weights_are_written_once_and_only_those_that_embed(tmp_path):
    encoder = images_to(keras.layers.Flatten(), keras.layers.Dense(64))
    head = keras.layers.Dense(1000)
    classifier = keras.Model(encoder.inputs, head(encoder.outputs[0]))
    classifier.compile("adam", "mse")
    classifier.fit(gallery_images()[:4], np.zeros([4, 1000]), verbose=0)
    write_saved_model(encoder, tmp_path / "m", PREPROCESSING)
    size = sum(file.stat().st_size for file in (tmp_path / "m" / "variables").iterdir())
    weights = 4 * encoder.count_params()
    assert weights < size < 1.05 * weights + 4096


def test_unused_variables_of_the_model_stay_out(tmp_path):
    class WithHead(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense, self.head = keras.layers.Flatten(), keras.layers.Dense(3), keras.layers.Dense(5000)

        def call(self, images, training=None):
            embedding = self.dense(self.flatten(images))
            return self.head(embedding) if training else embedding

    model = WithHead()
    model(np.zeros([1, SIDE, SIDE, 3], np.float32), training=True)
    write_saved_model(model, tmp_path / "m", PREPROCESSING)
    assert sum(file.stat().st_size for file in (tmp_path / "m" / "variables").iterdir()) < 15_000


def test_a_plain_model_gets_pixels_from_0_to_255(tmp_path):
    model = images_to(keras.layers.GlobalAveragePooling2D())
    write_saved_model(model, tmp_path / "m", PREPROCESSING)
    images = gallery_images()[:3]
    embedding, _ = run(tmp_path / "m", "embed_images", images=images)
    np.testing.assert_allclose(embedding, images.mean(axis=(1, 2)), rtol=1e-5)


def test_mixed_precision_returns_float32(tmp_path):
    policy = keras.mixed_precision.global_policy() if hasattr(keras.mixed_precision, "global_policy") else "float32"
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = images_to(keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(5))
    finally:
        keras.mixed_precision.set_global_policy(policy)
    write_saved_model(model, tmp_path / "m", PREPROCESSING)
    images = gallery_images()[:3]
    embedding, valid = run(tmp_path / "m", "embed_images", images=images)
    assert embedding.dtype == np.float32
    assert valid.all()
    np.testing.assert_allclose(embedding, np.asarray(tf.cast(model(images.astype(np.float32)), tf.float32)), atol=0.05)


@keras.saving.register_keras_serializable(package="tfdml_tests")
class Palette(keras.layers.Layer):
    """Looks every pixel up in a hash table."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        keys = tf.range(256, dtype=tf.int64)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, keys % 7), -1)

    def call(self, images):
        return tf.reduce_sum(tf.cast(self.table.lookup(tf.cast(images, tf.int64)), tf.float32), axis=(1, 2))

    def compute_output_shape(self, shape):
        return (shape[0], shape[-1])


def test_lookup_tables_are_saved(tmp_path):
    write_saved_model(images_to(Palette()), tmp_path / "m", PREPROCESSING)
    images = gallery_images()[:3]
    embedding, _ = run(tmp_path / "m", "embed_images", images=images)
    np.testing.assert_allclose(embedding, (images % 7).sum(axis=(1, 2)))


@keras.saving.register_keras_serializable(package="tfdml_tests")
class DivideByFirstPixel(keras.layers.Layer):
    def call(self, images):
        return images[:, 0, 0, :] / images[:, 0, 0, :1]

    def compute_output_shape(self, shape):
        return (shape[0], shape[-1])


def test_nan_never_leaves(tmp_path):
    write_saved_model(images_to(DivideByFirstPixel()), tmp_path / "m", PREPROCESSING)
    images = np.full([3, SIDE, SIDE, 3], 10, np.uint8)
    images[1] = 0
    embedding, valid = run(tmp_path / "m", "embed_images", images=images)
    assert valid.tolist() == [True, False, True]
    np.testing.assert_array_equal(embedding, [[1, 1, 1], [0, 0, 0], [1, 1, 1]])


@keras.saving.register_keras_serializable(package="tfdml_tests")
class CallsPython(keras.layers.Layer):
    def call(self, images):
        result = tf.numpy_function(lambda x: x.mean(axis=(1, 2)), [images], tf.float32)
        return tf.ensure_shape(result, [None, 3])

    def compute_output_shape(self, shape):
        return (shape[0], 3)


def test_a_python_function_is_refused_by_name(tmp_path):
    with pytest.raises(BundleError, match=r"calls Python \((Eager)?PyFunc\w* '[^']*PyFunc\w*' in function"):
        write_saved_model(images_to(CallsPython()), tmp_path / "m", PREPROCESSING)


def test_an_operation_that_tensorflow_does_not_have_is_refused_by_name(tmp_path):
    from tfdml.bundle.operations import read_saved_model

    write_saved_model(tiny_model(), tmp_path / "m", PREPROCESSING)
    saved_model = read_saved_model(tmp_path / "m")
    function = saved_model.meta_graphs[0].graph_def.library.function[0]
    function.node_def.add(name="sharpen", op="Acme>Sharpen")
    (tmp_path / "m" / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    with pytest.raises(BundleError, match=r"operation Acme>Sharpen \('sharpen' in function"):
        check_operations(tmp_path / "m")


def test_a_damaged_graph_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(BundleError, match=r"saved_model.pb is damaged"):
        check_operations(tmp_path)
    with pytest.raises(BundleError, match=r"saved_model.pb cannot be read"):
        check_operations(tmp_path / "nowhere")


def two_outputs() -> keras.Model:
    inputs = keras.Input((SIDE, SIDE, 3))
    flat = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, [keras.layers.Dense(3)(flat), keras.layers.Dense(4)(flat)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (two_outputs, "returns 2 outputs; expected one tensor"),
        (
            lambda: images_to(keras.layers.Conv2D(2, 3)),
            r"returns float32 \(None, 10, 10, 2\); expected floating-point \[N, D\]",
        ),
        (lambda: keras.Sequential([keras.Input((5, 5, 3)), keras.layers.Flatten()]), r"takes \(None, 5, 5, 3\), but"),
    ],
)
def test_models_that_do_not_embed_are_refused(tmp_path, model, message):
    with pytest.raises(BundleError, match=message):
        write_saved_model(model(), tmp_path / "m", PREPROCESSING)


@functools.cache
def decoder(max_pixels):
    specification = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda files: decode_batch(files, PREPROCESSING, max_pixels), input_signature=specification)


def decoded(files, max_pixels=10_000):
    images, valid = decoder(max_pixels)(tf.constant(files, tf.string, shape=[len(files)]))
    return images.numpy(), valid.numpy()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_decoding_is_the_preprocessing_itself(count):
    for format in ("PNG", "JPEG", "BMP", "GIF"):
        files = [encoded(image, format) for image in gallery_images(side=20)[:count]]
        images, valid = decoded(files)
        assert valid.shape == (count,)
        assert valid.all()
        assert images.shape == (count, SIDE, SIDE, 3)
        for image, file in zip(images, files, strict=True):
            np.testing.assert_array_equal(image, PREPROCESSING(tf.constant(file)), err_msg=format)


def test_images_with_too_many_pixels_are_not_decoded():
    small, large = np.zeros([20, 20, 3], np.uint8), np.full([101, 100, 3], 255, np.uint8)
    for format in ("PNG", "JPEG", "GIF"):
        images, valid = decoded([encoded(large, format), encoded(small, format), encoded(large, format)])
        assert valid.tolist() == [False, True, False], format
        assert not images.any()
        images, valid = decoded([encoded(large[:100], format)])
        assert valid.tolist() == [True], format
        assert images.all()


def test_a_header_that_claims_gigapixels_is_refused_at_once():
    png = bytearray(encoded(np.zeros([4, 4, 3], np.uint8)))
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    assert decoded([bytes(png)])[1].tolist() == [False]


def test_whatever_bytes_come_nothing_raises():
    rng = np.random.default_rng(0)
    whole = [encoded(gallery_images()[0], format) for format in ("PNG", "JPEG", "GIF", "BMP")]
    files = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"GIF8", b"BM", b"\x00" * 100]
    for data in whole:
        files += [data[: rng.integers(1, len(data))] for _ in range(10)]
        for _ in range(20):
            broken = bytearray(data)
            for position in rng.integers(0, len(data), 4):
                broken[position] ^= 1 << rng.integers(8)
            files.append(bytes(broken))
    images, valid = decoded([*files, whole[0]])
    assert images.shape == (len(files) + 1, SIDE, SIDE, 3)
    assert valid[-1]
    assert not valid[:7].any()
