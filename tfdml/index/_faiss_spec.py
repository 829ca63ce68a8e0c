"""The record that belongs to a file of `FaissIndex`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdml._checks import check_choice, check_positive
from tfdml.index._record import IndexSpec
from tfdml.index.base import IndexFormatError

if TYPE_CHECKING:
    from typing_extensions import Self

FAISS_KINDS = ("flat", "hnsw", "ivf", "ivf_sq", "ivf_pq")
STORED: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
"""How the vectors may lie in the file."""

_FEWEST_FOR_CODES = 1024
_LINKS = 16


@dataclass(frozen=True, kw_only=True)
class FaissSpec(IndexSpec):
    """What a reader must know of the file before it lets FAISS open it.

    Attributes:
        dimension: length of the vectors.
        metric: `"cosine"` or `"euclidean"`.
        count: number of items.
        kind: one of `FAISS_KINDS`.
        lists: number of inverted lists; 0 where there are none.
        links: HNSW's links of an item (M; twice as many on the lowest layer); 0 without a graph.
        code_bytes: bytes of an item's product code; 0 without one.
        seed: of the clustering.
        search_k: how many items a search looks at, chosen for the asked recall.
        recall_asked: share of the true neighbours that was asked for.
        recall: the share measured against exact search, on queries that the index has not seen and that `search_k` was not
            chosen on.
        recall_at: at how many neighbours.
        recall_queries: on how many queries.
        vectors_at: where in the file the vectors begin.
        stored: `"float32"` or `"float16"`, as what they are stored. Records of tfdml before 0.2 do not say: float32.
        sha256: checksum of the file.
        bytes: its size.
        backend: always `"faiss"`.
    """

    kind: str
    lists: int
    links: int
    code_bytes: int
    seed: int
    recall_queries: int
    vectors_at: int
    stored: str = "float32"
    backend: str = "faiss"

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Reads what `as_dict` wrote, also where it did not yet say how the vectors are stored.

        Raises:
            IndexFormatError: for a missing or unknown key, a value of the wrong type or out of range; it names the key.
        """
        return super().from_dict({"stored": "float32", **record} if isinstance(record, Mapping) else record)

    def _check(self) -> None:
        if self.kind not in FAISS_KINDS:
            known = ", ".join(map(repr, FAISS_KINDS))
            raise IndexFormatError(f"index record: kind={self.kind!r}; this reader knows {known}.")
        if self.stored not in STORED:
            raise IndexFormatError(f"index record: stored={self.stored!r}; this reader knows {', '.join(map(repr, STORED))}.")
        size = STORED[self.stored].itemsize * self.count * self.dimension
        if self.bytes != self.vectors_at + size or self.vectors_at < 0 or self.vectors_at % 64:
            raise IndexFormatError(
                f"index record: {self.count} vectors of dimension {self.dimension} from byte {self.vectors_at} on do not make "
                f"{self.bytes} bytes."
            )
        for key, used in {
            "lists": self.kind.startswith("ivf"),
            "links": self.kind == "hnsw",
            "code_bytes": self.kind == "ivf_pq",
        }.items():
            if (getattr(self, key) > 0) != used:
                raise IndexFormatError(f"index record: {key}={getattr(self, key)} with kind={self.kind!r}.")


def sized(
    kind: str, count: int, dimension: int, lists: int | str, links: int | str, code_bytes: int | str
) -> tuple[int, int, int]:
    """Lists, links and code bytes of an index of this kind, each 0 where the kind has none.

    Raises:
        ValueError: for an unknown kind, a setting that the kind has not, or one that does not fit the vectors.
    """
    check_choice("kind", kind, FAISS_KINDS)
    users = {
        "lists": [one for one in FAISS_KINDS if one.startswith("ivf")],
        "links": ["hnsw"],
        "code_bytes": ["ivf_pq"],
    }
    for name, value in {"lists": lists, "links": links, "code_bytes": code_bytes}.items():
        if value == "auto":
            continue
        if isinstance(value, str):
            raise ValueError(f"{name}={value!r}: expected a whole number >= 1, or 'auto'.")
        check_positive(name, value)
        if kind not in users[name]:
            raise ValueError(f"{name}={value}: kind={kind!r} has none. Leave it out, or take kind={users[name][0]!r}.")
    if kind == "ivf_pq" and count < _FEWEST_FOR_CODES:
        raise ValueError(
            f"kind='ivf_pq': {count} items are too few to train product codes on. Expected {_FEWEST_FOR_CODES} or more; "
            "take kind='flat', which compares them all."
        )
    if kind == "hnsw":
        chosen = _LINKS if links == "auto" else int(links)
        if chosen < 2:
            raise ValueError(f"links={chosen}: a graph needs 2 or more for each item.")
        return 0, chosen, 0
    if not kind.startswith("ivf"):
        return 0, 0, 0
    many = int(np.clip(round(4 * np.sqrt(count)), 1, max(1, count // 16))) if lists == "auto" else int(lists)
    if many > count:
        raise ValueError(f"lists={many}: more than there are items ({count}). Expected some 4 sqrt(items), or 'auto'.")
    if kind != "ivf_pq":
        return many, 0, 0
    parts = _code_bytes(dimension) if code_bytes == "auto" else int(code_bytes)
    if dimension % parts:
        divisors = [one for one in range(1, dimension + 1) if dimension % one == 0]
        raise ValueError(f"code_bytes={parts}: does not divide the dimension {dimension}. Expected one of {divisors}.")
    return many, 0, parts


def _code_bytes(dimension: int) -> int:
    """A byte for four dimensions; where that does not come out, for fewer."""
    return next(one for one in range(max(1, dimension // 4), dimension + 1) if dimension % one == 0)
