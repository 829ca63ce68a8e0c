"""The spread order: every item once, neighbours far apart, and no item that moves because another one changed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from engine_helpers import make_bundle, random_items
from tfdml_serving.engine.filters import parse_filter
from tfdml_serving.engine.held import HeldVersion
from tfdml_serving.engine.listing import Spread
from tfdml_serving.living import LivingCatalogue

PRODUCTS, VIEWS = 40, 25


@pytest.mark.parametrize("items", [1, 2, 3, 4, 5, 6, 10, 89, 1000, 4096, 30_030])
def test_every_number_has_one_place(items):
    spread = Spread(items)
    listed = list(spread.behind(None))
    assert sorted(number for _, number in listed) == list(range(items))
    assert all(first < second for (first, _), (second, _) in itertools.pairwise(listed))
    assert all(0 <= place < 2**64 for place, _ in listed)
    for rank in {0, items // 3, items - 1}:
        place, number = listed[rank]
        assert spread.place(number) == place
        assert list(spread.behind(place)) == listed[rank + 1 :]
        assert list(spread.behind(place - 1)) == listed[rank:]


@pytest.mark.parametrize("items", [997, 1000, 1_000_000, 1_234_567])
def test_the_first_numbers_lie_evenly_over_all(items):
    for count in (10, 48, 500):
        first = sorted(number for _, number in itertools.islice(Spread(items).behind(None), count))
        gaps = np.diff([*first, items + first[0]])
        assert gaps.max() <= 2 * items / count + 1, count


def test_only_wanted_numbers_and_far_apart_ones_too():
    wanted = np.zeros(300_000, bool)
    wanted[[5, 299_999]] = True
    assert {number for _, number in Spread(300_000).behind(None, wanted)} == {5, 299_999}
    assert list(Spread(300_000).behind(None, ~wanted & False)) == []


@pytest.fixture(scope="module")
def by_product(tmp_path_factory):
    """Product after product, as a folder for each of them is read."""
    items = {
        f"product-{number // VIEWS:02d}/{number % VIEWS}": ({"kind": f"{number // VIEWS}", "stock": 1, "price": 1.0}, vector)
        for number, (_, vector) in enumerate(random_items(0, PRODUCTS * VIEWS).values())
    }
    return make_bundle(tmp_path_factory.mktemp("listing") / "products" / "1", items), items


def kinds(page):
    return [item["fields"]["kind"] for item in page]


def test_a_page_shows_a_bit_of_everything(by_product):
    with HeldVersion.open(by_product[0]) as held:
        assert len(set(kinds(held.list_items(None, 24, None)[0]))) == 1
        page, after = held.list_items(None, PRODUCTS, None, "spread")
        assert len(set(kinds(page))) > 0.75 * PRODUCTS
        assert len(set(kinds(held.list_items(None, PRODUCTS, after, "spread")[0]))) > 0.75 * PRODUCTS
        few = parse_filter("kind in (3, 4, 30)", held.fields)
        assert set(kinds(held.list_items(few, 9, None, "spread")[0])) == {"3", "4", "30"}


def test_changes_between_two_pages_move_no_other_item(by_product, tmp_path):
    path, items = by_product
    with LivingCatalogue.open(tmp_path / "living.sqlite") as living, HeldVersion.open(path, living) as held:
        quiet = held.list_items(None, 10_000, None, "spread")[0]
        seen, after, rng, touched = [], None, np.random.default_rng(0), set()
        for round_number in itertools.count():
            page, after = held.list_items(None, 60, after, "spread")
            seen += [item["id"] for item in page]
            if after is None:
                break
            for name in rng.choice(list(items), 6, replace=False).tolist():
                living.change(name, {"price": 2.0}) if name not in touched else None
                touched.add(name)
            gone = str(rng.choice(list(items)))
            if gone not in touched:
                living.remove(gone)
                touched.add(gone)
            living.put(f"new-{round_number}", {"kind": "new"}, space="", embedding=np.ones(8))
        assert len(seen) == len(set(seen))
        removed = {name for name in touched if name not in {item["id"] for item in held.list_items(None, 10_000, None)[0]}}
        # In the same order as before; what was removed is missing at most, and what was changed has kept its place.
        order = [item["id"] for item in quiet]
        assert [name for name in order if name in set(seen) or name not in removed] == [name for name in seen if name in items]
        ended = held.list_items(None, 10_000, None, "spread")[0]
        assert len(ended) == held.items
        assert any(item["id"].startswith("new-") for item in ended[: len(ended) // 2])
