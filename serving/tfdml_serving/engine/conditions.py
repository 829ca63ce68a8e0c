"""The parts of a filter: each knows itself in SQL, and what SQLite would say of an item in memory.

SQLite has three answers: true, false, and NULL where a value is missing; here they are True, False and None.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Protocol

from tfdml.bundle.catalogue import Value, quoted

Item = Mapping[str, Value]
Parameters = list[str | int | float]

# Python compares whole and real numbers exactly, and texts by code points, as SQLite does (whose order of UTF-8 bytes is that).
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Condition(Protocol):
    """A part of a filter."""

    def sql(self, parameters: Parameters) -> str:
        """The condition in SQL; its values are appended to `parameters`."""
        ...

    def holds(self, item: Item) -> bool | None:
        """Whether it holds for an item; None where SQLite says NULL."""
        ...


@dataclasses.dataclass(frozen=True)
class Comparison:
    field: str
    operator: str
    value: str | int | float

    def sql(self, parameters: Parameters) -> str:
        parameters.append(self.value)
        return f"{quoted(self.field)} {self.operator} ?"

    def holds(self, item: Item) -> bool | None:
        value = item.get(self.field)
        return None if value is None else _OPERATORS[self.operator](value, self.value)


@dataclasses.dataclass(frozen=True)
class In:
    field: str
    values: tuple[str | int | float, ...]

    def sql(self, parameters: Parameters) -> str:
        parameters.extend(self.values)
        return f"{quoted(self.field)} IN ({', '.join('?' * len(self.values))})"

    def holds(self, item: Item) -> bool | None:
        value = item.get(self.field)
        return None if value is None else value in self._set

    @cached_property
    def _set(self) -> frozenset[str | int | float]:
        return frozenset(self.values)


@dataclasses.dataclass(frozen=True)
class IsNull:
    field: str

    def sql(self, parameters: Parameters) -> str:
        return f"{quoted(self.field)} IS NULL"

    def holds(self, item: Item) -> bool | None:
        return item.get(self.field) is None


@dataclasses.dataclass(frozen=True)
class Like:
    """% stands for any characters, _ for any one; the case of ASCII letters does not count."""

    field: str
    pattern: str

    def sql(self, parameters: Parameters) -> str:
        parameters.append(self.pattern)
        return f"{quoted(self.field)} LIKE ?"

    def holds(self, item: Item) -> bool | None:
        value = item.get(self.field)
        return None if value is None else self._fits(_folded(str(value)))

    def _fits(self, text: str) -> bool:
        # From left to right, each piece at the first place where it fits: never more than pieces x length steps, where one
        # regular expression for the whole pattern could take longer than anybody waits.
        first, *rest = self._pieces
        if not rest:
            return first.fullmatch(text) is not None
        start = first.match(text)
        if start is None:
            return False
        *between, last = rest
        place = start.end()
        for piece in between:
            here = piece.search(text, place)
            if here is None:
                return False
            place = here.end()
        return len(text) - self._last_length >= place and last.match(text, len(text) - self._last_length) is not None

    @cached_property
    def _pieces(self) -> list[re.Pattern[str]]:
        """What stands between the %: of fixed length each."""
        pieces = _folded(self.pattern).split("%")
        return [
            re.compile("".join("." if character == "_" else re.escape(character) for character in piece), re.DOTALL)
            for piece in pieces
        ]

    @cached_property
    def _last_length(self) -> int:
        return len(self.pattern.rsplit("%", 1)[-1])


@dataclasses.dataclass(frozen=True)
class Not:
    inside: Condition

    def sql(self, parameters: Parameters) -> str:
        return f"NOT {self.inside.sql(parameters)}"

    def holds(self, item: Item) -> bool | None:
        inside = self.inside.holds(item)
        return None if inside is None else not inside


@dataclasses.dataclass(frozen=True)
class And:
    parts: tuple[Condition, ...]

    def sql(self, parameters: Parameters) -> str:
        return f"({' AND '.join(part.sql(parameters) for part in self.parts)})"

    def holds(self, item: Item) -> bool | None:
        result: bool | None = True
        for part in self.parts:
            holds = part.holds(item)
            if holds is False:
                return False
            if holds is None:
                result = None
        return result


@dataclasses.dataclass(frozen=True)
class Or:
    parts: tuple[Condition, ...]

    def sql(self, parameters: Parameters) -> str:
        return f"({' OR '.join(part.sql(parameters) for part in self.parts)})"

    def holds(self, item: Item) -> bool | None:
        result: bool | None = False
        for part in self.parts:
            holds = part.holds(item)
            if holds is True:
                return True
            if holds is None:
                result = None
        return result


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
# Where SQLite's LIKE decodes UTF-8 it takes these two, which are no characters, for U+FFFD.
_FOLDED = {**_LOWER, 0xFFFE: 0xFFFD, 0xFFFF: 0xFFFD}


def _folded(text: str) -> str:
    return text.translate(_FOLDED)
