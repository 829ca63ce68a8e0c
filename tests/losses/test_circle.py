import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from losses_helpers import assert_equals_definition, random_batch

from tfdml.losses import CircleLoss


@pytest.mark.parametrize(("margin", "gamma"), [(0.4, 80.0), (0.25, 3.0)])
def test_equals_the_definition(margin, gamma):
    labels, x = random_batch(b=13)

    def oracle(other):
        return oracles.circle_loss(labels, other, margin, gamma)

    def with_the_weights_held(other):
        return oracles.circle_loss(labels, other, margin, gamma, weights_of=x)

    assert_equals_definition(CircleLoss(margin, gamma), oracle, labels, x, with_the_weights_held, tolerance=2e-4)


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(-1, 3), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_any_batch_equals_the_definition(labels, seed):
    x = np.random.default_rng(seed).standard_normal((len(labels), 3))
    np.testing.assert_allclose(CircleLoss(0.3, 20.0).call(labels, x), oracles.circle_loss(labels, x, 0.3, 20.0), atol=1e-9)


def test_on_the_circle_the_two_sides_balance():
    # (s_p - 1)^2 + s_n^2 = 2 margin^2: the exponents cancel, and log(1 + 1) is left, for any gamma.
    margin = 0.3
    s_p, s_n = 1 - 0.3 * np.sqrt(2) * np.cos(0.7), 0.3 * np.sqrt(2) * np.sin(0.7)
    x = np.array([[1, 0, 0], [s_p, np.sqrt(1 - s_p**2), 0], [s_n, 0, np.sqrt(1 - s_n**2)]])
    for gamma in (1.0, 80.0, 256.0):
        # Two of the three anchors count.
        assert CircleLoss(margin, gamma).call([5, 5, 6], x).numpy()[0] == pytest.approx(1.5 * np.log(2), abs=1e-9)


@pytest.mark.parametrize(("options", "message"), [({"margin": 0}, "margin=0"), ({"gamma": float("inf")}, "gamma=inf")])
def test_bad_options_are_refused_with_a_reason(options, message):
    with pytest.raises(ValueError, match=message):
        CircleLoss(**options)
