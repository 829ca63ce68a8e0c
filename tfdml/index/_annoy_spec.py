"""The record that belongs to an Annoy file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tfdml.index._record import IndexSpec


@dataclass(frozen=True, kw_only=True)
class AnnoySpec(IndexSpec):
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

    trees: int
    seed: int
    recall_queries: int
    backend: str = "annoy"

    _at_least_one: ClassVar[tuple[str, ...]] = (*IndexSpec._at_least_one, "trees")
