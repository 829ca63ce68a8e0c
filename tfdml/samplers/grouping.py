"""Labels sorted once into (offsets, item ids): the ground that every sampler stands on. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 18
"""Rows that are worked on at a time, so that temporaries stay far smaller than the labels."""


@dataclasses.dataclass(frozen=True, eq=False)
class ClassGroups:
    """The items of every class, side by side in one array.

    The items of class number `c` are `items[starts[c] : starts[c] + sizes[c]]`, in rising order; class numbers follow the
    rising order of the labels. Ten million labels in a million classes are grouped in a second or two, and the work needs less
    than three times the memory of the labels, at its peak and all included.

    Args:
        labels: int64 `[C]`, the label of each class: the caller's own number, or for string labels the class number.
        starts: integers `[C]`, where each class begins in `items`.
        sizes: integers `[C]`, how many items each class has.
        items: integers `[N]`, item numbers, i.e. positions in the labels that were grouped.
        class_names: for string labels the sorted class names, else `None`. `class_names[label]` is the name of a label.

    Example:

    >>> groups = ClassGroups.from_labels([7, -1, 7, 7])
    >>> groups.num_classes, groups.labels.tolist(), groups.sizes.tolist()
    (2, [-1, 7], [1, 3])
    >>> groups.items_of(1).tolist()
    [0, 2, 3]
    """

    labels: NDArray[np.int64]
    starts: NDArray[np.integer[Any]]
    sizes: NDArray[np.integer[Any]]
    items: NDArray[np.integer[Any]]
    class_names: tuple[str, ...] | None = None

    @classmethod
    def from_labels(cls, labels: Any) -> ClassGroups:
        """Groups `labels`, one per item.

        Args:
            labels: `[N]` integers of any kind and size (negative, beyond 2^24, not dense), or strings; or groups, which are
                returned as they are, so that samplers take them in place of labels.

        Raises:
            TypeError: `labels` are neither integers nor strings.
            ValueError: `labels` are empty, not one-dimensional, or do not fit into int64.
        """
        if isinstance(labels, cls):
            return labels
        numbers, names = _as_integers(labels)
        order, starts, class_labels = _sort(numbers)
        sizes = np.empty_like(starts)
        np.subtract(starts[1:], starts[:-1], out=sizes[:-1])
        sizes[-1] = len(order) - starts[-1]
        return cls(class_labels, starts, sizes, order, names)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.labels)

    @property
    def num_items(self) -> int:
        """How many items the classes have together."""
        return int(self.sizes.sum(dtype=np.int64))

    def items_of(self, number: int) -> NDArray[np.integer[Any]]:
        """The items of class `number` (a position in `labels`, not a label)."""
        start = self.starts[number]
        return self.items[start : start + self.sizes[number]]

    def at_least(self, size: int) -> ClassGroups:
        """The classes that have at least `size` items; `items` is shared, not copied."""
        kept = self.sizes >= size
        if kept.all():
            return self
        return dataclasses.replace(self, labels=self.labels[kept], starts=self.starts[kept], sizes=self.sizes[kept])


def _as_integers(labels: Any) -> tuple[NDArray[np.integer[Any]], tuple[str, ...] | None]:
    """Checks `labels`; strings become class numbers in the order of their sorted names."""
    mixed = isinstance(labels, (list, tuple)) and any(isinstance(label, (str, bytes)) for label in labels)
    try:
        array = np.asarray(labels, dtype=object) if mixed else np.asarray(labels)
    except ValueError as error:
        raise ValueError(f"labels are ragged: expected one label per item, shape [N]. ({error})") from None
    if array.ndim != 1:
        remedy = "numpy.argmax(labels, 1) of one-hot rows" if array.ndim == 2 and array.shape[1] > 1 else "labels.reshape(-1)"
        raise ValueError(f"labels have shape {array.shape}: expected one label per item, shape [N]. Try {remedy}.")
    if array.size == 0:
        raise ValueError("labels are empty: expected one label per item, shape [N] with N >= 1.")
    if array.dtype.kind in "USOT":
        return _number_strings(array)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"labels have dtype {array.dtype}: expected integers or strings. "
            "If they are whole numbers, pass labels.astype('int64')."
        )
    if array.dtype == np.uint64 and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(
            f"labels reach {int(array.max())}, which does not fit into int64. "
            "Number the classes first: numpy.unique(labels, return_inverse=True)[1]."
        )
    return array, None


def _number_strings(array: NDArray[Any]) -> tuple[NDArray[np.integer[Any]], tuple[str, ...]]:
    for position, label in enumerate(array) if array.dtype.kind == "O" else ():
        if not isinstance(label, (str, bytes)):
            raise TypeError(
                f"labels[{position}]={label!r} is a {type(label).__name__}: expected integers only or strings only. "
                "Pass [str(label) for label in labels] to make them all strings."
            )

    def texts() -> Iterator[str]:
        return (label.decode("utf-8") if isinstance(label, bytes) else str(label) for label in array)

    names = tuple(sorted(set(texts())))
    numbers = {name: number for number, name in enumerate(names)}
    return np.fromiter((numbers[text] for text in texts()), np.int32, count=len(array)), names


def _sort(labels: NDArray[np.integer[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Returns (item numbers sorted by label, where each class starts, the label of each class)."""
    lowest, highest = int(labels.min()), int(labels.max())
    item_bits = max(1, (len(labels) - 1).bit_length())
    if (highest - lowest) >> (64 - item_bits) == 0:
        return _sort_packed(labels, lowest, item_bits)
    return _sort_indirectly(labels)


