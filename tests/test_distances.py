import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfdml.distances import METRICS, paired_distances, pairwise_distances


def rows(n=9, d=5, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


def gradient_of(function, x):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x).numpy()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_matrix_equals_the_definition(metric, dtype, tolerance):
    x = rows(dtype=dtype)
    d = pairwise_distances(x, metric=metric)
    assert d.dtype == dtype
    np.testing.assert_allclose(d, oracles.distances(x, metric), atol=tolerance)


@pytest.mark.parametrize("metric", METRICS)
def test_matrix_between_two_sets_equals_the_definition(metric):
    a, b = rows(4), rows(6, seed=1)
    expected = [[oracles.distance(u, v, metric) for v in b] for u in a]
    np.testing.assert_allclose(pairwise_distances(a, b, metric=metric), expected, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_paired_equals_the_definition_for_any_leading_shape(metric):
    a, b = rows(6).reshape(2, 3, 5), rows(6, seed=1).reshape(2, 3, 5)
    expected = [[oracles.distance(u, v, metric) for u, v in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(paired_distances(a, b, metric), expected, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_equal_the_definition(metric):
    x, y, weights = rows(6, 3), rows(6, 3, seed=1), np.random.default_rng(2).random((6, 6))
    # Not the diagonal: |x - x| has no derivative, for which the library takes 0.
    np.fill_diagonal(weights, 0.0)
    got = gradient_of(lambda x: tf.reduce_sum(weights * pairwise_distances(x, metric=metric)), x)
    np.testing.assert_allclose(
        got, oracles.numeric_gradient(lambda x: np.sum(weights * oracles.distances(x, metric)), x), atol=1e-7
    )
    for paired in (lambda x: paired_distances(x, y, metric), lambda x: paired_distances(y, x, metric)):
        got = gradient_of(lambda x, paired=paired: tf.reduce_sum(weights[0] * paired(x)), x)
        expected = oracles.numeric_gradient(
            lambda x: sum(w * oracles.distance(u, v, metric) for w, u, v in zip(weights[0], x, y, strict=True)), x
        )
        np.testing.assert_allclose(got, expected, atol=1e-7)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "function", [lambda x, m: pairwise_distances(x, metric=m)[0, 1:], lambda x, m: paired_distances(x[:1], x[1:], m)]
)
def test_second_derivatives_equal_differences_of_the_first(metric, function):
    x = rows(4, 3)

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            d = tf.reduce_sum(tf.sin(function(x, metric)))
        return tf.reduce_sum(tf.square(tape.gradient(d, x)))

    def numeric(x):
        return float(slope(tf.convert_to_tensor(x)))

    np.testing.assert_allclose(gradient_of(slope, x), oracles.numeric_gradient(numeric, x), atol=1e-6)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("metric", METRICS)
def test_duplicates_and_zeros_are_exact_and_have_zero_gradient(metric, jit):
    # Many of them: parts of a matrix product are computed by different kernels.
    unique = rows(40, 33, dtype=np.float32)
    numbers = np.random.default_rng(0).integers(0, 40, 150)
    x = tf.constant(unique[numbers])

    @tf.function(jit_compile=jit)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            d = pairwise_distances(x, metric=metric)
            same = tf.constant(numbers[:, None] == numbers)
            total = tf.reduce_sum(tf.boolean_mask(d, same) if not jit else tf.where(same, d, 0.0))
        return tf.where(same, d, 0.0), tape.gradient(total, x)

    d, gradient = run(x)
    np.testing.assert_allclose(d, 0.0, atol=3e-7 if metric == "cosine" else 0.0)
    np.testing.assert_allclose(gradient, 0.0, atol=2e-5)


def test_zero_vectors():
    x = tf.zeros([3, 4])
    for metric, expected in (("euclidean", 0.0), ("squared_euclidean", 0.0), ("cosine", 1.0)):
        for function in (lambda x: pairwise_distances(x, metric=metric), lambda x: paired_distances(x, x, metric)):  # noqa: B023
            np.testing.assert_array_equal(function(x), np.full_like(function(x), expected))
            np.testing.assert_array_equal(gradient_of(function, x), np.zeros((3, 4)))
    assert paired_distances([[0.0, 0.0]], [[3.0, 4.0]], "cosine").numpy().tolist() == [1.0]


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e12])
def test_scale_neither_overflows_nor_vanishes(size):
    x = rows(5, 3, dtype=np.float32)
    expected = oracles.distances(x) * size
    np.testing.assert_allclose(pairwise_distances(x * np.float32(size)), expected, rtol=1e-5)
    np.testing.assert_allclose(
        paired_distances(x[:4] * np.float32(size), x[1:] * np.float32(size)), np.diag(expected, 1), rtol=1e-5
    )
    np.testing.assert_allclose(
        pairwise_distances(x * np.float32(size), metric="cosine"), oracles.distances(x, "cosine"), atol=1e-6
    )


@pytest.mark.parametrize("size", [1e-37, 1e-20, 1e20, 1e37])
@pytest.mark.parametrize("metric", METRICS)
def test_extreme_scales_stay_finite_and_can_be_squared_and_summed(metric, size):
    x = rows(5, 3, dtype=np.float32) * np.float32(size)
    for function in (lambda x: pairwise_distances(x, metric=metric), lambda x: paired_distances(x, x[::-1], metric)):
        assert np.isfinite(tf.reduce_sum(tf.square(function(x))))
        assert np.isfinite(gradient_of(function, x)).all()


def test_far_from_the_origin_distances_stay_precise():
    x = rows(6, 4, dtype=np.float32) * np.float32(0.01)
    np.testing.assert_allclose(
        pairwise_distances(x + np.float32(8.0)), oracles.distances(x + np.float32(8.0)), rtol=1e-4, atol=1e-6
    )


def test_paired_is_exact_for_near_duplicates_where_the_matrix_is_not():
    u = rows(50, 128)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = (u + 3e-6 * rows(50, 128, seed=1)).astype(np.float32)
    u = u.astype(np.float32)
    for metric in METRICS:
        expected = [oracles.distance(p, q, metric) for p, q in zip(u, v, strict=True)]
        # The definition 1 - cos itself cancels in float64 at about 1e-16.
        np.testing.assert_allclose(paired_distances(u, v, metric), expected, rtol=1e-3 if metric == "cosine" else 1e-5)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    x = tf.cast(rows(4), dtype)
    for d in (pairwise_distances(x), paired_distances(x, x[::-1])):
        assert d.dtype == tf.float32
    np.testing.assert_allclose(pairwise_distances(x), oracles.distances(tf.cast(x, tf.float64).numpy()), atol=1e-5)


def test_bad_input_is_refused_with_a_reason():
    with pytest.raises(ValueError, match=r"'manhattan'.*'euclidean', 'squared_euclidean', 'cosine'"):
        pairwise_distances([[1.0]], metric="manhattan")
    with pytest.raises(ValueError, match="metric='L2'"):
        paired_distances([[1.0]], [[1.0]], "L2")
    with pytest.raises(ValueError, match=r"a has shape \(2,\).*\[N, D\]"):
        pairwise_distances([1.0, 2.0])


def test_nan_is_not_hidden():
    assert np.isnan(pairwise_distances([[np.nan, 0.0], [1.0, 1.0]])[0, 1])
    assert np.isnan(paired_distances([[np.nan, 0.0]], [[1.0, 1.0]])[0])
