"""The ids of a large gallery in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from tfdml.index.base import check_ids

_PER_PIECE = 4096


class PackedIds(Sequence[str]):
    """Different strings by number: joined texts and where each id ends in them.

    A million ids of a dozen letters take 16 MB, and no object of Python's for each; as a tuple they take 70 MB.

    Args:
        ids: different strings; read once, in order.

    Raises:
        ValueError: for an id that is no string, and for one that comes twice.

    Example:
        >>> ids = PackedIds(f"item-{number}" for number in range(10_000))
        >>> len(ids), ids[-1], ids[4095:4098]
        (10000, 'item-9999', ['item-4095', 'item-4096', 'item-4097'])
    """

    def __init__(self, ids: Iterable[Any]) -> None:
        self._texts: list[str] = []
        ends: list[npt.NDArray[np.int64]] = []
        hashes: list[npt.NDArray[np.int64]] = []
        rest = iter(ids)
        while piece := list(islice(rest, _PER_PIECE)):
            if set(map(type, piece)) != {str}:
                piece = list(check_ids(piece, len(piece)))
            self._texts.append("".join(piece))
            ends.append(np.fromiter(map(len, piece), np.int64, len(piece)).cumsum())
            hashes.append(np.fromiter(map(hash, piece), np.int64, len(piece)))
        self._ends = np.concatenate([*ends, np.zeros(0, np.int64)]).astype(np.uint32)
        del ends
        self._check_different(np.concatenate([*hashes, np.zeros(0, np.int64)]))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...

    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self._one(one) for one in range(*number.indices(len(self)))]
        place = int(number)
        if not -len(self) <= place < len(self):
            raise IndexError(f"number={place}: there are {len(self)} ids.")
        return self._one(place % len(self))

    def __iter__(self) -> Iterator[str]:
        return map(self._one, range(len(self)))

    def take(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        """The ids of item numbers, in an array of the same shape."""
        result = np.empty(numbers.shape, object)
        flat = result.ravel()  # a view: the array is new
        for place, number in enumerate(numbers.ravel().tolist()):
            flat[place] = self._one(number)
        return result

    def _one(self, number: int) -> str:
        piece, place = divmod(number, _PER_PIECE)
        start = int(self._ends[number - 1]) if place else 0
        return self._texts[piece][start : int(self._ends[number])]

    def _check_different(self, hashes: npt.NDArray[np.int64]) -> None:
        """Equal ids have equal hashes; only ids with equal hashes are looked at."""
        ordered = np.sort(hashes)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not len(twice):
            return
        suspects = [self._one(number) for number in np.flatnonzero(np.isin(hashes, twice)).tolist()]
        if len(set(suspects)) != len(suspects):
            check_ids(list(self), len(self))


def packed_ids(ids: Iterable[Any], count: int) -> PackedIds:
    """`ids` as `PackedIds`, checked to be `count` different strings."""
    return ids if isinstance(ids, PackedIds) and len(ids) == count else PackedIds(check_ids(ids, count))
