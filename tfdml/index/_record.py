"""What is recorded of a stored index, and reading it back, which believes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from tfdml.index.base import METRICS, IndexFormatError

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """What a reader must know of an index's file before it opens it, whatever the backend.

    Attributes:
        dimension: length of the vectors.
        metric: `"cosine"` or `"euclidean"`.
        count: number of items.
        search_k: how many items a search looks at, chosen for the asked recall.
        recall_asked: share of the true neighbours that was asked for.
        recall: the share measured against exact search.
        recall_at: at how many neighbours.
        sha256: checksum of the file.
        bytes: its size.
        backend: the library that reads it.
    """

    dimension: int
    metric: str
    count: int
    search_k: int
    recall_asked: float
    recall: float
    recall_at: int
    sha256: str
    bytes: int
    backend: str

    _at_least_one: ClassVar[tuple[str, ...]] = ("dimension", "count", "search_k", "recall_at", "bytes")

    def as_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Reads what `as_dict` wrote.

        Raises:
            IndexFormatError: for a missing or unknown key, a value of the wrong type or out of range; it names the key.
        """
        spec = cls(**_values(cls, record))
        known = cls.__dataclass_fields__["backend"].default
        if spec.metric not in METRICS or spec.backend != known:
            raise IndexFormatError(
                f"index record: backend={spec.backend!r} with metric={spec.metric!r}; this reader knows {known!r} with "
                f"{' or '.join(map(repr, METRICS))}."
            )
        spec._check()
        return spec

    def _check(self) -> None:
        """Raises an `IndexFormatError` for values that do not go together."""


def _values(cls: type[IndexSpec], record: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise IndexFormatError(f"index record: expected a mapping, received {type(record).__name__}.")
    expected: dict[str, type] = {f.name: {"int": int, "float": float, "str": str}[str(f.type)] for f in fields(cls)}
    missing, unknown = sorted(expected.keys() - record.keys()), sorted(map(str, record.keys() - expected.keys()))
    if missing or unknown:
        raise IndexFormatError(f"index record: missing keys {missing}, unknown keys {unknown}.")
    for key, kind in expected.items():
        value = record[key]
        good = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        if not good:
            raise IndexFormatError(f"index record: {key}={value!r}, expected {kind.__name__}.")
    for key in cls._at_least_one:
        if record[key] < 1:
            raise IndexFormatError(f"index record: {key}={record[key]}, expected a number >= 1.")
    for key in ("recall", "recall_asked"):
        if not 0 <= record[key] <= 1:
            raise IndexFormatError(f"index record: {key}={record[key]}, expected a share from 0 to 1.")
    return dict(record)
