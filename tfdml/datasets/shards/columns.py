"""Millions of texts in two memory-mapped arrays, instead of as many Python objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


class Texts:
    """A sequence of texts: their UTF-8 bytes one after the other, and where each ends.

    Args:
        data: `uint8`, all bytes.
        ends: `int64 [N]`, where the bytes of each text end.
        rows: which of them, and in which order; all when left out.
    """

    def __init__(self, data: np.ndarray, ends: np.ndarray, rows: np.ndarray | None = None) -> None:
        self._data, self._ends, self._rows = data, ends, rows

    def __len__(self) -> int:
        return len(self._ends if self._rows is None else self._rows)

    def __getitem__(self, index: Any) -> Any:
        """The value at an integer; of a slice, a mask or an array of integers, a sequence of its own."""
        if not isinstance(index, (int, np.integer)):
            return self.at(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"index={index}: expected 0 to {len(self) - 1}.")
        row = int(index) % len(self)
        row = row if self._rows is None else int(self._rows[row])
        begin = int(self._ends[row - 1]) if row else 0
        return self.read(self._data[begin : int(self._ends[row])].tobytes())

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.tolist(), dtype=dtype)

    def at(self, rows: np.ndarray) -> Any:
        """Those at `rows`, sharing the memory."""
        return type(self)(self._data, self._ends, rows if self._rows is None else self._rows[rows])

    def tolist(self) -> list[Any]:
        return list(self)

    def setflags(self, write: bool = False) -> None:
        """As arrays have it: these are never written to."""

    @staticmethod
    def read(data: bytes) -> Any:
        return data.decode("utf-8")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}: {', '.join(repr(self[i]) for i in range(min(3, len(self))))}, ...)"


class Values(Texts):
    """A sequence of numbers, texts, booleans and None, each kept as JSON."""

    @staticmethod
    def read(data: bytes) -> Any:
        return json.loads(data)


def packed(values: Iterable[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays of `Texts`."""
    values = list(values)
    ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), dtype=np.int64)
    return np.frombuffer(b"".join(values), np.uint8), ends


def mapped(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays under `folder`, as `TextsFile` wrote them."""
    file = folder / f"{name}.bytes"
    data = np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)
    return data, np.load(folder / f"{name}.ends.npy", mmap_mode="r")


class TextsFile:
    """Writes the two arrays part by part. `count` is how many values there will be."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self._file = open(folder / f"{name}.bytes", "wb")  # noqa: SIM115 (closed by `close`)
        self._ends = np.lib.format.open_memmap(folder / f"{name}.ends.npy", "w+", np.int64, (count,))
        self._done = self._size = 0

    def add(self, data: np.ndarray, ends: np.ndarray) -> None:
        self._file.write(data.tobytes())
        self._ends[self._done : self._done + len(ends)] = ends + self._size
        self._done += len(ends)
        self._size += len(data)

    def close(self) -> None:
        self._file.close()
        self._ends.flush()
