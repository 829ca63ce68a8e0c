"""A bundle's gallery with a living catalogue's changes folded in, and what may be forgotten then. Loads no TensorFlow.

What happens to a change, from its acknowledgement on:

1. It is in the living catalogue, with a sequence. Every held version that does not have it in it applies it.
2. `tfdml compact` publishes a version whose manifest says: changes of this catalogue up to sequence S are in me (`folded`),
   but for those of the items `left_out`. Who holds that version applies what comes after S, and what was left out; who holds an
   older one, or goes back to it, goes on applying all that is not in that one. The living catalogue is not touched, so there is
   no moment at which a change is in neither, whichever version is held and wherever a process dies.
3. Only `forget_folded` drops entries: those up to the smallest S of all versions that are still published, so that each of them
   can be held with nothing missing. A version that has nothing of the catalogue in it (S = 0) keeps everything. Images go with
   their items: a model in another space can then no longer embed them anew. That is why it is asked for and not done by itself.
4. Whoever opens a version that has less in it than was forgotten (restored from a backup, say) is refused.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tfdml.bundle import Bundle, BundleError, FoldedRecord
from tfdml.bundle.catalogue import Value
from tfdml.bundle.layout import versions
from tfdml.bundle.verification import read_manifest
from tfdml_serving.living.records import Entry, Floats
from tfdml_serving.living.store import LivingCatalogue


@dataclasses.dataclass
class Item:
    """An item that is in the bundle no more as it was there.

    Args:
        fields: all of its fields.
        vector: its embedding, if there is one in the bundle's space.
        number: of the bundle's item whose vector and picture it keeps; -1 if it was put whole.
        put_at: the sequence at which it was put.
    """

    fields: dict[str, Value]
    vector: Floats | None
    number: int
    put_at: int


class FoldedGallery:
    """What a bundle's gallery becomes when changes are applied to it.

    Args:
        bundle: the bundle.
        entries: `LivingCatalogue.entries` in its space, in order.
    """

    def __init__(self, bundle: Bundle, entries: Sequence[Entry]) -> None:
        self._bundle = bundle
        self.kept = np.ones(len(bundle), bool)
        self.items: dict[str, Item] = {}
        for entry in entries:
            self._apply(entry)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.kept)) + len(self.items)

    def drop(self, item_id: str) -> None:
        """Leaves out an item of those that were put."""
        del self.items[item_id]

    def ids(self) -> list[str]:
        """The bundle's first, in their order, then the others."""
        old = [name for name, kept in zip(self._bundle.catalogue.iter_ids(), self.kept.tolist(), strict=True) if kept]
        return [*old, *self.items]

    def vectors(self) -> Floats:
        added = [self._vector(item) for item in self.items.values()]
        old = self._bundle.index.vectors()[self.kept]
        return np.concatenate([old, np.stack(added)]) if added else old

    def columns(self) -> dict[str, list[Value]]:
        """The fields: the bundle's own, and those that only put items have."""
        names = dict.fromkeys([*self._bundle.catalogue.fields, *(name for item in self.items.values() for name in item.fields)])
        columns: dict[str, list[Value]] = {name: [] for name in names}
        for number, row in enumerate(self._bundle.catalogue):
            if self.kept[number]:
                for name, column in columns.items():
                    column.append(row.get(name))
        for item in self.items.values():
            for name, column in columns.items():
                column.append(item.fields.get(name))
        return columns

    def numbers(self) -> dict[int, int]:
        """Where items that keep their vector are in the new gallery, by their number in the bundle."""
        old = {number: place for place, number in enumerate(np.flatnonzero(self.kept).tolist())}
        changed = {item.number: len(old) + place for place, item in enumerate(self.items.values()) if item.number >= 0}
        return {**old, **changed}

    def thumbnails(self, living: LivingCatalogue) -> Iterator[bytes | None] | None:
        """The pictures, in order; None if there are none at all."""
        catalogue = self._bundle.catalogue
        if not catalogue.has_thumbnails and not any(living.thumbnail(name) for name in self.items):
            return None
        old = (catalogue.thumbnail(number) for number in np.flatnonzero(self.kept).tolist())
        return _chain(old, (self._thumbnail(name, item, living) for name, item in self.items.items()))

    def _thumbnail(self, name: str, item: Item, living: LivingCatalogue) -> bytes | None:
        return living.thumbnail(name) if item.number < 0 else self._bundle.catalogue.thumbnail(item.number)

    def _vector(self, item: Item) -> Floats:
        if item.vector is not None:
            return item.vector
        assert item.number >= 0
        vector: Floats = self._bundle.index.vectors([item.number])[0]
        return vector

    def _apply(self, entry: Entry) -> None:
        number = self._number(entry.id)
        if entry.kind == "put":
            self.items.pop(entry.id, None)
            self.items[entry.id] = Item(dict(entry.fields), entry.embedding, -1, entry.sequence)
        elif entry.kind == "remove":
            self.items.pop(entry.id, None)
        elif entry.id in self.items:
            self.items[entry.id].fields.update(entry.fields)
            return
        elif number >= 0 and self.kept[number]:
            fields = {name: value for name, value in self._bundle.catalogue.item(number).items() if name != "id"}
            self.items[entry.id] = Item({**fields, **entry.fields}, None, number, entry.sequence)
        if number >= 0:
            self.kept[number] = False

    def _number(self, item_id: str) -> int:
        try:
            return self._bundle.catalogue.number(item_id)
        except KeyError:
            return -1


def forget_folded(living: LivingCatalogue, directory: str | os.PathLike[str]) -> int:
    """Drops from a living catalogue what every published version has in it; see the module for when that is safe.

    Args:
        living: opened to be written.
        directory: the model directory with all versions that may still be held.

    Returns:
        How many items' entries were dropped.

    Raises:
        BundleError: if the manifest of a version cannot be read: nobody knows what is in it.
    """
    root = Path(directory)
    return living.forget([read_manifest(root / str(version)).folded for version in versions(root)])


def folded_before(bundle: Bundle, living: LivingCatalogue) -> FoldedRecord:
    """What a bundle has of a living catalogue in it.

    Raises:
        BundleError: if the catalogue has forgotten more than that.
    """
    folded = bundle.manifest.folded
    if folded is None or folded.catalogue != living.name:  # of another catalogue: nothing of this one
        folded = FoldedRecord(living.name, 0)
    if folded.sequence < living.forgotten:
        raise BundleError(
            f"{str(bundle.path)!r}: the living catalogue {str(living.path)!r} has forgotten its changes up to "
            f"{living.forgotten}, and this version has them only up to {folded.sequence}. Hold a version that `tfdml compact` "
            "made since, or begin a new living catalogue."
        )
    return folded


def _chain(*parts: Iterator[bytes | None]) -> Iterator[bytes | None]:
    for part in parts:
        yield from part
