"""Writing the catalogue of a bundle, and the checks of what goes into it."""

from __future__ import annotations

import json
import math
import numbers
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tfdml.bundle.catalogue import SCHEMA_VERSION, Value, check_text, quoted, sqlite_errors
from tfdml.bundle.errors import BundleError

_RESERVED = ("number", "id", "rowid", "oid", "_rowid_")
_MOST_FIELDS = 500
INT64 = range(-(2**63), 2**63)


def write_catalogue(
    path: str | os.PathLike[str],
    ids: Sequence[str],
    fields: Mapping[str, Sequence[Value]] | None = None,
    metadata: Mapping[str, str] | None = None,
    thumbnails: Iterable[bytes | None] | None = None,
) -> None:
    """Writes the items of a bundle to a new SQLite file.

    Item i gets `ids[i]` and `fields[name][i]`. A field holds text, whole numbers (booleans become 0 and 1) or real numbers,
    and None where an item has no value.

    Args:
        path: the file to write; it must not exist.
        ids: one string per item, all different.
        fields: columns by name.
        metadata: strings about the whole catalogue.
        thumbnails: for every item the bytes of a small image file, or None, in order; None for a catalogue without pictures.

    Raises:
        BundleError: for duplicate or non-string ids, columns of another length, a reserved or repeated field name, NaN or
            infinite numbers, mixed or unsupported types, or if the disk is full.
    """
    ids = list(ids)
    check_ids(ids)
    columns = {name: list(column) for name, column in (fields or {}).items()}
    kinds = column_kinds(columns, ids)
    if Path(path).exists():
        raise BundleError(f"path={str(path)!r}: exists already; a catalogue is written once.")
    notes = {**(metadata or {}), "fields": json.dumps(list(kinds.items())), "catalogue_schema_version": str(SCHEMA_VERSION)}
    uri = f"file:{quote(str(Path(path).absolute()))}?mode=rwc"
    with sqlite_errors(Path(path)):
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("BEGIN")
            typed = "".join(f", {quoted(name)} {kind.upper()}" for name, kind in kinds.items())
            connection.execute(f"CREATE TABLE items (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE{typed})")
            connection.execute("CREATE TABLE metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
            marks = ", ".join("?" * (2 + len(columns)))
            values = [[_plain(v) for v in column] for column in columns.values()]
            connection.executemany(f"INSERT INTO items VALUES ({marks})", zip(range(len(ids)), ids, *values, strict=True))
            connection.executemany("INSERT INTO metadata VALUES (?, ?)", sorted(notes.items()))
            if thumbnails is not None:
                connection.execute("CREATE TABLE thumbnails (number INTEGER PRIMARY KEY, image BLOB NOT NULL)")
                numbered = zip(range(len(ids)), thumbnails, strict=True)
                pictures = ((number, image) for number, image in numbered if image is not None)
                connection.executemany("INSERT INTO thumbnails VALUES (?, ?)", pictures)
                there = connection.execute("SELECT count(*) FROM thumbnails").fetchone()[0]
                if there < len(ids):  # what the reader checks; without it, every item must have a picture
                    connection.execute("INSERT INTO metadata VALUES ('thumbnails', ?)", [str(there)])
            connection.execute("COMMIT")
        finally:
            connection.close()


def check_ids(ids: Sequence[str]) -> None:
    """Raises a `BundleError` unless `ids` are different, non-empty strings."""
    if not len(ids):
        raise BundleError("ids: there are none; a bundle needs at least one item.")
    first: dict[str, int] = {}
    for number, item_id in enumerate(ids):
        check_text(item_id, f"ids[{number}]={item_id!r}")
        if not item_id:
            raise BundleError(f"ids[{number}] is empty; every item needs an id of its own.")
        if first.setdefault(item_id, number) != number:
            raise BundleError(
                f"ids: {item_id!r} is the id of items {first[item_id]} and {number}; every item needs an id of its own."
            )


def column_kinds(columns: Mapping[str, list[Any]], ids: list[str]) -> dict[str, str]:
    """The SQLite types of all columns, by name, in their order.

    Raises:
        BundleError: for whatever `write_catalogue` refuses about fields.
    """
    check_field_names(list(columns))
    return {name: check_column(name, column, ids) for name, column in columns.items()}


def check_field_names(names: list[str]) -> None:
    """Raises a `BundleError` unless SQLite can have columns of these names beside its own."""
    if len(names) > _MOST_FIELDS:
        raise BundleError(f"fields: {len(names)} columns are more than the {_MOST_FIELDS} a catalogue can have.")
    seen: dict[str, str] = {}
    for name in names:
        check_text(name, f"fields: the name {name!r}")
        # SQLite folds the case of ASCII letters only.
        folded = "".join(c.lower() if c.isascii() else c for c in name)
        if not name:
            raise BundleError("fields: a field has an empty name.")
        if folded in _RESERVED:
            raise BundleError(f"fields: the name {name!r} is reserved ({', '.join(_RESERVED)}); rename the field.")
        if folded in seen:
            raise BundleError(f"fields: {seen[folded]!r} and {name!r} differ only in case; rename one.")
        seen[folded] = name


def check_column(name: str, column: list[Any], ids: list[str]) -> str:
    """The SQLite type of a column."""
    if len(column) != len(ids):
        raise BundleError(f"fields[{name!r}] has {len(column)} values for {len(ids)} items; expected one per item.")
    kinds: dict[str, int] = {}
    for number, value in enumerate(column):
        what = f"fields[{name!r}][{number}]={str(value)[:60]!r} (item {ids[number]!r})"
        if value is None:
            continue
        if isinstance(value, str):
            check_text(value, what)
            kinds.setdefault("text", number)
        elif isinstance(value, numbers.Integral) or type(value).__name__ in ("bool_", "bool"):
            if int(value) not in INT64:
                raise BundleError(f"{what}: does not fit in 64 bits; store it as text.")
            kinds.setdefault("integer", number)
        elif isinstance(value, numbers.Real):
            if not math.isfinite(value):
                raise BundleError(f"{what}: expected a finite number; use None for a missing value.")
            kinds.setdefault("real", number)
        else:
            raise BundleError(f"{what}: {type(value).__name__} cannot be stored; expected str, int, float or None.")
    if "text" in kinds and len(kinds) > 1:
        other = next(kind for kind in kinds if kind != "text")
        raise BundleError(
            f"fields[{name!r}] mixes text (item {ids[kinds['text']]!r}) and numbers (item {ids[kinds[other]]!r}); "
            "convert it to one type."
        )
    return "real" if "real" in kinds else next(iter(kinds), "text")


def _plain(value: Any) -> Value:
    """NumPy scalars as the Python values that sqlite3 takes."""
    if value is None or isinstance(value, str):
        return value if value is None else str(value)
    return int(value) if isinstance(value, numbers.Integral) or type(value).__name__ == "bool_" else float(value)
