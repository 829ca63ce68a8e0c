"""Where TF Addons and TF Similarity define the same thing, the numbers agree: values and gradients. On the TF 2.15 stack."""

import numpy as np
import pytest
import tensorflow as tf

from tfdml.losses import ContrastiveLoss, LiftedStructureLoss, MultiSimilarityLoss, NPairLoss, NTXentLoss, TripletLoss

DISTANCES = {"euclidean": "L2", "squared_euclidean": "squared-L2"}


def batch(seed=0, normalise=True):
    # Every anchor has a positive and a negative: the peers count those that have none in other ways.
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((24, 6)).astype(np.float32)
    return np.repeat(np.arange(6), 4), x / np.linalg.norm(x, axis=1, keepdims=True) if normalise else x


def value_and_gradient(loss, labels, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_mean(loss(labels, x))
    return value.numpy(), tape.gradient(value, x).numpy()


def assert_same(ours, theirs, labels, x):
    for one, other in zip(value_and_gradient(ours, labels, x), value_and_gradient(theirs, labels, x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.fixture
def addons():
    return pytest.importorskip("tensorflow_addons", exc_type=ImportError).losses


@pytest.fixture
def similarity():
    if not tf.__version__.startswith("2.15"):
        pytest.skip("TF Similarity's losses work on TF 2.15 only")
    return pytest.importorskip("tensorflow_similarity", exc_type=ImportError).losses


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("margin", [0.2, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_addons_semi_hard(addons, distance, margin, seed):
    y, x = batch(seed, normalise=seed == 0)
    theirs = addons.TripletSemiHardLoss(margin=margin, distance_metric=DISTANCES[distance])
    assert_same(TripletLoss(margin, "semi_hard", distance), theirs, y, x)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("margin", [0.2, 1.0, "soft"])
def test_addons_hard(addons, distance, margin):
    y, x = batch(normalise=False)
    options = {"soft": True} if margin == "soft" else {"margin": margin}
    theirs = addons.TripletHardLoss(distance_metric=DISTANCES[distance], **options)
    assert_same(TripletLoss(margin, "hard", distance), theirs, y, x)


@pytest.mark.parametrize(
    ("margin", "value", "rows", "norm"),
    [
        (1.0, 1.852996591, [[-0.112218606, 0.133513556, 0.049572045], [0.044613403, -0.110862526, -0.17717502]], 0.580719089),
        (0.7, 1.642398211, [[-0.112218606, 0.133513556, 0.049572045], [-0.124292259, -0.127288715, -0.152508705]], 0.641889555),
    ],
)
def test_pytorch_metric_learning_contrastive(margin, value, rows, norm):
    # Of pytorch-metric-learning 2.9: ContrastiveLoss(neg_margin=margin)(x, y), which normalises x, in float64; the value, the
    # gradient by the first two rows of x, and the norm of the whole gradient.
    x = np.random.default_rng(0).standard_normal((10, 3))
    y = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 4])
    loss = ContrastiveLoss(margin, form="hinge", average="balanced")
    found, gradient = value_and_gradient(lambda y, x: loss(y, tf.math.l2_normalize(x, 1)), y, x)
    assert found == pytest.approx(value, abs=1e-8)
    np.testing.assert_allclose(gradient[:2], rows, atol=1e-8)
    assert np.linalg.norm(gradient) == pytest.approx(norm, abs=1e-8)


def test_addons_contrastive(addons):
    # Theirs takes distances, has 1 = similar, and no 1/2.
    rng = np.random.default_rng(0)
    pairs, similar = rng.standard_normal((10, 2, 4)).astype(np.float32), rng.integers(0, 2, 10)

    def theirs(y, x):
        return 0.5 * addons.contrastive_loss(y, tf.norm(x[:, 0] - x[:, 1], axis=1), margin=3.0)

    assert_same(ContrastiveLoss(3.0, pairs="explicit", similar_label=1), theirs, similar, pairs)


@pytest.mark.parametrize("margin", [0.3, 1.0])
@pytest.mark.parametrize("normalise", [False, True])
def test_addons_lifted_structure(addons, margin, normalise):
    y, x = batch(1, normalise)
    assert_same(LiftedStructureLoss(margin), addons.LiftedStructLoss(margin=margin), y, x)


def test_addons_n_pairs(addons):
    # Theirs is given the matrix of dot products between anchors and positives, and has no penalty.
    x = np.random.default_rng(0).standard_normal((16, 5)).astype(np.float32)
    y = np.repeat(np.arange(8), 2)

    def theirs(y, x):
        return addons.NpairsLoss()(y[::2], tf.matmul(x[::2], x[1::2], transpose_b=True))

    assert_same(NPairLoss(l2=0.0), theirs, y, x)


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
@pytest.mark.parametrize(("alpha", "beta", "base"), [(2.0, 40.0, 0.5), (3.0, 10.0, 0.2)])
def test_similarity_multi_similarity(similarity, alpha, beta, base, epsilon):
    y, x = batch()
    theirs = similarity.MultiSimilarityLoss(alpha=alpha, beta=beta, epsilon=epsilon, lmda=base)
    assert_same(MultiSimilarityLoss(alpha, beta, base, epsilon), lambda y, x: theirs(y, tf.math.l2_normalize(x, 1)), y, x)


def test_similarity_sim_clr(similarity):
    # Two views of each item. Theirs takes them apart, and adds the means over the first and over the second.
    x = np.random.default_rng(0).standard_normal((16, 5)).astype(np.float32)
    y = np.tile(np.arange(8), 2)
    theirs = similarity.SimCLRLoss(temperature=0.2)
    assert_same(NTXentLoss(0.2), lambda y, x: 0.5 * theirs(x[:8], x[8:]), y, x)


@pytest.mark.parametrize("margin", [0.2, "soft"])
@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean", "cosine"])
def test_similarity_hard(similarity, margin, distance):
    y, x = batch()
    theirs = similarity.TripletLoss(
        distance=distance,
        positive_mining_strategy="hard",
        negative_mining_strategy="hard",
        margin=None if margin == "soft" else margin,
    )
    if distance == "cosine":
        # Theirs expects rows that are normalised before; so that the gradients compare, normalise inside.
        assert_same(TripletLoss(margin, "hard", distance), lambda y, x: theirs(y, tf.math.l2_normalize(x, 1)), y, x)
    else:
        assert_same(TripletLoss(margin, "hard", distance), theirs, y, x)
