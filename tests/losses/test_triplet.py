import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.distances import METRICS
from tfdml.losses import TripletLoss
from tfdml.mining import All, SemiHard

TOY = np.array([(1, 0), (0.8, 0.6), (0, 1), (-0.6, 0.8), (-1, 0), (-0.8, -0.6)])
TOY_LABELS = [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # sums over all 24 triplets, of which 4 and 12 have a loss
        ({"margin": 1.0, "mining": "all", "distance": "squared_euclidean", "average": "valid"}, 2.4 / 24),
        ({"margin": 1.0, "mining": "all", "distance": "squared_euclidean"}, 2.4 / 4),
        ({"margin": 1.0, "mining": "all", "average": "valid"}, 4.698049 / 24),
        ({"margin": 1.0, "mining": "all"}, 0.391504),
        ({"margin": 0.2, "mining": "all"}, 0.0),
        ({"margin": 0.2, "mining": "all", "distance": "squared_euclidean"}, 0.0),
        ({"margin": 0.5, "mining": "hard"}, 0.952113 / 6),
        ({"margin": "soft", "mining": "hard"}, 3.036446 / 6),
    ],
)
def test_toy_set(options, expected):
    assert TripletLoss(**options)(TOY_LABELS, TOY.astype(np.float32)).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("distance", METRICS)
@pytest.mark.parametrize("mining", ["semi_hard", "hard", "all"])
@pytest.mark.parametrize("margin", [0.3, "soft"])
@pytest.mark.parametrize("average", ["valid", "active"])
def test_equals_the_definition(distance, mining, margin, average):
    rng = np.random.default_rng(0)
    x, labels, weights = 0.5 * rng.standard_normal((12, 3)), rng.integers(0, 4, 12), rng.random(12)
    loss = TripletLoss(margin, mining, distance, average)

    def oracle(x):
        return oracles.triplet_loss(labels, x, margin, mining, distance, average)

    for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-7)):
        values, gradient = values_and_gradient(loss, labels, x.astype(dtype), weights)
        assert values.dtype == dtype
        np.testing.assert_allclose(values, oracle(x), atol=tolerance)
        np.testing.assert_allclose(gradient, oracles.numeric_gradient(lambda x: weights @ oracle(x), x), atol=tolerance)


@pytest.mark.parametrize("fallback", ["farthest", "hardest", "none"])
def test_semi_hard_fallbacks_equal_the_definition(fallback):
    rng = np.random.default_rng(3)
    x, labels, weights = rng.standard_normal((15, 2)), rng.integers(0, 3, 15), rng.random(15)
    loss = TripletLoss(0.4, SemiHard(fallback))

    def oracle(x):
        return oracles.triplet_loss(labels, x, 0.4, "semi_hard", fallback=fallback)

    values, gradient = values_and_gradient(loss, labels, x, weights)
    np.testing.assert_allclose(values, oracle(x), atol=1e-12)
    np.testing.assert_allclose(gradient, oracles.numeric_gradient(lambda x: weights @ oracle(x), x), atol=1e-7)


def test_the_fallbacks_differ_here():
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((15, 2)), rng.integers(0, 3, 15)
    assert len({round(float(TripletLoss(0.4, SemiHard(f))(labels, x)), 6) for f in ("farthest", "hardest", "none")}) == 3


@pytest.mark.parametrize("distance", METRICS)
@pytest.mark.parametrize("margin", [0.3, "soft"])
@pytest.mark.parametrize("average", ["valid", "active"])
def test_explicit_triplets_equal_the_definition(distance, margin, average):
    rng = np.random.default_rng(0)
    x, weights = 0.5 * rng.standard_normal((9, 3, 4)), rng.random(9)
    loss = TripletLoss(margin, "explicit", distance, average)

    def oracle(x):
        return oracles.explicit_triplets(x, margin, distance, average)

    for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-7)):
        values, gradient = values_and_gradient(loss, np.zeros(9), x.astype(dtype), weights)
        assert values.dtype == dtype
        np.testing.assert_allclose(values, oracle(x), atol=tolerance)
        np.testing.assert_allclose(gradient, oracles.numeric_gradient(lambda x: weights @ oracle(x), x), atol=tolerance)


def test_explicit_triplets_of_a_batch_are_batch_all():
    triplets = oracles.triplets(TOY_LABELS, oracles.distances(TOY), "all")
    x = TOY[np.array(triplets)]
    for margin, options in ((1.0, {"distance": "squared_euclidean"}), (1.0, {}), ("soft", {})):
        explicit = TripletLoss(margin, "explicit", **options)(np.arange(24), x)
        assert explicit.numpy() == pytest.approx(
            TripletLoss(margin, "all", average="valid", **options)(TOY_LABELS, TOY).numpy(), abs=1e-9
        )
    assert TripletLoss(1.0, "explicit", "squared_euclidean")(np.arange(24), x).numpy() == pytest.approx(2.4 / 24, abs=1e-9)


