"""Searching inside the graph, against brute force in float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfdml.bundle import BundleError, graph_search
from tfdml.bundle.graph_search import NO_DISTANCE, GallerySearch
from tfdml.bundle.search_plan import Sample, plan_search
from tfdml.index import ExactIndex

pytestmark = pytest.mark.one_stack

METRICS = ("cosine", "euclidean")
METHODS = ("exact", "ivf")
CASES = [("exact", "cosine"), ("exact", "euclidean"), ("ivf", "cosine")]


def clustered(count: int, dimension: int = 12, centres: int = 20, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    around = rng.normal(size=(centres, dimension))
    return (around[rng.integers(0, centres, count)] + 0.4 * rng.normal(size=(count, dimension))).astype(np.float32)


def names(count: int) -> list[str]:
    return [f"item/{number}é" for number in range(count)]


def built(vectors, metric="euclidean", method="exact", max_k=50, fields=None, probes=None, **options) -> GallerySearch:
    plan = plan_search(vectors, metric, method, max_k=max_k, **options)
    if probes is not None:
        plan = dataclasses.replace(plan, probes=(min(probes, len(plan.lists)),) * 2)
    return GallerySearch(plan, names(len(vectors)), fields or {})


def asked(gallery: GallerySearch, queries, k, valid=None) -> dict[str, np.ndarray]:
    queries = np.asarray(queries, np.float32)
    valid = np.ones(len(queries), bool) if valid is None else np.asarray(valid)
    k = np.broadcast_to(np.asarray(k, np.int32), len(queries))
    found = gallery.search(tf.constant(queries), tf.constant(valid), tf.constant(k))
    return {name: value.numpy() for name, value in found.items()}


def brute_force(vectors, queries, metric, k) -> tuple[list[list[str]], np.ndarray]:
    """Ids and distances of the k nearest, from plain float64 differences; equal distances by item number."""
    index = ExactIndex(vectors, names(len(vectors)), metric)
    rows = index.vectors().astype(np.float64)
    result, distances = [], np.empty([len(queries), k])
    for q, query in enumerate(np.asarray(queries, np.float32)):
        if metric == "cosine":
            query = (query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))).astype(np.float32)
        each = []
        for number, row in enumerate(rows):
            square = float(((row - query.astype(np.float64)) ** 2).sum())
            each.append((square / 2 if metric == "cosine" else square**0.5, number))
        each = sorted(each)[:k]
        result.append([f"item/{number}é" for _, number in each])
        distances[q] = [distance for distance, _ in each]
    return result, distances


def texts(ids) -> list[list[str]]:
    return [[value.decode() for value in row] for row in ids]


@pytest.mark.parametrize("metric", METRICS)
def test_exact_search_is_brute_force(metric):
    vectors, queries = clustered(300), clustered(9, seed=1)
    found = asked(built(vectors, metric), queries, 7)
    ids, distances = brute_force(vectors, queries, metric, 7)
    assert texts(found["ids"]) == ids
    np.testing.assert_allclose(found["distances"], distances, rtol=1e-6)
    assert found["distances"].dtype == np.float32
    assert found["count"].tolist() == [7] * 9
    assert found["valid"].all()


@pytest.mark.parametrize("metric", METRICS)
def test_lists_that_are_all_looked_into_are_brute_force(metric):
    vectors, queries = clustered(300), clustered(9, seed=1)
    found = asked(built(vectors, metric, "ivf", recall=1.0, probes=1000), queries, [1, 2, 3, 4, 5, 6, 7, 40, 50])
    ids, distances = brute_force(vectors, queries, metric, 50)
    for row, k in enumerate([1, 2, 3, 4, 5, 6, 7, 40, 50]):
        assert texts(found["ids"])[row][:k] == ids[row][:k]
        np.testing.assert_allclose(found["distances"][row, :k], distances[row, :k], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_rows_are_never_copied(method):
    """`ResourceGather` makes every later reading of its variable a copy: of the whole gallery, for each query."""
    gallery = built(clustered(300), method=method, recall=1.0)
    graph = gallery._function.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    gathered_from = [node.attr["dtype"].type for node in nodes if node.op == "ResourceGather"]
    assert tf.string.as_datatype_enum in gathered_from, "ids are gathered so"
    assert tf.float32.as_datatype_enum not in gathered_from


@pytest.mark.parametrize("metric", METRICS[:1])
def test_lists_find_the_share_that_was_asked_for(metric):
    vectors, queries = clustered(4000, 16, centres=1), clustered(200, 16, centres=1, seed=0)
    plan = plan_search(vectors, metric, "ivf", recall=0.9, max_k=40)
    assert plan.lists is not None
    assert 1 <= plan.probes[0] <= plan.probes[1] < len(plan.lists)
    gallery = GallerySearch(plan, names(4000), {})
    index = ExactIndex(vectors, names(4000), metric)
    for k in (10, 40):
        found, truth = texts(asked(gallery, queries, k)["ids"]), index.search(queries, k)
        recall = np.mean([len(set(a) & set(b)) / k for a, b in zip(found, truth.ids.tolist(), strict=True)])
        assert recall > 0.85, (k, recall)
    fewer = dataclasses.replace(plan, probes=(1, 1))
    found = texts(asked(GallerySearch(fewer, names(4000), {}), queries, 10)["ids"])
    truth = index.search(queries, 10).ids.tolist()
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)]) < 0.9, "too easy to tell"


@pytest.mark.parametrize(("method", "metric"), CASES)
def test_near_duplicates_come_in_the_order_of_the_index_and_at_its_distances(metric, method):
    """Unit vectors 1e-4 apart: nearly all answers of a float32 product are 0. More of them than are looked at beyond k."""
    rng = np.random.default_rng(2)
    vectors = clustered(200, 64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[40:160] = vectors[40] + 1e-5 * rng.normal(size=(120, 64)).astype(np.float32)
    queries = vectors[[40, 77, 159, 3]]
    found = asked(built(vectors, metric, method, recall=1.0), queries, 9)
    expected = ExactIndex(vectors, names(200), metric).search(queries, 9)
    assert texts(found["ids"]) == expected.ids.tolist()
    np.testing.assert_allclose(found["distances"], expected.distances, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize(("method", "metric"), CASES)
@pytest.mark.parametrize("copies", [4, 290])
def test_copies_are_ordered_by_their_numbers(metric, method, copies):
    vectors = clustered(300)
    places = np.random.default_rng(3).permutation(300)[:copies]
    vectors[places] = vectors[places[0]]
    query = vectors[places[:1]] + 0.1
    k = min(copies, 30)
    found = asked(built(vectors, metric, method, recall=1.0), query, k)
    assert texts(found["ids"]) == ExactIndex(vectors, names(300), metric).search(query, k).ids.tolist()
    if copies > 30:
        assert texts(found["ids"])[0] == [f"item/{number}é" for number in sorted(places)[:30]]


@pytest.mark.parametrize("method", METHODS)
def test_many_candidates_are_taken_in_blocks(monkeypatch, method):
    monkeypatch.setattr(graph_search, "_VALUES_IN_FLIGHT", 30 * 12)
    vectors = np.tile(clustered(1), (130, 1))
    vectors[128:] += 1
    found = asked(built(vectors, "euclidean", method, recall=1.0), vectors[[5, 129]], 20)
    expected = ExactIndex(vectors, names(130), "euclidean").search(vectors[[5, 129]], 20)
    assert texts(found["ids"]) == expected.ids.tolist()


def test_exact_search_takes_the_queries_in_blocks(monkeypatch):
    monkeypatch.setattr(graph_search, "_SCORES_IN_FLIGHT", 3 * 50)
    vectors, queries = clustered(50), clustered(7, seed=1)
    gallery, expected = built(vectors), brute_force(vectors, queries, "euclidean", 5)[0]
    for rows in (0, 1, 2, 3, 4, 7):
        found = asked(gallery, queries[:rows], 5)
        assert found["ids"].shape == (rows, 5 if rows else 1)
        assert texts(found["ids"]) == expected[:rows]


@pytest.mark.parametrize("method", METHODS)
def test_each_row_has_its_own_k_and_the_rest_is_padding(method):
    vectors, queries = clustered(30), clustered(6, seed=1)
    fields = {"title": np.array([f"T{i}" for i in range(30)], object), "stock": np.arange(30), "price": np.arange(30) / 4 + 1}
    gallery = built(vectors, method=method, max_k=8, fields=fields, recall=1.0)
    k = [3, 0, 8, 1000, -5, 1]
    found = asked(gallery, queries, k)
    assert found["count"].tolist() == [3, 0, 8, 8, 0, 1]
    assert found["count"].dtype == np.int32
    ids = texts(found["ids"])
    expected, distances = brute_force(vectors, queries, "euclidean", 8)
    for row, count in enumerate(found["count"]):
        assert ids[row] == expected[row][:count] + [""] * (8 - count)
        numbers = [int(name[5:-1]) for name in ids[row][:count]]
        np.testing.assert_allclose(found["distances"][row, :count], distances[row, :count], rtol=1e-6)
        assert (found["distances"][row, count:] == NO_DISTANCE).all()
        assert texts(found["title"])[row] == [f"T{number}" for number in numbers] + [""] * (8 - count)
        assert found["stock"][row].tolist() == numbers + [0] * (8 - count)
        assert found["price"][row].tolist() == [number / 4 + 1 for number in numbers] + [0.0] * (8 - count)
    assert np.isfinite(found["distances"]).all(), "JSON has no infinity"
    assert asked(gallery, queries, 0)["ids"].shape == (6, 1)


@pytest.mark.parametrize(("method", "metric"), CASES)
def test_neighbours_in_a_batch_change_nothing_but_the_padding(metric, method):
    vectors, queries = clustered(400), clustered(5, seed=1)
    gallery = built(vectors, metric, method, max_k=100, recall=0.8)
    k = np.array([5, 20, 100, 12, 1])
    together = asked(gallery, np.concatenate([queries, np.full([1, 12], np.nan)]), [*k, 7])
    for row in range(5):
        alone = asked(gallery, queries[row : row + 1], k[row])
        assert alone["ids"].shape == (1, k[row])
        assert texts(alone["ids"])[0] == texts(together["ids"])[row][: k[row]]
        np.testing.assert_allclose(alone["distances"][0], together["distances"][row, : k[row]], rtol=1e-6)
    assert together["valid"].tolist() == [True] * 5 + [False]


@pytest.mark.parametrize(("method", "metric"), CASES)
def test_rows_that_cannot_be_searched_for_are_told(metric, method):
    vectors = clustered(40)
    queries = clustered(6, seed=1)
    queries[1, 3], queries[2, 0], queries[4] = np.nan, np.inf, 0
    found = asked(built(vectors, metric, method, recall=1.0), queries, 3, valid=[True, True, True, True, True, False])
    expected = [True, False, False, True, metric == "euclidean", False]
    assert found["valid"].tolist() == expected
    assert found["count"].tolist() == [3 * valid for valid in expected]
    assert [set(row) == {""} for row in texts(found["ids"])] == [not valid for valid in expected]


@pytest.mark.parametrize(("method", "metric"), CASES)
@pytest.mark.parametrize("items", [1, 5])
def test_galleries_smaller_than_k(metric, method, items):
    vectors, queries = clustered(items), clustered(3, seed=1)
    found = asked(built(vectors, metric, method, recall=1.0, max_k=9), queries, [9, 1, 4])
    assert found["count"].tolist() == [items, 1, min(items, 4)]
    ids, _ = brute_force(vectors, queries, metric, items)
    assert texts(found["ids"])[0][:items] == ids[0]
    assert found["ids"].shape == (3, 9)


def test_lists_that_hold_too_few_are_not_the_end():
    vectors = clustered(60)
    gallery = built(vectors, method="ivf", max_k=60, probes=1)
    found = asked(gallery, clustered(8, seed=1), [60, 59, 30, 5, 2, 1, 60, 60])
    assert found["count"].tolist() == [60, 59, 30, 5, 2, 1, 60, 60]
    for row, count in zip(texts(found["ids"]), found["count"], strict=True):
        assert len(set(row[:count])) == count
    full = brute_force(vectors, clustered(8, seed=1)[:1], "euclidean", 60)[0]
    assert texts(found["ids"])[0] == full[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-12, 1e18])
def test_vectors_of_every_length(method, scale):
    vectors, queries = clustered(80) * np.float32(scale), clustered(4, seed=1) * np.float32(scale)
    found = asked(built(vectors, method=method, recall=1.0), queries, 6)
    expected = ExactIndex(vectors, names(80), "euclidean").search(queries, 6)
    assert texts(found["ids"]) == expected.ids.tolist()
    np.testing.assert_allclose(found["distances"], expected.distances, rtol=1e-6)


def test_queries_far_outside_the_gallery():
    vectors = clustered(80)
    queries = clustered(2, seed=1) * np.float32(1e37)
    found = asked(built(vectors), queries, 4)
    assert texts(found["ids"]) == ExactIndex(vectors, names(80), "euclidean").search(queries, 4).ids.tolist()
    assert np.isfinite(found["distances"]).all()


def test_one_k_for_each_query():
    gallery = built(clustered(20))
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many numbers as there are queries"):
        gallery.search(tf.zeros([3, 12]), tf.fill([3], True), tf.constant([5, 5]))


def test_auto_takes_lists_above_the_limit(monkeypatch):
    from tfdml.bundle import search_plan

    vectors = clustered(2000, 8, 400)
    for limit, method in ((1999, "ivf"), (2000, "exact")):
        monkeypatch.setattr(search_plan, "LARGEST_EXACT", limit)
        assert plan_search(vectors, "euclidean", max_k=20).method == method


def test_auto_takes_exact_search_where_lists_save_little(monkeypatch):
    from tfdml.bundle import search_plan

    monkeypatch.setattr(search_plan, "LARGEST_EXACT", 100)
    noise = np.random.default_rng(0).normal(size=(600, 64)).astype(np.float32)
    assert plan_search(noise, "euclidean", "auto", recall=0.99).method == "exact"
    assert plan_search(noise, "euclidean", "ivf", recall=0.99).method == "ivf"


def test_a_recall_that_the_graph_does_not_reach_is_refused():
    plan = plan_search(clustered(500), "euclidean", "ivf", recall=0.9)

    def finds_nothing(rows, k):
        return [[0] * k for _ in rows], np.full([len(rows), k], 1e9, np.float32)

    with pytest.raises(BundleError, match=r"search='ivf': recall=0\.9 is not reached: the graph finds 0\.0000 of the 10 true"):
        plan.measured(finds_nothing, ())


@pytest.mark.parametrize("metric", METRICS)
def test_the_recall_counts_as_a_person_would(metric):
    vectors = clustered(40)
    index = ExactIndex(vectors, names(40), metric)
    plan = plan_search(vectors, metric, "exact", max_k=6)
    sample = plan.sample
    assert (sample.at, sample.most, sample.own) == (5, 5, False)

    def exact(rows, k):
        found = index.search(rows, k)
        return found.numbers.tolist(), found.distances

    assert sample.recall(exact, 5) == 1.0

    def without_the_last(rows, k):
        found, distances = exact(rows, k + 1)
        return [row[: k - 1] + row[k:] for row in found], np.delete(distances, k - 1, axis=1)

    assert sample.recall(without_the_last, 5) == pytest.approx(0.8)
    assert Sample.recall(plan_search(vectors[:1], metric, "exact").sample, exact, 1) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "annoy"}, "search='annoy' is not known. Known: 'auto', 'exact', 'ivf'"),
        ({"max_k": 0}, "max_k=0"),
        ({"max_k": 2.5}, r"max_k=2\.5: expected a whole number"),
        ({"max_k": 10**6}, "max_k=1000000"),
        ({"recall": 1.5}, r"recall=1\.5"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        plan_search(clustered(5), "euclidean", **options)


def test_branches_that_one_query_seldom_takes_are_functions_of_their_own():
    """Within the graph of one query every operation of them would cost time, though it does not run."""
    gallery = built(clustered(300), method="ivf")
    library = gallery._function.graph.as_graph_def().library.function
    apart = [function for function in library if function.attr["_noinline"].b]
    inside = {node.op for function in apart for node in function.node_def}
    assert inside & {"While", "StatelessWhile"}, "the loop over queries"
    assert sum(len(function.node_def) for function in apart) > 50
