"""Reading JSON that should have certain parts: the part that is missing or of another kind is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tfdml_serving.client.errors import UnexpectedAnswer

T = TypeVar("T")

_KINDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", dict: "an object", list: "a list"}


class Part:
    """One object of an answer. What it holds beyond the asked parts does not matter: a newer server may say more.

    Args:
        value: what stands there.
        where: its place in the answer, for the message.

    Example:
        >>> part = Part({"version": 3, "threshold": None}, "answer")
        >>> part.integer("version"), part.optional("threshold", part.number)
        (3, None)
        >>> part.text("version")
        Traceback (most recent call last):
        ...
        tfdml_serving.client.errors.UnexpectedAnswer: answer.version is 3; expected a string.
    """

    def __init__(self, value: Any, where: str) -> None:
        self._value: dict[str, Any] = _checked(value, dict, where)
        self._where = where

    def text(self, name: str) -> str:
        return self._get(name, str)

    def integer(self, name: str) -> int:
        return self._get(name, int)

    def number(self, name: str) -> float:
        return self._get(name, float)

    def boolean(self, name: str) -> bool:
        return self._get(name, bool)

    def mapping(self, name: str) -> Mapping[str, Any]:
        return self._get(name, dict)

    def list(self, name: str) -> list[Any]:
        return self._get(name, list)

    def part(self, name: str) -> Part:
        return Part(self._value.get(name), f"{self._where}.{name}")

    def parts(self, name: str) -> Iterator[Part]:
        for number, value in enumerate(self.list(name)):
            yield Part(value, f"{self._where}.{name}[{number}]")

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(_checked(value, str, f"{self._where}.{name}[{n}]") for n, value in enumerate(self.list(name)))

    def numbers(self, name: str) -> tuple[float, ...]:
        return tuple(_checked(value, float, f"{self._where}.{name}[{n}]") for n, value in enumerate(self.list(name)))

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """What `read` makes of a part, or None where it is null or missing."""
        return None if self._value.get(name) is None else read(name)

    def has(self, name: str) -> bool:
        return self._value.get(name) is not None

    def names(self) -> tuple[str, ...]:
        return tuple(self._value)

    def _get(self, name: str, kind: type[T]) -> T:
        return _checked(self._value.get(name), kind, f"{self._where}.{name}")


def json_part(body: bytes, where: str = "the answer") -> Part:
    """The object that a body holds."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        start = body[:80].decode("utf-8", "replace")
        raise UnexpectedAnswer(f"{where} is not JSON ({error}): it starts with {start!r}.") from error
    return Part(value, where)


def _checked(value: Any, kind: type[T], where: str) -> T:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    good = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not good or (kind is float and not math.isfinite(value)):
        shown = "missing" if value is None else repr(value)[:80]
        raise UnexpectedAnswer(f"{where} is {shown}; expected {_KINDS[kind]}.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")
