"""ROC, EER, TAR@FAR, VAL@FAR and LFW's accuracy: against plain loops and scikit-learn, and by what must not change them."""

from __future__ import annotations

import json
import tracemalloc

import evaluation_oracles as oracles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.evaluation import VerificationPairs, verification, verification_pairs

pytestmark = pytest.mark.one_stack

METRICS = ("cosine", "euclidean", "squared_euclidean")


def clusters(count=120, dimension=6, classes=12, spread=0.8, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    return (random.normal(size=(classes, dimension))[labels] + spread * random.normal(size=(count, dimension))), labels


def distance(u, v, metric):
    return oracles.distance(u, v, "euclidean") ** 2 if metric == "squared_euclidean" else oracles.distance(u, v, metric)


class Product:
    """A scorer: the inner product."""

    def score(self, left, right):
        return (left * right).sum(1)

    def pairwise(self, left, right):
        return left @ right.T


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(4, 40),
    classes=st.integers(2, 12),
    whole=st.booleans(),
    block=st.sampled_from([1, 2000, 1 << 25]),
)
def test_all_pairs_agree_with_plain_loops(seed, count, classes, whole, block) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    labels[:3] = [0, 0, 1]
    # Whole numbers make many exact ties between positive and negative pairs.
    x = random.integers(-2, 3, (count, 3)).astype(np.float64) if whole else random.normal(size=(count, 3))
    pairs = oracles.all_pairs(labels)
    distances = [distance(x[i], x[j], "squared_euclidean") for i, j, _ in pairs]
    if not whole:
        distances = [float(np.float32(d)) for d in distances]
    same = [s for _, _, s in pairs]
    fars = [far for far in (0.5, 0.2, 0.03) if far * same.count(False) >= 1]
    found = verification(x.astype(np.float32), labels, metric="squared_euclidean", fars=fars, block=block)
    assert (found.positive_pairs, found.negative_pairs) == (same.count(True), same.count(False))
    assert found.auc == pytest.approx(oracles.auc(distances, same), abs=1e-6)
    for far in fars:
        threshold = oracles.threshold_at_far(distances, same, far)
        assert found.thresholds[far] == pytest.approx(threshold, rel=1e-5)
        assert found.tar_at_far[far] == pytest.approx(oracles.shares(distances, same, threshold)[0])


@pytest.mark.parametrize(("metric", "whole"), [*((metric, False) for metric in METRICS), ("euclidean", True)])
def test_against_scikit_learn(metric, whole) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    x, labels = clusters(90)
    x = (np.round(2 * x) + 0.5) if whole else x.astype(np.float32).astype(np.float64)
    pairs = oracles.all_pairs(labels)
    same = np.array([s for _, _, s in pairs])
    # Rounded, so that what differs by the last bit of a float64 is a tie for both.
    scores = -np.round([distance(x[i], x[j], metric) for i, j, _ in pairs], 6)
    found = verification(x, labels, metric=metric, fars=(0.1, 0.01, 0.002))
    assert found.auc == pytest.approx(metrics.roc_auc_score(same, scores), abs=1e-6)
    far, tar, _ = metrics.roc_curve(same, scores, drop_intermediate=False)
    for asked, value in found.tar_at_far.items():
        assert value == pytest.approx(tar[far <= asked + 1e-12].max())
    at = np.linspace(0, 1, 20001)
    gap = at + np.interp(at, far, tar) - 1
    assert found.eer == pytest.approx(np.interp(0, gap, at), abs=2e-4)
    area = float(np.sum(np.diff(found.curve.far) * (found.curve.tar[1:] + found.curve.tar[:-1]) / 2))
    assert area == pytest.approx(found.auc)


def test_a_listed_pair_counts_as_it_says() -> None:
    x = np.array([[0.0], [1.0], [3.0], [3.5], [9.0]])
    pairs = VerificationPairs([0, 2, 0, 1, 3], [1, 3, 2, 2, 4], [1, 1, 0, 0, 0])
    found = verification(x, pairs=pairs, metric="euclidean", fars=(0.4,))
    # Positive at 1 and 0.5; negative at 3, 2 and 5.5.
    assert (found.auc, found.eer, found.tar_at_far) == (1, 0, {0.4: 1})
    assert found.thresholds == {0.4: 1.5}
    swapped = VerificationPairs(pairs.left, pairs.right, ~pairs.same)
    found = verification(x, pairs=swapped, metric="euclidean", fars=(0.6,))
    assert (found.auc, found.eer, found.tar_at_far) == (0, 1, {0.6: 0})
    assert found.thresholds == {0.6: -np.inf}


