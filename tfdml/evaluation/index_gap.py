"""What an approximate index costs: its answers beside those of exact search. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.evaluation._bootstrap import Interval, ratio_intervals
from tfdml.evaluation._labels import check_ks, shared_class_numbers
from tfdml.index.base import VectorIndex

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class IndexGap:
    """What `index_gap` found.

    Attributes:
        found_at: for each k, the share of the k true nearest items that the index finds, with its interval over the queries.
        all_found_at: for each k, the share of the queries of which it finds all k.
        worst_at: for each k, the smallest share that it finds for any query.
        farther_at: for each k, how much farther its k-th answer is than the true one, as a ratio of distances, the mean over
            the queries; 1 if they are equally far.
        recall_lost_at: for each k, Recall@k by exact search minus Recall@k by the index, with its interval: what the user
            loses; empty without labels.
        queries: number of queries.
        items: number of items in the index.
        found: float64 `[Q]`, the share found at the largest k, by query.
    """

    found_at: dict[int, Interval]
    all_found_at: dict[int, float]
    worst_at: dict[int, float]
    farther_at: dict[int, float]
    recall_lost_at: dict[int, Interval]
    queries: int
    items: int
    found: Doubles = field(repr=False, compare=False)

    def figures(self, prefix: str = "") -> dict[str, float]:
        """`index_recall_at_<k>` and, with labels, `recall_at_<k>_lost` for each k, each name with the prefix."""
        values = {f"index_recall_at_{k}": each.value for k, each in self.found_at.items()}
        values |= {f"recall_at_{k}_lost": each.value for k, each in self.recall_lost_at.items()}
        return {prefix + name: value for name, value in values.items()}

    def __str__(self) -> str:
        lines = []
        for k, each in self.found_at.items():
            lines.append(
                f"of the {k} nearest {each} are found, all of them for {self.all_found_at[k]:.1%} of the queries, "
                f"at least {self.worst_at[k]:.0%} for each; the last is {self.farther_at[k]:.4f} times as far"
            )
        lines += [f"Recall@{k} falls by {each}" for k, each in self.recall_lost_at.items()]
        lines.append(f"{self.queries:,} queries, {self.items:,} items")
        return "\n".join(lines)


def index_gap(
    index: VectorIndex,
    exact: VectorIndex,
    queries: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    gallery_labels: npt.ArrayLike | None = None,
    *,
    ks: int | Sequence[int] = (1, 10),
    confidence: float = 0.95,
    seed: int = 0,
) -> IndexGap:
    """The gap between an index and exact search: how many true neighbours it misses, and what that costs.

    An item that is as near as the k-th true neighbour counts as found: copies of one image are no misses.

    Args:
        index: an approximate `VectorIndex`, such as `AnnoyIndex` or a bundle's index.
        exact: an `ExactIndex` of the same items under the same ids.
        queries: `[Q, D]`, vectors that are not in the index; an item as a query finds itself, which is too easy.
        labels: `[Q]`, for the loss of Recall@k.
        gallery_labels: labels of the items, in the order of `exact.ids`.
        ks: at how many neighbours.
        confidence: level of the intervals, drawing queries.
        seed: of the draws.

    Raises:
        ValueError: if the two do not hold the same items, or do not fit the queries.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import index_gap
        >>> from tfdml.index import AnnoyIndex, ExactIndex
        >>> rng = np.random.default_rng(0)
        >>> items, ids = rng.normal(size=(200, 8)), [f"item-{i}" for i in range(200)]
        >>> gap = index_gap(AnnoyIndex.build(items, ids), ExactIndex(items, ids), rng.normal(size=(50, 8)))
        >>> gap.found_at[10].value > 0.9
        True
    """
    if len(index) != len(exact) or set(index.ids) != set(exact.ids):
        raise ValueError(
            f"exact: it holds {len(exact)} items, not the same as the {len(index)} of index. Build both from one gallery."
        )
    if index.metric != exact.metric or index.dimension != exact.dimension:
        raise ValueError(
            f"exact: {exact.metric} distance in {exact.dimension} dimensions, index has {index.metric} in {index.dimension}."
        )
    ks = check_ks(ks, len(exact))
    largest = max(ks)
    truth, found = exact.search(queries, largest), index.search(queries, largest)
    count = len(truth)
    values: dict[str, Doubles] = {}
    farther: dict[int, float] = {}
    for k in ks:
        same = (found.ids[:, :k, None] == truth.ids[:, None, :k]).any(axis=2)
        last = truth.distances[:, k - 1]
        hit = same | (found.distances[:, :k] <= last[:, None])
        values[f"found_{k}"] = hit.mean(axis=1)
        mine = found.distances[:, k - 1].astype(np.float64)
        ratio = np.divide(mine, last, out=np.where(mine > last, np.inf, 1.0), where=last > 0)
        farther[k] = float(np.maximum(ratio, 1).mean())
    if labels is not None:
        values |= _recall_lost(labels, gallery_labels, exact, truth, found, ks)
    intervals = ratio_intervals(values, np.arange(count), confidence=confidence, resamples=2000, method="percentile", seed=seed)
    shares = {k: values[f"found_{k}"] for k in ks}
    return IndexGap(
        found_at={k: intervals[f"found_{k}"] for k in shares},
        all_found_at={k: float((each == 1).mean()) for k, each in shares.items()},
        worst_at={k: float(each.min()) for k, each in shares.items()},
        farther_at=farther,
        recall_lost_at={k: intervals[f"lost_{k}"] for k in shares if f"lost_{k}" in intervals},
        queries=count,
        items=len(exact),
        found=values[f"found_{largest}"],
    )


def _recall_lost(
    labels: npt.ArrayLike, gallery_labels: npt.ArrayLike | None, exact: VectorIndex, truth: Any, found: Any, ks: Sequence[int]
) -> dict[str, Doubles]:
    if gallery_labels is None:
        raise ValueError(
            "gallery_labels=None: expected one label for each item, in the order of exact.ids, since labels are given."
        )
    own, items = shared_class_numbers(labels, len(truth), gallery_labels, len(exact))
    of_id = dict(zip(exact.ids, items.tolist(), strict=True))
    hits = []
    for result in (truth, found):
        classes = np.array([[of_id[item] for item in row] for row in result.ids])
        hits.append(classes == own[:, None])
    return {f"lost_{k}": hits[0][:, :k].any(axis=1) - hits[1][:, :k].any(axis=1).astype(np.float64) for k in ks}
