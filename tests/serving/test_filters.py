"""Filters: what they mean is what SQLite says; what cannot be read is refused with its place."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tfdml_serving.engine.filters import DEEPEST, LONGEST, MOST_CONDITIONS, parse_filter
from tfdml_serving.engine.selection import Selections
from tfdml_serving.errors import FilterError

from tfdml.bundle import write_catalogue

FIELDS = {"title": "text", "price": "real", "stock": "integer", "shelf life": "integer", 'a"b': "text"}

TEXTS = st.text(st.sampled_from(list("abABéÉ%_'\" \ufffd\uffff\u0131K\u017f🥛")), max_size=5) | st.sampled_from(
    ["milk", "Milk", "42"]
)
WHOLES = st.integers(-3, 3) | st.sampled_from([2**53 + 1, 2**63 - 1, -(2**63)])
REALS = st.sampled_from([-1.5, 0.0, -0.0, 0.1, 2.0, 2.5, float(2**53), 1e300, 5e-324]) | st.floats(-3, 3)
ITEMS = st.fixed_dictionaries(
    {
        "id": TEXTS.filter(bool),
        "title": st.none() | TEXTS,
        "price": st.none() | REALS,
        "stock": st.none() | WHOLES,
        "shelf life": st.none() | WHOLES,
        'a"b': st.none() | TEXTS,
    }
)


def quoted(text: str, quote: str) -> str:
    return quote + text.replace(quote, 2 * quote) + quote


@st.composite
def conditions(draw) -> str:
    field, kind = draw(st.sampled_from([("id", "text"), *FIELDS.items()]))
    name = quoted(field, '"') if not field.isalpha() else field

    def value() -> str:
        if kind == "text":
            return quoted(draw(TEXTS), draw(st.sampled_from("'\"")))
        return repr(draw(WHOLES | REALS))

    forms = ["compare", "in", "not in", "is null", "is not null"] + ["like", "not like"] * (kind == "text")
    form = draw(st.sampled_from(forms))
    if form == "compare":
        return f"{name} {draw(st.sampled_from(['=', '==', '!=', '<>', '<', '<=', '>', '>=']))} {value()}"
    if form.endswith("in"):
        return f"{name} {form} ({', '.join(value() for _ in range(draw(st.integers(1, 4))))})"
    return f"{name} {form} {value()}" if form.endswith("like") else f"{name} {form}"


FILTERS = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        inner.map("not {}".format),
        inner.map("({})".format),
        st.tuples(inner, st.sampled_from([" and ", " OR ", " Or\n"]), inner).map("".join),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ITEMS, min_size=1, max_size=6), FILTERS)
@example([{"id": "a", "title": "\uffff"}], "title like '\ufffd'")
@example([{"id": "a", "price": float(2**53)}], f"price in ({2**53 + 1})")
@example([{"id": "a", "stock": 2**53 + 1}], f"stock = {float(2**53)!r}")
@example([{"id": "a", "title": "aab"}], "title like 'a%ab'")
@example([{"id": "a", "title": "ab"}], "title like 'ab%b'")
def test_python_says_what_sqlite_says(items, text):
    items = [{**dict.fromkeys(FIELDS), **item} for item in items]
    chosen = parse_filter(text, FIELDS)
    connection = sqlite3.connect(":memory:")
    typed = ", ".join(f"{quoted(name, chr(34))} {kind}" for name, kind in {"id": "text", **FIELDS}.items())
    connection.execute(f"CREATE TABLE items (number INTEGER PRIMARY KEY, {typed})")
    for number, item in enumerate(items):
        values = [number, *(item[name] for name in ("id", *FIELDS))]
        connection.execute(f"INSERT INTO items VALUES ({', '.join('?' * len(values))})", values)
    rows = connection.execute(f"SELECT number FROM items WHERE {chosen.sql} ORDER BY number", chosen.parameters).fetchall()
    connection.close()
    assert [number for number, item in enumerate(items) if chosen.matches(item)] == [row[0] for row in rows]


def test_how_it_is_written_does_not_matter():
    written = ["title = milk and stock=1", "title==milk AND (stock = +1)", "\"title\"='milk'\nAnd stock = 1.0"]
    first, *others = [parse_filter(text, FIELDS) for text in written]
    assert all(other == first and hash(other) == hash(first) for other in others)
    assert first != parse_filter("title = milk and stock = 2", FIELDS)


def test_no_value_is_ever_in_the_sql():
    attack = "x' OR 1=1; DROP TABLE items; --"
    chosen = parse_filter(f'title = "{attack}" or "a""b" in (\'{attack.replace(chr(39), 2 * chr(39))}\', 2)', FIELDS)
    assert chosen.sql == '("title" = ? OR "a""b" IN (?, ?))'
    assert chosen.parameters == (attack, attack, "2")


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 0, "it is empty"),
        ("  ", 0, "it is empty"),
        ("titel = milk", 0, r"no field 'titel'; did you mean 'title'\? Known fields: id \(text\), title \(text\), price"),
        ("stock = 1 and colour = red", 14, "no field 'colour'. Known fields"),
        ("title", 5, "expected one of = != < <= > >= in like is not, after 'title'; found the end of the filter"),
        ("title =", 7, "expected a value for 'title'; found the end"),
        ("title = )", 8, r"expected a value for 'title'; found '\)'"),
        ("title = oat milk", 12, "expected 'and', 'or' or the end; found 'milk'"),
        ("title = and", 8, "found the keyword 'and'; for the word itself write 'and'"),
        ("title = null", 8, "write: title is null"),
        ("title ! milk", 6, "'!' means nothing here; did you mean '!='"),
        ("title = 'milk", 8, "the quote ' is never closed"),
        ("(title = milk", 13, r"expected 'and', 'or' or '\)'; found the end"),
        ("title = milk)", 12, r"found '\)'"),
        ("price = cheap", 8, "'price' is real; expected a finite number of at most 64 bits, found 'cheap'"),
        ("price = '3'", 8, "found the text '3'"),
        ("stock > 9223372036854775808", 8, "at most 64 bits"),
        ("price > 1e999", 8, "finite"),
        ("price > nan", 8, "finite"),
        ("price > \u0661", 8, "finite"),
        ("price like '3%'", 6, "'like' compares texts, and 'price' is real"),
        ("stock in 1", 9, r"expected '\(' after 'in'"),
        ("stock in ()", 10, "expected a value for 'stock'"),
        ("stock in (1 2)", 12, r"expected ',' or '\)'"),
        ("stock is 1", 9, "expected 'null' or 'not null'"),
        ("stock not 1", 10, "expected 'in' or 'like'"),
        ("and stock = 1", 0, "expected the name of a field"),
        ("'title' = 1", 0, "expected the name of a field"),
        ("title = 'a\0b'", 8, "a NUL or half of a surrogate pair"),
        ("title = \ud800", 8, "half of a surrogate pair"),
        ("not " * (DEEPEST + 1) + "stock = 1", 4 * (DEEPEST + 1), f"more than {DEEPEST}"),
        ("(" * (DEEPEST + 1) + "stock = 1", DEEPEST + 1, f"more than {DEEPEST}"),
        ("stock = 1 or " * MOST_CONDITIONS + "stock = 1", 13 * MOST_CONDITIONS, f"more than {MOST_CONDITIONS} conditions"),
        ("title = '" + "x" * LONGEST, LONGEST, "at most 4,000 are read"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text, position, message):
    with pytest.raises(FilterError, match=message) as caught:
        parse_filter(text, FIELDS)
    assert caught.value.position == position
    assert position == 0 or str(position + 1) in str(caught.value) or position == LONGEST


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from(list("title=<>!()'\", 1.e-andornotinlike\0\ud800")), max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        chosen = parse_filter(text, {**FIELDS, "e": "real", "t": "text"})
    except FilterError:
        return
    assert chosen.matches({"id": "x"}) in (True, False)


def test_the_largest_filter_runs_in_sqlite():
    text = " or ".join(["(" * DEEPEST + "stock = 1" + ")" * DEEPEST] + ["stock = 2"] * (MOST_CONDITIONS - 1))
    chosen = parse_filter(text, FIELDS)
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (stock INTEGER)")
    assert connection.execute(f"SELECT count(*) FROM items WHERE {chosen.sql}", chosen.parameters).fetchone() == (0,)


def test_a_pattern_of_many_wildcards_takes_no_time_to_speak_of():
    chosen = parse_filter(f"title like '{'%a' * 500}b'", FIELDS)
    assert not chosen.matches({"title": "a" * 20_000})


def test_only_so_many_filters_are_kept_however_few_the_items(tmp_path):
    write_catalogue(tmp_path / "items", ["a", "b"], {"stock": [1, 2]})
    selections = Selections(tmp_path / "items", 2, most_kept=3)
    filters = [parse_filter(f"stock < {number}", FIELDS) for number in range(5)]
    with contextlib.closing(selections):
        assert [selections.select(each).count for each in filters] == [0, 0, 1, 2, 2]
        assert list(selections._found) == filters[-3:]
