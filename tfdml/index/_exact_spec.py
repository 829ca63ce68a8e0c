"""The record that belongs to a file of `ExactIndex`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tfdml.index._record import read_record
from tfdml.index.base import METRICS, IndexFormatError


@dataclass(frozen=True)
class ExactSpec:
    """What a reader must know of the file, which is nothing but the vectors, row by row.

    Attributes:
        dimension: length of the vectors.
        metric: `"cosine"` or `"euclidean"`.
        count: number of items.
        search_k: how many items a search looks at: all.
        recall_asked: 1.
        recall: 1, by definition.
        recall_at: at how many neighbours.
        sha256: checksum of the file.
        bytes: its size.
        backend: always `"exact"`.
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
    backend: str = "exact"

    def as_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ExactSpec:
        """Reads what `as_dict` wrote.

        Raises:
            IndexFormatError: for a missing or unknown key, a value of the wrong type or out of range; it names the key.
        """
        spec = read_record(cls, record, positive=("dimension", "count", "search_k", "recall_at", "bytes"))
        if spec.metric not in METRICS or spec.backend != "exact" or spec.search_k != spec.count:
            raise IndexFormatError(
                f"index record: backend={spec.backend!r} with metric={spec.metric!r} and search_k={spec.search_k}; this reader "
                f"knows 'exact', which looks at all items, with {' or '.join(map(repr, METRICS))}."
            )
        if spec.bytes != 4 * spec.count * spec.dimension:
            raise IndexFormatError(
                f"index record: {spec.count} vectors of dimension {spec.dimension} do not make {spec.bytes} bytes."
            )
        return spec
