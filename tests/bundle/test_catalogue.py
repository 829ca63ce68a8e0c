"""The catalogue: odd items come back as they went in, bad ones are refused by name."""

from __future__ import annotations

import sqlite3
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.bundle import BundleError, Catalogue, write_catalogue

pytestmark = pytest.mark.one_stack

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def written(path, ids, fields=None, metadata=None) -> Catalogue:
    write_catalogue(path / "catalogue.sqlite", ids, fields, metadata)
    return Catalogue(path / "catalogue.sqlite")


def test_items_by_number_and_by_id(tmp_path):
    ids = [f"item {i}" for i in range(1300)]
    with written(tmp_path, ids, {"rank": list(range(1300))}) as catalogue:
        assert len(catalogue) == 1300
        assert catalogue.ids() == ids
        assert catalogue.item(7) == {"id": "item 7", "rank": 7}
        order = [5, 1299, 5, 0]
        assert [item["rank"] for item in catalogue.items(np.array(order))] == order
        assert catalogue.numbers(["item 1299", "item 0", "item 1299"]) == [1299, 0, 1299]
        assert catalogue.numbers(ids) == list(range(1300))
        assert [item["rank"] for item in catalogue] == list(range(1300))
        catalogue.check()


def test_types_of_fields(tmp_path):
    fields = {
        "text": ["a", None],
        "whole": [np.int64(2**63 - 1), -(2**63)],
        "flag": [True, np.bool_(False)],
        "real": [1, np.float32(0.5)],
        "nothing": [None, None],
    }
    with written(tmp_path, ["a", "b"], fields) as catalogue:
        assert catalogue.fields == {"text": "text", "whole": "integer", "flag": "integer", "real": "real", "nothing": "text"}
        assert catalogue.item(0) == {"id": "a", "text": "a", "whole": 2**63 - 1, "flag": 1, "real": 1.0, "nothing": None}
        assert catalogue.item(1) == {"id": "b", "text": None, "whole": -(2**63), "flag": 0, "real": 0.5, "nothing": None}
        assert isinstance(catalogue.item(0)["real"], float)
        catalogue.check()


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(TEXT.filter(bool), min_size=1, max_size=5, unique=True), name=TEXT.filter(bool), value=TEXT)
def test_any_text_comes_back(tmp_path_factory, ids, name, value):
    if name.lower() in ("number", "id", "rowid", "oid", "_rowid_"):
        name += "_"
    with written(tmp_path_factory.mktemp("text"), ids, {name: [value] * len(ids)}, {"note": value}) as catalogue:
        assert catalogue.ids() == ids
        assert catalogue.numbers(ids) == list(range(len(ids)))
        assert catalogue.item(len(ids) - 1) == {"id": ids[-1], name: value}
        assert catalogue.metadata == {"note": value}


@pytest.mark.parametrize("item_id", ["'; DROP TABLE items; --", '"', "ü" * 5, "\n", "🛒", "x" * 100_000, "a\\b%_?"])
def test_odd_ids(tmp_path, item_id):
    with written(tmp_path, ["first", item_id]) as catalogue:
        assert catalogue.number(item_id) == 1
        assert catalogue.item(1)["id"] == item_id


def test_field_names_are_never_sql(tmp_path):
    name = 'x" TEXT); DROP TABLE items; --'
    with written(tmp_path, ["a"], {name: ["value"]}) as catalogue:
        assert catalogue.item(0) == {"id": "a", name: "value"}


def test_an_odd_path(tmp_path):
    folder = tmp_path / "50% off? #1 ü"
    folder.mkdir()
    with written(folder, ["a"]) as catalogue:
        assert catalogue.ids() == ["a"]


@pytest.mark.parametrize(
    ("ids", "fields", "message"),
    [
        ([], {}, "there are none"),
        (["a", "b", "a"], {}, "'a' is the id of items 0 and 2"),
        (["a", 3], {}, r"ids\[1\]=3: expected a string, not int"),
        (["a", ""], {}, r"ids\[1\] is empty"),
        (["a\0b"], {}, "NUL"),
        (["\ud800"], {}, "not valid Unicode"),
        (["a"], {"x": [1, 2]}, r"fields\['x'\] has 2 values for 1 items"),
        (["a"], {"x": []}, r"fields\['x'\] has 0 values for 1 items"),
        (["a"], {"ID": ["x"]}, "'ID' is reserved"),
        (["a"], {"rowid": ["x"]}, "'rowid' is reserved"),
        (["a"], {"": ["x"]}, "empty name"),
        (["a"], {3: ["x"]}, "expected a string, not int"),
        (["a"], {"Title": ["x"], "title": ["y"]}, "'Title' and 'title' differ only in case"),
        (["a"], {"x\0": ["x"]}, "NUL"),
        (["a", "b"], {"x": [1.0, float("nan")]}, r"fields\['x'\]\[1\]='nan' \(item 'b'\): expected a finite number; use None"),
        (["a"], {"x": [float("inf")]}, "finite"),
        (["a"], {"x": [np.float32("nan")]}, "finite"),
        (["a"], {"x": [2**63]}, "64 bits"),
        (["a"], {"x": [b"bytes"]}, "bytes cannot be stored"),
        (["a"], {"x": [["list"]]}, "list cannot be stored"),
        (["a", "b"], {"x": ["text", 1]}, r"mixes text \(item 'a'\) and numbers \(item 'b'\)"),
        (["a"], {f"x{i}": [0] for i in range(501)}, "501 columns"),
    ],
)
def test_bad_items_are_refused(tmp_path, ids, fields, message):
    with pytest.raises(BundleError, match=message):
        write_catalogue(tmp_path / "catalogue.sqlite", ids, fields)
    assert not list(tmp_path.iterdir())


