"""Recall@k, R-Precision and MAP@R: against plain loops, against others' code, and by what must not change them."""

from __future__ import annotations

import tracemalloc

import evaluation_oracles as oracles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.evaluation import retrieval, retrieval_by_distances


def clusters(count=120, dimension=8, classes=12, spread=0.8, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    return (random.normal(size=(classes, dimension))[labels] + spread * random.normal(size=(count, dimension))), labels


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(6, 60),
    classes=st.integers(2, 20),
    metric=st.sampled_from(["cosine", "euclidean"]),
    copies=st.booleans(),
    block=st.sampled_from([1, 3000, 1 << 25]),
)
def test_leave_one_out_agrees_with_plain_loops(seed, count, classes, metric, copies, block) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    labels[:3] = [0, 0, 1]  # at least one answer, and two classes
    # Small whole numbers make many exact ties; under cosine they would be ties but for the last bit, in either computation.
    embeddings = random.integers(-2, 3, (count, 4)) + (0 if metric == "euclidean" else random.normal(size=(count, 4)))
    if copies:
        embeddings = embeddings[random.integers(0, count, count)]
    embeddings = embeddings.astype(np.float32)
    expected, orders = oracles.retrieval(embeddings, labels, metric=metric, ks=(1, 2, 5))
    found = retrieval(embeddings, labels, metric=metric, ks=(1, 2, 5), block=block)
    assert found.as_dict() == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(found.per_query.nearest, [order[:5] for order in orders])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_query_and_gallery_agree_with_plain_loops(metric) -> None:
    queries, labels = clusters(40, seed=1)
    gallery, gallery_labels = clusters(90, classes=9, seed=1)
    ids = [f"image-{number}" for number in range(40)]
    gallery_ids = [f"image-{number}" for number in range(30, 120)]  # the last ten queries are items, too
    exclude = [number - 30 if number >= 30 else -1 for number in range(40)]
    expected, orders = oracles.retrieval(queries, labels, gallery, gallery_labels, exclude, metric=metric)
    found = retrieval(queries, labels, ids, gallery, gallery_labels, gallery_ids, metric=metric)
    assert found.as_dict() == pytest.approx(expected, abs=1e-12)
    assert 0 < found.queries_without_answer < 40
    np.testing.assert_array_equal(found.per_query.nearest, [order[:10] for order in orders])
    expected_distance = oracles.distance(queries[7], gallery[orders[7][3]], metric)
    assert found.per_query.distances[7, 3] == pytest.approx(expected_distance, rel=1e-5)


def test_a_worked_example_of_map_at_r() -> None:
    # R = 3, right, wrong, right: MAP@R = (1 + 2/3) / 3.
    embeddings = [[0.0], [1.0], [2.1], [3.3], [99.0]]
    found = retrieval(embeddings, [0, 0, 1, 0, 0], metric="euclidean", ks=(1,))
    assert found.per_query.map_at_r[0] == pytest.approx((1 + 2 / 3) / 3)
    assert found.per_query.r_precision[0] == pytest.approx(2 / 3)
    assert found.per_query.answers.tolist() == [3, 3, 0, 3, 3]


def test_against_scikit_learn() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    embeddings, labels = clusters(300)
    found = retrieval(embeddings, labels, ks=(1, 4))
    order = (
        neighbors.NearestNeighbors(n_neighbors=5, metric="cosine", algorithm="brute")
        .fit(embeddings)
        .kneighbors(return_distance=False)
    )
    np.testing.assert_array_equal(found.per_query.nearest, order[:, :4])
    assert found.recall_at[1] == pytest.approx((labels[order[:, 0]] == labels).mean())
    assert found.recall_at[4] == pytest.approx((labels[order[:, :4]] == labels[:, None]).any(axis=1).mean())


def test_against_tensorflow_similarity() -> None:
    pytest.importorskip("tensorflow_addons", reason="TF Similarity's metrics run on the TF 2.15 stack only")
    import tensorflow as tf
    from tensorflow_similarity.retrieval_metrics import MapAtK, RecallAtK

    embeddings, labels = clusters(200)
    counts = np.bincount(labels) - 1
    depth = int(counts.max())
    found = retrieval(embeddings, labels, ks=(1, 5, depth))
    matches = found.per_query.correct
    arguments = {"query_labels": tf.constant(labels, tf.int64), "match_mask": tf.constant(matches)}
    assert found.recall_at[5] == pytest.approx(float(RecallAtK(k=5).compute(**arguments)), abs=1e-6)
    map_at_r = MapAtK(r=dict(enumerate(counts.tolist())), clip_at_r=True, k=depth)
    assert found.map_at_r == pytest.approx(float(map_at_r.compute(**arguments)), abs=1e-6)


def test_separated_classes_are_perfect() -> None:
    labels = np.arange(60) // 5
    found = retrieval(np.eye(12)[labels] + 1e-3 * np.random.default_rng(0).normal(size=(60, 12)), labels)
    assert found.figures() == {"recall_at_1": 1, "recall_at_5": 1, "recall_at_10": 1, "r_precision": 1, "map_at_r": 1}


