"""The record that belongs to an Annoy file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tfdml.index._record import read_record
from tfdml.index.base import METRICS, IndexFormatError


@dataclass(frozen=True)
class AnnoySpec:
    """What a reader must know of an Annoy file before it may open it: the file itself has no header.

    Attributes:
        dimension: length of the vectors.
        metric: `"cosine"` or `"euclidean"`.
        count: number of items.
        trees: number of trees.
        seed: the seed they were built with; the same vectors and seed give the same file.
        search_k: how many candidates a search looks at, chosen for the asked recall.
        recall_asked: share of the true neighbours that was asked for.
        recall: the share measured against exact search, on queries that the trees have not seen and that `search_k` was not
            chosen on.
        recall_at: at how many neighbours.
        recall_queries: on how many queries.
        sha256: checksum of the file.
        bytes: its size.
        backend: always `"annoy"`.
    """

    dimension: int
    metric: str
    count: int
    trees: int
    seed: int
    search_k: int
    recall_asked: float
    recall: float
    recall_at: int
    recall_queries: int
    sha256: str
    bytes: int
    backend: str = "annoy"

    def as_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> AnnoySpec:
        """Reads what `as_dict` wrote.

        Raises:
            IndexFormatError: for a missing or unknown key, a value of the wrong type or out of range; it names the key.
        """
        spec = read_record(cls, record, positive=("dimension", "count", "trees", "search_k", "recall_at", "bytes"))
        if spec.metric not in METRICS or spec.backend != "annoy":
            raise IndexFormatError(
                f"index record: backend={spec.backend!r} with metric={spec.metric!r}; this reader knows 'annoy' with "
                f"{' or '.join(map(repr, METRICS))}."
            )
        return spec
