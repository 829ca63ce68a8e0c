import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from losses_helpers import TOY, TOY_LABELS, assert_equals_definition, random_batch

from tfdml.distances import METRICS
from tfdml.losses import LiftedStructureLoss

VARIANTS = ("original", "generalized")


def test_toy_set():
    values = LiftedStructureLoss(1.0, "generalized").call(TOY_LABELS, TOY).numpy()
    assert values.sum() == pytest.approx(9.059815, abs=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_definition(variant, metric):
    labels, x = random_batch(b=13, scale=1.0)
    loss = LiftedStructureLoss(0.7, variant, metric)

    def oracle(x):
        return oracles.lifted_structure_loss(labels, x, 0.7, variant, metric)

    assert_equals_definition(loss, oracle, labels, x, tolerance=3e-5)


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(-1, 3), min_size=1, max_size=9), variant=st.sampled_from(VARIANTS), seed=st.integers(0, 99))
def test_any_batch_equals_the_definition(labels, variant, seed):
    x = np.random.default_rng(seed).standard_normal((len(labels), 2))
    expected = oracles.lifted_structure_loss(labels, x, 0.3, variant)
    np.testing.assert_allclose(LiftedStructureLoss(0.3, variant).call(labels, x), expected, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_far_negatives_leave_no_loss_and_no_gradient(variant):
    # All positives coincide; the negatives are far beyond the margin.
    x = np.repeat(np.eye(3, dtype=np.float32) * 50, 2, axis=0)
    assert LiftedStructureLoss(1.0, variant)([0, 0, 1, 1, 2, 2], x) == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_negative_no_loss(variant):
    assert LiftedStructureLoss(1.0, variant)(np.zeros(12, int), random_batch()[1]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0}, "margin=0"),
        ({"variant": "generalised"}, "variant='generalised'.*'generalized'"),
        ({"distance": "l2"}, "distance='l2'.*'euclidean'"),
    ],
)
def test_bad_options_are_refused_with_a_reason(options, message):
    with pytest.raises(ValueError, match=message):
        LiftedStructureLoss(**options)
