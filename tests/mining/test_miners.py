import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from losses_helpers import TOY, TOY_LABELS

from tfdml.mining import TRIPLET_MINERS, All, Hard, SemiHard, TripletMiner, triplet_miner
from tfdml.mining.base import SLOTS

MINERS = [SemiHard(), SemiHard("none"), SemiHard("hardest"), Hard(), All()]
NAMES = {SemiHard: "semi_hard", Hard: "hard", All: "all"}


def term(x):
    """Neither zero nor one anywhere, so that each triplet leaves its own trace."""
    return tf.exp(0.3 * x), 0.3 * tf.exp(0.3 * x)


def batch(labels, seed=0, dtype=np.float64):
    x = np.random.default_rng(seed).standard_normal((len(labels), 4))
    return oracles.distances(x).astype(dtype), np.asarray(labels)


def expected_sums(miner, d, labels):
    b = len(labels)
    values, slopes, chosen = np.zeros(b), np.zeros((b, b)), np.zeros(b)
    for a, p, n in oracles.triplets(labels, d, NAMES[type(miner)], miner.get_config().get("fallback", "")):
        e = np.exp(0.3 * (d[a, p] - d[a, n]))
        values[a] += e
        slopes[a, p] += 0.3 * e
        slopes[a, n] -= 0.3 * e
        chosen[a] += 1
    return values, slopes, chosen


LAYOUTS = {
    "P x K": np.repeat(np.arange(6), 4),
    "shuffled": np.random.default_rng(1).permutation(np.repeat(np.arange(6), 4)),
    "uneven": [0] * 9 + [1] + [2] * 3 + [3] * 2 + [4],
    "two classes": [0, 1] * 7,
    "more positives than slots": [0] * (SLOTS + 8) + [1] * 3,
    "one class": [5] * 6,
    "all different": list(range(6)),
    "one item": [3],
    "two items": [3, 4],
}


@pytest.mark.parametrize("miner", MINERS, ids=repr)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_equal_the_definition(miner, layout):
    d, labels = batch(LAYOUTS[layout])
    sums = miner.sums(tf.constant(d), tf.constant(labels), term)
    values, slopes, chosen = expected_sums(miner, d, labels)
    np.testing.assert_array_equal(sums.chosen, chosen)
    np.testing.assert_array_equal(sums.active, chosen)
    np.testing.assert_allclose(sums.values, values, rtol=1e-12)
    np.testing.assert_allclose(sums.slopes, slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("miner", MINERS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_and_neighbouring_floats(miner, dtype):
    # Whole numbers tie a lot; the next floats above and below them must not be taken for ties.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 14)
    d = rng.integers(1, 4, (14, 14)).astype(dtype)
    d = np.where(rng.random(d.shape) < 0.4, np.nextafter(d, dtype(9)), d)
    d[0] = 0.0
    np.fill_diagonal(d, 0.0)
    sums = miner.sums(tf.constant(d), tf.constant(labels), term)
    values, slopes, chosen = expected_sums(miner, d, labels)
    np.testing.assert_array_equal(sums.chosen, chosen)
    np.testing.assert_allclose(sums.values, values, rtol=1e-5)
    # Which one of several equal items is taken is free: their total is not.
    np.testing.assert_allclose(tf.reduce_sum(sums.slopes, 1), slopes.sum(1), atol=1e-5)


def test_semi_hard_is_strict_about_equal_distances():
    # The positive is 1 away, so are two of the negatives; the third is the next float, the semi-hard one.
    above = np.nextafter(np.float32(1), np.float32(2))
    d = np.array([[0, 1, 1, 1, above]] * 5, np.float32)
    sums = SemiHard("none").sums(tf.constant(d), tf.constant([0, 0, 1, 1, 2]), lambda x: (x, tf.ones_like(x)))
    assert sums.slopes[0].numpy().tolist() == [0, 1, 0, 0, -1]


def test_negative_zero_is_zero():
    d = np.array([[0.0, -0.0, 0.5, -0.0]] * 4, np.float32)
    sums = SemiHard("none").sums(tf.constant(d), tf.constant([0, 0, 1, 1]), lambda x: (x, tf.ones_like(x)))
    assert sums.slopes[0].numpy().tolist() == [0, 1, -1, 0]


@pytest.mark.parametrize("miner", [SemiHard("none"), All()], ids=repr)
def test_the_same_under_xla(miner):
    d, labels = batch(LAYOUTS["uneven"], dtype=np.float32)
    plain = miner.sums(tf.constant(d), tf.constant(labels), term)
    compiled = tf.function(lambda d, y: miner.sums(d, y, term), jit_compile=True)(tf.constant(d), tf.constant(labels))
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("miner", MINERS, ids=repr)
def test_serialises(miner):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(miner))
    assert again == miner
    assert hash(again) == hash(miner)
    assert type(again) is type(miner)


def test_miners_differ_by_their_options():
    assert SemiHard("none") != SemiHard("farthest")
    assert Hard() != All()


def test_names():
    for name, kind in TRIPLET_MINERS.items():
        assert type(triplet_miner(name)) is kind
    own = SemiHard("none")
    assert triplet_miner(own) is own
    assert isinstance(own, TripletMiner)


def test_bad_input_is_refused_with_a_reason():
    with pytest.raises(ValueError, match=r"mining='hardest'.*'semi_hard', 'hard', 'all', 'random'"):
        triplet_miner("hardest")
    with pytest.raises(TypeError, match="mining=3"):
        triplet_miner(3)
    with pytest.raises(ValueError, match=r"fallback='nearest'.*'farthest', 'hardest', 'none'"):
        SemiHard("nearest")


def test_hard_on_the_toy_set():
    d = oracles.distances(TOY)
    choice = Hard().choose(d, TOY_LABELS)
    near, far = 0.894427, 1.414214
    np.testing.assert_allclose(d[np.arange(6), choice.positives], [0.632456] * 6, atol=1e-6)
    np.testing.assert_allclose(d[np.arange(6), choice.negatives], [far, near, near, near, near, far], atol=1e-6)
