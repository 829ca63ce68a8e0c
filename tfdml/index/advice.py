"""Which index, with which settings? By measurements on a sample of the user's own vectors."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice, check_positive
from tfdml.index._growth import Expected, Measured, extrapolate, settings_for
from tfdml.index._recall import check_recall, check_seed, recall_at
from tfdml.index.base import METRICS, Floats, check_queries, check_vectors
from tfdml.index.stored import IndexSettings, StoredIndex, build_index, index_settings

ADVISED = ("exact", "annoy", "hnsw", "ivf", "ivf_sq", "ivf_pq")
_QUERIES = 256
_FEWEST = 64
_PARTS = (4, 1)  # a quarter of the sample, to see how costs grow, and all of it


@dataclass(frozen=True)
class Candidate:
    """An index that was tried.

    Attributes:
        kind: its name; `build_index` takes it.
        settings: for the asked number of items, as `build_index` and `tfdml.bundle.export(index=...)` take them.
        measured: its figures on parts of the sample, from the smallest to the largest.
        expected: what they come to for the asked number of items; None if it is no choice.
        problem: why it is no choice, such as a recall that it does not reach; "" if it is one.
    """

    kind: str
    settings: dict[str, Any]
    measured: tuple[Measured, ...] = ()
    expected: Expected | None = None
    problem: str = ""


@dataclass(frozen=True)
class Advice:
    """What `advise` found.

    Attributes:
        items: for how many items.
        dimension: length of the vectors.
        recall: the asked one.
        memory_bytes: the budget of one machine.
        latency_ms: what a query may take.
        sample: on how many vectors it was measured.
        candidates: all that were tried.
        chosen: settings for `build_index`, or for `tfdml.bundle.export(index=...)`.
        machines: on how many machines with this memory: more than 1 where one cannot hold it.
        reason: why.
    """

    items: int
    dimension: int
    recall: float
    memory_bytes: int
    latency_ms: float
    sample: int
    candidates: tuple[Candidate, ...]
    chosen: dict[str, Any]
    machines: int
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def advise(
    vectors: npt.ArrayLike,
    *,
    items: int | None = None,
    memory_bytes: int | None = None,
    recall: float = 0.95,
    latency_ms: float = 10.0,
    metric: str = "cosine",
    queries: npt.ArrayLike | None = None,
    kinds: Sequence[IndexSettings] = ADVISED,
    sample: int = 20_000,
    seed: int = 0,
    report: Callable[[str, float], None] | None = None,
) -> Advice:
    """Chooses an index and its settings for a gallery, by building each kind on a sample of its vectors.

    Each kind is built on a quarter of the sample and on all of it, for the asked recall. Its figures are then extrapolated to
    the asked number of items: times by the power of the number of items with which they grew, or with which they must grow
    where that is more; memory and size by what an item takes. The choice is among those that reach the recall and fit the
    memory: exact search if it is fast enough, for it misses nothing; else the fastest. If none fits, the smallest, on several
    machines.

    Args:
        vectors: `[N, D]`, of the gallery, or of a part of it; only the sample is read of a mapped array.
        items: how many the gallery has, or will have; default: N.
        memory_bytes: what a search may keep in memory; default: half of this machine's.
        recall: asked share of the 10 true nearest neighbours, in (0, 1].
        latency_ms: what one query may take, in milliseconds.
        metric: `"cosine"` or `"euclidean"`.
        queries: `[Q, D]`, vectors like those that will be asked for; by default some of the vectors, which are then no items.
        kinds: what to try: words or mappings, as `build_index` takes them, without Milvus.
        sample: of how many vectors; with more, the extrapolation reaches less far and the measurement takes longer.
        seed: of the sample.
        report: told the step and the share of it that is done.

    Raises:
        ValueError: for vectors or options that make no sense, and if no index reaches the recall.

    Example:
        >>> import numpy as np
        >>> from tfdml.index import advise
        >>> vectors = np.random.default_rng(0).normal(size=(500, 8))
        >>> advice = advise(vectors, items=50_000_000, memory_bytes=10**9, kinds=["exact", "annoy"], recall=0.9)
        >>> [candidate.measured[-1].items for candidate in advice.candidates]
        [375, 375]
        >>> advice.machines > 1
        True
    """
    check_choice("metric", metric, METRICS)
    check_recall(recall)
    check_seed(seed)
    check_positive("latency_ms", latency_ms)
    rows, asked = _sampled(vectors, queries, metric, sample, seed)
    count = len(vectors) if items is None else items  # type: ignore[arg-type]
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"items={items!r}: expected a whole number >= 1.")
    memory = _half_of_this_machine() if memory_bytes is None else memory_bytes
    check_positive("memory_bytes", memory)
    todo = [_settings(one) for one in kinds]
    if not todo:
        raise ValueError("kinds: received none. Leave it out to try all.")
    found = []
    for number, settings in enumerate(todo):
        if report is not None:
            report("building and measuring", number / len(todo))
        found.append(_tried(settings, rows, asked, metric, recall, seed, int(count)))
    chosen, machines, reason = _choice(found, int(memory), latency_ms, recall)
    return Advice(
        items=int(count),
        dimension=rows.shape[1],
        recall=float(recall),
        memory_bytes=int(memory),
        latency_ms=float(latency_ms),
        sample=len(rows),
        candidates=tuple(found),
        chosen=chosen.settings,
        machines=machines,
        reason=reason,
    )


def _sampled(vectors: Any, queries: npt.ArrayLike | None, metric: str, sample: int, seed: int) -> tuple[Floats, Floats]:
    """Items to build on, and queries that are none of them."""
    rows = vectors if isinstance(vectors, np.ndarray) else np.asarray(vectors)
    if rows.ndim != 2:
        raise ValueError(f"vectors: expected a 2-D array [items, dimension], received shape {rows.shape}.")
    if isinstance(sample, bool) or not isinstance(sample, (int, np.integer)) or sample < _FEWEST:
        raise ValueError(f"sample={sample!r}: expected a whole number >= {_FEWEST}.")
    own = 0 if queries is not None else min(_QUERIES, len(rows) // 4)
    order = np.random.default_rng(seed).permutation(len(rows))
    kept = rows[np.sort(order[own : own + int(sample)])]
    if len(kept) < _FEWEST:
        raise ValueError(f"vectors: {len(rows)} are too few to measure on. Expected {2 * _FEWEST} or more.")
    items = check_vectors(kept, metric)
    asked = check_queries(rows[np.sort(order[:own])] if queries is None else queries, items.shape[1], metric)
    if len(asked) < 2:
        raise ValueError(f"queries: received {len(asked)}. Expected two or more, or None to take some of the vectors.")
    return items, asked[:_QUERIES]


def _settings(kind: IndexSettings) -> dict[str, Any]:
    settings = dict(kind) if not isinstance(kind, str) else {"backend": kind} if kind in ("exact", "annoy") else None
    if settings is None:
        try:
            settings = index_settings(kind)
        except ImportError:  # told as this candidate's problem
            settings = {"backend": "faiss", "kind": kind}
    if settings.get("backend") not in ("exact", "annoy", "faiss"):
        raise ValueError(
            f"kinds: {kind!r} cannot be measured here. Milvus Lite walks through all items at each query, and a cluster is "
            "another machine."
        )
    return settings


def _tried(
    settings: dict[str, Any], rows: Floats, queries: Floats, metric: str, recall: float, seed: int, items: int
) -> Candidate:
    kind = str(settings.get("kind", settings["backend"]))
    measured: list[Measured] = []
    problem = ""
    for part in _PARTS:
        try:
            measured.append(_measured(settings, rows[: len(rows) // part], queries, metric, recall, seed))
            problem = ""
        except (ValueError, ImportError) as error:
            problem = str(error)
    if problem:
        return Candidate(kind, settings, tuple(measured), None, problem)
    final = settings_for(settings, items, rows.shape[1])
    return Candidate(kind, final, tuple(measured), extrapolate(kind, tuple(measured), final, items, rows.shape[1]))


def _measured(settings: dict[str, Any], rows: Floats, queries: Floats, metric: str, recall: float, seed: int) -> Measured:
    start = time.perf_counter()
    ids = [str(number) for number in range(len(rows))]
    index = build_index(rows, ids, metric, settings, recall=recall, seed=seed, queries=queries)
    seconds = time.perf_counter() - start
    times = _times(index, queries)
    return Measured(
        items=len(rows),
        recall=index.spec.recall,
        p50_ms=float(np.percentile(times, 50)),
        p99_ms=float(np.percentile(times, 99)),
        build_seconds=seconds,
        file_bytes=index.spec.bytes,
    )


def _times(index: StoredIndex, queries: Floats) -> list[float]:
    """Milliseconds of each query by itself, after one that is not counted."""
    k = recall_at(len(index))
    index.search(queries[0], k)
    times = []
    for query in queries:
        start = time.perf_counter()
        index.search(query, k)
        times.append(1000 * (time.perf_counter() - start))
    return times


def _choice(found: list[Candidate], memory: int, latency_ms: float, recall: float) -> tuple[Candidate, int, str]:
    """The candidate, on how many machines, and why."""
    good = [(one, one.expected) for one in found if one.expected is not None]
    if not good:
        raise ValueError(
            f"recall={recall}: no index can be advised. " + " ".join(f"{one.kind}: {one.problem}" for one in found)
        )
    fits = [pair for pair in good if pair[1].memory_bytes <= memory]
    if not fits:
        best, cost = min(good, key=lambda pair: pair[1].memory_bytes)
        machines = math.ceil(cost.memory_bytes / memory)
        return (
            best,
            machines,
            f"no index of {cost.items:,} items fits {_gb(memory)}. {best.kind} takes least, {_gb(cost.memory_bytes)}: divide "
            f"the gallery over {machines} machines and search them as one, or put it on a Milvus cluster "
            '({"backend": "milvus", "cluster": true}).',
        )
    for one, cost in fits:
        if one.kind == "exact" and cost.latency_ms <= latency_ms:
            return one, 1, f"exact search is expected within {latency_ms:g} ms and misses nothing."
    best, cost = min(fits, key=lambda pair: pair[1].latency_ms)
    text = f"{best.kind} is expected to answer fastest of those that reach a recall of {recall:g} and fit {_gb(memory)}"
    if len(fits) < len(good):
        text += " (" + ", ".join(one.kind for one, _ in good if one not in [pair[0] for pair in fits]) + " do not fit)"
    if cost.latency_ms > latency_ms:
        text += f"; but not within {latency_ms:g} ms: give it more machines, more memory, or ask for a lower recall"
    return best, 1, text + "."


def _half_of_this_machine() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        raise ValueError(
            "memory_bytes: this system does not tell how much memory it has. Give it, such as 8 * 10**9."
        ) from None


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
