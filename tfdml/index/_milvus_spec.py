"""The record that belongs to a file of `MilvusIndex`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from tfdml._checks import check_choice, check_positive
from tfdml.index._record import IndexSpec
from tfdml.index.base import IndexFormatError

MILVUS_KINDS = ("flat", "hnsw", "ivf", "ivf_sq")
"""Those that Milvus Lite builds, too; it refuses Milvus's product codes, DiskANN and ScaNN."""

MILVUS_NAMES = {"flat": "FLAT", "hnsw": "HNSW", "ivf": "IVF_FLAT", "ivf_sq": "IVF_SQ8"}
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_LINKS = 16


@dataclass(frozen=True, kw_only=True)
class MilvusSpec(IndexSpec):
    """What a reader must know before it asks Milvus. It holds no address and no token.

    Attributes:
        dimension: length of the vectors.
        metric: `"cosine"` or `"euclidean"`.
        count: number of items.
        kind: one of `MILVUS_KINDS`.
        lists: number of inverted lists; 0 where there are none.
        links: HNSW's links of an item (M); 0 without a graph.
        seed: of the sample that the recall was measured on.
        collection: the name of the collection.
        cluster: 1 if the collection is on a cluster, 0 if the file holds a database of Milvus Lite.
        search_k: how many items a search looks at, chosen for the asked recall.
        recall_asked: share of the true neighbours that was asked for.
        recall: the share measured against exact search, on queries that the index has not seen and that `search_k` was not
            chosen on.
        recall_at: at how many neighbours.
        recall_queries: on how many queries.
        sha256: checksum of the file.
        bytes: its size.
        backend: always `"milvus"`.
    """

    kind: str
    lists: int
    links: int
    seed: int
    collection: str
    cluster: int
    recall_queries: int
    backend: str = "milvus"

    def _check(self) -> None:
        if self.kind not in MILVUS_KINDS:
            known = ", ".join(map(repr, MILVUS_KINDS))
            raise IndexFormatError(f"index record: kind={self.kind!r}; this reader knows {known}.")
        if self.cluster not in (0, 1) or not _COLLECTION.fullmatch(self.collection):
            raise IndexFormatError(f"index record: collection={self.collection[:40]!r} with cluster={self.cluster}.")
        if (self.bytes == self.vectors_end) != bool(self.cluster) or self.bytes < self.vectors_end:
            raise IndexFormatError(
                f"index record: {self.count} vectors of dimension {self.dimension} with cluster={self.cluster} do not make "
                f"{self.bytes} bytes."
            )
        for key, used in {"lists": self.kind.startswith("ivf"), "links": self.kind == "hnsw"}.items():
            if (getattr(self, key) > 0) != used:
                raise IndexFormatError(f"index record: {key}={getattr(self, key)} with kind={self.kind!r}.")

    @property
    def vectors_end(self) -> int:
        """Where in the file the vectors end, and the database begins."""
        return 4 * self.count * self.dimension


def milvus_sizes(kind: str, count: int, lists: int | str, links: int | str) -> tuple[int, int]:
    """Lists and links of an index of this kind, each 0 where the kind has none.

    Raises:
        ValueError: for an unknown kind, a setting that the kind has not, or one that does not fit the vectors.
    """
    check_choice("kind", kind, MILVUS_KINDS)
    for name, value, users in (("lists", lists, ("ivf", "ivf_sq")), ("links", links, ("hnsw",))):
        if value == "auto":
            continue
        if isinstance(value, str):
            raise ValueError(f"{name}={value!r}: expected a whole number >= 1, or 'auto'.")
        check_positive(name, value)
        if kind not in users:
            raise ValueError(f"{name}={value}: kind={kind!r} has none. Leave it out, or take kind={users[0]!r}.")
    if kind == "hnsw":
        chosen = _LINKS if links == "auto" else int(links)
        if not 2 <= chosen <= 2048:
            raise ValueError(f"links={chosen}: Milvus takes 2 to 2048 for each item of a graph.")
        return 0, chosen
    if kind == "flat":
        return 0, 0
    many = int(np.clip(round(4 * np.sqrt(count)), 1, max(1, min(count // 40, 65_536)))) if lists == "auto" else int(lists)
    if many > min(count, 65_536):
        raise ValueError(f"lists={many}: expected at most {min(count, 65_536)}: Milvus's limit, and the number of items.")
    return many, 0
