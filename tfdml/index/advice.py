"""Which index, with which settings? Measured on a sample of the user's own vectors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.index._recall import check_recall, check_seed, recall_at
from tfdml.index.base import METRICS, Floats, check_vectors
from tfdml.index.stored import StoredIndex, build_index, index_settings

KINDS = ("exact", "annoy", "hnsw", "ivf", "ivf_sq", "ivf_pq")
_QUERIES = 256


@dataclass(frozen=True)
class Candidate:
    """One kind of index on the sample.

    Attributes:
        kind: as `tfdml.index.build_index` takes it.
        recall: share of the 10 true neighbours that were found; None if the asked one was not reached.
        latency_ms: median time of one query.
        build_seconds: time to build it and to measure its recall.
        file_bytes: size of its file.
        problem: why it is no choice; "" if it is one.
    """

    kind: str
    recall: float | None = None
    latency_ms: float | None = None
    build_seconds: float | None = None
    file_bytes: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class Advice:
    """What `advise` found.

    Attributes:
        sample: on how many vectors it was measured.
        asked: the asked recall.
        candidates: all that were tried.
        chosen: settings for `tfdml.index.build_index`, or for `tfdml.bundle.export(index=...)`.
        reason: why.
    """

    sample: int
    asked: float
    candidates: tuple[Candidate, ...]
    chosen: dict[str, Any]
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def advise(
    vectors: npt.ArrayLike,
    *,
    metric: str = "cosine",
    recall: float = 0.95,
    sample: int = 20_000,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
) -> Advice:
    """Chooses an index by building each kind on a sample of the vectors.

    Args:
        vectors: `[N, D]`, the gallery's, or a sample of it.
        metric: `"cosine"` or `"euclidean"`.
        recall: asked share of the 10 true nearest neighbours.
        sample: at most so many of the vectors are measured on.
        kinds: what to try.
        seed: of the sample.

    Raises:
        ValueError: for vectors or options that make no sense.

    Example:
        >>> import numpy as np
        >>> from tfdml.index import advise
        >>> advice = advise(np.random.default_rng(0).normal(size=(300, 8)), kinds=["exact", "annoy"])
        >>> [candidate.kind for candidate in advice.candidates]
        ['exact', 'annoy']
    """
    check_choice("metric", metric, METRICS)
    check_recall(recall)
    check_seed(seed)
    rows = np.asarray(vectors)
    if len(rows) > sample:
        rows = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:sample])]
    rows = check_vectors(rows, metric)
    found = tuple(_tried(kind, rows, metric, recall, seed) for kind in kinds)
    usable = [one for one in found if not one.problem and one.latency_ms is not None]
    if not usable:
        raise ValueError("kinds: none can be built here. " + " ".join(f"{one.kind}: {one.problem}" for one in found))
    best = min(usable, key=lambda one: one.latency_ms or 0.0)
    reason = f"{best.kind} answers a query fastest among those with a recall of {recall} or more."
    return Advice(len(rows), float(recall), found, index_settings(best.kind), reason)


def _tried(kind: str, rows: Floats, metric: str, recall: float, seed: int) -> Candidate:
    start = time.perf_counter()
    try:
        index = build_index(rows, [str(number) for number in range(len(rows))], metric, kind, recall=recall, seed=seed)
    except (ValueError, ImportError) as error:
        return Candidate(kind, problem=str(error))
    seconds = time.perf_counter() - start
    return Candidate(kind, index.spec.recall, _median_ms(index, rows, seed), seconds, index.spec.bytes)


def _median_ms(index: StoredIndex, rows: Floats, seed: int) -> float:
    queries = rows[np.random.default_rng(seed).permutation(len(rows))[:_QUERIES]]
    k = recall_at(len(rows))
    index.search(queries[0], k)
    times = []
    for query in queries:
        start = time.perf_counter()
        index.search(query, k)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))
