"""The items of a held version page by page: in the order of their ids, or spread, so that each page shows a bit of everything.

A catalogue is mostly written product by product, so that its first page by id or by number is one product many times. The
spread order goes through the bundle in steps of about its golden section: whatever stands together in the bundle is far apart
in it, and its first items lie evenly over the whole. It needs no memory, and is the same on every node.

Every item has a place in either order that does not depend on filters or on other items, and a page ends with the last one's
place: what is added, changed or removed between two pages makes no other item appear twice or not at all.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml_serving.engine.base_search import BaseSearch
from tfdml_serving.engine.filters import Filter
from tfdml_serving.engine.joined import Joined
from tfdml_serving.engine.selection import Selections
from tfdml_serving.errors import BadRequest
from tfdml_serving.living.delta import Row

ORDERS = ("id", "spread")

Listed = tuple[str, dict[str, Any]]
Flags = npt.NDArray[np.bool_]

_GOLDEN = (math.sqrt(5) - 1) / 2
_BITS = 64
_NEAR = 500
_PLACE = re.compile(r"[0-9a-f]{16}")
_FIRST_BLOCK, _LARGEST_BLOCK = 256, 1 << 17


class Spread:
    """The numbers 0 to N - 1, each once, in steps of about N's golden section; a place in this order is a number of 64 bits.

    However many are taken from the beginning, they lie evenly over all: no gap is larger than about twice the mean one.

    Args:
        items: N >= 1.

    Example:
        >>> [number for _, number in Spread(10).behind(None)]
        [0, 7, 4, 1, 8, 5, 2, 9, 6, 3]
    """

    def __init__(self, items: int) -> None:
        self._items = items
        self._step = _step(items)
        self._back = pow(self._step, -1, items) if items > 1 else 0

    def place(self, number: int) -> int:
        """Where a number stands."""
        return ((number * self._back % self._items) << _BITS) // self._items

    def behind(self, place: int | None, wanted: Flags | None = None) -> Iterator[tuple[int, int]]:
        """Places and numbers behind a place, or all of them: those that are wanted."""
        rank = 0 if place is None else -(-(place + 1) * self._items >> _BITS)
        size = _FIRST_BLOCK
        while rank < self._items:
            numbers = np.arange(rank, min(rank + size, self._items), dtype=np.int64) * self._step % self._items
            chosen = np.arange(len(numbers)) if wanted is None else np.flatnonzero(wanted[numbers])
            for offset in chosen.tolist():
                yield ((rank + offset) << _BITS) // self._items, int(numbers[offset])
            rank += size
            size = min(4 * size, _LARGEST_BLOCK)


class Listing:
    """Pages of items.

    Args:
        joined: the items of the bundle and the living ones.
        base: knows which items of the bundle are gone.
        selections: which items of the bundle a filter selects.
        items: how many the bundle has.
    """

    def __init__(self, joined: Joined, base: BaseSearch, selections: Selections, items: int) -> None:
        self._joined, self._base, self._selections = joined, base, selections
        self._spread = Spread(items)

    def by_id(self, where: Filter | None, limit: int, after: str | None) -> list[Listed]:
        """The first `limit` items behind an id, each with its id, by which the next page begins."""
        gone, rows = self._living()
        wanted = (name for name, row in rows.items() if name > (after or "") and (where is None or where.matches(row.item)))
        living = heapq.nsmallest(limit, wanted)
        in_bundle: dict[str, int] = {}
        begin = after or ""
        while len(in_bundle) < limit:
            page = self._selections.page(where, begin, limit)
            in_bundle |= {name: number for name, number in page if not gone[number]}
            if len(page) < limit:
                break
            begin = page[-1][0]
        names = heapq.nsmallest(limit, [*living, *in_bundle])
        details = self._joined.details(in_bundle[name] for name in names if name in in_bundle)
        return [
            (name, details[in_bundle[name]] if name in in_bundle else self._joined.living_item(rows[name])) for name in names
        ]

    def spread(self, where: Filter | None, limit: int, after: str | None) -> list[Listed]:
        """The first `limit` items behind a place, each with its place, by which the next page begins."""
        begin = None if after is None else _read_place(after)
        gone, rows = self._living()
        places = ((self._place(row), row) for row in rows.values() if where is None or where.matches(row.item))
        living = heapq.nsmallest(limit, (one for one in places if begin is None or one[0] > begin), lambda one: one[0])
        wanted = ~gone
        if where is not None:
            selected = np.zeros(len(gone), bool)
            selected[self._selections.select(where).numbers] = True
            wanted &= selected
        in_bundle = list(itertools.islice(self._spread.behind(begin, wanted), limit))
        details = self._joined.details(number for _, number in in_bundle)
        items = [(place, self._joined.living_item(row)) for place, row in living]
        items += [(place, details[number]) for place, number in in_bundle]
        return [(f"{place:016x}", item) for place, item in sorted(items, key=lambda one: one[0])[:limit]]

    def _living(self) -> tuple[Flags, dict[str, Row]]:
        """Which items of the bundle are not to be listed, and the living ones by id."""
        # In this order: what a change moves from there to here meanwhile is in both, and counts here.
        gone = self._base.gone.copy()
        delta = self._joined.delta
        rows = {str(delta.rows[place].item["id"]): delta.rows[place] for place in delta.living().tolist()}
        gone[[row.number for row in rows.values() if row.number >= 0]] = True
        return gone, rows

    def _place(self, row: Row) -> int:
        """An item of the bundle that was changed stays where it was; new ones stand where their ids' hash falls."""
        if row.number >= 0:
            return self._spread.place(row.number)
        name = str(row.item["id"]).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(name, digest_size=_BITS // 8).digest(), "big")


def _step(items: int) -> int:
    """The step near the golden section whose multiples lie most evenly: its continued fraction has the smallest terms.

    The golden section itself has only ones; but the step must be a whole number, and share no divisor with `items`.
    """
    golden = round(_GOLDEN * items)
    near = range(max(1, golden - _NEAR), min(items, golden + _NEAR) + 1)
    return min(near, key=lambda step: (_largest_term(items, step), abs(step - golden)))


def _largest_term(items: int, step: int) -> int:
    """Of the continued fraction of `items / step`; far more where they share a divisor."""
    largest = 0
    while step:
        largest = max(largest, items // step)
        items, step = step, items % step
    return largest if items == 1 else largest + (1 << _BITS)


def _read_place(text: str) -> int:
    if _PLACE.fullmatch(text) is None:
        raise BadRequest(f"after={text[:40]!r}: no place in this order. Give `next` of the page before, with the same order.")
    return int(text, 16)
