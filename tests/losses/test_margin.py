import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from losses_helpers import TOY, TOY_LABELS, assert_equals_definition, drawn_pairs, random_batch, values_and_gradient

from tfdml.losses import MarginLoss
from tfdml.losses.margin import margin_terms
from tfdml.mining import All, DistanceWeighted, SemiHard, triplet_miner


def all_pairs(labels, same):
    b = range(len(labels))
    return [(i, j) for i in b for j in b if i != j and (labels[i] == labels[j]) == same]


def sphere(b=14, d=3, classes=4, seed=0):
    labels, x = random_batch(b, d, classes, seed)
    return labels, x / np.linalg.norm(x, axis=1, keepdims=True)


def test_toy_set():
    loss = MarginLoss(0.2, 1.2, "all")
    assert loss(TOY_LABELS, TOY).numpy() == pytest.approx(0.505573, abs=1e-6)
    # Every pair is seen from both of its ends.
    valid = MarginLoss(0.2, 1.2, "all", average="valid")
    assert valid(TOY_LABELS, TOY).numpy() == pytest.approx(1.011146 / 15, abs=1e-6)


@pytest.mark.parametrize("average", ["active", "valid"])
@pytest.mark.parametrize("mining", ["all", "semi_hard", "hard"])
def test_equals_the_definition(mining, average):
    labels, x = sphere()
    if mining == "all":
        positives, negatives = all_pairs(labels, True), all_pairs(labels, False)
    else:
        triplets = oracles.triplets(labels, oracles.distances(x), mining)
        positives, negatives = [(a, p) for a, p, _ in triplets], [(a, n) for a, _, n in triplets]
    loss = MarginLoss(0.3, 1.1, mining, average)
    assert_equals_definition(
        loss, lambda x: oracles.margin_loss(x, positives, negatives, 0.3, 1.1, average), labels, x, tolerance=3e-5
    )


@pytest.mark.parametrize("average", ["active", "valid"])
def test_distance_weighted_equals_the_definition_on_the_pairs_that_were_drawn(average):
    labels, x = sphere(16, classes=3)
    loss = MarginLoss(0.2, 1.2, "distance_weighted", average)
    d = tf.constant(oracles.distances(x))
    positives, negatives = drawn_pairs(loss.mining, tf.constant(labels), x, d)
    # Each positive once, and for each a negative that could be drawn.
    assert [tuple(pair) for pair in np.argwhere(positives)] == all_pairs(labels, True)
    chances = oracles.distance_weights(labels, d.numpy(), 3)
    np.testing.assert_array_equal(negatives.sum(1), positives.sum(1) * (chances.sum(1) > 0))
    assert (chances[negatives > 0] > 0).all()
    pairs = [[(a, j) for a, j in np.argwhere(m) for _ in range(m[a, j])] for m in (positives, negatives)]
    weights = np.random.default_rng(9).random(16)
    values, gradient = values_and_gradient(lambda x: loss.call(labels, x), x, weights)
    expected = oracles.margin_loss(x, *pairs, 0.2, 1.2, average)
    slope = oracles.numeric_gradient(lambda x: weights @ oracles.margin_loss(x, *pairs, 0.2, 1.2, average), x)
    np.testing.assert_allclose(values, expected, atol=1e-9)
    np.testing.assert_allclose(gradient, slope, atol=1e-7)


def test_positives_count_where_no_negative_can_be_drawn():
    # Classes opposite each other: all negatives are 2 apart.
    x = np.array([[1, 0], [np.cos(1.5), np.sin(1.5)], [-1, 0], [-np.cos(1.5), -np.sin(1.5)]])
    loss = MarginLoss(mining=DistanceWeighted(upper=1.0))
    assert loss([0, 0, 1, 1], x).numpy() == pytest.approx(0.2 + 2 * np.sin(0.75) - 1.2, abs=1e-9)


def test_the_draw_belongs_to_the_batch_and_the_seed():
    labels, x = sphere(32, d=8, classes=4)
    value = float(MarginLoss()(labels, x))
    assert float(MarginLoss()(labels, x)) == value
    assert float(tf.function(MarginLoss())(tf.constant(labels), tf.constant(x))) == pytest.approx(value, rel=1e-9)
    assert float(MarginLoss(mining=DistanceWeighted(seed=1))(labels, x)) != value
    draws = []
    for nudge in (0.0, 1e-12):
        moved = tf.constant(x + nudge)
        _, negatives = drawn_pairs(DistanceWeighted(), tf.constant(labels), moved, tf.constant(oracles.distances(x)))
        draws.append(negatives)
    assert (draws[0] != draws[1]).any()


def test_terms_are_differentiable_by_beta():
    labels, x = sphere(10)
    positives, negatives = all_pairs(labels, True), all_pairs(labels, False)
    counts = np.zeros((10, 10))
    for sign, pairs in ((1, positives), (-1, negatives)):
        for pair in pairs:
            counts[pair] += sign
    weights, beta = np.random.default_rng(3).random(10), 1.1 + 0.1 * np.random.default_rng(4).random(10)
    d = tf.constant(oracles.distances(x))

    def oracle(beta):
        # As sums: the mean over pairs, times their number.
        total = len(positives) + len(negatives)
        return oracles.margin_loss(x, positives, negatives, 0.2, beta, "valid") * total / 10

    values, gradient = values_and_gradient(lambda beta: margin_terms(d, counts, 0.2, beta)[0], beta, weights)
    np.testing.assert_allclose(values, oracle(beta), atol=1e-9)
    np.testing.assert_allclose(gradient, oracles.numeric_gradient(lambda b: weights @ oracle(b), beta), atol=1e-7)
    one, slope = values_and_gradient(lambda beta: margin_terms(d, counts, 0.2, beta)[0], np.array(1.15), weights)
    np.testing.assert_allclose(one, oracle(1.15), atol=1e-9)
    np.testing.assert_allclose(slope, oracles.numeric_gradient(lambda b: weights @ oracle(b[0]), [1.15])[0], atol=1e-7)


def test_miners_by_name_and_as_objects():
    assert triplet_miner("distance_weighted") == DistanceWeighted()
    assert triplet_miner("all") == All()
    own = SemiHard("none")
    assert triplet_miner(own) is own
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(MarginLoss(mining=DistanceWeighted(upper=None, seed=7)))
    )
    assert again.mining == DistanceWeighted(upper=None, seed=7)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": 0}, ValueError, "alpha=0"),
        ({"beta": float("nan")}, ValueError, "beta=nan"),
        ({"mining": "any"}, ValueError, "mining='any'.*'semi_hard', 'hard', 'all', 'random', 'distance_weighted'"),
        ({"mining": 3}, TypeError, "mining=3"),
        ({"average": None}, ValueError, "average=None.*'active', 'valid'"),
    ],
)
def test_bad_options_are_refused_with_a_reason(options, error, message):
    with pytest.raises(error, match=message):
        MarginLoss(**options)
