"""Typed values out of the manifest's JSON, which is believed in nothing."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from tfdml.bundle.errors import BundleError
from tfdml.bundle.layout import MANIFEST

_T = TypeVar("_T")


class Fields:
    """Takes typed values out of parsed JSON, naming the key in every complaint."""

    def __init__(self, content: dict[str, Any], path: str) -> None:
        self._left = dict(content)
        self._path = path

    def take(self, key: str, kind: type[_T]) -> _T:
        if key not in self._left:
            raise BundleError(f"{MANIFEST}: the key {self._path + key!r} is missing. Export the bundle anew.")
        value = self._left.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.refuse(key, value, f"a value of type {_JSON_NAMES[kind]}")
        return value

    def refuse(self, key: str, value: object, expected: str) -> None:
        shown = repr(value) if len(repr(value)) < 80 else repr(value)[:77] + "..."
        raise BundleError(f"{MANIFEST}: {self._path + key!r} is {shown}; expected {expected}. Export the bundle anew.")

    def number(self, key: str) -> float:
        if isinstance(self._left.get(key), int) and not isinstance(self._left[key], bool):
            return self.take(key, int)
        return self.take(key, float)

    def positive(self, key: str, least: int = 1) -> int:
        value = self.take(key, int)
        if value < least:
            self.refuse(key, value, f"an integer >= {least}")
        return value

    def empty(self, key: str) -> bool:
        """Takes the key if its value is null."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return True
        return False

    def choice(self, key: str, known: tuple[str, ...]) -> str:
        value = self.take(key, str)
        if value not in known:
            self.refuse(key, value, "one of " + ", ".join(repr(k) for k in known))
        return value

    def sha256(self, key: str) -> str:
        value = self.take(key, str)
        if not re.fullmatch("[0-9a-f]{64}", value):
            self.refuse(key, value, "a SHA-256 in hexadecimal")
        return value

    def shape(self, key: str) -> tuple[int, int, int]:
        value = self.take(key, list)
        if len(value) != 3 or not all(type(v) is int and v >= 1 for v in value):
            self.refuse(key, value, "[height, width, channels]")
        return value[0], value[1], value[2]

    def integers(self, key: str) -> tuple[int, ...]:
        value = self.take(key, list)
        if not all(type(v) is int and v >= 0 for v in value):
            self.refuse(key, value, "a list of integers >= 0")
        return tuple(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        value = self.take(key, list)
        if not all(type(v) in (int, float) for v in value):
            self.refuse(key, value, "a list of numbers")
        return tuple(value)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.take(key, list)
        if not all(isinstance(v, str) for v in value):
            self.refuse(key, value, "a list of strings")
        return tuple(value)

    def mapping(self, key: str) -> Fields:
        return Fields(self.take(key, dict), f"{self._path}{key}.")

    def each(self, key: str, read: Any) -> dict[str, Any]:
        fields = self.mapping(key)
        return {name: read(fields, name) for name in list(fields._left)}

    def end(self) -> None:
        if self._left:
            unknown = ", ".join(repr(self._path + key) for key in sorted(self._left))
            raise BundleError(f"{MANIFEST}: unknown keys: {unknown}. It was edited, or made by a newer tfdml: upgrade tfdml.")


_JSON_NAMES: dict[type, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    dict: "object",
    list: "list",
}
