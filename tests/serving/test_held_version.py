"""A held version: the bundle and the living catalogue as one gallery, against the definition by brute force."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from engine_helpers import (
    CONDITIONS,
    FIELDS,
    brute_force,
    make_bundle,
    prefer_the_index,
    random_fields,
    random_items,
    random_vectors,
)
from tfdml_serving.engine.filters import parse_filter
from tfdml_serving.engine.held import HeldVersion
from tfdml_serving.engine.listing import ORDERS
from tfdml_serving.errors import BadRequest, UnknownItem
from tfdml_serving.living import LivingCatalogue
from tfdml_serving.living.delta import Delta, Row

from tfdml.bundle import BundleError, FoldedRecord, Threshold

ITEMS = 260


@pytest.fixture(scope="module", params=["euclidean", "cosine"])
def bundle(request, tmp_path_factory):
    """(version directory, its items, metric)."""
    items = random_items(3, ITEMS)
    path = tmp_path_factory.mktemp("held") / "products" / "4"
    pictures = [f"picture {name}".encode() for name in items]
    return make_bundle(path, items, request.param, thumbnails=pictures, space="space"), items, request.param


@pytest.fixture
def living(tmp_path):
    with LivingCatalogue.open(tmp_path / "living.sqlite") as opened:
        yield opened


def check_all(held, items, metric, rng, exact=True):
    """Searches of every kind against brute force."""
    assert held.items == len(items)
    for text, condition in [(None, None), *CONDITIONS.items()]:
        where = None if text is None else parse_filter(text, held.fields)
        queries = random_vectors(rng, 2)
        k = int(rng.choice([1, 7, 40, len(items) + 5]))
        for query, hits in zip(queries, held.search(queries, k, where), strict=True):
            expected = brute_force(items, query, k, metric, condition)
            assert len(hits) == len(expected)
            assert len({hit.id for hit in hits}) == len(hits)
            for hit in hits:
                assert hit.fields == items[hit.id][0]
                ((distance, _),) = brute_force({hit.id: items[hit.id]}, query, 1, metric, condition)
                assert hit.distance == pytest.approx(distance, rel=1e-5, abs=1e-6)
            assert all(a.distance <= b.distance for a, b in itertools.pairwise(hits))
            if exact:
                np.testing.assert_allclose([hit.distance for hit in hits], [d for d, _ in expected], rtol=1e-5, atol=1e-6)
        expected = sorted(name for name, (fields, _) in items.items() if condition is None or condition(fields))
        for order in ORDERS:
            listed, after = [], None
            while True:
                page, after = held.list_items(where, 37, after, order)
                assert len(page) == 37 or after is None
                listed += page
                if after is None:
                    break
            names = [item["id"] for item in listed]
            assert (names if order == "id" else sorted(names)) == expected
            assert all(item["fields"] == items[item["id"]][0] for item in listed)


def random_changes(rng, living, items, base, metric, count):
    """Changes of every kind, to the catalogue and to what is expected of it."""
    for _ in range(count):
        name = str(rng.choice([*list(items)[:: max(1, len(items) // 30)], *(f"new-{n}" for n in range(12)), *list(base)[:20]]))
        kind = rng.choice(["put", "put", "change", "change", "remove"])
        if kind == "put":
            fields, vector = random_fields(rng), random_vectors(rng, 1)[0]
            living.put(name, fields, space="space", embedding=vector, thumbnail=rng.choice([None, b"small"]))
            items[name] = fields, vector
        elif name in items and kind == "change":
            changed = {key: value for key, value in random_fields(rng).items() if rng.random() < 0.6}
            living.change(name, changed)
            items[name] = {**items[name][0], **changed}, items[name][1]
        elif name in items:
            living.remove(name)
            del items[name]


@pytest.mark.parametrize("exact", [True, False])
def test_it_is_one_gallery_whatever_changes(bundle, living, monkeypatch, exact):
    path, base, metric = bundle
    if not exact:  # the trees, whatever they cost
        prefer_the_index(monkeypatch)
    rng, items = np.random.default_rng(11), dict(base)
    random_changes(rng, living, items, base, metric, 30)
    with HeldVersion.open(path, living) as held:
        for _ in range(4):
            check_all(held, items, metric, rng, exact)
            random_changes(rng, living, items, base, metric, 25)
        check_all(held, items, metric, rng, exact)
    with LivingCatalogue.open(living.path, writable=False) as reader, HeldVersion.open(path, reader) as held:
        check_all(held, items, metric, rng, exact)


def test_the_trees_are_asked_where_most_is_selected(bundle, monkeypatch):
    path, items, metric = bundle
    prefer_the_index(monkeypatch)
    with HeldVersion.open(path) as held:
        monkeypatch.setattr(held._base, "_exactly", lambda *_: pytest.fail("compared one by one"))
        where = parse_filter("not stock = 0", held.fields)
        found = total = 0
        for query in random_vectors(np.random.default_rng(0), 40):
            hits = held.search(query, 10, where)[0]
            expected = brute_force(items, query, 10, metric, lambda f: f["stock"] not in (None, 0))
            assert len(hits) == 10
            found += len({hit.id for hit in hits} & {name for _, name in expected})
            total += 10
        assert found / total >= 0.85


def test_no_search_finds_what_is_gone_even_if_most_is(bundle, living):
    path, base, metric = bundle
    with HeldVersion.open(path, living) as held:
        names = list(base)
        for name in names[:-7]:
            living.remove(name)
        left = {name: base[name] for name in names[-7:]}
        check_all(held, left, metric, np.random.default_rng(5))
        for name in names[-7:]:
            living.remove(name)
        assert held.search(np.ones(8), 3) == [[]]
        assert held.items == 0


def test_many_changes_to_few_items_are_compacted(bundle, living, monkeypatch):
    path, base, metric = bundle
    monkeypatch.setattr("tfdml_serving.engine.joined._FEWEST_TO_COMPACT", 16)
    rng, items = np.random.default_rng(1), dict(base)
    with HeldVersion.open(path, living) as held:
        for _ in range(60):
            fields, vector = random_fields(rng), random_vectors(rng, 1)[0]
            living.put("new", fields, space="space", embedding=vector)
            items["new"] = fields, vector
            assert len(held._joined.delta) <= 17
        check_all(held, items, metric, rng)


def test_near_duplicates_come_in_the_right_order(tmp_path, living):
    rng = np.random.default_rng(2)
    vector = rng.normal(size=64).astype(np.float32)
    vector /= np.linalg.norm(vector)
    apart = rng.normal(size=64).astype(np.float32)
    apart /= np.linalg.norm(apart)
    items = {f"b{n}": (random_fields(rng), vector + np.float32(n * 2e-5) * apart) for n in range(0, 40, 2)}
    with HeldVersion.open(make_bundle(tmp_path / "1", items, space="space"), living) as held:
        for n in range(1, 40, 2):
            living.put(f"b{n}", random_fields(rng), space="space", embedding=vector + np.float32(n * 2e-5) * apart)
        assert [hit.id for hit in held.search(vector, 40)[0]] == [f"b{n}" for n in range(40)]


def test_details_of_items(bundle, living):
    path, base, metric = bundle
    with HeldVersion.open(path, living) as held:
        assert (held.version, held.space, held.metric, held.dimension) == (4, "space", metric, 8)
        assert (dict(held.fields), held.thumbnails, held.threshold()) == (FIELDS, True, None)
        assert held.fingerprint == held.manifest.model.fingerprint
        assert held.item("item-3") == {"id": "item-3", "fields": base["item-3"][0], "has_thumbnail": True}
        assert held.thumbnail("item-3") == b"picture item-3"
        expected = base["item-3"][1] / (np.linalg.norm(base["item-3"][1]) if metric == "cosine" else 1)
        np.testing.assert_allclose(held.vector("item-3"), expected, rtol=1e-6)
        assert held.search(held.vector("item-3"), 1)[0][0].id == "item-3"
        living.change("item-3", {"price": 99})
        assert held.item("item-3")["fields"] == {**base["item-3"][0], "price": 99.0}
        assert held.thumbnail("item-3") == b"picture item-3"
        np.testing.assert_allclose(held.vector("item-3"), expected, rtol=1e-6)
        living.put("item-3", {"kind": "tea", "other": 1, "stock": "many"}, space="space", embedding=[1] + [0] * 7)
        assert held.item("item-3") == {
            "id": "item-3",
            "fields": {"kind": "tea", "stock": None, "price": None},
            "has_thumbnail": False,
        }
        assert held.thumbnail("item-3") is None
        assert held.vector("item-3").tolist() == [1] + [0] * 7
        living.put("new", {}, space="space", embedding=[0, 1] + [0] * 6, thumbnail=b"small")
        assert held.thumbnail("new") == b"small"
        assert held.search([0, 1] + [0] * 6, 1)[0][0].has_thumbnail
        living.remove("new")
        for ask in (held.item, held.vector, held.thumbnail):
            with pytest.raises(UnknownItem, match="id='new'"):
                ask("new")


def test_an_embedding_is_only_searched_in_its_own_space(bundle, living):
    path = bundle[0]
    living.put("other", {"kind": "tea"}, space="another", embedding=np.ones(5), image=b"an image")
    living.put("item-0", {}, space="another", embedding=np.ones(8))
    with HeldVersion.open(path, living) as held:
        assert held.items == ITEMS + 1
        assert {"other", "item-0"} & {hit.id for hit in held.search(np.ones(8), ITEMS + 5)[0]} == set()
        assert held.item("other")["fields"]["kind"] == "tea"
        with pytest.raises(UnknownItem, match="of another space"):
            held.vector("other")
        ((name, put_at),) = held.unembedded()
        assert (name, living.image(name)) == ("other", b"an image")
        living.embed(name, put_at, space="space", embedding=np.full(8, 2.0))
        assert held.unembedded() == []
        assert held.search(np.full(8, 2.0), 1)[0][0].id == "other"
        living.embed("other", put_at, space="a third", embedding=np.zeros(8))
        assert held.search(np.full(8, 2.0), 1)[0][0].id == "other"
    with HeldVersion.open(path, living) as held:
        assert held.search(np.full(8, 2.0), 1)[0][0].id == "other"


@pytest.mark.parametrize(
    ("embeddings", "k", "message"),
    [
        (np.ones(7), 1, r"\[B, 8\]"),
        (np.full(8, np.nan), 1, "NaN"),
        (np.ones(8), 0, "k=0: expected a whole number >= 1"),
        (np.ones(8), 1.5, "k=1.5"),
        (np.ones(8), True, "k=True"),
    ],
)
def test_bad_requests(bundle, embeddings, k, message):
    with HeldVersion.open(bundle[0]) as held:
        with pytest.raises(BadRequest, match=message):
            held.search(embeddings, k)
        assert held.search(np.zeros([0, 8]), 2) == []
        with pytest.raises(BadRequest, match="limit=0"):
            held.list_items(None, 0, None)
        with pytest.raises(BadRequest, match="order='price': expected one of id, spread"):
            held.list_items(None, 1, None, "price")
        for place in ("", "item-3", "0" * 15, "-" + "0" * 15, "ä" * 16):
            with pytest.raises(BadRequest, match="no place in this order"):
                held.list_items(None, 1, place, "spread")
        if bundle[2] == "cosine":
            with pytest.raises(BadRequest, match="zero vector"):
                held.search(np.zeros(8), 1)


def test_searches_see_what_was_acknowledged_and_never_miss_an_item_that_changes(bundle, living):
    path, base, _ = bundle
    where = parse_filter("stock = 77", FIELDS)
    target = base["item-9"][1]
    wrong: list[str] = []
    done = threading.Event()
    with HeldVersion.open(path, living) as held:
        living.change("item-9", {"stock": 77})

        def search() -> None:
            while not done.is_set():
                for condition in (None, where):
                    ids = [hit.id for hit in held.search(target, 5, condition)[0]]
                    if ids.count("item-9") != 1:
                        wrong.append(f"{condition}: {ids}")

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(120):
            fields = {**base["item-9"][0], "stock": 77, "price": float(number)}
            if number % 2:
                living.change("item-9", fields)
            else:
                living.put("item-9", fields, space="space", embedding=target)
            if held.item("item-9")["fields"]["price"] != number:
                wrong.append(f"price {number} was not seen")
            vector = np.full(8, 50.0 + number)
            living.put(f"new-{number}", {}, space="space", embedding=vector)
            if held.search(vector, ITEMS, None)[0] and f"new-{number}" not in {h.id for h in held.search(vector, ITEMS)[0]}:
                wrong.append(f"new-{number} was not found")
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_only_what_is_not_folded_in_is_followed(tmp_path, living):
    base = random_items(3, 40)
    living.put("new", {"stock": 1}, space="space", embedding=np.ones(8))
    living.remove("item-1")
    living.put("left", {"stock": 2}, space="another", embedding=np.ones(3))
    folded = FoldedRecord(living.name, living.sequence, ("left",))
    inside = {**base, "new": (dict.fromkeys(FIELDS, 5) | {"kind": "in"}, np.ones(8, np.float32))}
    del inside["item-1"]
    old = make_bundle(tmp_path / "1", base, space="space")
    new = make_bundle(tmp_path / "2", inside, space="space", folded=folded)
    with HeldVersion.open(old, living) as before, HeldVersion.open(new, living) as after:
        assert (before.items, after.items) == (41, 41)
        assert before.item("new")["fields"]["stock"] == 1
        assert after.item("new")["fields"]["stock"] == 5  # the bundle's own
        assert after.item("left")["fields"]["stock"] == 2
        living.change("new", {"stock": 9})
        assert [held.item("new")["fields"]["stock"] for held in (before, after)] == [9, 9]
        assert after.item("new")["fields"]["kind"] == "in"
    assert living.forget([folded, None]) == 0  # the old version has nothing in it
    assert living.forget([folded, FoldedRecord("another", 100)]) == 0
    assert living.forget([folded]) == 2  # `new` and the removal; `left` is kept, and so is the change
    with HeldVersion.open(new, living) as after:
        assert after.item("new")["fields"]["stock"] == 9
        assert after.item("left")["fields"]["stock"] == 2
        assert after.items == 41
    with pytest.raises(BundleError, match="has forgotten its changes up to 3, and this version has them only up to 0"):
        HeldVersion.open(old, living)


def test_a_bound_leaves_out_nothing_within_it():
    rng = np.random.default_rng(0)
    delta = Delta(8)
    vectors = rng.normal(size=(300, 8)).astype(np.float32)
    for number, vector in enumerate(vectors):
        delta.append(Row({"id": str(number)}, -1, False, False), vector)
    for number in range(0, 300, 7):
        delta.strike(number)
    for query in 100 * rng.normal(size=(5, 8)).astype(np.float32):
        squares = [sum((float(a) - float(b)) ** 2 for a, b in zip(query, vector, strict=True)) for vector in vectors]
        alive = sorted((square, place) for place, square in enumerate(squares) if place % 7)
        for rank, k in ((0, 10), (3, 10), (40, 10), (250, 300)):
            places, _ = delta.search(query, k, bound=alive[rank][0] * (1 + 1e-12))
            within = {place for _, place in alive[: min(rank + 1, k)]}
            assert within <= set(places.tolist()) <= {place for _, place in alive}
            assert len(places) <= len(within) + 5
        assert not len(delta.search(query, 10, bound=alive[0][0] / 2)[0])


def test_the_threshold_of_the_name_match_is_the_usual_one(tmp_path):
    thresholds = {name: Threshold(distance, 0.1, 0.9, 0.95, "made up") for name, distance in (("far", 0.3), ("match", 0.2))}
    with HeldVersion.open(make_bundle(tmp_path / "1", random_items(0, 8), thresholds=thresholds)) as held:
        assert held.threshold() == thresholds["match"]