@pytest.mark.parametrize("metric", METRICS)
def test_figures_over_folds_agree_with_plain_loops(metric) -> None:
    x, labels = clusters(100, classes=20, spread=0.5)
    x = x.astype(np.float32)
    pairs = verification_pairs(labels, 60, 150, folds=5, seed=1)
    distances = [float(np.float32(distance(x[i], x[j], metric))) for i, j in zip(pairs.left, pairs.right, strict=True)]
    found = verification(x, pairs=pairs, metric=metric, fars=(0.05,))
    vals, fars, accuracies = oracles.over_folds(distances, pairs.same.tolist(), pairs.folds.tolist(), 0.05)
    np.testing.assert_allclose(found.val_at_far[0.05].values, vals)
    np.testing.assert_allclose(found.far_measured[0.05].values, fars)
    np.testing.assert_allclose(found.accuracy.values, accuracies)
    assert found.accuracy.mean == pytest.approx(np.mean(accuracies))
    assert found.accuracy.standard_error == pytest.approx(np.std(accuracies, ddof=1) / np.sqrt(5))
    assert len(set(vals)) > 1


def test_all_pairs_within_folds_are_the_listed_ones() -> None:
    x, labels = clusters(80, classes=16)
    everything = verification_pairs(labels, None, None, folds=4, seed=3)
    listed = verification(x, pairs=everything, fars=(0.01,))
    streamed = verification(x, labels, folds=4, seed=3, fars=(0.01,), block=5000)
    assert listed.as_dict() == pytest.approx(streamed.as_dict())
    np.testing.assert_allclose(listed.accuracy.values, streamed.accuracy.values)
    assert (listed.positive_pairs, listed.negative_pairs) == (everything.same.sum(), (~everything.same).sum())


def test_a_scorer_in_the_metrics_place() -> None:
    x, labels = clusters(70)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    by_cosine = verification(unit, labels, fars=(0.01,))
    by_product = verification(unit.astype(np.float64), labels, metric=Product(), fars=(0.01,))
    assert by_product.figures() == pytest.approx(by_cosine.figures(), abs=1e-6)
    assert by_product.thresholds[0.01] == pytest.approx(1 - by_cosine.thresholds[0.01], abs=1e-6)
    assert by_product.eer_threshold == pytest.approx(1 - by_cosine.eer_threshold, abs=1e-6)
    assert by_product.metric == "Product"
    pairs = verification_pairs(labels, 30, 30, folds=None)
    listed = verification(unit, pairs=pairs, metric=Product())
    assert listed.auc == pytest.approx(verification(unit, pairs=pairs).auc, abs=1e-6)

    class Broken(Product):
        def pairwise(self, left, right):
            return np.full((len(left), len(right)), np.nan)

    with pytest.raises(ValueError, match=r"Broken returned .*NaN"):
        verification(x, labels, metric=Broken())


def test_separated_classes_are_perfect_and_random_ones_at_chance() -> None:
    labels = np.arange(60) // 5
    random = np.random.default_rng(0)
    found = verification(np.eye(12)[labels] + 1e-3 * random.normal(size=(60, 12)), labels, folds=3)
    assert found.auc == pytest.approx(1)
    assert found.accuracy.mean == found.tar_at_far[0.01] == found.val_at_far[0.01].mean == 1
    assert found.eer == 0
    found = verification(random.normal(size=(600, 8)), np.arange(600) % 60)
    assert found.auc == pytest.approx(0.5, abs=0.02)
    assert found.eer == pytest.approx(0.5, abs=0.02)


def test_a_collapsed_embedding_tells_nothing() -> None:
    labels = np.arange(300) % 30
    for metric in METRICS:
        found = verification(np.full((300, 4), 0.3), labels, metric=metric, folds=5, fars=(0.01,))
        assert (found.auc, found.eer, found.tar_at_far, found.accuracy.mean) == (0.5, 0.5, {0.01: 0}, 0.5)


