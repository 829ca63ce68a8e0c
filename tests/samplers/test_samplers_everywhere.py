"""What every sampler promises, `PKSampler` (which has tests of its own) apart: batches from any step, saved, and in shards."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdml
from tfdml.samplers import FaceNetSampler, NPairSampler, PairSampler, RelevanceTripletSampler, Sampler


def make(kind: str, classes: int = 12) -> Sampler:
    labels = np.arange(6 * classes) % classes
    if kind == "pairs":
        return PairSampler(np.stack([np.arange(5 * classes), np.arange(5 * classes) + classes], 1), batch_size=8, seed=1)
    if kind == "facenet":
        return FaceNetSampler(labels, classes=4, examples=8, negatives=4, seed=1)
    if kind == "triplets":
        return RelevanceTripletSampler(
            labels, lambda first, second: 1 / (1 + np.abs(first[:, None] - second) / classes), 8, 0.25, 0.4, 0.1, seed=1
        )
    sampler = NPairSampler(labels, classes=4, candidates=10, seed=1)
    vectors = np.random.default_rng(0).normal(size=(len(labels), 4))
    sampler.refresh(lambda indices: vectors[indices], step=0)
    return sampler


KINDS = ("mined", "facenet", "pairs", "triplets")
START = 17
"""Past the step from which mined classes count."""


@pytest.fixture(scope="module", params=KINDS)
def sampler(request) -> Sampler:
    return make(request.param)


def taken(dataset, count):
    return [tf.nest.map_structure(lambda part: part.tolist(), batch) for batch in dataset.take(count).as_numpy_iterator()]


def load(index):
    return tf.cast(index, tf.float32)


def flat(images):
    """The images of a batch in the order of `indices`."""
    return np.stack(images, axis=1) if isinstance(images, tuple) else np.asarray(images)


def test_batches_depend_on_nothing_but_the_step(sampler):
    first = taken(sampler.indices(START), 6)
    assert first == taken(sampler.indices(START), 6)
    assert first[3:] == taken(sampler.indices(START + 3), 3)
    indices, labels = sampler.batch_at(START + 4)
    assert [indices.tolist(), labels.tolist()] == list(first[4])
    assert indices.dtype == labels.dtype == np.int64
    assert len(sampler) == sampler.steps_per_epoch >= 1
    assert sampler.indices().cardinality() == tf.data.INFINITE_CARDINALITY
    assert len({str(batch) for batch in first}) == 6


def test_images_are_those_of_the_indices(sampler):
    expected = taken(sampler.indices(START), 3)
    for options in ({"batched": True}, {"parallel_calls": 1, "prefetch": 0}):
        dataset = sampler.dataset(load, start_step=START, **options)
        assert all(part.shape.is_fully_defined() for part in tf.nest.flatten(dataset.element_spec))
        for (images, labels), (indices, expected_labels) in zip(dataset.take(3).as_numpy_iterator(), expected, strict=True):
            assert (flat(images) == indices).all()
            assert (labels == expected_labels).all()


def test_a_saved_iterator_goes_on(sampler, tmp_path):
    dataset = sampler.dataset(load, start_step=START)
    expected = taken(dataset, 7)
    iterator = iter(dataset)
    for _ in range(3):
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "iterator"))
    fresh = iter(dataset)
    tf.train.Checkpoint(iterator=fresh).read(path).assert_consumed()
    rest = [tf.nest.map_structure(lambda part: part.numpy().tolist(), next(fresh)) for _ in range(4)]
    assert rest == expected[3:]


def test_shards_hold_the_batch_between_them(sampler):
    whole = sampler.batch_at(START)
    parts = [next(sampler.indices(START, shard_index=i, num_shards=2).as_numpy_iterator()) for i in range(2)]
    assert [part[0].shape for part in parts] == 2 * [(len(whole[0]) // 2, *whole[0].shape[1:])]
    for together, alone in zip((np.concatenate(both) for both in zip(*parts, strict=True)), whole, strict=True):
        if isinstance(sampler, FaceNetSampler):  # in another order, as it says
            together, alone = np.sort(together), np.sort(alone)
        assert (together == alone).all()
    with pytest.raises(ValueError, match="num_shards=5 does not divide"):
        sampler.indices(num_shards=5)


def test_seeded_augmentation_is_that_of_the_step(sampler):
    def noisy(images, seed):
        return images + tf.random.stateless_uniform(tf.shape(images), seed)

    first = taken(sampler.dataset(load, augment=noisy, start_step=START), 4)
    assert first[2:] == taken(sampler.dataset(load, augment=noisy, start_step=START + 2), 2)
    plain = taken(sampler.indices(START), 4)
    noise = np.stack([flat(images) - np.asarray(i) for (images, _), (i, _) in zip(first, plain, strict=True)])
    assert (noise >= 0).all()
    assert len(np.unique(noise.round(4))) > 0.9 * noise.size, "every image of a pair or triplet gets its own"


@pytest.mark.parametrize("kind", ["pairs", "triplets"])
def test_augmentation_with_labels_is_for_single_images(kind):
    with pytest.raises(ValueError, match=r"asks for labels.*Pass a function of images alone"):
        make(kind).dataset(load, augment=lambda images, labels: (images, labels))


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_does_not_grow_with_the_data(kind):
    def size(classes):
        sampler = make(kind, classes)
        graph = tf.function(lambda: next(iter(sampler.indices()))).get_concrete_function().graph.as_graph_def()
        return len(graph.node) + sum(len(part.node_def) for part in graph.library.function), graph.ByteSize()

    small, large = size(12), size(900)
    assert small[0] == large[0] > 20
    assert large[1] < 200_000, "no table is part of the graph"


def towers(count):
    encoder = keras.Sequential([keras.Input([1]), keras.layers.Dense(2)])
    if count == 2:
        return tfdml.models.siamese(encoder)
    inputs = [keras.Input([1]) for _ in range(count)]
    return keras.Model(inputs, keras.layers.Concatenate(1)([keras.layers.Reshape((1, -1))(encoder(x)) for x in inputs]))


class Spread(keras.losses.Loss):
    """Any loss on explicit rows."""

    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.square(y_pred[:, 0] - y_pred[:, 1]), axis=-1)


@pytest.mark.parametrize(("kind", "count"), [("pairs", 2), ("triplets", 3)])
def test_rows_of_several_images_fit_several_towers(kind, count, recwarn):
    model = towers(count)
    loss = tfdml.losses.ContrastiveLoss(pairs="explicit") if kind == "pairs" else Spread()
    model.compile("sgd", loss=loss)
    batches = make(kind).dataset(lambda index: tf.cast(index, tf.float32)[None] / 100)
    history = model.fit(batches, steps_per_epoch=3, epochs=2, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()
    assert not [w for w in recwarn if "structure" in str(w.message)]
