"""The same gallery through every index: the same neighbours, up to each one's measured recall, by bundle and service."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from bundle_helpers import replace
from engine_helpers import CONDITIONS, brute_force, make_bundle, prefer_the_index, random_items, random_vectors
from tfdml_serving.engine.filters import parse_filter
from tfdml_serving.engine.held import HeldVersion
from tfdml_serving.errors import IndexUnavailable
from tfdml_serving.living import LivingCatalogue

from tfdml.bundle import Bundle, BundleError, verify
from tfdml.bundle.layout import index_file

pytest.importorskip("faiss")

ITEMS = 1100
KINDS = ["exact", "annoy", "flat", "hnsw", "ivf", "ivf_sq", "ivf_pq"]
if importlib.util.find_spec("pymilvus"):
    KINDS.append("milvus_hnsw")
EXACT = {"exact", "flat"}


@pytest.fixture(scope="module")
def items():
    return random_items(3, ITEMS)


@pytest.fixture(scope="module")
def bundles(items, tmp_path_factory):
    """A version directory for each kind of index; the metrics take turns."""
    home = tmp_path_factory.mktemp("backends")
    metrics = {kind: ("euclidean", "cosine")[number % 2] for number, kind in enumerate(KINDS)}
    return {
        kind: (make_bundle(home / kind / "1", items, metric, space="space", index=kind), metric)
        for kind, metric in metrics.items()
    }


@pytest.fixture(params=KINDS)
def bundle(request, bundles):
    return request.param, *bundles[request.param]


def recall_of(answers, items, queries, k, metric, condition=None) -> float:
    """Share of the true neighbours that were found; what was found has the distances of the definition, in order."""
    hits = 0
    for query, found in zip(queries, answers, strict=True):
        expected = brute_force(items, query, k, metric, condition)
        assert len(found) == len(expected) == len({hit.id for hit in found})
        true = {name: distance for distance, name in brute_force(items, query, len(items), metric, condition)}
        np.testing.assert_allclose([hit.distance for hit in found], [true[hit.id] for hit in found], rtol=1e-5, atol=1e-6)
        assert [hit.distance for hit in found] == sorted(hit.distance for hit in found)
        hits += sum(true[hit.id] <= expected[-1][0] * (1 + 1e-9) for hit in found) if expected else 0
    return hits / (k * len(queries))


def test_a_bundle_holds_it_and_is_verified(bundle):
    kind, path, metric = bundle
    report = verify(path)
    assert f"index: {kind}, {ITEMS} vectors" in report.checks[-1]
    with Bundle.open(path) as opened:
        assert (opened.index.kind, opened.index.metric) == (kind, metric)
        assert opened.manifest.index["recall"] >= 0.9
        assert ("faiss" in opened.manifest.libraries) == (kind not in ("exact", "annoy"))
        assert ("pymilvus" in opened.manifest.libraries) == kind.startswith("milvus")
        query = opened.index.vectors([5])[0]
        assert opened.search(query, k=1)[0][0].id == "item-5"


def test_its_damage_is_refused(bundle, tmp_path):
    _, path, _ = bundle
    with Bundle.open(path, verify=False) as opened:
        name = index_file(opened.manifest.index)
    good = (path / name).read_bytes()
    try:
        for damaged in (good[:-10], good[: len(good) // 2] + bytes([good[len(good) // 2] ^ 1]) + good[len(good) // 2 + 1 :]):
            replace(path / name, damaged)
            for read in (verify, Bundle.open):
                with pytest.raises(BundleError, match=f"is refused: {name}: "):
                    read(path)
        (path / name).unlink()
        with pytest.raises(BundleError, match=f"{name}: missing"):
            verify(path)
    finally:
        (path / name).write_bytes(good)


@pytest.mark.parametrize("by_index", [False, True], ids=["cheapest", "by the index"])
def test_the_same_neighbours_up_to_the_measured_recall(bundle, items, monkeypatch, by_index):
    kind, path, metric = bundle
    if by_index:
        if kind in EXACT:
            pytest.skip("it has no other way than comparing")
        prefer_the_index(monkeypatch)
    queries = random_vectors(np.random.default_rng(0), 30)
    with HeldVersion.open(path) as held:
        if by_index:
            monkeypatch.setattr(held._base, "_exactly", lambda *_: pytest.fail("compared one by one"))
        expected = 1.0 if kind in EXACT else held.manifest.index["recall"] - 0.05
        assert recall_of(held.search(queries, 10), items, queries, 10, metric) >= expected
        text = "not kind = milk"
        where = parse_filter(text, held.fields)
        answers = held.search(queries, 10, where)
        assert recall_of(answers, items, queries, 10, metric, CONDITIONS[text]) >= (0.85 if by_index else 1.0)
    with Bundle.open(path, verify=False) as opened:
        found = recall_of(opened.search(queries, 10), items, queries, 10, metric)
        assert found >= (1.0 if kind in EXACT else opened.manifest.index["recall"] - 0.05)


def test_what_changes_meanwhile_is_in_the_answers(bundle, items, tmp_path, monkeypatch):
    kind, path, metric = bundle
    prefer_the_index(monkeypatch)
    changed = dict(items)
    queries = random_vectors(np.random.default_rng(4), 5)
    with LivingCatalogue.open(tmp_path / "living.sqlite") as living, HeldVersion.open(path, living) as held:
        nearest = {hit.id for hits in held.search(queries, 5) for hit in hits}
        for name in nearest:
            living.remove(name)
            del changed[name]
        fields = {"kind": "tea", "stock": 1, "price": 2.0}
        for number, query in enumerate(queries):
            living.put(f"new-{number}", fields, space="space", embedding=query)
            changed[f"new-{number}"] = fields, query
        answers = held.search(queries, 10)
        assert [hits[0].id for hits in answers] == [f"new-{number}" for number in range(5)]
        assert recall_of(answers, changed, queries, 10, metric) >= (1.0 if kind in EXACT else 0.85)
        assert not nearest & {hit.id for hits in answers for hit in hits}


def test_without_faiss_the_bundle_is_refused_and_the_extra_named(bundles, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(BundleError, match=r"is refused: .*pip install 'tfdml\[faiss\]'"):
        Bundle.open(bundles["hnsw"][0])
    Bundle.open(bundles["annoy"][0]).close()


def test_an_index_is_asked_only_where_that_is_cheaper(bundle):
    """At 1,100 items it costs more to ask an index than to compare; Milvus Lite and exact indexes are never cheaper."""
    kind, path, _ = bundle
    with HeldVersion.open(path) as held:
        base = held._base
        assert (base._affordable(None) > 0) == (kind == "annoy")
        base._index = type("Large", (), {"kind": kind, "spec": held._base._index.spec, "__len__": lambda _: 10**7})()
        assert (base._affordable(None) > 10**4) == (kind not in EXACT and not kind.startswith("milvus"))


def test_a_cluster_that_does_not_answer_is_told_as_503(bundles, monkeypatch):
    path, _ = bundles["hnsw"]
    prefer_the_index(monkeypatch)
    with HeldVersion.open(path) as held:
        monkeypatch.setattr(held._base._index, "candidates", lambda *_: (_ for _ in ()).throw(ConnectionError("secret")))
        with pytest.raises(IndexUnavailable, match="does not answer") as caught:
            held.search(random_vectors(np.random.default_rng(0), 1), 5)
    document = caught.value.problem("1")
    assert (document["status"], caught.value.retry_after) == (503, 2.0)
    assert "secret" not in str(document)


def test_trees_are_annoys_alone(items, tmp_path):
    with pytest.raises(BundleError, match=r"trees=9: only an index by Annoy has trees"):
        make_bundle(tmp_path / "1", items, index="hnsw", trees=9)
