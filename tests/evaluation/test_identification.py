"""DIR@FIR and the ROC of known or unknown: against plain loops and scikit-learn."""

from __future__ import annotations

import evaluation_oracles as oracles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.evaluation import JointBayesian, identification, open_set_split


def protocol(seed, tied=False, queries=16, items=8):
    random = np.random.default_rng(seed)
    gallery_labels = np.append([0, 1], random.integers(0, 4, items - 2))
    labels = np.append([0, 9], random.integers(0, 7, queries - 2))

    def rows(of):
        noise = random.integers(0, 3, (len(of), 2)) if tied else random.normal(size=(len(of), 3))
        return noise + (0 if tied else np.eye(10)[of][:, :3])

    return rows(labels), labels, rows(gallery_labels), gallery_labels


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tied=st.booleans(),
    fir=st.sampled_from([0.25, 0.5]),
    rank=st.integers(1, 2),
    block=st.sampled_from([1, 1 << 25]),
)
def test_agrees_with_plain_loops(seed, tied, fir, rank, block) -> None:
    data = protocol(seed, tied, queries=24)
    unknown = (~np.isin(data[1], data[3])).sum()
    if fir * unknown < 1:
        fir = 0.99
    if fir * unknown < 1:
        return
    expected = oracles.identification(*data, fir, rank, metric="euclidean")
    found = identification(*data, metric="euclidean", firs=[fir], ranks=[rank], block=block)
    assert (found.rank_at[rank], found.dir_at[fir][rank], found.auc) == pytest.approx(expected)
    assert found.known + found.unknown == 24


def test_the_curve_is_scikit_learns_and_the_threshold_keeps_the_fir() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    queries, labels, gallery, gallery_labels = protocol(5, queries=400, items=12)
    found = identification(queries, labels, gallery, gallery_labels, metric="euclidean", ranks=(1, 2))
    known = np.isin(labels, gallery_labels)
    nearest = np.linalg.norm(queries[:, None] - gallery, axis=2).min(axis=1)
    np.testing.assert_allclose(found.nearest_distances, nearest, rtol=1e-6)
    assert found.auc == pytest.approx(metrics.roc_auc_score(known, -nearest))
    far, tar, _ = metrics.roc_curve(known, -nearest, drop_intermediate=False)
    np.testing.assert_allclose(np.interp(far, found.curve.far, found.curve.tar), tar, atol=0.1)
    assert np.trapezoid(found.curve.tar, found.curve.far) == pytest.approx(found.auc) if hasattr(np, "trapezoid") else True
    for fir, threshold in found.thresholds.items():
        accepted = nearest[~known] <= threshold
        assert accepted.mean() <= fir
        assert accepted.sum() == np.floor(fir * len(accepted))
    assert list(found.figures("val_"))[:2] == ["val_rank_1", "val_rank_2"]
    assert "val_dir_rank_1_at_fir_1e-2" in found.figures("val_")
    assert "AUC, known or not" in str(found)


def test_order_rotation_and_perfect_embeddings() -> None:
    queries, labels, gallery, gallery_labels = protocol(1, queries=60)
    random = np.random.default_rng(0)
    figures = identification(queries, labels, gallery, gallery_labels, ranks=(1, 3)).figures()
    assert identification(queries, labels, gallery, gallery_labels, ranks=3).rank_at[3] == figures["rank_3"]
    order, other = random.permutation(60), random.permutation(8)
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    turned = identification(
        (queries @ rotation)[order], labels[order], (gallery @ rotation)[other], gallery_labels[other], ranks=(1, 3)
    )
    assert turned.figures() == pytest.approx(figures)
    centres = np.eye(10)
    perfect = identification(centres[labels], labels, centres[gallery_labels], gallery_labels, firs=[0.5])
    assert set(perfect.figures().values()) == {1.0}
    # All at one place: nobody may be let in, and nobody is identified.
    collapsed = identification(np.ones((60, 3)), labels, np.ones((8, 3)), gallery_labels, firs=[0.5])
    assert collapsed.figures() == {"rank_1": 0, "dir_rank_1_at_fir_5e-1": 0, "known_auc": 0.5}
    assert collapsed.thresholds == {0.5: -np.inf}


def test_scores_of_a_joint_bayesian() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(200) % 20
    embeddings = random.normal(size=(20, 4))[labels] + 0.2 * random.normal(size=(200, 4))
    scorer = JointBayesian().fit(embeddings, labels)
    queries, gallery = open_set_split(labels, seed=1)
    found = identification(
        embeddings[queries], labels[queries], embeddings[gallery], labels[gallery], metric=scorer, firs=[0.1]
    )
    assert found.metric == "JointBayesian"
    scores = scorer.pairwise(embeddings[queries], embeddings[gallery]).max(axis=1)
    np.testing.assert_allclose(found.nearest_distances, scores, rtol=1e-5, atol=1e-5)
    unknown = ~np.isin(labels[queries], labels[gallery])
    assert (scores[unknown] >= found.thresholds[0.1]).mean() <= 0.1
    assert found.rank_at[1] > 0.8


def test_open_set_split_deals_every_item_once() -> None:
    labels = np.repeat(np.arange(10), 5)
    queries, gallery = open_set_split(labels, known=0.4, gallery_items=2, seed=3)
    assert sorted([*queries, *gallery]) == list(range(50))
    known, counts = np.unique(labels[gallery], return_counts=True)
    assert counts.tolist() == [2] * 4
    assert np.isin(labels[queries], known).sum() == 4 * 3
    again = open_set_split(labels, known=0.4, gallery_items=2, seed=3)
    np.testing.assert_array_equal(again[1], gallery)
    assert open_set_split(labels, known=0.4, gallery_items=2, seed=4)[1].tolist() != gallery.tolist()
    for known in (0, 1, 1.5, 0.01):
        with pytest.raises(ValueError, match="at least one class known and one unknown"):
            open_set_split(labels, known=known)
    with pytest.raises(ValueError, match="0 have more than gallery_items=5 items"):
        open_set_split(labels, gallery_items=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": np.zeros(16, int)}, "16 of 16 queries are of a class in the gallery"),
        ({"labels": np.full(16, 99)}, "0 of 16 queries"),
        ({"firs": [0.001]}, "firs: 0.001 cannot be resolved"),
        ({"firs": [2]}, "expected shares between 0 and 1"),
        ({"ranks": 9}, "ranks=9: a query can find only"),
        ({"gallery": np.ones((8, 2))}, "dimension 2, but embeddings have 3"),
        ({"gallery": np.ones((0, 3)), "gallery_labels": []}, "empty"),
        ({"metric": "dot"}, "metric='dot' is not known"),
        ({"embeddings": np.full((16, 3), np.inf)}, "NaN or infinity"),
    ],
)
def test_bad_input(options, message) -> None:
    good = dict(zip(("embeddings", "labels", "gallery", "gallery_labels"), protocol(0), strict=True))
    with pytest.raises(ValueError, match=message):
        identification(**{**good, **options})
