"""The ids of a large gallery in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import accumulate, islice
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
        # These grow in place: of a hundred million ids a list of arrays and their concatenation would be 2.4 GB.
        ends, hashes = array("I"), array("q")
        rest = iter(ids)
        while piece := list(islice(rest, _PER_PIECE)):
            if set(map(type, piece)) != {str}:
                piece = list(check_ids(piece, len(piece)))
            self._texts.append("".join(piece))
            ends.extend(accumulate(map(len, piece)))
            hashes.extend(map(hash, piece))
        self._ends = np.frombuffer(ends, np.uint32)
        self._check_different(np.frombuffer(hashes, np.int64))

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
        """Equal ids have equal hashes; only ids with equal hashes are looked at. Sorts `hashes` in place."""
        hashes.sort()
        twice = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        if not twice:
            return
        first: dict[str, int] = {}
        for number, one in enumerate(self):
            if hash(one) not in twice:
                continue
            if one in first:
                raise ValueError(
                    f"ids: {one!r} is the id of item {first[one]} and of item {number}. Every item needs an id of its own."
                )
            first[one] = number


def packed_ids(ids: Iterable[Any], count: int | None) -> PackedIds:
    """`ids` as `PackedIds`, checked to be `count` (None: any number of) different strings, without a tuple of all of them."""
    if isinstance(ids, (str, bytes)) or (count is not None and isinstance(ids, Sized) and len(ids) != count):
        check_ids(ids, count or 0)
    packed = ids if isinstance(ids, PackedIds) else PackedIds(ids)
    if count is not None and len(packed) != count:
        check_ids(packed, count)
    return packed
