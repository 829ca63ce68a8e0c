import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfdml.distances import METRICS
from tfdml.losses import ContrastiveLoss

TOY = np.array([(1, 0), (0.8, 0.6), (0, 1), (-0.6, 0.8), (-1, 0), (-0.8, -0.6)])
TOY_LABELS = [0, 0, 1, 1, 2, 2]


FORMS = ("squared", "legacy", "hinge")


@pytest.mark.parametrize(("form", "total"), [("squared", 0.981437), ("legacy", 1.3)])
def test_toy_set(form, total):
    # The sums over all 15 pairs.
    loss = ContrastiveLoss(1.5, form=form)(TOY_LABELS, TOY)
    assert loss.numpy() == pytest.approx(total / 15, abs=1e-6)


@pytest.mark.parametrize("distance", METRICS)
@pytest.mark.parametrize("average", ["pairs", "balanced"])
@pytest.mark.parametrize("form", FORMS)
def test_batch_equals_the_definition(distance, average, form):
    rng = np.random.default_rng(0)
    x, labels = 0.5 * rng.standard_normal((12, 3)), rng.integers(0, 4, 12)
    weights = rng.random(12)
    loss = ContrastiveLoss(1.1, distance=distance, average=average, form=form)

    def oracle(x):
        return oracles.contrastive_loss(labels, x, 1.1, distance, average, form)

    slope = oracles.numeric_gradient(lambda x: weights @ oracle(x), x)
    for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-8)):
        values, gradient = values_and_gradient(loss, labels, x.astype(dtype), weights)
        assert values.dtype == dtype
        np.testing.assert_allclose(values, oracle(x), atol=tolerance)
        np.testing.assert_allclose(gradient, slope, atol=tolerance)


@pytest.mark.parametrize("distance", METRICS)
@pytest.mark.parametrize("average", ["pairs", "balanced"])
@pytest.mark.parametrize("form", FORMS)
def test_explicit_pairs_equal_the_definition(distance, average, form):
    rng = np.random.default_rng(0)
    x, y, weights = 0.5 * rng.standard_normal((7, 2, 3)), np.array([0, 1, 1, 0, 1, 1, 1]), rng.random(7)
    loss = ContrastiveLoss(1.1, pairs="explicit", distance=distance, average=average, form=form)

    def oracle(x):
        return oracles.contrastive_pairs(y == 0, x, 1.1, distance, average, form)

    values, gradient = values_and_gradient(loss, y, x, weights)
    np.testing.assert_allclose(values, oracle(x), atol=1e-8)
    np.testing.assert_allclose(gradient, oracles.numeric_gradient(lambda x: weights @ oracle(x), x), atol=1e-7)


def test_the_batch_form_is_the_explicit_form_on_all_unordered_pairs():
    i, j = np.triu_indices(6, 1)
    pairs, labels = np.stack([TOY[i], TOY[j]], 1), np.asarray(TOY_LABELS)
    explicit = ContrastiveLoss(1.5, pairs="explicit")((labels[i] != labels[j]).astype(int), pairs)
    assert explicit.numpy() == pytest.approx(ContrastiveLoss(1.5, average="pairs")(TOY_LABELS, TOY).numpy(), abs=1e-12)


def test_label_conventions_of_explicit_pairs():
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    paper = ContrastiveLoss(pairs="explicit", reduction="none")([0, 1, 1, 0], x)
    for loss, y in (
        (ContrastiveLoss(pairs="explicit", similar_label=1, reduction="none"), [1, 0, 0, 1]),
        (ContrastiveLoss(pairs="explicit", reduction="none"), [[5, 5], [5, 6], [2**24, 2**24 + 1], [-1, -1]]),
        (ContrastiveLoss(pairs="explicit", reduction="none"), [[0], [1], [1], [0]]),
        (ContrastiveLoss(pairs="explicit", reduction="none"), [False, True, True, False]),
    ):
        np.testing.assert_array_equal(loss(y, x), paper)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0}, "margin=0"),
        ({"margin": "soft"}, "margin='soft'"),
        ({"margin": float("nan")}, "margin=nan"),
        ({"pairs": "all"}, "pairs='all'.*'batch', 'explicit'"),
        ({"distance": "l2"}, "distance='l2'.*'euclidean'"),
        ({"average": "mean"}, "average='mean'.*'pairs', 'balanced'"),
        ({"form": "half"}, "form='half'.*'squared', 'legacy', 'hinge'"),
        ({"similar_label": 2}, "similar_label=2.*0.*1"),
    ],
)
def test_bad_options_are_refused_with_a_reason(options, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveLoss(**options)


def test_explicit_pairs_of_the_wrong_shape_are_refused():
    loss = ContrastiveLoss(pairs="explicit")
    for shape in ((4, 3), (4, 3, 5), (4, 2)):
        with pytest.raises(ValueError, match=r"y_pred has shape .*\[B, 2, D\]"):
            loss([0, 1, 0, 1], np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="3 labels and y_pred 4"):
        loss([0, 1, 0], np.zeros((4, 2, 3), np.float32))


def test_labels_of_given_pairs_are_0_or_1():
    loss, x = ContrastiveLoss(pairs="explicit"), np.zeros((2, 2, 3), np.float32)
    for labels, wrong in (([1, -1], "-1"), ([0.5, 1.0], "0.5")):  # -1 would be dissimilar, whatever similar_label says
        with pytest.raises(ValueError, match=f"y_true contains {wrong}: expected 0 or 1"):
            loss(labels, x)
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected 0 or 1"):
            tf.function(loss)(tf.constant(labels), x)


def values_and_gradient(loss, labels, x, weights):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = loss.call(labels, x)
        total = tf.reduce_sum(values * weights.astype(x.dtype.as_numpy_dtype))
    return values.numpy(), tape.gradient(total, x).numpy()
