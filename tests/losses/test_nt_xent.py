import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from losses_helpers import assert_equals_definition, random_batch

from tfdml.losses import NTXentLoss, SupConLoss

PAIRS = [(NTXentLoss, oracles.nt_xent_loss), (SupConLoss, oracles.sup_con_loss)]
both = pytest.mark.parametrize(("loss", "oracle"), PAIRS, ids=["nt-xent", "sup-con"])


@both
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_definition(loss, oracle, temperature):
    labels, x = random_batch(b=13)
    assert_equals_definition(loss(temperature), lambda x: oracle(labels, x, temperature), labels, x, tolerance=1e-4)


@both
@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(-1, 3), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_any_batch_equals_the_definition(loss, oracle, labels, seed):
    x = np.random.default_rng(seed).standard_normal((len(labels), 3))
    np.testing.assert_allclose(loss(0.3).call(labels, x), oracle(labels, x, 0.3), atol=1e-9)


def test_with_one_positive_each_they_are_the_same():
    y, x = np.tile(np.arange(5), 2), np.random.default_rng(0).standard_normal((10, 3))
    np.testing.assert_allclose(NTXentLoss(0.2).call(y, x), SupConLoss(0.2).call(y, x), rtol=1e-12)


def test_other_positives_count_against_a_pair_in_sup_con_only():
    # All alike within a class, and the classes opposite: nothing is left to do.
    x, y = np.repeat([[1.0, 0.0], [-1.0, 0.0]], 4, axis=0), np.repeat([0, 1], 4)
    assert NTXentLoss(0.05)(y, x).numpy() == pytest.approx(0, abs=1e-9)
    assert SupConLoss(0.05)(y, x).numpy() == pytest.approx(np.log(3), abs=1e-9)


@both
def test_tiny_temperatures_do_not_overflow(loss, oracle):
    y, x = np.repeat([0, 1, 2], 2), np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    s = 1 - oracles.distances(x, "cosine")
    expected = np.mean([max(0.0, max(s[a, n] for n in range(6) if y[n] != y[a]) - s[a, a ^ 1]) for a in range(6)]) / 1e-4
    assert loss(1e-4)(y, x).numpy() == pytest.approx(expected, rel=1e-4)


@both
def test_bad_options_are_refused_with_a_reason(loss, oracle):
    for bad in (0, -0.1, float("nan"), "low"):
        with pytest.raises(ValueError, match="temperature="):
            loss(bad)
