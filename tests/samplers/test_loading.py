"""From indices to loaded batches: order, structure, augmentation, resuming, and plain `fit`."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.samplers import PKSampler

LABELS = np.repeat(np.arange(9), 5) + 2**24
IMAGES = np.arange(45, dtype=np.float32).reshape(45, 1, 1, 1) * np.ones((45, 2, 3, 1), np.float32)


@pytest.fixture(scope="module")
def sampler() -> PKSampler:
    return PKSampler(LABELS, classes=4, examples=3, seed=11)


def load(index):
    return tf.gather(IMAGES, index)


def taken(dataset, count: int) -> list:
    return list(dataset.take(count).as_numpy_iterator())


@pytest.mark.parametrize(
    "options", [{}, {"batched": True}, {"parallel_calls": 1, "prefetch": 0}, {"num_shards": 2, "shard_index": 1}]
)
def test_images_are_those_of_the_indices_in_order(sampler, options):
    shards = {key: options[key] for key in options if "shard" in key}
    dataset = sampler.dataset(load, start_step=2, **options)
    expected = taken(sampler.indices(2, **shards), 6)
    rows = 12 // options.get("num_shards", 1)
    assert dataset.element_spec == (tf.TensorSpec([rows, 2, 3, 1], tf.float32), tf.TensorSpec([rows], tf.int64))
    for (images, labels), (indices, expected_labels) in zip(taken(dataset, 6), expected, strict=True):
        assert (images == IMAGES[indices]).all()
        assert (labels == expected_labels).all()


def test_order_holds_however_long_an_item_takes(sampler):
    def slow_for_some(index):
        size = tf.where(index % 5 == 0, 400, 2)
        busy = tf.reduce_sum(tf.linalg.matmul(tf.ones([size, size]), tf.ones([size, size])))
        return tf.cast(index, tf.float32) + 0.0 * busy

    loaded = taken(sampler.dataset(slow_for_some, parallel_calls=8), 10)
    assert [images.tolist() for images, _ in loaded] == [indices.tolist() for indices, _ in taken(sampler.indices(), 10)]


def test_load_may_return_any_structure(sampler):
    dataset = sampler.dataset(lambda index: {"image": load(index), "index": index})
    loaded, labels = taken(dataset, 1)[0]
    indices, _ = sampler.batch_at(0)
    assert (loaded["index"] == indices).all()
    assert (loaded["image"] == IMAGES[indices]).all()
    assert labels.shape == (12,)


def test_the_dataset_has_no_end(sampler):
    for dataset in (sampler.indices(), sampler.dataset(load), sampler.dataset(load, augment=tf.negative)):
        assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


def test_augment_gets_what_it_names(sampler):
    indices, labels = sampler.batch_at(0)
    images, _ = taken(sampler.dataset(load, augment=lambda images: images + 0.5), 1)[0]
    assert (images == IMAGES[indices] + 0.5).all()

    def mixed(images, labels):
        return images[::-1], labels[::-1]

    images, mixed_labels = taken(sampler.dataset(load, augment=mixed), 1)[0]
    assert (images == IMAGES[indices][::-1]).all()
    assert (mixed_labels == labels[::-1]).all()


def test_augment_may_be_a_keras_layer(sampler):
    indices, _ = sampler.batch_at(0)
    images, _ = taken(sampler.dataset(load, augment=keras.layers.Rescaling(2.0)), 1)[0]
    assert (images == 2 * IMAGES[indices]).all()


def test_seeded_augmentation_is_the_same_in_every_run_and_after_a_resume(sampler):
    def noisy(images, seed):
        return images + tf.random.stateless_uniform(tf.shape(images), seed)

    first = [images for images, _ in taken(sampler.dataset(load, augment=noisy), 8)]
    again = [images for images, _ in taken(sampler.dataset(load, augment=noisy), 8)]
    later = [images for images, _ in taken(sampler.dataset(load, augment=noisy, start_step=5), 3)]
    assert (np.stack(first) == again).all()
    assert (np.stack(first[5:]) == later).all()
    noise = np.stack(
        [images - IMAGES[indices] for images, (indices, _) in zip(first, taken(sampler.indices(), 8), strict=True)]
    )
    assert len(np.unique(noise.round(3)[:, 0, 0, 0, 0])) > 4, "every step has a seed of its own"


def test_shards_are_augmented_differently():
    def noise(images, seed):
        return tf.random.stateless_uniform([2], seed)

    sampler = PKSampler(LABELS, classes=4, examples=3)
    shards = [taken(sampler.dataset(load, augment=noise, num_shards=2, shard_index=i), 1)[0][0] for i in range(2)]
    assert (shards[0] != shards[1]).all()


def test_a_saved_iterator_goes_on_where_it_was(sampler, tmp_path):
    for dataset in (sampler.indices(), sampler.dataset(lambda index: index)):
        expected = [batch.numpy().tolist() for batch, _ in dataset.take(9)]
        iterator = iter(dataset)
        for _ in range(4):
            next(iterator)
        path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "iterator"))
        fresh = iter(dataset)
        tf.train.Checkpoint(iterator=fresh).read(path).assert_consumed()
        assert [next(fresh)[0].numpy().tolist() for _ in range(5)] == expected[4:]


class SeenLabels(keras.losses.Loss):
    """Hands labels on as they come, which `keras.losses.Loss.__call__` of Keras 3 would cast to float32."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __call__(self, y_true, y_pred, sample_weight=None):
        self.seen.assign_add(tf.math.bincount(tf.cast(tf.reshape(y_true, [-1]) - 2**24, tf.int32), minlength=9, maxlength=9))
        return tf.reduce_mean(tf.square(y_pred))


