import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from losses_helpers import drawn_pairs, values_and_gradient

from tfdml.losses import MarginLoss, TripletLoss
from tfdml.mining import Pairs, RandomNegative


def difference(x):
    return x, tf.ones_like(x)


def drawn(labels, seed=0, nudge=0.0, dimension=3):
    """How often each anchor's negatives are drawn in one step, and the distances."""
    x = np.random.default_rng(7).standard_normal((len(labels), dimension)) + nudge
    x[0] += nudge
    d = oracles.distances(x)
    sums = RandomNegative(seed).sums(tf.constant(d), tf.constant(labels), difference)
    return np.where(np.equal.outer(labels, labels), 0, -sums.slopes.numpy()), sums, d


def steps(labels, times):
    """How often each anchor's negatives are drawn, step by step; the steps differ in their embeddings only."""
    d = tf.constant(oracles.distances(np.random.default_rng(7).standard_normal((len(labels), 3))))

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def step(content):
        pairs = Pairs.within(labels, tf.fill([len(labels), 3], content))
        return RandomNegative().sums(d, pairs, difference).slopes

    return [np.maximum(0, -step(float(i)).numpy()) for i in range(times)]


def test_every_positive_has_one_negative_of_another_class():
    labels = np.array([3, 3, 5, 3, 5, 8, 9, 9, 9, 3])
    negatives, sums, d = drawn(labels)
    same = np.equal.outer(labels, labels)
    positives = same & ~np.eye(10, dtype=bool)
    np.testing.assert_array_equal(negatives.sum(1), positives.sum(1))
    np.testing.assert_array_equal(np.where(same, sums.slopes, 0), positives)
    np.testing.assert_array_equal(sums.chosen, positives.sum(1))
    np.testing.assert_allclose(sums.values, (d * positives).sum(1) - (d * negatives).sum(1), rtol=1e-12)


def test_more_positives_than_are_handled_at_once():
    labels = np.array([0] * 40 + [1] * 3)
    negatives, sums, _ = drawn(labels)
    np.testing.assert_array_equal(sums.chosen, [39] * 40 + [2] * 3)
    np.testing.assert_array_equal(negatives.sum(1), sums.chosen)


def test_all_negatives_are_equally_likely():
    # Classes of 1, 2, 3, 4 and 5 items: anchors have 13, 12, 11 and 10 negatives. Chi-square over all their cells.
    labels = np.repeat(np.arange(5), np.arange(5) + 1)
    times = 600
    counts = sum(steps(labels, times))
    size = labels + 1
    negative = ~np.equal.outer(labels, labels)
    expected = (times * (size - 1) / negative.sum(1))[:, None] * negative
    cells = expected > 0
    assert expected[cells].min() > 40
    statistic = ((counts - expected)[cells] ** 2 / expected[cells]).sum()
    freedom = cells.sum() - (cells.sum(1) > 0).sum()
    # Chi-square is close to normal here; 4 standard deviations.
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)


def test_draws_of_one_step_are_independent():
    # Two positives, two draws: equal ones are as frequent as chance has it.
    labels = np.array([0, 0, 0, 1, 2, 3, 4, 5])
    equal = sum((step[:3] == 2).sum() for step in steps(labels, 400))
    assert equal == pytest.approx(1200 / 5, abs=4 * np.sqrt(1200 * 0.16))


def test_the_draw_belongs_to_the_batch_and_the_seed():
    labels = np.repeat(np.arange(4), 4)
    draws = {(seed, nudge): drawn(labels, seed, nudge)[0].tobytes() for seed in (0, 1, -1) for nudge in (0.0, 1e-9, 1e-3)}
    assert len(set(draws.values())) == 9
    assert draws == {key: drawn(labels, *key)[0].tobytes() for key in draws}


def test_nothing_to_draw():
    for labels in (np.zeros(5, int), np.arange(5), np.array([4])):
        for part in drawn(labels)[1]:
            assert not part.numpy().any()


@pytest.mark.parametrize("average", ["valid", "active"])
@pytest.mark.parametrize("margin", [0.5, "soft"])
def test_a_triplet_loss_equals_the_definition_on_what_was_drawn(margin, average):
    # With one positive each, the negatives that were drawn tell the triplets.
    labels = np.repeat(np.arange(7), 2)
    x = np.random.default_rng(0).standard_normal((14, 4))
    pairs = Pairs.within(labels, tf.constant(x))
    slopes = RandomNegative().sums(tf.constant(oracles.distances(x)), pairs, difference).slopes.numpy()
    triplets = [(a, int(np.argmax(slopes[a])), int(np.argmin(slopes[a]))) for a in range(14)]
    assert all(labels[a] == labels[p] and a != p and labels[n] != labels[a] for a, p, n in triplets)

    def oracle(x):
        return oracles.triplet_terms(oracles.distances(x), triplets, margin, average)

    loss, weights = TripletLoss(margin, "random", average=average), np.random.default_rng(1).random(14)
    assert loss.mining == RandomNegative()
    values, gradient = values_and_gradient(lambda x: loss.call(labels, x), x, weights)
    np.testing.assert_allclose(values, oracle(x), atol=1e-9)
    np.testing.assert_allclose(gradient, oracles.numeric_gradient(lambda x: weights @ oracle(x), x), atol=1e-7)


def test_a_margin_loss_takes_the_pairs_that_were_drawn():
    labels = np.repeat(np.arange(5), 3)
    x = np.random.default_rng(0).standard_normal((15, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    d = tf.constant(oracles.distances(x))
    positives, negatives = drawn_pairs(RandomNegative(), labels, x, d)
    np.testing.assert_array_equal(positives.sum(1), negatives.sum(1))
    pairs = [[(a, j) for a, j in np.argwhere(m) for _ in range(m[a, j])] for m in (positives, negatives)]
    np.testing.assert_allclose(MarginLoss(mining="random").call(labels, x), oracles.margin_loss(x, *pairs), atol=1e-9)


def test_named_and_serialised():
    for miner, name in ((RandomNegative(), "random"), (RandomNegative(seed=5), None)):
        loss = TripletLoss(mining=miner)
        assert (loss.get_config()["mining"] == "random") == (name == "random")
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
        assert again.mining == miner
    assert RandomNegative(1) != RandomNegative(2)


@pytest.mark.parametrize("seed", [1.5, "one", None, True, 2**40])
def test_bad_seeds_are_refused_with_a_reason(seed):
    with pytest.raises(ValueError, match=r"seed=.*expected an integer of 32 bits"):
        RandomNegative(seed)