def test_random_embeddings_are_at_chance() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(2000) % 20
    found = retrieval(random.normal(size=(2000, 16)), labels, ks=(1,))
    assert found.recall_at[1] == pytest.approx(99 / 1999, abs=0.015)
    assert found.r_precision == pytest.approx(99 / 1999, abs=0.005)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), metric=st.sampled_from(["cosine", "euclidean"]))
def test_row_order_rotation_and_scale_change_nothing(seed, metric) -> None:
    random = np.random.default_rng(seed)
    embeddings, labels = clusters(80, seed=seed)
    figures = retrieval(embeddings, labels, metric=metric).figures()
    order = random.permutation(80)
    assert retrieval(embeddings[order], labels[order], metric=metric).figures() == pytest.approx(figures)
    rotation = np.linalg.qr(random.normal(size=(8, 8)))[0]
    assert retrieval(embeddings @ rotation * 7.5, labels, metric=metric).figures() == pytest.approx(figures)
    assert retrieval(embeddings, 1000 - labels, metric=metric).figures() == pytest.approx(figures)


def test_exact_duplicates_of_a_query_are_found() -> None:
    # Excluded by distance zero instead of by number, the copies would be missed.
    embeddings = np.repeat(np.random.default_rng(0).normal(size=(10, 4)), 2, axis=0)
    found = retrieval(embeddings, np.arange(20) // 2, ks=(1,))
    assert found.recall_at[1] == found.map_at_r == 1
    assert found.per_query.nearest[:4, 0].tolist() == [1, 0, 3, 2]
    assert found.per_query.distances.max() == 0


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_collapsed_embedding_is_ordered_by_number(metric) -> None:
    labels = np.arange(1500) % 3
    found = retrieval(np.full((1500, 4), 0.3), labels, metric=metric, ks=(1, 2))
    expected, _ = oracles.retrieval(np.full((90, 4), 0.3), labels[:90], metric=metric, ks=(1, 2))
    small = retrieval(np.full((90, 4), 0.3), labels[:90], metric=metric, ks=(1, 2))
    assert small.as_dict() == pytest.approx(expected)
    assert found.per_query.nearest[:3].tolist() == [[1, 2], [0, 2], [0, 1]]
    assert found.r_precision == pytest.approx(1 / 3, abs=0.01)


def test_nearly_equal_embeddings_are_told_apart() -> None:
    # An untrained network: all cosines above 0.99999999, which a float32 product rounds to 1.
    embeddings, labels = clusters(150, 16)
    close = np.ones(16) + 1e-5 * embeddings
    expected, _ = oracles.retrieval(close.astype(np.float32), labels, metric="euclidean")
    assert retrieval(close, labels, metric="euclidean").as_dict() == pytest.approx(expected, abs=1e-12)
    assert retrieval(close, labels).map_at_r > 1.5 * retrieval(np.ones((150, 16)), labels).map_at_r


def test_queries_without_an_answer_are_counted_and_left_out() -> None:
    embeddings, labels = clusters(50, classes=5)
    alone = np.concatenate([embeddings, 10 * np.eye(8)[:3]])
    found = retrieval(alone, [*labels, 90, 91, 92])
    assert (found.queries, found.queries_without_answer, found.gallery) == (53, 3, 53)
    assert np.isnan(found.per_query.map_at_r[-3:]).all()
    assert found.map_at_r == pytest.approx(np.nanmean(found.per_query.map_at_r))
    assert "53 queries, of which 3 have no answer" in str(found)
    assert found.per_query.best(100).size == found.per_query.worst(100).size == 50


def test_one_large_class_among_small_ones() -> None:
    random = np.random.default_rng(0)
    labels = np.concatenate([np.zeros(150, int), 1 + np.arange(60) // 3])
    embeddings = random.normal(size=(21, 6))[labels] + 0.7 * random.normal(size=(210, 6))
    expected, _ = oracles.retrieval(embeddings.astype(np.float32), labels, metric="euclidean")
    assert retrieval(embeddings, labels, metric="euclidean").as_dict() == pytest.approx(expected, abs=1e-12)


def test_memory_is_bounded_by_the_block_not_by_queries_times_gallery() -> None:
    embeddings, labels = clusters(4000, classes=400)
    embeddings = embeddings.astype(np.float32)
    tracemalloc.start()
    retrieval(embeddings, labels, block=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The matrix of all distances would take 64 MB.
    assert peak < 30e6


def test_per_query_figures_and_the_best_and_worst() -> None:
    embeddings, labels = clusters(60, classes=4, spread=1.2)
    found = retrieval(embeddings, labels)
    each = found.per_query
    assert found.recall_at[5] == pytest.approx(each.hit_at(5).mean())
    np.testing.assert_array_equal(each.correct, labels[each.nearest] == labels[:, None])
    values = each.map_at_r
    assert values[each.best(60)].tolist() == sorted(values, reverse=True)
    assert values[each.worst(7)].tolist() == sorted(values)[:7]
    for k in (0, 11):
        with pytest.raises(ValueError, match=f"k={k}: expected 1 to 10"):
            each.hit_at(k)


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.int32, str, "object", "column"])
def test_kinds_of_labels(kind) -> None:
    embeddings, labels = clusters(60, classes=4)
    expected = retrieval(embeddings, labels).figures()
    if kind == "object":
        converted = np.array([f"class {label}" for label in labels], dtype=object)
    elif kind == "column":
        converted = labels[:, None]
    else:
        converted = labels.astype(kind)
    assert retrieval(embeddings, converted).figures() == expected


def test_large_labels_stay_different() -> None:
    embeddings = [[0.0], [1.0], [2.5], [3.0]]
    big = 2**53
    labels = np.array([big, big + 1, big, big + 1])
    found = retrieval(embeddings, labels, None, embeddings, labels.astype(np.uint64), metric="euclidean", ks=(1,))
    assert found.per_query.answers.tolist() == [2, 2, 2, 2]


def test_one_k_alone_and_ks_that_can_be_read_once() -> None:
    embeddings, labels = clusters()
    expected = retrieval(embeddings, labels, ks=(2,)).as_dict()
    assert retrieval(embeddings, labels, ks=2).as_dict() == retrieval(embeddings, labels, ks=iter([2])).as_dict() == expected
    squared = ((embeddings[:, None] - embeddings[None]) ** 2).sum(axis=2)
    assert list(retrieval_by_distances(squared, labels, ks=2).recall_at) == [2]


def test_as_dict_is_plain_and_takes_a_prefix() -> None:
    embeddings, labels = clusters()
    record = retrieval(embeddings, labels, ks=(np.int64(1),)).as_dict("val_")
    assert list(record) == ["val_recall_at_1", "val_r_precision", "val_map_at_r", "val_queries", "val_queries_without_answer"]
    assert {type(value) for value in record.values()} == {float, int}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": np.full((4, 2), np.nan)}, "embeddings: NaN or infinity .* rows 0, 1, 2, 3"),
        ({"embeddings": [[1.0, 0], [np.inf, 0], [0, 1], [1, 1]]}, "row 1 of 4"),
        ({"embeddings": [[1.0, 0], [0, 0], [0, 1], [1, 1]]}, "embeddings: zero vector in row 1"),
        ({"embeddings": np.ones(4)}, "2-D array"),
        ({"embeddings": np.ones((0, 2)), "labels": []}, "empty"),
        ({"labels": [0, 1, 1]}, "labels: expected 4 labels"),
        ({"labels": [0.0, 0.0, 1.0, 1.0]}, "labels: expected integers or strings, received dtype float64"),
        ({"labels": [None, "a", "b", "b"]}, "labels: expected integers or strings, received dtype object"),
        ({"labels": [3, 3, 3, 3]}, "all 4 items are of one class"),
        ({"labels": [0, 1, 2, 3]}, "none of the 4 queries has an answer"),
        ({"metric": "dot"}, "metric='dot' is not known"),
        ({"ks": (1, 4)}, "a query can find only 3 items"),
        ({"ks": ()}, "expected whole numbers >= 1"),
        ({"ks": (0,)}, "expected whole numbers >= 1"),
        ({"ks": (1.5,)}, "expected whole numbers >= 1"),
        ({"ids": ["a", "b", "c", "a"]}, "'a' is the id of item 0"),
        ({"ids": [1, 2, 3, 4]}, "expected strings"),
        ({"gallery_labels": [1]}, "belong to a gallery"),
        ({"gallery": np.ones((2, 2))}, "gallery_labels=None"),
        ({"gallery": np.ones((2, 3)), "gallery_labels": [0, 1]}, "dimension 3, but embeddings have 2"),
        ({"gallery": np.zeros((0, 2)), "gallery_labels": []}, "gallery: .* empty"),
        ({"gallery": np.ones((2, 2)), "gallery_labels": ["0", "1"]}, "none could be equal"),
        ({"gallery": np.ones((2, 2)), "gallery_labels": [7, 8]}, "none of the 4 queries has an answer"),
        ({"gallery": np.ones((2, 2)), "gallery_labels": [0, 1], "gallery_ids": ["a", "a"]}, "gallery_ids: 'a' is the id"),
        ({"gallery": np.ones((2, 2)), "gallery_labels": [0, 1, 1]}, "gallery_labels: expected 2 labels"),
    ],
)
def test_bad_input(arguments, message) -> None:
    good = {"embeddings": [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], "labels": [0, 0, 1, 1], "ks": (1,)}
    assert retrieval(**good).recall_at == {1: 1.0}
    with pytest.raises(ValueError, match=message):
        retrieval(**{**good, **arguments})


def test_queries_of_one_class_against_a_gallery_of_several() -> None:
    found = retrieval([[1.0, 0.1]], ["cup"], None, np.eye(2), ["cup", "lamp"], ks=(1,))
    assert found.recall_at == {1: 1.0}
    with pytest.raises(ValueError, match="one class"):
        retrieval([[1.0, 0.1]], ["cup"], None, np.eye(2), ["cup", "cup"], ks=(1,))
