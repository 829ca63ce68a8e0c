"""Further retrieval figures, ties, graded relevance, cameras, junk and distractors: against plain loops and scikit-learn."""

from __future__ import annotations

import json

import evaluation_oracles as oracles
import numpy as np
import pytest
from evaluation_peer_values import FILE, case
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.evaluation import retrieval, retrieval_by_distances

ALL = ("precision", "map", "mrr", "ndcg")


def points(seed, count, classes, tied):
    """Rows and labels; tied ones are small whole numbers, so that many distances are exactly equal."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    labels[:3] = [0, 0, 1]
    rows = random.integers(0, 3, (count, 2)) if tied else random.normal(size=(count, 3))
    return rows.astype(np.float32), labels


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 4),
    ties=st.sampled_from(["number", "expected", "pessimistic"]),
    tied=st.booleans(),
    block=st.sampled_from([1, 1 << 25]),
)
def test_every_figure_and_way_with_ties_agrees_with_plain_loops(seed, classes, ties, tied, block) -> None:
    # Every order of equal distances is gone through, so there can be only a few items.
    embeddings, labels = points(seed, 8, classes, tied)
    expected = oracles.retrieval_figures(embeddings, labels, metric="euclidean", ks=(1, 2, 5), ties=ties)
    found = retrieval(embeddings, labels, metric="euclidean", ks=(1, 2, 5), also=ALL, ties=ties, block=block)
    assert found.figures() == pytest.approx(expected, abs=1e-12)
    squares = ((embeddings[:, None] - embeddings) ** 2).sum(axis=2)
    by_matrix = retrieval_by_distances(squares, labels, ks=(1, 2, 5), ties=ties)
    assert by_matrix.figures() == pytest.approx({name: expected[name] for name in by_matrix.figures()}, abs=1e-12)
    assert by_matrix.queries_with_ties == found.queries_with_ties
    if not tied:
        assert found.queries_with_ties == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ties=st.sampled_from(["number", "expected", "pessimistic"]), tied=st.booleans())
def test_cameras_junk_and_distractors_agree_with_plain_loops(seed, ties, tied) -> None:
    random = np.random.default_rng(seed)
    queries, labels = points(seed, 5, 3, tied)
    gallery, gallery_labels = points(seed + 1, 9, 3, tied)
    cameras, gallery_cameras = random.integers(0, 2, 5), random.integers(0, 2, 9)
    cameras[0], gallery_cameras[0] = 0, 1  # at least one answer is left: item 0 is of class 0, as query 0 is
    gallery_labels[-2:] = [-1, 7]  # junk, and a distractor
    left_out = [
        {i for i in range(9) if gallery_labels[i] == -1 or (gallery_labels[i] == label and gallery_cameras[i] == camera)}
        for label, camera in zip(labels, cameras, strict=True)
    ]
    ks = (1, 9 - max(map(len, left_out)))
    data = {"queries": queries, "labels": labels, "gallery": gallery, "gallery_labels": gallery_labels}
    expected = oracles.retrieval_figures(**data, left_out=left_out, metric="euclidean", ks=ks, ties=ties)
    found = retrieval(
        queries,
        labels,
        gallery=gallery,
        gallery_labels=gallery_labels,
        metric="euclidean",
        ks=ks,
        also=ALL,
        ties=ties,
        cameras=cameras,
        gallery_cameras=gallery_cameras,
        junk=-1,
        distractors=7,
    )
    assert found.figures() == pytest.approx(expected, abs=1e-12)
    assert found.gallery == 8
    if ties == "number":
        orders = oracles.ranking(queries, gallery, left_out, metric="euclidean")
        first = [[item for group in groups for item in group][: ks[1]] for groups in orders]
        np.testing.assert_array_equal(found.per_query.nearest[:, : ks[1]], first)


def test_leave_one_out_with_cameras_and_distractors() -> None:
    embeddings, labels = points(3, 24, 4, tied=False)
    cameras = np.array(["north", "south", "west"])[np.arange(24) % 3]
    left_out = [{i for i in range(24) if labels[i] == labels[q] and cameras[i] == cameras[q]} for q in range(24)]
    expected = oracles.retrieval_figures(embeddings, labels, left_out=left_out, metric="cosine", ks=(1, 5), ties="number")
    found = retrieval(embeddings, labels, ks=(1, 5), also=ALL, cameras=cameras)
    assert found.figures() == pytest.approx(expected, abs=1e-12)
    # As distractors, the items of class 0 are found and never right, and are no queries.
    others = np.where(labels == 0, 1000 + np.arange(24), labels)
    expected = oracles.retrieval_figures(embeddings, others, metric="cosine", ks=(1, 5), ties="number")
    found = retrieval(embeddings, labels, ks=(1, 5), also=ALL, distractors=0)
    assert found.figures() == pytest.approx(expected, abs=1e-12)
    assert found.queries_without_answer == (labels == 0).sum()
    # As junk they are not even found.
    kept = labels != 0
    expected = retrieval(embeddings[kept], labels[kept], ks=(1, 5), also=ALL).figures()
    assert retrieval(embeddings, labels, ks=(1, 5), also=ALL, junk=0).figures() == pytest.approx(expected)


@pytest.mark.parametrize("ties", ["number", "expected", "pessimistic"])
@pytest.mark.parametrize("tied", [False, True])
def test_graded_relevance_in_its_three_forms(ties, tied) -> None:
    embeddings, labels = points(5, 8, 4, tied)
    categories = labels // 2
    matrix = 1.0 * (labels[:, None] == labels) + (categories[:, None] == categories)
    expected = oracles.retrieval_figures(
        embeddings, labels, metric="euclidean", ks=(1, 3, 7), ties=ties, gain=lambda q, i: matrix[q, i]
    )
    for relevance in (matrix, lambda q, i: matrix[q, i], [categories]):
        found = retrieval(
            embeddings, labels, metric="euclidean", ks=(1, 3, 7), also=["ndcg"], ties=ties, relevance=relevance, block=1
        )
        assert found.ndcg_at == pytest.approx({k: expected[f"ndcg_at_{k}"] for k in (1, 3, 7)}, abs=1e-12)
    pairs = retrieval(
        embeddings[:4], labels[:4], None, embeddings, labels, metric="euclidean", also=["ndcg"], ties=ties, ks=(3,),
        relevance=[(categories[:4], categories)],
    )  # fmt: skip
    given_matrix = retrieval(
        embeddings[:4], labels[:4], None, embeddings, labels, metric="euclidean", also=["ndcg"], ties=ties, ks=(3,),
        relevance=matrix[:4],
    )  # fmt: skip
    assert pairs.ndcg_at == given_matrix.ndcg_at


def test_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    queries, gallery = random.normal(size=(30, 5)), random.normal(size=(80, 5))
    labels, items = random.integers(0, 6, 30), random.integers(0, 6, 80)
    similarity = -((queries[:, None] - gallery) ** 2).sum(axis=2)
    gains = random.integers(0, 4, (30, 80)) + (labels[:, None] == items)
    found = retrieval(
        queries, labels, gallery=gallery, gallery_labels=items, metric="euclidean", ks=(5, 80), also=ALL, relevance=gains
    )
    right = labels[:, None] == items
    expected = [metrics.average_precision_score(one, row) for one, row in zip(right, similarity, strict=True)]
    np.testing.assert_allclose(found.per_query.values["map"], expected)
    assert found.ndcg_at[5] == pytest.approx(metrics.ndcg_score(gains, similarity, k=5))
    assert found.ndcg_at[80] == pytest.approx(metrics.ndcg_score(gains, similarity))
    # scikit-learn, too, counts ties at their mean.
    rough = gallery.round(), queries.round()
    ties = -((rough[1][:, None] - rough[0]) ** 2).sum(axis=2)
    found = retrieval(
        rough[1], labels, gallery=rough[0], gallery_labels=items, metric="euclidean", ks=(5, 80), also=["ndcg"],
        relevance=gains, ties="expected",
    )  # fmt: skip
    assert found.queries_with_ties > 20
    assert found.ndcg_at == pytest.approx({k: metrics.ndcg_score(gains, ties, k=k) for k in (5, 80)})


def test_the_order_of_rows_matters_only_where_ties_are_taken_by_number() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat(np.arange(6), 20)
    embeddings = random.integers(0, 3, (120, 2)).astype(float)
    order = random.permutation(120)

    def figures(ties, order=slice(None), also=ALL):
        return retrieval(embeddings[order], labels[order], metric="euclidean", also=also, ties=ties).figures()

    for ties in ("expected", "pessimistic"):
        assert figures(ties, order) == pytest.approx(figures(ties))
    assert figures("number", order) != pytest.approx(figures("number"))
    worst, mean = figures("pessimistic"), figures("expected")
    assert all(worst[name] <= mean[name] for name in mean)
    shuffled = [figures("number", random.permutation(120), ()) for _ in range(60)]
    for name in shuffled[0]:
        assert np.mean([one[name] for one in shuffled]) == pytest.approx(mean[name], abs=0.012)


def test_a_collapsed_embedding_is_at_chance_and_says_so() -> None:
    labels = np.repeat(np.arange(4), 200)
    found = retrieval(np.full((800, 3), 0.5), labels, also=("precision", "mrr"), ties="expected", ks=(1, 5))
    chance = 199 / 799
    assert found.recall_at[1] == found.precision_at[5] == pytest.approx(chance)
    assert found.r_precision == pytest.approx(chance)
    assert found.queries_with_ties == 800
    assert "800 queries have right and wrong answers at one distance, counted at their mean" in str(found)
    worst = retrieval(np.full((800, 3), 0.5), labels, also=["mrr"], ties="pessimistic", ks=(1, 5))
    assert worst.recall_at == {1: 0, 5: 0}
    assert worst.map_at_r == 0
    assert worst.mrr == pytest.approx(1 / 601)


def test_deep_right_answers_of_many_near_equal_items() -> None:
    # Distances that a float32 product cannot order: the whole ranking has to come from differences.
    random = np.random.default_rng(2)
    labels = np.arange(60) % 12
    embeddings = (1000 + 1e-3 * random.normal(size=(60, 4))).astype(np.float32)
    expected = oracles.retrieval_figures(embeddings, labels, metric="euclidean", ks=(1,), ties="number")
    found = retrieval(embeddings, labels, metric="euclidean", ks=(1,), also=ALL)
    assert found.figures() == pytest.approx(expected, abs=1e-12)


def test_breakdowns() -> None:
    embeddings, labels = points(7, 40, 5, tied=False)
    labels[-1] = 99
    found = retrieval(embeddings, labels, also=["mrr"])
    by = found.by(labels, "class")
    assert by.groups[-1] == 99
    assert by.queries[-1] == 0
    assert np.isnan(by.figures["mrr"][-1])
    for group, figures in by:
        mine = labels == group
        if group != 99:
            assert figures["mrr"] == pytest.approx(found.per_query.values["mrr"][mine].mean())
    assert by.figures["map_at_r"][:-1].tolist() == sorted(by.figures["map_at_r"][:-1])
    weights = by.queries[:-1] / by.queries[:-1].sum()
    assert weights @ by.figures["recall_at_5"][:-1] == pytest.approx(found.recall_at[5])
    assert by.as_dict()["99"] == {**dict.fromkeys(found.figures()), "queries": 0}
    with pytest.raises(ValueError, match="values: expected 40 labels"):
        found.by(labels[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"also": ["map", "auc"]}, "also='auc' is not known"),
        ({"ties": "random"}, "ties='random' is not known"),
        ({"relevance": np.ones((4, 4))}, "graded relevance is for nDCG only"),
        ({"relevance": np.ones((4, 3)), "also": "ndcg"}, "a matrix of 4 queries and 4 items, received shape"),
        ({"relevance": -np.ones((4, 4)), "also": "ndcg"}, "negative gain"),
        ({"relevance": np.full((4, 4), np.nan), "also": "ndcg"}, "NaN, infinity"),
        ({"relevance": np.zeros((4, 4)), "also": "ndcg"}, "for query 0 no item has a gain above 0"),
        ({"relevance": lambda q, i: 1.0, "also": "ndcg"}, r"it returned shape \(\)"),
        ({"relevance": [[1, 2]], "also": "ndcg"}, r"relevance\[0\]: expected 4 labels"),
        ({"cameras": [1, 2]}, "cameras: expected 4 labels"),
        ({"cameras": [1, 1, 1, 1]}, "none of the 4 queries has an answer"),
        ({"gallery_cameras": [1, 1, 1, 1]}, "belong to a gallery"),
        ({"gallery": np.eye(2), "gallery_labels": [0, 1], "cameras": [0, 0, 0, 0]}, "gallery_cameras=None"),
        ({"junk": "a"}, "junk='a': expected a label like the others"),
        ({"distractors": 0.5}, "distractors=0.5: expected a label"),
        ({"gallery": np.eye(2), "gallery_labels": [-1, -1], "junk": -1}, "all 2 items have this label"),
        ({"cameras": [0, 1, 0, 1], "ks": (3,)}, "a query can find only 2 items"),
    ],
)
def test_bad_input(arguments, message) -> None:
    good = {"embeddings": [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], "labels": [0, 0, 1, 1], "ks": (1,)}
    if "cameras" in arguments and "ks" in arguments:
        good |= {"labels": [0, 0, 0, 1]}
    with pytest.raises(ValueError, match=message):
        retrieval(**{**good, **arguments})


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("with_gallery", [False, True])
def test_against_pytorch_metric_learnings_accuracy_calculator(metric, with_gallery) -> None:
    values = json.loads(FILE.read_text())
    queries, labels, items, item_labels = case(metric, with_gallery)
    gallery = {"gallery": items, "gallery_labels": item_labels} if with_gallery else {}
    found = retrieval(queries, labels, metric=metric, ks=(1,), also=["map", "mrr"], **gallery)
    expected = values[f"{metric}, {'gallery' if with_gallery else 'leave-one-out'}"]
    assert found.figures() == pytest.approx(expected, abs=1e-6)
