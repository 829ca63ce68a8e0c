"""The living catalogue: what is added, changed and removed while a bundle is served, in one SQLite file."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt

from tfdml.bundle import FoldedRecord
from tfdml_serving.errors import Conflict, NotWritable, UnknownItem
from tfdml_serving.living import file as store_file
from tfdml_serving.living.records import Entry, checked_embedding, checked_fields, checked_id, fields_text
from tfdml_serving.living.tables import Tables

Listener = Callable[[Entry], None]

_log = logging.getLogger(__name__)
_MOST_AT_ONCE = 1024


class LivingCatalogue:
    """Items that are added, changed and removed while a bundle is served.

    Every change has a place in one order, its `sequence`. A change is on the disk (SQLite's write-ahead log, flushed) when the
    call that makes it returns: whatever happens to the process then, it is there after the next `open`. Changes that several
    threads make at the same moment are flushed together. Listeners (a `tfdml_serving.engine.held.HeldVersion` is one) have
    been told before the call returns, so that what was acknowledged can be found at once.

    Of each item the last state is kept, not its history: an item put twice, or removed, leaves nothing of what it was. One
    process may write, any number may read.

    A bundle that `tfdml compact` makes records up to which sequence changes are in it; whoever holds that bundle follows only
    the later ones. Nothing is dropped from the file by that, so an older bundle can still be held with everything that is not
    in it; `forget` drops what all bundles that are left have in them.

    Attributes:
        path: the file.
        name: the catalogue's own name, given when it was made; bundles record it.
        writable: whether this process may change it.

    Example:
        >>> import numpy as np, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "living.sqlite")
        >>> with LivingCatalogue.open(path) as living:
        ...     _ = living.put("mug-1", {"title": "Blue mug"}, space="s", embedding=np.ones(4))
        ...     _ = living.change("mug-1", {"price": 7.5})
        >>> with LivingCatalogue.open(path) as living:
        ...     [(entry.sequence, entry.kind, dict(entry.fields)) for entry in living.entries(space="s")]
        [(1, 'put', {'title': 'Blue mug'}), (2, 'change', {'price': 7.5})]
    """

    def __init__(self, path: Path, tables: Tables, reader: Tables, lock: int | None) -> None:
        # Private: use open.
        self.path, self.writable = path, lock is not None
        self._tables, self._reader, self._lock_file = tables, reader, lock
        self.name = tables.note("name")
        self._sequence = int(tables.note("sequence"))
        self._listeners: list[Listener] = []
        self._waiting: deque[_Change] = deque()
        self._write_lock = threading.Lock()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, writable: bool = True) -> LivingCatalogue:
        """Opens a living catalogue; a file that does not exist is made if it may be written.

        Args:
            path: the file. Beside it lie PATH-wal and PATH-shm, which belong to it, and PATH.lock.
            writable: False to read only, while another process may write.

        Raises:
            LivingCatalogueError: if another process writes to it, or the file is damaged, or no living catalogue.
        """
        return cls(Path(path), *store_file.open_tables(Path(path), writable))

    @property
    def sequence(self) -> int:
        """That of the last change."""
        return self._sequence

    @property
    def forgotten(self) -> int:
        """Changes up to here are gone from the file: only a bundle that has them in it can be held."""
        return int(self._reader.note("forgotten"))

    def put(
        self,
        item_id: str,
        fields: Mapping[str, Any],
        *,
        space: str,
        embedding: npt.ArrayLike,
        image: bytes | None = None,
        thumbnail: bytes | None = None,
    ) -> int:
        """Adds an item, or replaces it whole, whether it was added here or is one of the bundle. Returns the sequence.

        Args:
            item_id: its id.
            fields: all of its fields.
            space: the embedding space, `manifest.space` of the bundle whose model made `embedding`.
            embedding: `[D]`. It is only ever searched in its own space.
            image: the bytes of the image file that it was made of, so that another model can embed it anew.
            thumbnail: a small JPEG to show.

        Raises:
            BadRequest: for an id, field or embedding that cannot be kept.
            NotWritable: if the catalogue was opened to be read.
            LivingCatalogueError: if it cannot be written; nothing of the item is kept then.
        """
        item_id, kept, vector = checked_id(item_id), checked_fields(fields), checked_embedding(embedding)
        data = fields_text(kept)

        def work(sequence: int) -> Entry:
            self._tables.put(item_id, sequence, data, space, vector.tobytes(), image, thumbnail)
            return Entry(sequence, "put", item_id, kept, space, vector, thumbnail is not None)

        return self._do(work)

    def change(self, item_id: str, fields: Mapping[str, Any]) -> int:
        """Changes some fields of an item, of this catalogue or of the bundle. Returns the sequence.

        Raises:
            UnknownItem: if it was removed.
        """
        item_id, kept = checked_id(item_id), checked_fields(fields)

        def work(sequence: int) -> Entry:
            if self._tables.is_removed(item_id):
                raise UnknownItem(f"id={item_id!r}: this item was removed.")
            self._tables.change(item_id, sequence, kept)
            return Entry(sequence, "change", item_id, kept)

        return self._do(work)

    def remove(self, item_id: str) -> int:
        """Removes an item, of this catalogue or of the bundle. Returns the sequence.

        Raises:
            UnknownItem: if it was removed before.
        """
        item_id = checked_id(item_id)

        def work(sequence: int) -> Entry:
            if self._tables.is_removed(item_id):
                raise UnknownItem(f"id={item_id!r}: this item was removed.")
            self._tables.remove(item_id, sequence)
            return Entry(sequence, "remove", item_id, {})

        return self._do(work)

    def embed(self, item_id: str, put_at: int, *, space: str, embedding: npt.ArrayLike) -> int:
        """Adds the embedding of an item in one more space, made of the image that was kept (`unembedded`, `image`).

        Args:
            put_at: the sequence at which the item was put, which it must still have.

        Raises:
            Conflict: if it was put anew or removed since.
        """
        item_id, vector = checked_id(item_id), checked_embedding(embedding)

        def work(sequence: int) -> Entry:
            if self._tables.put_at(item_id) != put_at:
                raise Conflict(f"id={item_id!r}: it was put anew or removed since; its image is another one now.")
            self._tables.embed(item_id, space, vector.tobytes())
            # The place of the item itself: an embedding changes nothing but where it can be searched.
            return Entry(put_at, "embed", item_id, {}, space, vector)

        return self._do(work)

    def entries(self, *, space: str, after: int = 0, also: Iterable[str] = ()) -> list[Entry]:
        """What has changed, in order: for each item that was put or removed one entry, and one for fields changed since.

        Args:
            space: of the embeddings.
            after: changes up to this sequence are left out.
            also: ids of items that are not left out.
        """
        return self._reader.entries(space, after, frozenset(also))

    def snapshot(self, *, space: str, after: int = 0, also: Iterable[str] = ()) -> tuple[int, list[Entry]]:
        """The sequence of the last change that is on the disk, and `entries` as of then."""
        return self._reader.snapshot(space, after, frozenset(also))

    def follow(self, listener: Listener, *, space: str, after: int = 0, also: Iterable[str] = ()) -> Callable[[], None]:
        """Tells `listener` what `entries` returns and then every change as it is made, none missed and none told twice.

        Returns:
            A function that ends it.
        """
        with self._write_lock:
            for entry in self._tables.entries(space, after, frozenset(also)):
                listener(entry)
            self._listeners.append(listener)

        def end() -> None:
            with self._write_lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end

    def unembedded(self, space: str) -> list[tuple[str, int]]:
        """Items with an image and without an embedding in this space: their ids, and at which sequence they were put."""
        return self._reader.unembedded(space)

    def image(self, item_id: str) -> bytes | None:
        """The image file that an item was made of, if it was kept."""
        return self._reader.picture(item_id, "image")

    def thumbnail(self, item_id: str) -> bytes | None:
        """The small picture of an item, if there is one."""
        return self._reader.picture(item_id, "thumbnail")

    def forget(self, folded: Iterable[FoldedRecord | None]) -> int:
        """Drops what all of these bundles have in them; see `tfdml_serving.living.folding.forget_folded`.

        Args:
            folded: of every bundle that may still be held, what its manifest says. One of None, or of another living
                catalogue, has nothing of this one in it: then nothing is dropped.

        Returns:
            How many items' entries were dropped.
        """
        records = list(folded)
        own = [record for record in records if record is not None and record.catalogue == self.name]
        if not own or len(own) < len(records):
            return 0
        up_to = min(record.sequence for record in own)
        kept = frozenset(item for record in own for item in record.left_out)
        if not self.writable:
            raise NotWritable(f"{self.path}: opened to be read.")
        with self._write_lock, self._tables.transaction():
            return self._tables.forget(up_to, kept)

    def check(self) -> int:
        """Checks the file through and through: SQLite's integrity check and the checksum of every row. Returns their number.

        Raises:
            LivingCatalogueError: naming the first thing that is wrong.
        """
        return self._reader.check()

    def close(self) -> None:
        """Closes the file. The last process to close it leaves one file, without a log."""
        with self._write_lock:
            self._listeners.clear()
            self._reader.close()
            self._tables.close()
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    def __enter__(self) -> LivingCatalogue:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _do(self, work: Callable[[int], Entry]) -> int:
        """Makes a change durable. Whoever comes first writes and flushes for all who wait."""
        if not self.writable:
            raise NotWritable(f"{self.path}: the living catalogue was opened to be read.")
        change = _Change(work)
        self._waiting.append(change)
        with self._write_lock:
            while not change.done:
                self._write_waiting()
        if change.error is not None:
            raise change.error
        assert change.entry is not None
        return change.entry.sequence

    def _write_waiting(self) -> None:
        changes = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
        sequence = self._sequence
        try:
            with self._tables.transaction():
                for change in changes:
                    sequence += 1
                    try:
                        change.entry = change.work(sequence)
                    except (UnknownItem, Conflict) as error:  # found before anything was written
                        change.error = error
                self._tables.set_note("sequence", str(sequence))
        except BaseException as error:
            # Nothing of the whole transaction was kept.
            for change in changes:
                change.error, change.done = change.error or error, True
            if not isinstance(error, Exception):
                raise
            return
        self._sequence = sequence
        for change in changes:
            if change.error is None and change.entry is not None:
                self._tell(change.entry)
            change.done = True

    def _tell(self, entry: Entry) -> None:
        for listener in self._listeners:
            try:
                listener(entry)
            except Exception:  # it is durable: whoever made the change must not be told that it failed
                _log.exception("a listener of the living catalogue failed at change %d", entry.sequence)


class _Change:
    """A change that waits to be written."""

    def __init__(self, work: Callable[[int], Entry]) -> None:
        self.work = work
        self.entry: Entry | None = None
        self.error: BaseException | None = None
        self.done = False
