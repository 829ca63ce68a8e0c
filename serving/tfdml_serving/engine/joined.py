"""The items of a bundle and those of the living catalogue as one gallery."""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml.bundle import Bundle
from tfdml.bundle.catalogue import Value
from tfdml.index.base import check_vectors
from tfdml_serving.engine.base_search import BaseSearch
from tfdml_serving.engine.filters import Filter
from tfdml_serving.engine.nearest import Doubles, Floats, Integers
from tfdml_serving.errors import UnknownItem
from tfdml_serving.living.delta import Delta, Row
from tfdml_serving.living.records import Entry

IN_BUNDLE, IN_LIVING = 0, 1

_KEPT_MASKS = 64
_FEWEST_TO_COMPACT = 4096
_KINDS: dict[str, tuple[type, ...]] = {"text": (str,), "integer": (int,), "real": (int, float)}


class Chosen(NamedTuple):
    """One of the k nearest: where it is, and its row if it is a living item."""

    squared: float
    source: int
    place: int
    row: Row


_NO_ROW = Row({}, -1, False, False)


class Joined:
    """Applies the changes of a living catalogue, one after the other, while others search.

    An item of the bundle that is changed or replaced becomes a living one, and is passed over in the bundle from then on.

    Args:
        bundle: the bundle.
        base: the search in its index, whose items are struck out here.
        space: the embedding space.
    """

    def __init__(self, bundle: Bundle, base: BaseSearch, space: str) -> None:
        self._bundle, self._base, self._space = bundle, base, space
        self._fields = bundle.catalogue.fields
        self._places: dict[str, int] = {}
        self.delta = Delta(bundle.manifest.model.dimension)
        self._masks: OrderedDict[Filter, _Mask] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def items(self) -> int:
        return len(self._bundle) - self._base.gone_count + self.delta.alive

    def apply(self, entry: Entry) -> None:
        """Takes in a change. Called by one thread at a time."""
        place, number = self._places.get(entry.id), self._number(entry.id)
        if entry.kind == "remove":
            if place is not None:
                del self._places[entry.id]
                self.delta.strike(place)
            if number >= 0:
                self._base.remove(number)
        elif entry.kind == "put":
            item = {"id": entry.id, **{name: self._value(name, entry.fields) for name in self._fields}}
            self._become(Row(item, number, entry.has_thumbnail, False), self._vector(entry), place)
        elif entry.kind == "change":
            changed = {name: self._value(name, entry.fields) for name in self._fields if name in entry.fields}
            if place is not None:
                row = self.delta.rows[place]
                self._become(row._replace(item={**row.item, **changed}), self.delta.vector(place), place)
            elif number >= 0 and not self._base.gone[number]:
                item = {**self._bundle.catalogue.item(number), **changed}
                self._become(Row(item, number, False, True), np.array(self._bundle.index.vectors([number])[0]), None)
        elif entry.kind == "embed" and place is not None and self.delta.vector(place) is None:
            self._become(self.delta.rows[place], self._vector(entry), place)

    def merged(self, query: Floats, k: int, where: Filter | None, numbers: Integers, squares: Doubles) -> list[Chosen]:
        """The k nearest of what was found in the bundle and of the living items, nearest first."""
        # The flags first: what moved to the living items before is found there, and what moves after is taken for the latter.
        usable = ~self._base.gone[numbers]
        order = np.lexsort((numbers[usable], squares[usable]))[:k]
        numbers, squares = numbers[usable][order], squares[usable][order]
        found = [
            Chosen(squared, IN_BUNDLE, number, _NO_ROW)
            for squared, number in zip(squares.tolist(), numbers.tolist(), strict=True)
        ]
        delta = self.delta
        mask = None if where is None else self._mask(where)
        selected = None if mask is None else lambda count: mask.until(delta, count)
        places, living = delta.search(query, k, selected, found[-1].squared if len(found) == k else np.inf)
        if not len(places):
            return found
        latest: dict[str, Chosen] = {}
        for place, squared in sorted(zip(places.tolist(), living.tolist(), strict=True)):
            row = delta.rows[place]
            latest[str(row.item["id"])] = Chosen(squared, IN_LIVING, place, row)
        replaced = {one.row.number for one in latest.values()}
        return heapq.nsmallest(k, [*(one for one in found if one.place not in replaced), *latest.values()], _order)

    def find(self, item_id: str) -> tuple[int, int]:
        """Where an item is: the source, and its number or place there."""
        place = self._places.get(item_id)
        if place is not None:
            return IN_LIVING, place
        number = self._number(item_id)
        if number < 0 or self._base.gone[number]:
            # It may have been moved in between.
            place = self._places.get(item_id)
            if place is not None:
                return IN_LIVING, place
            raise UnknownItem(f"id={item_id!r}: no item has this id.")
        return IN_BUNDLE, number

    def details(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Items of the bundle by number, as they are answered."""
        wanted = list(dict.fromkeys(numbers))
        if not wanted:
            return {}
        pictured = self._bundle.catalogue.with_thumbnails(wanted)
        items = self._bundle.catalogue.items(wanted)
        return {number: _answer(item, number in pictured) for number, item in zip(wanted, items, strict=True)}

    def living_item(self, row: Row) -> dict[str, Any]:
        """A living item, as it is answered."""
        pictured = row.has_thumbnail or (row.of_bundle and bool(self._bundle.catalogue.with_thumbnails([row.number])))
        return _answer(row.item, pictured)

    def _become(self, row: Row, vector: Floats | None, old: int | None) -> None:
        """A new state of an item: it is there before the old one goes, so that no search misses it."""
        self._places[str(row.item["id"])] = self.delta.append(row, vector)
        if row.number >= 0:
            self._base.remove(row.number)
        if old is not None:
            self.delta.strike(old)
        if len(self.delta) > max(_FEWEST_TO_COMPACT, 2 * self.delta.alive):
            self._compact()

    def _compact(self) -> None:
        """Leaves out the rows that are struck out, once they are the most."""
        delta = self.delta.compacted(self.delta.living())
        self._places = {str(row.item["id"]): place for place, row in enumerate(delta.rows)}
        self.delta = delta

    def _mask(self, where: Filter) -> _Mask:
        with self._lock:
            mask = self._masks.pop(where, None) or _Mask(where)
            self._masks[where] = mask
            if len(self._masks) > _KEPT_MASKS:
                self._masks.popitem(last=False)
        return mask

    def _number(self, item_id: str) -> int:
        try:
            return self._bundle.catalogue.number(item_id)
        except KeyError:
            return -1

    def _vector(self, entry: Entry) -> Floats | None:
        if entry.embedding is None or entry.space != self._space or len(entry.embedding) != self.delta.dimension:
            return None
        try:
            return check_vectors(entry.embedding[None], self._bundle.manifest.metric)[0]
        except ValueError:  # a zero vector has no cosine
            return None

    def _value(self, name: str, fields: Mapping[str, Value]) -> Value:
        """As the bundle's column would hold it; a value of another type is a missing one here."""
        value, kind = fields.get(name), self._fields[name]
        if value is None or not isinstance(value, _KINDS[kind]):
            return None
        return float(value) if kind == "real" else value


class _Mask:
    """Which rows of a delta a filter selects: rows do not change, so each is looked at once."""

    def __init__(self, where: Filter) -> None:
        self._where = where
        self._known: tuple[Delta | None, npt.NDArray[np.bool_]] = None, np.zeros(0, bool)

    def until(self, delta: Delta, count: int) -> npt.NDArray[np.bool_]:
        """For the first `count` rows. Two threads may do the same work at once, and nothing worse."""
        of, flags = self._known
        if of is not delta:
            flags = np.zeros(0, bool)
        if len(flags) < count:
            more = [self._where.matches(row.item) for row in delta.rows[len(flags) : count]]
            flags = np.concatenate([flags, np.array(more, bool)])
            self._known = delta, flags
        return flags[:count]


def _order(one: Chosen) -> tuple[float, int, int]:
    return one.squared, one.source, one.place


def _answer(item: Mapping[str, Value], has_thumbnail: bool) -> dict[str, Any]:
    return {
        "id": item["id"],
        "fields": {name: value for name, value in item.items() if name != "id"},
        "has_thumbnail": has_thumbnail,
    }