def test_nearly_equal_embeddings_are_told_apart() -> None:
    x, labels = clusters(100)
    near = np.float32(1) + 1e-4 * x
    expected = [
        distance(near[i].astype(np.float32), near[j].astype(np.float32), "euclidean") for i, j, _ in oracles.all_pairs(labels)
    ]
    same = [s for _, _, s in oracles.all_pairs(labels)]
    assert verification(near, labels, metric="euclidean").auc == pytest.approx(oracles.auc(expected, same), abs=1e-5)
    copies = np.repeat(x, 2, axis=0)
    assert verification(copies, np.arange(200) // 2, metric="euclidean", fars=(1e-3,)).tar_at_far[1e-3] == 1


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_row_order_rotation_and_scale_change_nothing(seed) -> None:
    random = np.random.default_rng(seed)
    x, labels = clusters(60, seed=seed)
    found = verification(x, labels).figures()
    order = random.permutation(60)
    assert verification(x[order], labels[order]).figures() == pytest.approx(found, abs=1e-3)
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
    assert verification(x @ rotation * 7.5, 100 - labels).figures() == pytest.approx(found, abs=1e-3)


def test_memory_is_bounded_by_the_block() -> None:
    x, labels = clusters(4000, classes=400)
    tracemalloc.start()
    verification(x.astype(np.float32), labels, block=1 << 21)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All distances would take 32 MB, as float32.
    assert peak < 16e6


def test_the_record_is_plain_and_the_text_says_what_was_compared() -> None:
    x, labels = clusters()
    found = verification(x, labels, folds=3, fars=(0.02, np.float64(0.001)))
    record = found.as_dict("val_")
    assert json.loads(json.dumps(record)) == record
    assert list(record)[:6] == [
        "val_auc",
        "val_eer",
        "val_tar_at_far_2e-2",
        "val_tar_at_far_1e-3",
        "val_accuracy",
        "val_val_at_far_2e-2",
    ]
    assert "{val_tar_at_far_1e-3:.2f}".format(**record)
    assert f"{found.positive_pairs:,} positive and {found.negative_pairs:,} negative pairs in 3 folds; cosine" in str(found)
    assert " ± " in str(found)
    assert "accuracy" not in verification(x, labels).figures()


def test_fars_that_are_not_asked_for_are_those_that_the_pairs_resolve() -> None:
    x = np.arange(8.0)[:, None]
    assert list(verification(x, np.arange(8) // 2, metric="euclidean").tar_at_far) == [0.1]
    x, labels = clusters()
    assert list(verification(x, labels).tar_at_far) == [0.1, 0.01, 0.001]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": np.full((6, 2), np.nan)}, "embeddings: NaN or infinity"),
        ({"embeddings": np.zeros((6, 2))}, "zero vector"),
        ({"embeddings": np.ones(6)}, "2-D array"),
        ({"labels": None}, "labels=None: expected one label for each embedding, or pairs"),
        ({"labels": [0, 0, 1]}, "expected 6 labels"),
        ({"labels": [0.0] * 6}, "expected integers or strings"),
        ({"labels": [1] * 6}, "there is no negative pair"),
        ({"labels": range(6)}, "there is no positive pair"),
        ({"metric": "dot"}, "metric='dot' is not known. Known: 'cosine', 'euclidean', 'squared_euclidean'"),
        ({"fars": (0.05,)}, "fars: 0.05 cannot be resolved: there are 12 negative pairs, and one of them is a FAR of 0.083"),
        ({"fars": (0,)}, "expected shares between 0 and 1"),
        ({"fars": (1.0,)}, "expected shares between 0 and 1"),
        ({"fars": ("1e-3",)}, "expected shares between 0 and 1"),
        ({"folds": 1}, "folds=1: expected a whole number >= 2"),
        ({"folds": 2}, "folds=2: folds share no class, so each needs two classes.* there are 3 classes"),
        ({"pairs": VerificationPairs([0], [1], [True])}, "expected None beside pairs"),
        ({"pairs": VerificationPairs([0], [6], [True]), "labels": None}, "item 6 is compared, but there are only 6"),
        ({"pairs": VerificationPairs([0], [5], [True]), "labels": None}, "there is no negative pair"),
        ({"pairs": VerificationPairs([], [], []), "labels": None}, "pairs: received none"),
        (
            {"pairs": VerificationPairs([0, 1, 2], [1, 2, 4], [1, 0, 0], [0, 0, 1]), "labels": None},
            "fold 1 of 2 has no positive pair",
        ),
    ],
)
def test_bad_input(arguments, message) -> None:
    good = {"embeddings": np.eye(6)[:, :2] + 0.1, "labels": [0, 0, 1, 1, 2, 2]}
    assert verification(**good).negative_pairs == 12
    with pytest.raises(ValueError, match=message):
        verification(**{**good, **arguments})


def test_a_far_over_folds_needs_the_other_folds_to_resolve_it() -> None:
    x, labels = clusters(60, classes=15)
    pairs = verification_pairs(labels, 20, 40, folds=4)
    assert verification(x, pairs=pairs, fars=(1 / 30,)).val_at_far
    with pytest.raises(ValueError, match="a threshold comes from 30 negative pairs of the other folds"):
        verification(x, pairs=pairs, fars=(1 / 31,))
