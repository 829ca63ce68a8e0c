import numpy as np
import pytest
import tensorflow as tf

from tfdml.losses.log_sums import log_one_plus_sum_exp, log_sum_exp


@pytest.mark.parametrize(("function", "extra"), [(log_sum_exp, 0.0), (log_one_plus_sum_exp, 1.0)])
def test_equals_the_definition(function, extra):
    rng = np.random.default_rng(0)
    x, kept = 3 * rng.standard_normal((9, 7)), rng.random((9, 7)) < 0.5
    kept[:, 0] = True
    value, weights = function(tf.constant(x), tf.constant(kept))
    total = extra + (np.exp(x) * kept).sum(1)
    np.testing.assert_allclose(value, np.log(total), rtol=1e-12)
    np.testing.assert_allclose(weights, np.exp(x) * kept / total[:, None], rtol=1e-12)


def test_nothing_overflows_and_masked_entries_do_not_matter():
    x = tf.constant([[900.0, 899.0, 1e30], [-900.0, -900.0, 3e38], [5.0, 6.0, 7.0]])
    kept = tf.constant([[True, True, False], [True, True, False], [False, False, False]])
    value, weights = log_sum_exp(x, kept)
    np.testing.assert_allclose(value[:2], [900 + np.log1p(np.exp(-1)), -900 + np.log(2)], rtol=1e-6)
    assert np.isfinite(value[2])
    assert value[2] < -1e37
    np.testing.assert_allclose(tf.reduce_sum(weights, 1), [1, 1, 0], rtol=1e-6)
    value, weights = log_one_plus_sum_exp(x, kept)
    np.testing.assert_allclose(value, [900 + np.log1p(np.exp(-1)), 0, 0], rtol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(weights, 1), [1, 0, 0], rtol=1e-6)
