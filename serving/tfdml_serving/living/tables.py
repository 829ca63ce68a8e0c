"""The tables of a living catalogue: one connection to SQLite, used by one thread at a time."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfdml.bundle.catalogue import Value
from tfdml_serving.living.records import Entry, LivingCatalogueError, NoSpaceLeftError, checksum, fields_text

SCHEMA = """
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- The last put or removal of each item.
CREATE TABLE items (id TEXT PRIMARY KEY, sequence INTEGER NOT NULL UNIQUE, removed INTEGER NOT NULL, fields TEXT NOT NULL,
                    checksum INTEGER NOT NULL);
-- Fields that changed since that, or of an item of the bundle.
CREATE TABLE changes (id TEXT PRIMARY KEY, sequence INTEGER NOT NULL UNIQUE, fields TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE embeddings (id TEXT NOT NULL, space TEXT NOT NULL, embedding BLOB NOT NULL, checksum INTEGER NOT NULL,
                         PRIMARY KEY (id, space));
CREATE TABLE pictures (id TEXT PRIMARY KEY, checksum INTEGER NOT NULL, thumbnail BLOB, image BLOB);
"""

_DELETE = tuple(f"DELETE FROM {table} WHERE id = ?" for table in ("changes", "embeddings", "pictures"))


class Tables:
    """Reads and writes rows; each with a checksum of its own.

    Args:
        path: named in errors.
        connection: in autocommit mode.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path, self._connection = path, connection
        self._lock = threading.RLock()

    def note(self, key: str) -> str:
        return str(self._rows("SELECT value FROM notes WHERE key = ?", key)[0][0])

    def set_note(self, key: str, value: str) -> None:
        self._rows("INSERT INTO notes VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is written inside, flushed to the disk, or nothing."""
        with self._lock:
            self._rows("BEGIN IMMEDIATE")
            try:
                yield
                self._rows("COMMIT")
            except BaseException:
                with contextlib.suppress(LivingCatalogueError):  # SQLite itself rolls back after some errors
                    self._rows("ROLLBACK")
                raise

    def put(
        self,
        item_id: str,
        sequence: int,
        fields: str,
        space: str,
        embedding: bytes,
        image: bytes | None,
        thumbnail: bytes | None,
    ) -> None:
        self._state(item_id, sequence, 0, fields)
        self.embed(item_id, space, embedding)
        if image is not None or thumbnail is not None:
            row = (item_id, checksum(item_id, thumbnail, image), thumbnail, image)
            self._rows("INSERT INTO pictures VALUES (?, ?, ?, ?)", *row)

    def remove(self, item_id: str, sequence: int) -> None:
        self._state(item_id, sequence, 1, "{}")

    def change(self, item_id: str, sequence: int, fields: Mapping[str, Value]) -> None:
        found = self._rows("SELECT fields FROM changes WHERE id = ?", item_id)
        merged = fields_text({**(json.loads(found[0][0]) if found else {}), **fields})
        row = (item_id, sequence, merged, checksum(item_id, sequence, merged))
        self._rows("INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?)", *row)

    def embed(self, item_id: str, space: str, embedding: bytes) -> None:
        row = (item_id, space, embedding, checksum(item_id, space, embedding))
        self._rows("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?)", *row)

    def is_removed(self, item_id: str) -> bool:
        return self._rows("SELECT removed FROM items WHERE id = ?", item_id) == [(1,)]

    def put_at(self, item_id: str) -> int | None:
        found = self._rows("SELECT sequence FROM items WHERE id = ? AND NOT removed", item_id)
        return int(found[0][0]) if found else None

    def entries(self, space: str, after: int, also: frozenset[str]) -> list[Entry]:
        def wanted(table: str) -> list[Any]:
            more = "SELECT value FROM json_each(?)"
            statement = f"SELECT {_COLUMNS[table]} WHERE {table}.sequence > ? OR {table}.id IN ({more})"
            return self._rows(statement, *([space] * (table == "items")), after, json.dumps(sorted(also)))

        with self._reading():
            found = [self._item(space, *row) for row in wanted("items")] + [self._changed(*row) for row in wanted("changes")]
        return sorted(found, key=lambda entry: entry.sequence)

    def snapshot(self, space: str, after: int, also: frozenset[str]) -> tuple[int, list[Entry]]:
        with self._reading():
            return int(self.note("sequence")), self.entries(space, after, also)

    def unembedded(self, space: str) -> list[tuple[str, int]]:
        return self._rows(
            "SELECT id, sequence FROM items JOIN pictures USING (id) WHERE image IS NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM embeddings WHERE embeddings.id = items.id AND space = ?) ORDER BY sequence",
            space,
        )

    def picture(self, item_id: str, column: str) -> bytes | None:
        found = self._rows("SELECT checksum, thumbnail, image FROM pictures WHERE id = ?", item_id)
        if not found:
            return None
        there, thumbnail, image = found[0]
        self._check(there, item_id, item_id, thumbnail, image)
        return {"thumbnail": thumbnail, "image": image}[column]

    def forget(self, up_to: int, kept: frozenset[str]) -> int:
        for table in ("changes", "items"):
            self._rows(
                f"DELETE FROM {table} WHERE sequence <= ? AND id NOT IN (SELECT value FROM json_each(?))",
                up_to,
                json.dumps(sorted(kept)),
            )
            count = int(self._rows("SELECT changes()")[0][0])
        for table in ("embeddings", "pictures"):
            self._rows(f"DELETE FROM {table} WHERE id NOT IN (SELECT id FROM items)")
        self.set_note("forgotten", str(max(up_to, int(self.note("forgotten")))))
        return count

    def check(self) -> int:
        problem = self._rows("PRAGMA integrity_check(1)")[0][0]
        if problem != "ok":
            raise self._damaged(str(problem))
        with self._reading():
            rows = 0
            for table in ("items", "changes"):
                for row in self._rows(f"SELECT {_COLUMNS[table]}", *([""] * (table == "items"))):
                    rows += bool(self._item("", *row) if table == "items" else self._changed(*row))
            for item_id, space, embedding, there in self._connection.execute("SELECT * FROM embeddings"):
                rows += self._check(there, item_id, item_id, space, embedding)
            for item_id, there, thumbnail, image in self._connection.execute("SELECT * FROM pictures"):
                rows += self._check(there, item_id, item_id, thumbnail, image)
            highest = self._rows(
                "SELECT max(sequence) FROM (SELECT sequence FROM items UNION ALL SELECT sequence FROM changes)"
            )
            if (highest[0][0] or 0) > int(self.note("sequence")):
                raise self._damaged(f"a change has the sequence {highest[0][0]}, the last one is {self.note('sequence')}")
        return rows

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _state(self, item_id: str, sequence: int, removed: int, fields: str) -> None:
        for statement in _DELETE:
            self._rows(statement, item_id)
        row = (item_id, sequence, removed, fields, checksum(item_id, sequence, removed, fields))
        self._rows("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)", *row)

    def _item(self, space: str, item_id: str, sequence: int, removed: int, fields: str, there: int, *more: Any) -> Entry:
        self._check(there, item_id, item_id, sequence, removed, fields)
        if removed:
            return Entry(sequence, "remove", item_id, {})
        embedding, embedding_there, has_thumbnail = more
        vector = None
        if embedding is not None:
            self._check(embedding_there, item_id, item_id, space, embedding)
            vector = np.frombuffer(embedding, np.float32)
        return Entry(sequence, "put", item_id, json.loads(fields), space, vector, bool(has_thumbnail))

    def _changed(self, item_id: str, sequence: int, fields: str, there: int) -> Entry:
        self._check(there, item_id, item_id, sequence, fields)
        return Entry(sequence, "change", item_id, json.loads(fields))

    def _check(self, there: int, item_id: str, *parts: str | bytes | int | None) -> bool:
        if checksum(*parts) != there:
            raise self._damaged(f"what is kept of item {item_id!r} does not match its checksum")
        return True

    def _damaged(self, problem: str) -> LivingCatalogueError:
        return LivingCatalogueError(f"{self._path}: damaged: {problem}. Restore the file from a backup.")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Several queries that see the same state, and no other thread's between them."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._rows("BEGIN")
            try:
                yield
            finally:
                self._rows("COMMIT")

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._lock, sqlite_failures(self._path):
            return self._connection.execute(statement, values).fetchall()


_COLUMNS = {
    "items": "items.id, items.sequence, removed, fields, items.checksum, embedding, embeddings.checksum, "
    "(SELECT thumbnail IS NOT NULL FROM pictures WHERE pictures.id = items.id) "
    "FROM items LEFT JOIN embeddings ON embeddings.id = items.id AND space = ?",
    "changes": "id, sequence, fields, checksum FROM changes",
}


@contextlib.contextmanager
def sqlite_failures(path: Path) -> Iterator[None]:
    """Turns what SQLite refuses into a `LivingCatalogueError` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        said = str(error)
        if "disk is full" in said:
            raise NoSpaceLeftError(
                f"{path}: the disk is full. The change was not kept; free some space and send it again."
            ) from error
        if "locked" in said or "busy" in said:
            raise LivingCatalogueError(
                f"{path}: another program holds a lock on the file. Close it (a backup, the sqlite3 shell), and send it again.",
                retry_after=1.0,
            ) from error
        if "malformed" in said or "not a database" in said or "corrupt" in said:
            raise LivingCatalogueError(f"{path}: damaged: {said}. Restore the file from a backup.") from error
        raise LivingCatalogueError(f"{path}: {said}.") from error
