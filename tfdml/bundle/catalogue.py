"""The catalogue of a bundle: item number <-> item id, and the item's own fields, in one SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from tfdml.bundle.errors import BundleError

Value = str | int | float | None

SCHEMA_VERSION = 1
_PER_QUERY = 500
_IDS_PER_QUERY = 16384


class Catalogue:
    """The items of a bundle, read-only.

    Opened `immutable`: no lock, no journal, safe to share between processes and, through one lock, between threads.

    Args:
        path: the SQLite file that `write_catalogue` wrote.

    Attributes:
        has_thumbnails: whether there are small pictures of the items; `thumbnail_count` says of how many.

    Raises:
        BundleError: if the file is not such a catalogue.

    Example:
        >>> import tempfile, os
        >>> from tfdml.bundle import write_catalogue
        >>> path = os.path.join(tempfile.mkdtemp(), "catalogue.sqlite")
        >>> write_catalogue(path, ["mug-1", "mug-2"], {"title": ["Blue mug", None], "price": [7.5, 8]})
        >>> with Catalogue(path) as catalogue:
        ...     catalogue.fields, len(catalogue), catalogue.item(0), catalogue.number("mug-2")
        ({'title': 'text', 'price': 'real'}, 2, {'id': 'mug-1', 'title': 'Blue mug', 'price': 7.5}, 1)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        if not self.path.is_file():
            raise BundleError(f"catalogue {str(path)!r}: there is no such file.")
        uri = f"file:{quote(str(self.path.absolute()))}?mode=ro&immutable=1"
        with sqlite_errors(self.path):
            self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            with sqlite_errors(self.path):
                self._read_schema()
        except BaseException:
            self._connection.close()
            raise

    @property
    def fields(self) -> dict[str, str]:
        """The items' own fields and their types: "text", "integer" or "real"."""
        return dict(self._fields)

    @property
    def metadata(self) -> dict[str, str]:
        """What the writer noted about the whole catalogue."""
        return dict(self._metadata)

    def __len__(self) -> int:
        return self._count

    def ids(self) -> list[str]:
        """All ids, in the order of their numbers."""
        return list(self.iter_ids())

    def iter_ids(self) -> Iterator[str]:
        """All ids, in the order of their numbers, a few thousand in memory at a time."""
        statement = "SELECT id FROM items WHERE number >= ? AND number < ? ORDER BY number"
        for start in range(0, self._count, _IDS_PER_QUERY):
            for row in self._rows(statement, (start, start + _IDS_PER_QUERY)):
                yield row[0]

    def __iter__(self) -> Iterator[dict[str, Value]]:
        """All items, in the order of their numbers."""
        for start in range(0, self._count, _PER_QUERY):
            yield from self.items(range(start, min(start + _PER_QUERY, self._count)))

    def item(self, number: int) -> dict[str, Value]:
        """The id and the fields of one item.

        Raises:
            KeyError: if no item has this number.
        """
        return self.items([number])[0]

    def items(self, item_numbers: Iterable[int]) -> list[dict[str, Value]]:
        """The ids and fields of many items, in the order asked for; a number may come more than once."""
        wanted = [int(number) for number in item_numbers]
        found: dict[int, dict[str, Value]] = {}
        columns = ", ".join(map(quoted, ("number", "id", *self._fields)))
        names = ("id", *self._fields)
        for part in _parts(sorted(set(wanted))):
            marks = ", ".join("?" * len(part))
            for row in self._rows(f"SELECT {columns} FROM items WHERE number IN ({marks})", part):
                found[row[0]] = dict(zip(names, row[1:], strict=True))
        for number in wanted:
            if number not in found:
                raise KeyError(f"number={number}: no such item; expected 0 to {self._count - 1}.")
        return [dict(found[number]) for number in wanted]

    def number(self, item_id: str) -> int:
        """The number of the item with this id.

        Raises:
            KeyError: if no item has this id.
        """
        return self.numbers([item_id])[0]

    def numbers(self, ids: Iterable[str]) -> list[int]:
        """The numbers of many items, in the order asked for."""
        wanted = list(ids)
        for item_id in wanted:
            check_text(item_id, f"id={item_id!r}")
        found: dict[str, int] = {}
        for part in _parts(sorted(set(wanted))):
            marks = ", ".join("?" * len(part))
            found.update(self._rows(f"SELECT id, number FROM items WHERE id IN ({marks})", part))
        for item_id in wanted:
            if item_id not in found:
                raise KeyError(f"id={item_id!r}: no item has this id.")
        return [found[item_id] for item_id in wanted]

    def thumbnail(self, number: int) -> bytes | None:
        """The small picture of an item, a JPEG file's bytes; None if the catalogue was written without one.

        Raises:
            KeyError: if no item has this number.
        """
        if not self.has_thumbnails:
            return None
        if not 0 <= int(number) < self._count:
            raise KeyError(f"number={number}: no such item; expected 0 to {self._count - 1}.")
        found = self._rows("SELECT image FROM thumbnails WHERE number = ?", [int(number)])
        return bytes(found[0][0]) if found else None

    def with_thumbnails(self, item_numbers: Iterable[int]) -> set[int]:
        """Those of some items that have a small picture."""
        wanted = [int(number) for number in item_numbers]
        if self.thumbnail_count in (0, self._count):
            return set(wanted) if self.thumbnail_count else set()
        found: set[int] = set()
        for part in _parts(sorted(set(wanted))):
            marks = ", ".join("?" * len(part))
            found.update(row[0] for row in self._rows(f"SELECT number FROM thumbnails WHERE number IN ({marks})", part))
        return found

    def check(self) -> None:
        """Checks the file through and through: SQLite's own integrity check, numbers without gaps, types of every value.

        Raises:
            BundleError: naming the first thing that is wrong.
        """
        problem = self._rows("PRAGMA integrity_check(1)")[0][0]
        if problem != "ok":
            raise BundleError(f"catalogue {str(self.path)!r}: damaged: {problem}. Export the bundle anew.")
        lowest, highest = self._rows("SELECT min(number), max(number) FROM items")[0]
        if (lowest, highest) != (0, self._count - 1):
            raise BundleError(
                f"catalogue {str(self.path)!r}: {self._count} items are numbered {lowest} to {highest}; "
                f"expected 0 to {self._count - 1} without gaps. Export the bundle anew."
            )
        for name, kind in {"id": "text", **self._fields}.items():
            may_be_null = "" if name == "id" else ", 'null'"
            column = quoted(name)
            bad = self._rows(f"SELECT number FROM items WHERE typeof({column}) NOT IN (?{may_be_null}) LIMIT 1", [kind])
            if bad:
                raise BundleError(f"catalogue {str(self.path)!r}: {name!r} of item {bad[0][0]} is not {kind}.")

        if self.has_thumbnails:
            good = "SELECT count(*) FROM items JOIN thumbnails USING (number) WHERE typeof(image) = 'blob'"
            if missing := self.thumbnail_count - self._rows(good)[0][0]:
                raise BundleError(f"catalogue {str(self.path)!r}: {missing} items have no picture. Export the bundle anew.")

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _read_schema(self) -> None:
        self._metadata = dict(self._rows("SELECT key, value FROM metadata"))
        version = self._metadata.pop("catalogue_schema_version", None)
        if version != str(SCHEMA_VERSION):
            raise BundleError(
                f"catalogue {str(self.path)!r}: schema version {version!r}; this tfdml reads {SCHEMA_VERSION}. Upgrade tfdml."
            )
        try:
            self._fields: dict[str, str] = dict(json.loads(self._metadata.pop("fields")))
        except (KeyError, ValueError, TypeError) as error:
            raise BundleError(f"catalogue {str(self.path)!r}: has no list of fields; it is damaged.") from error
        columns = [row[1] for row in self._rows("PRAGMA table_info(items)")]
        if columns != ["number", "id", *self._fields]:
            raise BundleError(f"catalogue {str(self.path)!r}: its columns are not those that it lists; it is damaged.")
        self._count = int(self._rows("SELECT count(*) FROM items")[0][0])
        self.has_thumbnails = bool(self._rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'thumbnails'"))
        said = self._metadata.pop("thumbnails", str(self._count))
        if not (said.isascii() and said.isdigit()):
            raise BundleError(f"catalogue {str(self.path)!r}: it says that it has {said!r} pictures; it is damaged.")
        self.thumbnail_count = int(said) if self.has_thumbnails else 0

    def _rows(self, statement: str, values: Sequence[Value] = ()) -> list[Any]:
        with self._lock, sqlite_errors(self.path):
            return self._connection.execute(statement, values).fetchall()


def quoted(name: str) -> str:
    """A column name as SQLite reads it literally, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def _parts(values: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), _PER_QUERY):
        yield values[start : start + _PER_QUERY]


def check_text(value: object, what: str) -> None:
    """Raises a `BundleError` unless SQLite can keep `value` as text and give the same text back."""
    if not isinstance(value, str):
        raise BundleError(f"{what}: expected a string, not {type(value).__name__}.")
    if "\0" in value:
        raise BundleError(f"{what}: a NUL character cannot be stored; remove it.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BundleError(f"{what}: not valid Unicode ({error.reason}); decode it with the right encoding.") from error


class sqlite_errors:  # noqa: N801 - a context manager, read as a verb
    """Turns SQLite's errors, and text that is not UTF-8, into a BundleError that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, (sqlite3.Error, UnicodeError)):
            raise BundleError(f"catalogue {str(self._path)!r}: {error}.") from error
