"""Random choices that are the same on every platform and with every NumPy release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draws:
    """A stream of random choices named by integers.

    Only the raw 64-bit stream of PCG64 is used: NumPy promises it across releases, unlike what `Generator` makes of it.

    >>> Draws(0, 7).uniform(10, 20) == Draws(0, 7).uniform(10, 20)
    True
    """

    def __init__(self, *name: int) -> None:
        self._bits = np.random.PCG64(list(name))

    def unit(self) -> float:
        """A number from 0 up to but not including 1."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def choice(self, options: Sequence[T]) -> T:
        return options[int(self.unit() * len(options))]

    def raw_bytes(self, count: int) -> bytes:
        words = self._bits.random_raw(-(-count // 8))
        return np.asarray(words).astype("<u8").tobytes()[:count]
