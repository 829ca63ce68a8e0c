import itertools

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfdml.losses import TripletLoss
from tfdml.mining import DistanceWeighted, Pairs


def sphere(b, d, seed=0):
    x = np.random.default_rng(seed).standard_normal((b, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def steps(miner, d, labels, dimension, times):
    """How often each negative is drawn by each anchor, step by step; the steps differ in their embeddings only."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def step(content):
        pairs = Pairs.within(labels, tf.fill([len(labels), dimension], content))
        return miner.sums(tf.constant(d), pairs, lambda x: (x, tf.ones_like(x))).slopes

    return [np.maximum(0, -step(float(i)).numpy()) for i in range(times)]


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 16, 128])
@pytest.mark.parametrize(("lower", "upper"), [(0.5, 1.4), (0.3, 1.9)])
def test_probabilities_equal_the_definition(dimension, lower, upper):
    rng = np.random.default_rng(0)
    d, labels = rng.uniform(0.1, 1.95, (12, 12)), rng.integers(0, 4, 12)
    expected = oracles.distance_weights(labels, d, dimension, lower, upper)
    np.testing.assert_allclose(DistanceWeighted(lower, upper).probabilities(d, labels, dimension), expected, rtol=1e-9)
    single = DistanceWeighted(lower, upper).probabilities(d.astype(np.float32), labels, dimension)
    np.testing.assert_allclose(single, expected, rtol=2e-3, atol=1e-6)


def test_density_is_that_of_distances_on_the_sphere():
    # The paper's q(d), checked against points drawn at random: chi-square over 20 bins, 19 degrees of freedom.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40000, 2, 6))
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    d = np.linalg.norm(x[:, 0] - x[:, 1], axis=1)
    edges = np.linspace(0.6, 1.95, 21)
    observed, _ = np.histogram(d, edges)
    fine = [np.linspace(a, b, 201) for a, b in itertools.pairwise(edges)]
    mass = np.array([np.mean([np.exp(oracles.log_density_of_distance(t, 6)) for t in part]) for part in fine])
    expected = mass / mass.sum() * observed.sum()
    assert ((observed - expected) ** 2 / expected).sum() < 43.8  # the 0.1% point


def test_draws_follow_the_probabilities():
    labels, x = np.repeat(np.arange(6), 3), sphere(18, 5)
    d = oracles.distances(x)
    counts = sum(steps(DistanceWeighted(), d, labels, 5, 1500))
    chances = oracles.distance_weights(labels, d, 5)
    assert counts[chances == 0].sum() == 0
    np.testing.assert_array_equal(counts.sum(1), 1500 * 2 * (chances.sum(1) > 0))
    expected = counts.sum(1, keepdims=True) * chances
    cells = expected > 5
    statistic = ((counts - expected)[cells] ** 2 / expected[cells]).sum()
    freedom = cells.sum() - (cells.sum(1) > 0).sum()
    assert freedom > 80
    # Chi-square is close to normal here; 4 standard deviations.
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)


def test_draws_of_one_step_are_independent():
    # Two positives, two draws: equal ones are as frequent as chance has it.
    labels = np.array([0, 0, 0, 1, 2, 3, 4, 5])
    equal = sum((step[:3] == 2).sum() for step in steps(DistanceWeighted(), np.ones((8, 8)), labels, 8, 600))
    assert equal == pytest.approx(1800 / 5, abs=4 * np.sqrt(1800 * 0.16))


def test_seeds_differ_from_each_other_and_from_step_to_step():
    labels, d = np.repeat(np.arange(4), 4), np.ones((16, 16))
    drawn = [step.tobytes() for seed in (0, 1, -1) for step in steps(DistanceWeighted(seed=seed), d, labels, 8, 5)]
    assert len(set(drawn)) == 15


@pytest.mark.parametrize("dimension", [128, 512, 2048])
def test_high_dimensions_do_not_lose_rows(dimension):
    # With one maximum for the whole matrix, all but the rows with the nearest negatives would underflow.
    d = np.full((6, 6), 1.3, np.float32)
    d[0, 5] = d[5, 0] = 0.5
    np.fill_diagonal(d, 0.0)
    chances = DistanceWeighted().probabilities(d, [0, 0, 1, 1, 2, 2], dimension).numpy()
    np.testing.assert_allclose(chances.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(chances[1], [0, 0, 0.25, 0.25, 0.25, 0.25], rtol=1e-4)
    assert chances[0, 5] == pytest.approx(1.0)


def test_rows_with_nothing_to_draw():
    d, labels = np.full((4, 4), 1.7), [0, 0, 1, 1]
    none = DistanceWeighted(dimension=8).sums(tf.constant(d), tf.constant(labels), lambda x: (x + 1, tf.ones_like(x)))
    for part in none:
        assert not part.numpy().any()
    miner = DistanceWeighted(fallback="uniform", dimension=8)
    uniform = miner.probabilities(d, labels)
    np.testing.assert_allclose(uniform, [[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]])
    sums = miner.sums(tf.constant(d), tf.constant(labels), lambda x: (x + 1, tf.ones_like(x)))
    assert sums.chosen.numpy().tolist() == [1, 1, 1, 1]
    # One class: there are no negatives at all.
    assert not miner.sums(tf.constant(d), tf.zeros(4, tf.int32), lambda x: (x + 1, tf.ones_like(x))).chosen.numpy().any()


def test_more_positives_than_are_handled_at_once():
    labels = np.array([0] * 23 + [1] * 5)
    d = oracles.distances(sphere(28, 4))
    sums = DistanceWeighted(upper=None, dimension=4).sums(tf.constant(d), tf.constant(labels), lambda x: (x, tf.ones_like(x)))
    np.testing.assert_array_equal(sums.chosen, [22] * 23 + [4] * 5)
    slopes = sums.slopes.numpy()
    same = labels[:, None] == labels
    np.testing.assert_array_equal(np.where(same, slopes, 0), same & ~np.eye(28, dtype=bool))
    np.testing.assert_array_equal(np.where(same, 0, -slopes).sum(1), sums.chosen)
    np.testing.assert_allclose(sums.values, (slopes * d).sum(1), rtol=1e-12)


def test_the_same_under_xla():
    labels, x = tf.constant(np.repeat(np.arange(6), 4)), tf.constant(sphere(24, 5).astype(np.float32))
    d = tf.constant(oracles.distances(x.numpy()).astype(np.float32))
    miner = DistanceWeighted(seed=3)

    def slopes(d, y, x):
        return miner.sums(d, Pairs.within(y, x), lambda x: (x, tf.ones_like(x))).slopes

    np.testing.assert_array_equal(slopes(d, labels, x), tf.function(slopes, jit_compile=True)(d, labels, x))


def test_as_the_miner_of_a_triplet_loss():
    labels, x = np.repeat(np.arange(5), 3), sphere(15, 4)
    loss = TripletLoss(0.5, DistanceWeighted(), average="valid")
    d = tf.constant(oracles.distances(x))
    slopes = loss.mining.sums(d, Pairs.within(labels, x), lambda x: (x, tf.ones_like(x))).slopes
    assert (slopes.numpy() < 0).any()
    value = float(loss(labels, x))
    assert 0 < value < 0.5 + 2
    assert float(loss(labels, x)) == value == float(TripletLoss(0.5, DistanceWeighted(dimension=4))(labels, x))
    named = TripletLoss(0.5, "distance_weighted")
    assert float(named(labels, x)) == value
    assert named.get_config()["mining"] == "distance_weighted"
    with pytest.raises(ValueError, match=r"dimension=None.*DistanceWeighted\(dimension=128\)"):
        DistanceWeighted().sums(d, labels, lambda x: (x, tf.ones_like(x)))


def test_serialises():
    miner = DistanceWeighted(0.4, 1.2, "uniform", 5, 64)
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(miner)) == miner
    assert miner != DistanceWeighted(0.4, 1.2, "uniform", 6, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lower": 0}, "lower=0"),
        ({"lower": "near"}, "lower='near'"),
        ({"upper": 0.4}, "upper=0.4.*lower=0.5 < upper"),
        ({"upper": 2.5}, "upper=2.5"),
        ({"fallback": "nearest"}, "fallback='nearest'.*'none', 'uniform'"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"seed": 2**40}, "seed=1099511627776"),
        ({"dimension": 0}, "dimension=0"),
    ],
)
def test_bad_options_are_refused_with_a_reason(options, message):
    with pytest.raises(ValueError, match=message):
        DistanceWeighted(**options)


@pytest.mark.parametrize(("dimension", "distance", "log_ratio"), [(64, 1.4, -45.3), (128, 1.2, -86.45), (128, 1.4, -91.7)])
def test_weights_of_far_negatives_beside_those_at_one_half(dimension, distance, log_ratio):
    d = np.full((3, 3), distance)
    d[0, 1] = 0.5
    chances = DistanceWeighted(upper=None).probabilities(d, [0, 1, 2], dimension).numpy()
    assert np.log(chances[0, 2] / chances[0, 1]) == pytest.approx(log_ratio, abs=0.05)
