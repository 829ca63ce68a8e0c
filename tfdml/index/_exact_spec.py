"""The record that belongs to a file of `ExactIndex`."""

from __future__ import annotations

from dataclasses import dataclass

from tfdml.index._record import IndexSpec
from tfdml.index.base import IndexFormatError


@dataclass(frozen=True, kw_only=True)
class ExactSpec(IndexSpec):
    """What a reader must know of the file, which is nothing but the vectors, row by row. A search looks at all items.

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

    backend: str = "exact"

    def _check(self) -> None:
        if self.search_k != self.count:
            raise IndexFormatError(f"index record: search_k={self.search_k}, expected {self.count}: it looks at all items.")
        if self.bytes != 4 * self.count * self.dimension:
            raise IndexFormatError(
                f"index record: {self.count} vectors of dimension {self.dimension} do not make {self.bytes} bytes."
            )