def test_it_is_written_once(tmp_path):
    written(tmp_path, ["a"]).close()
    with pytest.raises(BundleError, match="exists already"):
        write_catalogue(tmp_path / "catalogue.sqlite", ["b"])


def test_unknown_items(tmp_path):
    with written(tmp_path, ["a"]) as catalogue:
        with pytest.raises(KeyError, match="number=1: no such item; expected 0 to 0"):
            catalogue.item(1)
        with pytest.raises(KeyError, match="id='b'"):
            catalogue.number("b")
        with pytest.raises(BundleError, match="expected a string"):
            catalogue.number(3)


def test_it_cannot_be_written_through(tmp_path):
    with written(tmp_path, ["a"]) as catalogue, pytest.raises(sqlite3.OperationalError, match="readonly"):
        catalogue._connection.execute("DELETE FROM items")


def test_what_is_no_catalogue_is_refused(tmp_path):
    path = tmp_path / "catalogue.sqlite"
    with pytest.raises(BundleError, match="no such file"):
        Catalogue(path)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match="no such table"):
        Catalogue(path)
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(BundleError, match="not a database"):
        Catalogue(path)


def change(path, statement):
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE metadata SET value = '2' WHERE key = 'catalogue_schema_version'", "Upgrade"),
        ("UPDATE metadata SET value = '[' WHERE key = 'fields'", "no list of fields"),
        ("DELETE FROM metadata WHERE key = 'fields'", "no list of fields"),
        ("ALTER TABLE items ADD COLUMN more TEXT", "columns are not those"),
        ("UPDATE items SET number = 9 WHERE number = 2", "numbered 0 to 9; expected 0 to 2"),
        ("UPDATE items SET price = 'cheap' WHERE number = 1", "'price' of item 1 is not real"),
        ("UPDATE items SET id = CAST('b' AS BLOB) WHERE number = 1", "'id' of item 1 is not text"),
    ],
)
def test_damage_inside_is_found(tmp_path, statement, message):
    written(tmp_path, ["a", "b", "c"], {"price": [1.0, 2.0, None]}).close()
    change(tmp_path / "catalogue.sqlite", statement)
    with pytest.raises(BundleError, match=message), Catalogue(tmp_path / "catalogue.sqlite") as catalogue:
        catalogue.check()


def test_flipped_bits_never_end_in_another_error(tmp_path):
    written(tmp_path, [f"item {i}" for i in range(300)], {"x": list(range(300))}).close()
    path = tmp_path / "catalogue.sqlite"
    data, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        broken = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            broken[position] ^= 1 << rng.integers(8)
        path.unlink()
        path.write_bytes(broken)
        try:
            with Catalogue(path) as catalogue:
                catalogue.check()
                list(catalogue)
        except BundleError:
            refused += 1
    assert refused > 30


def test_many_threads(tmp_path):
    ids = [f"item {i}" for i in range(200)]
    with written(tmp_path, ids) as catalogue:
        wrong: list[object] = []

        def look(seed):
            for number in np.random.default_rng(seed).integers(0, 200, 100).tolist():
                if catalogue.number(catalogue.item(number)["id"]) != number:
                    wrong.append(number)

        threads = [threading.Thread(target=look, args=[seed]) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_some_items_have_pictures(tmp_path):
    write_catalogue(tmp_path / "c", ["a", "b", "c"], thumbnails=[b"1", None, b"3"])
    with Catalogue(tmp_path / "c") as catalogue:
        catalogue.check()
        assert [catalogue.thumbnail(number) for number in range(3)] == [b"1", None, b"3"]
        assert catalogue.with_thumbnails([2, 1, 0, 2]) == {0, 2}
        assert (catalogue.has_thumbnails, catalogue.thumbnail_count, catalogue.metadata) == (True, 2, {})
        with pytest.raises(KeyError, match="number=3"):
            catalogue.thumbnail(3)
    with sqlite3.connect(tmp_path / "c") as connection:
        connection.execute("DELETE FROM thumbnails WHERE number = 2")
    connection.close()
    with Catalogue(tmp_path / "c") as catalogue, pytest.raises(BundleError, match="1 items have no picture"):
        catalogue.check()
