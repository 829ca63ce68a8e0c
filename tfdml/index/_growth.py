"""From measurements on a sample to what a larger gallery would cost: extrapolation, and marked as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfdml.index._faiss_spec import sized
from tfdml.index.annoy import number_of_trees

# Powers of the number of items with which a query's time grows at least. A sample is small, and what does not grow (the call
# itself) hides what does: comparing grows as N, the 4 sqrt(N) centres of lists as its root. Trees and graphs grow with a
# logarithm, for which a tenth stands.
_QUERY = {"exact": 1.0, "flat": 1.0, "annoy": 0.1, "hnsw": 0.1, "ivf": 0.5, "ivf_sq": 0.5, "ivf_pq": 0.5}
# A build grows as N at least, and little faster for any kind: an item is compared with the lists of a few broad clusters only,
# and ten million items with product codes took 5.6 times the processor time of one million (benchmarks/hundred_million.py).
_BUILD, _BUILD_AT_MOST = 1.0, 1.2
_NODE_WORDS = 4


@dataclass(frozen=True)
class Measured:
    """Figures of an index on a sample.

    Attributes:
        items: how many vectors it held.
        recall: share of the 10 true neighbours of queries that were none of these vectors.
        p50_ms: median time of one query, in milliseconds.
        p99_ms: the time that one query in a hundred exceeds.
        build_seconds: to build it, and to choose and measure its recall.
        file_bytes: size of its file.
    """

    items: int
    recall: float
    p50_ms: float
    p99_ms: float
    build_seconds: float
    file_bytes: int


@dataclass(frozen=True)
class Expected:
    """The same for another number of items. Nothing here was measured.

    Attributes:
        items: for how many.
        latency_ms: median time of one query, everything that it needs in memory.
        build_seconds: to build it on this machine.
        file_bytes: size of its file.
        memory_bytes: what a search keeps warm. Of other bytes of the file a search reads a few rows.
    """

    items: int
    latency_ms: float
    build_seconds: float
    file_bytes: int
    memory_bytes: int


def settings_for(settings: Mapping[str, Any], items: int, dimension: int) -> dict[str, Any]:
    """The same settings with those written out that `"auto"` would choose for so many items."""
    if settings["backend"] == "annoy":
        return {"trees": number_of_trees("auto", items), **settings}
    if settings["backend"] != "faiss":
        return dict(settings)
    given = [settings.get(name, "auto") for name in ("lists", "links", "code_bytes")]
    found = dict(zip(("lists", "links", "code_bytes"), sized(settings["kind"], items, dimension, *given), strict=True))
    return {**settings, **{name: value for name, value in found.items() if value}}


def extrapolate(kind: str, found: tuple[Measured, ...], settings: Mapping[str, Any], items: int, dimension: int) -> Expected:
    """What an index of this kind would cost for `items`, by its measurements from the smallest sample to the largest."""
    last = found[-1]
    factor = items / last.items
    return Expected(
        items=items,
        latency_ms=last.p50_ms * factor ** min(1.0, max(_QUERY[kind], _power(found, "p50_ms"))),
        build_seconds=last.build_seconds * factor ** min(_BUILD_AT_MOST, max(_BUILD, _power(found, "build_seconds"))),
        file_bytes=_file_bytes(kind, last, items, dimension),
        memory_bytes=_memory_bytes(kind, last, settings, items, dimension),
    )


def _power(found: tuple[Measured, ...], name: str) -> float:
    """How steeply a figure grew from the first sample to the last, as a power of the number of items."""
    first, last = found[0], found[-1]
    if first.items == last.items:
        return 0.0
    return float(np.log(getattr(last, name) / getattr(first, name)) / np.log(last.items / first.items))


def _file_bytes(kind: str, last: Measured, items: int, dimension: int) -> int:
    per_item = last.file_bytes / last.items
    if kind == "annoy":  # besides the vectors it holds trees, whose number grows with that of the items
        vector = 4 * (dimension + _NODE_WORDS)
        trees = number_of_trees("auto", items) / number_of_trees("auto", last.items)
        per_item = vector + max(0.0, per_item - vector) * trees
    return round(items * per_item)


def _memory_bytes(kind: str, last: Measured, settings: Mapping[str, Any], items: int, dimension: int) -> int:
    if kind == "annoy":
        return _file_bytes(kind, last, items, dimension)
    per_item = {
        "exact": 8 * dimension,
        "flat": 4 * dimension,
        "hnsw": 4 * dimension + 8 * settings.get("links", 0),
        "ivf": 4 * dimension + 8,
        "ivf_sq": dimension + 8,
        "ivf_pq": settings.get("code_bytes", 0) + 8,
    }[kind]
    return int(items * per_item) + 4 * dimension * int(settings.get("lists", 0))
