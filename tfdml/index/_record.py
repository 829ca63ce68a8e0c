"""Reading the record of a stored index, which is believed in nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from tfdml.index.base import IndexFormatError

_Spec = TypeVar("_Spec")


def read_record(cls: type[_Spec], record: Mapping[str, Any], positive: Sequence[str]) -> _Spec:
    """A dataclass of numbers and strings from the mapping that `asdict` made of one.

    Args:
        cls: the dataclass; its recalls are shares.
        record: what was read.
        positive: names of the numbers that are at least 1.

    Raises:
        IndexFormatError: for a missing or unknown key, a value of the wrong type or out of range; it names the key.
    """
    names = fields(cls)  # type: ignore[arg-type]
    expected: dict[str, type] = {f.name: {"int": int, "float": float, "str": str}[str(f.type)] for f in names}
    if not isinstance(record, Mapping):
        raise IndexFormatError(f"index record: expected a mapping, received {type(record).__name__}.")
    missing, unknown = sorted(expected.keys() - record.keys()), sorted(map(str, record.keys() - expected.keys()))
    if missing or unknown:
        raise IndexFormatError(f"index record: missing keys {missing}, unknown keys {unknown}.")
    for key, kind in expected.items():
        value = record[key]
        good = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        if not good:
            raise IndexFormatError(f"index record: {key}={value!r}, expected {kind.__name__}.")
    for key in positive:
        if record[key] < 1:
            raise IndexFormatError(f"index record: {key}={record[key]}, expected a number >= 1.")
    for key in ("recall", "recall_asked"):
        if not 0 <= record[key] <= 1:
            raise IndexFormatError(f"index record: {key}={record[key]}, expected a share from 0 to 1.")
    return cls(**dict(record))
