"""Checks of the samplers' own arguments."""

from __future__ import annotations

import numbers
import operator
from typing import Any


def check_integer(argument: str, value: Any, lowest: int, highest: int | None = None) -> int:
    """Returns `value` as an int if it is an integer from `lowest` to `highest`, else raises.

    >>> check_integer("classes", 0, 1)
    Traceback (most recent call last):
    ...
    ValueError: classes=0: expected an integer of at least 1.
    """
    expected = f"an integer of at least {lowest}" if highest is None else f"an integer from {lowest} to {highest}"
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{argument}={value!r} is a {type(value).__name__}: expected {expected}.")
    if number < lowest or (highest is not None and number > highest):
        raise ValueError(f"{argument}={number}: expected {expected}.")
    return number


def check_share(argument: str, value: Any) -> float:
    """Returns `value` as a float if it is a number from 0 to 1, else raises.

    >>> check_share("similar", 1.5)
    Traceback (most recent call last):
    ...
    ValueError: similar=1.5: expected a share from 0 to 1.
    """
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"{argument}={value!r}: expected a share from 0 to 1.")
    return number
