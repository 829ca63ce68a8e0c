"""Opening the file of a living catalogue: that it is one, that it is whole, and that nobody else writes to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tfdml.bundle.publish import flush
from tfdml_serving.living.records import LivingCatalogueError
from tfdml_serving.living.tables import SCHEMA, Tables, sqlite_failures

SCHEMA_VERSION = 1
_APPLICATION = 0x74664C43  # "tfLC"
_WAIT_SECONDS = 5.0


def open_tables(path: Path, writable: bool) -> tuple[Tables, Tables, int | None]:
    """The tables to write with, those to read with, and the lock that is held while writing is allowed."""
    with contextlib.ExitStack() as undo, _system_errors(path):
        if path.is_dir():
            raise LivingCatalogueError(f"{path}: is a directory. Expected a file, or a name for a new one.")
        lock = _lock(path) if writable else None
        if lock is not None:
            undo.callback(os.close, lock)
        new = not path.exists()
        if new and not writable:
            raise LivingCatalogueError(f"{path}: there is no such living catalogue.")
        writer = _connect(path, "rwc" if writable else "ro")
        undo.callback(writer.close)
        with sqlite_failures(path):
            if writable and (new or _is_empty(writer)):
                _create(writer)
                flush(path.parent)
            _check_kind(writer, path)
            if writable and writer.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise LivingCatalogueError(f"{path}: its file system cannot keep a write-ahead log. Put it on a local disk.")
            # Without FULL a commit in WAL mode is not flushed, and the power may take back what was acknowledged.
            writer.execute("PRAGMA synchronous = FULL")
        reader = _connect(path, "ro")
        undo.pop_all()
    return Tables(path, writer), Tables(path, reader), lock


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    with sqlite_failures(path):
        return sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=_WAIT_SECONDS,
        )


def _is_empty(connection: sqlite3.Connection) -> bool:
    """A file that was made and nothing more, because its process ended then."""
    return connection.execute("PRAGMA page_count").fetchone() == (0,)


def _create(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {SCHEMA_VERSION};"
        f"INSERT INTO notes VALUES ('name', '{secrets.token_hex(16)}'), ('sequence', '0'), ('forgotten', '0'); COMMIT;"
    )


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    kind = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if kind != _APPLICATION:
        raise LivingCatalogueError(f"{path}: an SQLite file, but no living catalogue. Give another file, or a new name.")
    if version != SCHEMA_VERSION:
        raise LivingCatalogueError(f"{path}: schema version {version}; this tfdml reads {SCHEMA_VERSION}. Upgrade tfdml.")


def _lock(path: Path) -> int:
    """Held until the descriptor is closed or the process ends, however it ends."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LivingCatalogueError(
            f"{path}: another process writes to this living catalogue, and only one may. Stop it, or open the file to be read."
        ) from error
    return descriptor


@contextlib.contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LivingCatalogueError(f"{path}: cannot be opened: {error.strerror or error}.") from error
