"""Open-set identification: who is this, and is it anybody we know? NumPy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_positive
from tfdml.evaluation._comparison import Comparison, Scorer, comparison
from tfdml.evaluation._labels import check_ks, class_numbers, shared_class_numbers
from tfdml.evaluation.verification_result import RocCurve, short_rate
from tfdml.index._nearest import BLOCK_BYTES, in_threads
from tfdml.index.base import Floats, Integers, check_vectors

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class IdentificationResult:
    """What `identification` found. A query is answered if its nearest item is at most a threshold away.

    Attributes:
        rank_at: closed-set identification: for each rank, the share of the known queries whose class is among so many nearest.
        dir_at: for each FIR a mapping: for each rank, the share of the known queries that are answered and whose class is among
            so many nearest (detection and identification rate).
        thresholds: for each FIR, the largest threshold at which no more than this share of the unknown queries is answered:
            half-way to the next of them; minus infinity where none may be.
        auc: how often a known query is nearer to the gallery than an unknown one, ties counting one half.
        curve: the ROC of "known or unknown": shares of unknown (`far`) and of known (`tar`) queries that are answered.
        known: queries whose class is in the gallery.
        unknown: the others.
        classes: in the gallery.
        gallery: items in the gallery.
        metric: the metric's name, or the scorer's.
        nearest_distances: float64 `[Q]`, of each query's nearest item.
        ranks: int64 `[Q]`, of the right class, 1 being the nearest; 0 for an unknown query.
    """

    rank_at: dict[int, float]
    dir_at: dict[float, dict[int, float]]
    thresholds: dict[float, float]
    auc: float
    known: int
    unknown: int
    classes: int
    gallery: int
    metric: str
    curve: RocCurve = field(repr=False, compare=False)
    nearest_distances: Doubles = field(repr=False, compare=False)
    ranks: Integers = field(repr=False, compare=False)

    def figures(self, prefix: str = "") -> dict[str, float]:
        """`rank_1`, `dir_rank_1_at_fir_1e-2` for each rank and FIR, and `known_auc`, each name with the prefix."""
        values = {f"rank_{rank}": value for rank, value in self.rank_at.items()}
        for fir, by_rank in self.dir_at.items():
            values |= {f"dir_rank_{rank}_at_fir_{short_rate(fir)}": value for rank, value in by_rank.items()}
        return {prefix + name: value for name, value in {**values, "known_auc": self.auc}.items()}

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """The figures and the numbers of queries: plain numbers, ready for JSON."""
        return self.figures(prefix) | {prefix + "known": self.known, prefix + "unknown": self.unknown}

    def __str__(self) -> str:
        rows = [(f"rank {rank}", value) for rank, value in self.rank_at.items()]
        for fir, by_rank in self.dir_at.items():
            rows += [(f"rank {rank}, DIR@FIR={short_rate(fir)}", value) for rank, value in by_rank.items()]
        rows.append(("AUC, known or not", self.auc))
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value:7.2%}" for name, value in rows]
        lines.append(
            f"{self.known:,} known and {self.unknown:,} unknown queries; {self.classes:,} classes, {self.gallery:,} items; "
            f"{self.metric}"
        )
        return "\n".join(lines)


def identification(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    gallery: npt.ArrayLike,
    gallery_labels: npt.ArrayLike,
    *,
    metric: str | Scorer = "cosine",
    firs: Sequence[float] | None = None,
    ranks: int | Sequence[int] = (1,),
    block: int = BLOCK_BYTES,
) -> IdentificationResult:
    r"""Open-set identification: DIR@FIR, and the ROC of "known or unknown".

    A gallery holds items of known classes. A query is of one of them, or of none. With d(q) the distance to the nearest item,
    d_own(q) that to the nearest item of the query's own class, and rank(q) = 1 + the number of other classes that have an item
    at d_own(q) or nearer:

        FIR(t)     = |unknown queries with d <= t| / |unknown queries|
        DIR(t, r)  = |known queries with d_own <= t and rank <= r| / |known queries|

    A query that should have been refused and one that is answered wrongly are different mistakes: FIR counts the first, DIR
    falls with the second. What is equally near counts against the query.

    Args:
        embeddings: `[Q, D]`, the queries, finite.
        labels: `[Q]`, integers or strings. A label that no item has makes a query unknown.
        gallery: `[G, D]`, one or several items of each known class.
        gallery_labels: `[G]`.
        metric: `"cosine"`, `"euclidean"`, `"squared_euclidean"`, or an object with `score` and `pairwise`, such as a
            `JointBayesian`.
        firs: the false identification rates. None takes those of 1e-1, 1e-2 and 1e-3 that the unknown queries can resolve.
        ranks: the ranks, at most the number of classes in the gallery.
        block: bytes of a block of distances.

    Raises:
        ValueError: for NaN or infinity; without a known or without an unknown query; for an FIR that so few unknown queries
            cannot resolve; for a rank beyond the number of classes.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import identification
        >>> gallery, names = np.eye(3), ["ann", "bob", "eve"]
        >>> queries = [[1.0, 0.1, 0], [0.2, 1.0, 0.9], [0.1, 0, 1.0], [0.8, 0.8, 0.8], [-1.0, -1.0, 0.1]]
        >>> print(identification(queries, ["ann", "eve", "eve", "zoe", "max"], gallery, names, firs=[0.5], ranks=(1, 2)))
        rank 1                  66.67%
        rank 2                 100.00%
        rank 1, DIR@FIR=5e-1    66.67%
        rank 2, DIR@FIR=5e-1   100.00%
        AUC, known or not      100.00%
        3 known and 2 unknown queries; 3 classes, 3 items; cosine

    References:
        Best-Rowden, Han, Otto, Klare and Jain, Unconstrained Face Recognition, TIFS 2014; Sohn, N-pair, NIPS 2016: DIR@FIR.
    """
    name = metric if isinstance(metric, str) else "euclidean"
    queries = check_vectors(embeddings, "cosine" if name == "cosine" else "euclidean", "embeddings")
    items = check_vectors(gallery, "cosine" if name == "cosine" else "euclidean", "gallery")
    if items.shape[1] != queries.shape[1]:
        raise ValueError(
            f"gallery: dimension {items.shape[1]}, but embeddings have {queries.shape[1]}. Both must come from one model."
        )
    classes, gallery_classes = shared_class_numbers(labels, len(queries), gallery_labels, len(items))
    present, gallery_classes = np.unique(gallery_classes, return_inverse=True)
    own = np.searchsorted(present, classes)
    known = np.append(present, -1)[own] == classes
    if known.all() or not known.any():
        raise ValueError(
            f"labels: {int(known.sum())} of {len(known)} queries are of a class in the gallery. Open-set identification needs "
            "known and unknown queries; open_set_split deals a dataset out that way."
        )
    ranks = check_ks(ranks, len(present), "ranks")
    rates = _check_firs(firs, int((~known).sum()))
    order = np.argsort(gallery_classes.reshape(-1), kind="stable")
    distances = comparison(np.concatenate([queries, items[order]]), metric)
    starts = np.searchsorted(gallery_classes.reshape(-1)[order], np.arange(len(present)))
    nearest, nearest_own, rank = _to_classes(distances, len(queries), starts, np.where(known, own, -1), block)

    unknown = np.sort(nearest[~known])
    mine, its_rank = nearest_own[known], rank[known]
    thresholds = {fir: _threshold(unknown, np.concatenate([nearest[known], mine, unknown]), fir) for fir in rates}
    return IdentificationResult(
        rank_at={r: float((its_rank <= r).mean()) for r in ranks},
        dir_at={fir: {r: float(((mine <= t) & (its_rank <= r)).mean()) for r in ranks} for fir, t in thresholds.items()},
        thresholds={fir: float(distances.sign * t) for fir, t in thresholds.items()},
        auc=_auc(nearest[known], unknown),
        known=int(known.sum()),
        unknown=len(unknown),
        classes=len(present),
        gallery=len(items),
        metric=distances.name,
        curve=_curve(nearest[known], unknown),
        nearest_distances=distances.sign * nearest.astype(np.float64),
        ranks=np.where(known, rank, 0),
    )


def open_set_split(
    labels: npt.ArrayLike, known: float = 0.5, gallery_items: int = 1, seed: int = 0
) -> tuple[Integers, Integers]:
    """Deals one dataset out for `identification`: which items are queries, and which the gallery.

    Some classes are known: `gallery_items` of each go into the gallery, the others are known queries. All items of the other
    classes are unknown queries.

    Args:
        labels: `[N]`, integers or strings.
        known: share of the classes that are known; only classes with more than `gallery_items` items can be.
        gallery_items: items of each known class in the gallery.
        seed: the same seed gives the same split on every platform.

    Returns:
        Numbers of the queries, and of the gallery's items.

    Example:
        >>> queries, gallery = open_set_split([0, 0, 1, 1, 2, 2, 3, 3], known=0.5)
        >>> len(queries), len(gallery)
        (6, 2)
    """
    classes = class_numbers(labels, np.size(labels), "labels")
    check_positive("gallery_items", gallery_items)
    bits = np.random.PCG64(seed)
    sizes = np.bincount(classes)
    possible = np.flatnonzero(sizes > gallery_items)
    count = round(known * len(sizes)) if 0 < known < 1 else 0
    if not 1 <= count <= min(len(possible), len(sizes) - 1):
        raise ValueError(
            f"known={known!r}: of {len(sizes)} classes {len(possible)} have more than gallery_items={gallery_items} items. "
            "Expected a share between 0 and 1 that makes at least one class known and one unknown."
        )
    chosen = possible[np.argsort(bits.random_raw(len(possible)), kind="stable")[:count]]
    shuffled = np.argsort(bits.random_raw(len(classes)), kind="stable")
    shuffled = shuffled[np.isin(classes[shuffled], chosen)]
    shuffled = shuffled[np.argsort(classes[shuffled], kind="stable")]
    place = np.arange(len(shuffled)) - np.searchsorted(classes[shuffled], classes[shuffled])
    gallery = np.sort(shuffled[place < gallery_items])
    return np.setdiff1d(np.arange(len(classes)), gallery), gallery


def _to_classes(
    distances: Comparison, queries: int, starts: Integers, own: Integers, block: int
) -> tuple[Floats, Floats, Integers]:
    """For each query the distance of the nearest item, that of its own class (infinite if unknown), and its rank."""
    items = np.arange(queries, len(distances))
    height = max(1, block // (16 * len(items)))
    nearest, mine, rank = np.empty(queries, np.float32), np.full(queries, np.inf, np.float32), np.zeros(queries, np.int64)

    def rows_of(start: int) -> tuple[Integers, Floats]:
        rows = np.arange(start, min(start + height, queries))
        return rows, np.minimum.reduceat(distances.block(rows, items), starts, axis=1)

    parts: Iterator[tuple[Integers, Floats]] = in_threads(rows_of, range(0, queries, height))
    for rows, by_class in parts:
        nearest[rows] = by_class.min(axis=1)
        known = np.flatnonzero(own[rows] >= 0)
        its = by_class[known, own[rows[known]]]
        mine[rows[known]] = its
        rank[rows[known]] = (by_class[known] <= its[:, None]).sum(axis=1)  # its own class is one of them
    return nearest, mine, rank


def _threshold(unknown: Floats, everything: Floats, fir: float) -> np.float32:
    allowed = int(np.floor(fir * len(unknown) * (1 + 1e-12)))
    following = unknown[allowed] if allowed < len(unknown) else np.float32(np.inf)
    nearer = everything[everything < following]
    if not len(nearer):
        return np.float32(-np.inf)
    last = nearer.max()
    half_way = np.float32(0.5) * (last + following)
    return half_way if half_way < following and np.isfinite(half_way) else last


def _auc(known: Floats, unknown: Floats) -> float:
    farther = len(unknown) - (np.searchsorted(unknown, known, "left") + np.searchsorted(unknown, known, "right")) / 2
    return float(farther.mean() / len(unknown))


def _curve(known: Floats, unknown: Floats) -> RocCurve:
    at = np.unique(np.concatenate([known, unknown]))
    far = np.searchsorted(unknown, at, "right") / len(unknown)
    tar = np.searchsorted(np.sort(known), at, "right") / len(known)
    return RocCurve(np.append(0.0, far), np.append(0.0, tar))


def _check_firs(firs: Sequence[float] | None, unknown: int) -> list[float]:
    if firs is None:
        return [fir for fir in (1e-1, 1e-2, 1e-3) if fir * unknown >= 1]
    rates: list[Any] = [firs] if isinstance(firs, (int, float)) else list(firs)
    for fir in rates:
        if isinstance(fir, bool) or not isinstance(fir, (int, float, np.number)) or not 0 < fir < 1:
            raise ValueError(f"firs={firs!r}: expected shares between 0 and 1, such as (1e-1, 1e-2).")
        if fir * unknown * (1 + 1e-12) < 1:
            raise ValueError(
                f"firs: {fir:g} cannot be resolved: there are {unknown:,} unknown queries, and one of them is an FIR of "
                f"{1 / unknown:.2g} already. Take more unknown queries, or leave it out."
            )
    return [float(fir) for fir in rates]
