"""Checks of arguments that every room shares. Python standard library only."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any


def check_choice(argument: str, value: object, known: Iterable[str]) -> str:
    """Returns `value` if it is one of the `known` strings, else raises a `ValueError` that lists them.

    >>> check_choice("mining", "semi_hard", ["semi_hard", "hard"])
    'semi_hard'
    >>> check_choice("mining", "harder", ["semi_hard", "hard"])
    Traceback (most recent call last):
    ...
    ValueError: mining='harder' is not known. Known: 'semi_hard', 'hard'.
    """
    options = list(known)
    if isinstance(value, str) and value in options:
        return value
    raise ValueError(f"{argument}={value!r} is not known. Known: {', '.join(repr(o) for o in options)}.")


def check_positive(argument: str, value: float, *, allow_zero: bool = False) -> None:
    """Raises a `ValueError` unless `value` is a finite number above zero (or zero, where that is allowed).

    >>> check_positive("classes", 0)
    Traceback (most recent call last):
    ...
    ValueError: classes=0: expected a number > 0.
    """
    bound = ">= 0" if allow_zero else "> 0"
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    good = is_number and value == value and abs(value) != float("inf") and (value > 0 or (allow_zero and value == 0))
    if not good:
        raise ValueError(f"{argument}={value!r}: expected a number {bound}.")


def check_count(argument: str, value: Any, least: int, hint: str = "") -> int:
    """Returns `value` as an int if it is an integer of at least `least`, NumPy's included, else raises a `ValueError`.

    >>> check_count("classes", 2.5, 1)
    Traceback (most recent call last):
    ...
    ValueError: classes=2.5: expected an integer >= 1.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise ValueError(f"{argument}={value!r}: expected an integer >= {least}{hint and ', '}{hint}.")
    return int(value)
