import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from losses_helpers import assert_equals_definition, random_batch

from tfdml.losses import MultiSimilarityLoss


@pytest.mark.parametrize("epsilon", [0.1, 0.0, None])
@pytest.mark.parametrize(("alpha", "beta", "base"), [(2.0, 50.0, 0.5), (5.0, 7.0, -0.2)])
def test_equals_the_definition(alpha, beta, base, epsilon):
    labels, x = random_batch(b=13)
    loss = MultiSimilarityLoss(alpha, beta, base, epsilon)

    def oracle(x):
        return oracles.multi_similarity_loss(labels, x, alpha, beta, base, epsilon)

    # Gradients grow with the sharpness, and so does what float32 makes of them.
    assert_equals_definition(loss, oracle, labels, x, tolerance=1e-4)


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(-1, 3), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_any_batch_equals_the_definition(labels, seed):
    x = np.random.default_rng(seed).standard_normal((len(labels), 3))
    for epsilon in (0.1, None):
        expected = oracles.multi_similarity_loss(labels, x, epsilon=epsilon)
        np.testing.assert_allclose(MultiSimilarityLoss(epsilon=epsilon).call(labels, x), expected, atol=1e-9)


def test_mining_leaves_nothing_where_classes_are_well_apart():
    x = np.repeat(np.eye(3), 2, axis=0)
    assert MultiSimilarityLoss(epsilon=0.1)([0, 0, 1, 1, 2, 2], x) == 0
    assert MultiSimilarityLoss(epsilon=None)([0, 0, 1, 1, 2, 2], x) > 0


def test_an_anchor_without_positives_or_negatives_is_mined_away():
    _, x = random_batch()
    for labels in (np.arange(12), np.zeros(12, int)):
        assert MultiSimilarityLoss()(labels, x) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"alpha": 0}, "alpha=0"), ({"beta": -1}, "beta=-1"), ({"base": 2}, "base=2"), ({"epsilon": -0.1}, "epsilon=-0.1")],
)
def test_bad_options_are_refused_with_a_reason(options, message):
    with pytest.raises(ValueError, match=message):
        MultiSimilarityLoss(**options)