def _sort_packed(
    labels: NDArray[np.integer[Any]], lowest: int, item_bits: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Sorts 64-bit words (label - lowest, item number) in place: fast, no workspace, and the order is unique."""
    words = np.empty(len(labels), np.uint64)
    shift = np.uint64(item_bits)
    offset = np.uint64(lowest & 0xFFFFFFFFFFFFFFFF)
    for rows in _chunks(len(labels)):
        # Unsigned arithmetic wraps, so that the difference is right for negative labels too.
        part = labels[rows].astype(np.int64).view(np.uint64)
        part -= offset
        part <<= shift
        part |= np.arange(rows.start, rows.stop, dtype=np.uint64)
        words[rows] = part
    words.sort()

    starts, class_labels = _boundaries(len(words), lambda rows: words[rows] >> shift)
    class_labels += offset

    items = words.view(_index_type(len(words)))
    mask = np.uint64((1 << item_bits) - 1)
    for rows in _chunks(len(words)):
        # Into the words' own memory: the narrow copy of a row never lies behind the row itself.
        items[rows] = words[rows] & mask
    if items.itemsize != words.itemsize:
        items = _shrink(words, len(words), items.dtype)
    return items, starts, class_labels.view(np.int64)


def _sort_indirectly(labels: NDArray[np.integer[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """For labels so far apart (64-bit hashes, say) that label and item number do not fit into one word."""
    order = np.argsort(labels, kind="stable")
    starts, class_labels = _boundaries(len(order), lambda rows: labels[order[rows]].astype(np.int64).view(np.uint64))
    return order.astype(_index_type(len(order)), copy=False), starts, class_labels.view(np.int64)


def _boundaries(count: int, sorted_labels: Callable[[slice], NDArray[np.uint64]]) -> tuple[NDArray[Any], NDArray[np.uint64]]:
    """Where in the sorted labels each class starts, and its label. Two passes, so that each result is allocated once."""

    def firsts(rows: slice) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        part = sorted_labels(slice(max(rows.start - 1, 0), rows.stop))
        changes = np.flatnonzero(part[1:] != part[:-1]) + 1
        if rows.start == 0:
            changes = np.insert(changes, 0, 0)
        return changes + max(rows.start - 1, 0), part[changes]

    num_classes = sum(len(firsts(rows)[0]) for rows in _chunks(count))
    starts, class_labels = np.empty(num_classes, _index_type(count)), np.empty(num_classes, np.uint64)
    done = 0
    for rows in _chunks(count):
        positions, labels = firsts(rows)
        starts[done : done + len(positions)] = positions
        class_labels[done : done + len(positions)] = labels
        done += len(positions)
    return starts, class_labels


def _shrink(words: NDArray[Any], count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Gives the unused half of `words` back to the system, without a second copy of the used half."""
    words.resize((count * dtype.itemsize + 7) // 8, refcheck=False)
    return words.view(dtype)[:count]


def _index_type(count: int) -> type[np.integer[Any]]:
    return np.int32 if count <= np.iinfo(np.int32).max else np.int64


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))