def test_explicit_triplets_need_no_labels_and_stay_finite():
    x = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
    loss = TripletLoss(0.2, "explicit")
    for labels in (np.zeros(4), np.zeros((4, 1)), np.arange(12).reshape(4, 3), np.array(["a", "b", "c", "d"])):
        np.testing.assert_array_equal(loss.call(labels, x), loss.call([1, 2, 3, 4], x))
    assert loss.call(np.zeros(0), x[:0]).shape == (0,)
    for batch in (np.zeros_like(x), 1e30 * x, 1e-30 * x):
        assert np.isfinite(values_and_gradient(loss, np.zeros(4), batch, np.ones(4))[1]).all()
    assert loss.call(np.zeros(4), tf.cast(x, tf.float16)).dtype == tf.float32
    assert np.isnan(loss.call(np.zeros(4), x * np.nan)).all()
    for jit in (None, True):
        compiled = tf.function(lambda y, x: loss.call(y, x), jit_compile=jit)
        np.testing.assert_allclose(compiled(tf.zeros([4]), tf.constant(x)), loss.call(np.zeros(4), x), rtol=1e-5)


def test_explicit_triplets_through_fit(tmp_path):
    # Three branches with shared weights; only the first input dimension tells what is near.
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).standard_normal((64, 3, 5)).astype(np.float32)
    x[:, 1, 0] = x[:, 0, 0]
    model = keras.Sequential([keras.layers.Input((3, 5)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.02), loss=TripletLoss(1.0, "explicit", "squared_euclidean"))
    losses = model.fit(x, np.zeros(64), batch_size=32, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.loss.get_config() == model.loss.get_config()
    assert again.loss.mining is None


def test_explicit_triplets_of_the_wrong_shape_are_refused():
    loss = TripletLoss(mining="explicit")
    for shape in ((4, 3), (4, 2, 5), (4, 3, 5, 1)):
        with pytest.raises(ValueError, match=r"y_pred has shape .*\[B, 3, D\]"):
            loss(np.zeros(4), np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="3 labels and y_pred 4"):
        loss(np.zeros(3), np.zeros((4, 3, 2), np.float32))
    with pytest.raises(ValueError, match="y_true is one number"):
        loss(0, np.zeros((4, 3, 2), np.float32))
    with pytest.raises(ValueError, match=r"mining='explicit'.*semi_hard"):
        loss.between([0], np.zeros((1, 2)), [0], np.zeros((1, 2)))


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(-2, 4), min_size=1, max_size=14),
    seed=st.integers(0, 1000),
    mining=st.sampled_from(["semi_hard", "hard", "all"]),
    margin=st.sampled_from([0.0, 0.2, 3.0, "soft"]),
)
def test_any_batch_equals_the_definition(labels, seed, mining, margin):
    x = np.random.default_rng(seed).standard_normal((len(labels), 2))
    average = "active" if mining == "all" else "valid"
    expected = oracles.triplet_loss(labels, x, margin, mining, average=average)
    np.testing.assert_allclose(TripletLoss(margin, mining).call(labels, x), expected, atol=1e-9)


def test_defaults_of_average():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 3)
    x = rng.standard_normal((12, 3)) + y[:, None]
    for mining, average in (("semi_hard", "valid"), ("hard", "valid"), ("all", "active"), (All(), "active")):
        values = {a: float(TripletLoss(0.2, mining, average=a)(y, x)) for a in (None, "valid", "active")}
        assert values["valid"] != values["active"]
        assert values[None] == values[average]


def test_collapse_shows_as_the_margin():
    x = np.ones((12, 3), np.float32)
    for mining in ("semi_hard", "hard", "all"):
        assert TripletLoss(0.3, mining)(np.repeat(np.arange(4), 3), x).numpy() == pytest.approx(0.3)
        assert TripletLoss("soft", mining)(np.repeat(np.arange(4), 3), x).numpy() == pytest.approx(np.log(2))


def test_hard_is_exact_for_near_duplicates():
    # Two shots of a product, 1e-4 apart, and another product 3e-4 away: the matrix product sees only noise there.
    x = np.zeros((4, 128), np.float32)
    x[:, 0] = 1.0
    x[1, 1], x[2, 2], x[3, 3] = 1e-4, 3e-4, 1.0
    values = TripletLoss("soft", "hard", reduction="none")([0, 0, 1, 1], x).numpy()
    assert values[0] == pytest.approx(float(np.logaddexp(0, 1e-4 - 3e-4)), abs=1e-7)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"margin": -0.1}, ValueError, "margin=-0.1"),
        ({"margin": "hard"}, ValueError, "margin='hard'.*'soft'"),
        ({"margin": None}, ValueError, "margin=None.*'soft'"),
        ({"margin": float("inf")}, ValueError, "margin=inf"),
        ({"mining": "semihard"}, ValueError, "mining='semihard'.*'semi_hard', 'hard', .*'distance_weighted', 'explicit'"),
        ({"mining": None}, TypeError, "mining=None.*'semi_hard'"),
        ({"distance": "L2"}, ValueError, "distance='L2'.*'euclidean'"),
        ({"mining": "distance_weighted", "distance": "cosine"}, ValueError, "distance='cosine' with distance-weighted mining"),
        ({"average": "mean"}, ValueError, "average='mean'.*'valid', 'active'"),
    ],
)
def test_bad_options_are_refused_with_a_reason(options, error, message):
    with pytest.raises(error, match=message):
        TripletLoss(**options)


def values_and_gradient(loss, labels, x, weights):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = loss.call(labels, x)
        total = tf.reduce_sum(values * weights.astype(x.dtype.as_numpy_dtype))
    return values.numpy(), tape.gradient(total, x).numpy()