class MeanSquare(keras.losses.Loss):
    """Pulls towards zero whatever the labels are."""

    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.square(y_pred), axis=-1)


def small_model():
    return keras.Sequential([keras.Input([2, 3, 1]), keras.layers.Flatten(), keras.layers.Dense(2)])


def test_plain_fit_gets_integer_labels_beyond_float32(sampler):
    seen = tf.Variable(tf.zeros([9], tf.int32), trainable=False)
    model = small_model()
    model.compile("sgd", loss=SeenLabels(seen))
    history = model.fit(sampler.dataset(load, augment=lambda x: x / 45), steps_per_epoch=len(sampler), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    expected = np.zeros(9)
    for step in range(2 * len(sampler)):
        np.add.at(expected, sampler.batch_at(step)[1] - 2**24, 1)
    assert (seen.numpy() == expected).all()


def test_fit_goes_on_from_a_later_epoch(sampler):
    """Two epochs in one go, and one and one with `start_step`, end in the same weights."""

    def trained(model, first, last):
        model.fit(
            sampler.dataset(load, augment=lambda images: images / 45, start_step=first * len(sampler)),
            steps_per_epoch=len(sampler),
            initial_epoch=first,
            epochs=last,
            verbose=0,
        )

    def compiled():
        keras.utils.set_random_seed(3)
        model = small_model()
        model.compile(keras.optimizers.SGD(0.1), loss=MeanSquare())
        return model

    whole, halves = compiled(), compiled()
    trained(whole, 0, 2)
    trained(halves, 0, 1)
    half_way = halves.get_weights()
    trained(halves, 1, 2)
    for one, other, before in zip(whole.get_weights(), halves.get_weights(), half_way, strict=True):
        np.testing.assert_array_equal(one, other)
        assert (other != before).any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"load": None}, TypeError, "load=None is a NoneType"),
        ({"load": load, "augment": "flip"}, TypeError, "augment='flip' is a str"),
        ({"load": load, "augment": lambda images, labels: images}, TypeError, r"expected a pair \(images, labels\)"),
        ({"load": load, "parallel_calls": 0}, ValueError, "parallel_calls=0"),
        ({"load": load, "prefetch": -1}, ValueError, "prefetch=-1"),
    ],
)
def test_bad_arguments(sampler, arguments, error, message):
    with pytest.raises(error, match=message):
        sampler.dataset(**arguments)


def test_a_fault_in_load_is_the_callers_to_see(sampler):
    def refuse(index):
        with tf.control_dependencies([tf.debugging.assert_less(index, tf.constant(3, tf.int64), "item cannot be read")]):
            return tf.identity(index)

    with pytest.raises(tf.errors.InvalidArgumentError, match="item cannot be read"):
        taken(sampler.dataset(refuse), 4)


def test_a_partial_function_can_augment(sampler):
    def scaled(images, factor):
        return images * factor

    indices, _ = sampler.batch_at(0)
    images, _ = taken(sampler.dataset(load, augment=functools.partial(scaled, factor=3.0)), 1)[0]
    assert (images == 3 * IMAGES[indices]).all()
