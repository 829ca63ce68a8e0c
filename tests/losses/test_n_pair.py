import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from losses_helpers import TOY, TOY_LABELS, assert_equals_definition, random_batch

from tfdml.losses import NPairLoss

VARIANTS, POSITIVES = ("mc", "ovo"), ("one", "all")


@pytest.mark.parametrize(("variant", "expected"), [("mc", 0.599740), ("ovo", 0.668305)])
def test_toy_set(variant, expected):
    assert NPairLoss(variant, l2=0.0)(TOY_LABELS, TOY).numpy() == pytest.approx(expected, abs=1e-6)
    # All norms are 1, and so is their mean square.
    assert NPairLoss(variant, l2=0.3)(TOY_LABELS, TOY).numpy() == pytest.approx(expected + 0.3, abs=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("positives", POSITIVES)
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_equals_the_definition(variant, positives, l2):
    labels, x = random_batch(b=13, scale=1.0)
    loss = NPairLoss(variant, l2, positives)
    assert_equals_definition(loss, lambda x: oracles.n_pair_loss(labels, x, variant, l2, positives), labels, x)


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(-1, 3), min_size=1, max_size=9), variant=st.sampled_from(VARIANTS), seed=st.integers(0, 99))
def test_any_batch_equals_the_definition_and_mc_is_never_larger(labels, variant, seed):
    x = np.random.default_rng(seed).standard_normal((len(labels), 2))
    for positives in POSITIVES:
        values = NPairLoss(variant, 0.1, positives).call(labels, x)
        np.testing.assert_allclose(values, oracles.n_pair_loss(labels, x, variant, 0.1, positives), atol=1e-9)
        mc, ovo = (NPairLoss(v, 0.0, positives).call(labels, x).numpy() for v in VARIANTS)
        assert (mc <= ovo + 1e-12).all()


def test_pairs_are_made_in_the_order_of_the_batch():
    # Of class 5: (0, 2) and (3, 5); item 6 is left over. Of class 7: (1, 4). Class 8 has one item.
    labels = [5, 7, 5, 5, 7, 5, 5, 8]
    x = np.random.default_rng(0).standard_normal((8, 3))
    values = NPairLoss(l2=0.1).call(labels, x).numpy()
    assert np.flatnonzero(values).tolist() == [0, 1, 3]
    moved = x.copy()
    moved[[6, 7]] += 5.0
    np.testing.assert_allclose(NPairLoss(l2=0.1).call(labels, moved), values, rtol=1e-12)


def test_no_tuplet_no_loss_and_no_penalty():
    x = random_batch()[1]
    for labels in (np.zeros(12, int), np.arange(12)):
        for positives in POSITIVES:
            assert NPairLoss(positives=positives)(labels, x) == 0


def test_two_classes_give_a_logistic_triplet():
    x = np.random.default_rng(1).standard_normal((4, 3))
    expected = [np.logaddexp(0, x[a] @ x[n] - x[a] @ x[p]) for a, p, n in ((0, 1, 3), (2, 3, 1))]
    for variant in VARIANTS:
        assert NPairLoss(variant, 0.0)([0, 0, 1, 1], x).numpy() == pytest.approx(np.mean(expected), abs=1e-12)


def test_large_dot_products_are_computed_in_full():
    # A plain sum of exponentials is infinite from 89 on.
    x = np.array([[100, 0], [10, 0], [0, 100], [20, 5]], np.float32)
    values = NPairLoss(l2=0.0).call([0, 0, 1, 1], x).numpy()
    np.testing.assert_allclose(values, [2 * 1000.0, 0, 0, 0], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "multi"}, "variant='multi'.*'mc', 'ovo'"),
        ({"l2": -1}, "l2=-1"),
        ({"positives": 2}, "positives=2.*'one', 'all'"),
    ],
)
def test_bad_options_are_refused_with_a_reason(options, message):
    with pytest.raises(ValueError, match=message):
        NPairLoss(**options)
