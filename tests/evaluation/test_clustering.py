"""NMI, AMI and pairwise F1 of k-means: against pair counting and scikit-learn, and what must be said in words."""

from __future__ import annotations

import builtins

import evaluation_oracles as oracles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.evaluation import clustering
from tfdml.evaluation.clustering import pairwise_f1

metrics = pytest.importorskip("sklearn.metrics")


def blobs(spread=0.6, count=120, classes=8, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return random.normal(size=(classes, 6))[labels] + spread * random.normal(size=(count, 6)), labels


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(5, 25))
def test_pairwise_f1_agrees_with_counting_pairs_and_with_scikit_learn(seed, count) -> None:
    random = np.random.default_rng(seed)
    classes, clusters = random.integers(0, 3, count), random.integers(0, 3, count)
    classes[:2], clusters[:2] = 0, 0  # one pair that is right
    assert pairwise_f1(classes, clusters) == pytest.approx(oracles.pairwise_f1(classes, clusters))
    (_, false_positive), (false_negative, true_positive) = metrics.cluster.pair_confusion_matrix(classes, clusters)
    expected = 2 * true_positive / (2 * true_positive + false_positive + false_negative)
    assert pairwise_f1(classes, clusters) == pytest.approx(expected)


@pytest.mark.parametrize("normalizer", ["arithmetic", "geometric"])
def test_figures_are_means_over_seeds_of_scikit_learns(normalizer) -> None:
    embeddings, labels = blobs()
    found = clustering(embeddings, labels, seeds=(3, 4, 5), normalizer=normalizer)
    nmi = [metrics.normalized_mutual_info_score(labels, row, average_method=normalizer) for row in found.assignments]
    ami = [metrics.adjusted_mutual_info_score(labels, row) for row in found.assignments]
    assert found.nmi.mean == pytest.approx(np.mean(nmi))
    assert found.nmi.deviation == pytest.approx(np.std(nmi, ddof=1))
    assert found.ami.values.tolist() == pytest.approx(ami)
    assert found.figures("val_") == {
        "val_nmi": found.nmi.mean,
        "val_ami": found.ami.mean,
        "val_pairwise_f1": found.f1.mean,
    }
    assert f"({normalizer})" in str(found)
    # By its definition: I / mean(H, H).
    joint = np.histogram2d(labels, found.assignments[0], bins=8)[0] / len(labels)
    p, q = joint.sum(axis=1), joint.sum(axis=0)
    information = sum(joint[i, j] * np.log(joint[i, j] / (p[i] * q[j])) for i in range(8) for j in range(8) if joint[i, j])
    entropies = [-(x * np.log(x)).sum() for x in (p, q)]
    mean = np.mean(entropies) if normalizer == "arithmetic" else np.sqrt(np.prod(entropies))
    assert nmi[0] == pytest.approx(information / mean)


def test_perfect_and_random_embeddings() -> None:
    labels = np.arange(90) // 10
    perfect = clustering(np.eye(9)[labels], labels, seeds=range(8))
    assert clustering(np.eye(9)[labels], labels, seeds=7).seeds == (7,)
    assert max(perfect.nmi.values) == pytest.approx(1)
    assert max(perfect.f1.values) == pytest.approx(1)
    random = clustering(np.random.default_rng(0).normal(size=(90, 9)), labels)
    assert abs(random.ami.mean) < 0.1 < random.nmi.mean


def test_neither_row_order_nor_the_names_of_classes_nor_rotation_matter_where_clusters_are_plain() -> None:
    embeddings, labels = blobs(spread=0.1)
    random = np.random.default_rng(1)
    order, rotation = random.permutation(120), np.linalg.qr(random.normal(size=(6, 6)))[0]
    best = max(clustering(embeddings, labels, seeds=range(8)).nmi.values)
    turned = clustering((embeddings @ rotation)[order], [f"class {label}" for label in labels[order]], seeds=range(8))
    assert max(turned.nmi.values) == pytest.approx(best)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 121}, "clusters=121: expected a whole number from 2 to 120"),
        ({"clusters": 1}, "clusters=1"),
        ({"seeds": ()}, "seeds: received none"),
        ({"normalizer": "harmonic"}, "normalizer='harmonic' is not known"),
        ({"labels": np.zeros(120, int)}, "of one class"),
        ({"labels": [0, 1]}, "expected 120 labels"),
        ({"embeddings": np.full((120, 6), np.nan)}, "NaN or infinity"),
    ],
)
def test_bad_input(options, message) -> None:
    embeddings, labels = blobs()
    with pytest.raises(ValueError, match=message):
        clustering(**{"embeddings": embeddings, "labels": labels, **options})


def test_without_scikit_learn_it_says_what_to_install(monkeypatch) -> None:
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'tfdml\[evaluation\]'"):
        clustering(*blobs())
