"""Which items of a bundle a filter selects: asked of SQLite once, and kept as a bitmap."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from tfdml.bundle.catalogue import sqlite_errors
from tfdml_serving.engine.filters import Filter

Integers = npt.NDArray[np.int64]

_CACHE_BYTES = 48 << 20
_MOST_KEPT = 512  # the filters themselves take memory, too, however small the catalogue
_ROWS_PER_TASK = 131_072
_MAPPED_BYTES = 1 << 40  # as much as there is; SQLite has a limit of its own


class Selected:
    """The items that a filter selects.

    Attributes:
        count: how many.
        numbers: their item numbers, int32, rising.
    """

    def __init__(self, numbers: npt.NDArray[np.int32], items: int) -> None:
        self.numbers, self.count = numbers, len(numbers)
        flags = np.zeros(items, bool)
        flags[numbers] = True
        self._bits = np.packbits(flags, bitorder="little")

    @property
    def bytes(self) -> int:
        return int(self.numbers.nbytes + self._bits.nbytes)

    def has(self, numbers: Integers) -> npt.NDArray[np.bool_]:
        """Whether each of some items is selected."""
        return (self._bits[numbers >> 3] >> (numbers & 7).astype(np.uint8) & 1).astype(bool)


class Selections:
    """Answers filters on the items of an immutable catalogue.

    A filter that was not seen before is a scan of the table, on all cores: SQLite joins the numbers of the items to one text,
    which takes a fraction of the time of fetching them as rows. What was found is kept, the least recently used going first.
    Safe to use from several threads; those that ask for the same filter at once wait for one scan.

    Args:
        path: the catalogue's file.
        items: how many items it has.
        cache_bytes: how much of what was found may be kept.
        most_kept: for how many filters.
    """

    def __init__(self, path: Path, items: int, cache_bytes: int = _CACHE_BYTES, most_kept: int = _MOST_KEPT) -> None:
        self._path, self._items = path, items
        self._cache_bytes, self._most_kept = cache_bytes, most_kept
        self._found: OrderedDict[Filter, Future[Selected]] = OrderedDict()
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 8), thread_name_prefix="filter")
        self._closed = False

    def select(self, where: Filter) -> Selected:
        """The items that a filter selects."""
        with self._lock:
            future = self._found.get(where)
            first = future is None
            if future is None:
                future = self._found[where] = Future()
            self._found.move_to_end(where)
        if not first:
            return future.result()
        try:
            selected = self._scan(where)
        except BaseException as error:
            with self._lock:
                self._found.pop(where, None)
            future.set_exception(error)
            raise
        future.set_result(selected)
        self._make_room()
        return selected

    def page(self, where: Filter | None, after: str, limit: int) -> list[tuple[str, int]]:
        """Ids and numbers of the first items with an id after `after`, in the order of their ids."""
        condition, parameters = (f" AND {where.sql}", where.parameters) if where is not None else ("", ())
        statement = f"SELECT id, number FROM items WHERE id > ?{condition} ORDER BY id LIMIT ?"
        return self._rows(statement, (after, *parameters, limit))

    def close(self) -> None:
        """Closes the connections."""
        self._pool.shutdown(wait=True)
        with self._lock:
            self._closed = True
            self._found.clear()
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def _scan(self, where: Filter) -> Selected:
        statement = f"SELECT group_concat(number) FROM items WHERE number >= ? AND number < ? AND {where.sql}"

        def part(start: int) -> npt.NDArray[np.int32]:
            text = self._rows(statement, (start, start + _ROWS_PER_TASK, *where.parameters))[0][0]
            return np.zeros(0, np.int32) if text is None else np.sort(np.fromstring(text, np.int32, sep=","))

        starts = range(0, self._items, _ROWS_PER_TASK)
        parts = list(self._pool.map(part, starts) if len(starts) > 1 else map(part, starts))
        return Selected(np.concatenate(parts), self._items)

    def _make_room(self) -> None:
        with self._lock:
            total = sum(future.result().bytes for future in self._found.values() if _is_there(future))
            for where in list(self._found)[:-1]:
                if total <= self._cache_bytes and len(self._found) <= self._most_kept:
                    break
                if _is_there(self._found[where]):
                    total -= self._found.pop(where).result().bytes

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        with self._connection() as connection, sqlite_errors(self._path):
            return connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection of one's own, for as long as one query takes: a scan must not keep others waiting."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            uri = f"file:{quote(str(self._path.absolute()))}?mode=ro&immutable=1"
            with sqlite_errors(self._path):
                connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
                connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
                # Pages that are mapped need no copy in a cache of SQLite's own.
                connection.execute("PRAGMA cache_size = -256")
        try:
            yield connection
        finally:
            with self._lock:
                if self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)


def _is_there(future: Future[Selected]) -> bool:
    return future.done() and future.exception() is None
