"""How the gallery is searched inside the graph: exactly or by lists, and into how many lists. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice, check_positive
from tfdml.bundle.errors import BundleError
from tfdml.bundle.manifest import SearchRecord
from tfdml.index._inverted_lists import InvertedLists
from tfdml.index._nearest import NearestRows
from tfdml.index.base import Floats, Integers, check_vectors

METHODS = ("auto", "exact", "ivf")
LARGEST_EXACT = 200_000
"""Up to here "auto" compares with every item: 100,000 x 128 take some 3 ms for one query and 1 ms in batches."""

RECALL_AT = 10
_SAMPLE = 512
_LARGEST_SHARE = 0.25

Search = Callable[[Floats, int], tuple[list[list[int]], Floats]]


@dataclasses.dataclass(frozen=True)
class SearchPlan:
    """What the graph of a search needs.

    Args:
        method: "exact" or "ivf".
        metric: "cosine" or "euclidean".
        max_k: the largest k that a request may ask for.
        rows: float32 `[N, D]`, of length 1 under cosine.
        lists: how the gallery is cut, under "ivf".
        probes: how many lists are looked into for k up to 10, and for larger k.
        recall_asked: share of the true neighbours that must be found.
        sample: queries with their true neighbours, which `probes` were not chosen on.
        seed: of the lists and of the sample.
    """

    method: str
    metric: str
    max_k: int
    rows: Floats
    lists: InvertedLists | None
    probes: tuple[int, int] | None
    recall_asked: float
    sample: Sample
    seed: int

    def measured(self, search: Search, fields: tuple[str, ...]) -> SearchRecord:
        """What the manifest says of the search, with the recall of the exported graph itself.

        Args:
            search: queries `[Q, D]` and k to item numbers and distances.
            fields: names of the fields that the search returns.

        Raises:
            BundleError: if the asked recall is not reached.
        """
        at, most = self.sample.at, self.sample.most
        recalls = {k: self.sample.recall(search, k) for k in dict.fromkeys((at, most))}
        for k, recall in recalls.items():
            if recall < self.recall_asked:
                raise BundleError(
                    f"search={self.method!r}: recall={self.recall_asked} is not reached: the graph finds {recall:.4f} of the "
                    f'{k} true neighbours. Use search="exact", or ask for less.'
                )
        few, many = self.probes or (0, 0)
        return SearchRecord(
            method=self.method,
            max_k=self.max_k,
            fields=fields,
            lists=0 if self.lists is None else len(self.lists),
            probes=few,
            most_probes=many,
            recall_asked=float(self.recall_asked),
            recall=recalls[at],
            recall_at=at,
            most_recall=recalls[most],
            most_recall_at=most,
            recall_queries=len(self.sample.items),
            seed=self.seed,
        )


def plan_search(
    vectors: npt.ArrayLike, metric: str, method: str = "auto", *, max_k: int = 100, recall: float = 0.95, seed: int = 0
) -> SearchPlan:
    """Chooses the method and, under "ivf", the number of lists to look into.

    Items of the gallery are the queries, which must find their true neighbours; the lists' centres were trained without them.
    Half of them choose the number of lists, the other half confirms it.

    Args:
        vectors: `[N, D]`, the gallery's embeddings.
        metric: "cosine" or "euclidean".
        method: "exact", "ivf" (inverted lists by k-means), or "auto": exact up to 200,000 items, and beyond where lists save
            little.
        max_k: the largest k.
        recall: share of the 10, and of the `max_k`, true nearest neighbours that must be found.
        seed: of the sample and of k-means.
    """
    check_search(method, max_k, recall)
    rows = check_vectors(vectors, metric)
    random = np.random.default_rng(seed)
    items = random.permutation(len(rows))[: min(_SAMPLE, max(2, len(rows) // 4))]
    tuning, check = (items[: len(items) // 2], items[len(items) // 2 :]) if len(items) > 1 else (items, items)
    nearest = NearestRows(rows)

    def plan(method: str, lists: InvertedLists | None, probes: tuple[int, int] | None, sample: Sample) -> SearchPlan:
        return SearchPlan(method, metric, int(max_k), rows, lists, probes, float(recall), sample, int(seed))

    confirmation = Sample.of(nearest, rows, check, max_k, metric)
    if method == "exact" or (method == "auto" and len(rows) <= LARGEST_EXACT):
        return plan("exact", None, None, confirmation)
    lists = InvertedLists.build(rows, left_out=items, seed=seed)
    probes = _probes(lists, [Sample.of(nearest, rows, tuning, max_k, metric), confirmation], recall)
    if method == "auto" and max(probes) > _LARGEST_SHARE * len(lists):
        return plan("exact", None, None, confirmation)
    return plan("ivf", lists, probes, confirmation)


def check_search(method: str | None, max_k: int, recall: float) -> None:
    """Raises a `ValueError` for options that make no sense."""
    if method is not None:
        check_choice("search", method, METHODS)
    check_positive("max_k", max_k)
    if int(max_k) != max_k or max_k > 10_000:
        raise ValueError(f"max_k={max_k!r}: expected a whole number from 1 to 10,000.")
    check_positive("recall", recall)
    if recall > 1:
        raise ValueError(f"recall={recall!r}: expected a share above 0 and up to 1, such as 0.95.")


@dataclasses.dataclass(frozen=True)
class Sample:
    """Items as queries, with their true neighbours.

    Args:
        rows: the queries `[Q, D]`.
        items: their item numbers.
        own: whether an item counts as its own neighbour: where there is no other to count.
        neighbours: int64 `[Q, most]`, the true neighbours, nearest first.
        distances: float32 `[Q, most]`, theirs.
        at, most: at how many neighbours the recall is measured.
    """

    rows: Floats
    items: Integers
    own: bool
    neighbours: Integers
    distances: Floats
    at: int
    most: int

    @classmethod
    def of(cls, nearest: NearestRows, rows: Floats, items: Integers, max_k: int, metric: str) -> Sample:
        own = len(rows) == 1 or max_k == 1
        # A search for k + 1 returns the item itself and k others.
        most = 1 if own else min(int(max_k), len(rows)) - 1
        blocks = list(nearest.search(rows[items], most, None if own else items))
        squares = np.concatenate([block.squared_distances for block in blocks])
        distances = squares / 2 if metric == "cosine" else np.sqrt(squares)
        neighbours = np.concatenate([block.numbers for block in blocks])
        return cls(rows[items], items, own, neighbours, distances.astype(np.float32), min(RECALL_AT, most), most)

    def recall(self, search: Search, k: int) -> float:
        """Share of the k returned items that are no farther than the k-th true neighbour: a tie is not a miss."""
        found, distances = search(self.rows, k + (not self.own))
        hits = 0
        for row, item in enumerate(self.items):
            farthest = self.distances[row, k - 1] * (1 + 1e-6) + 1e-12
            others = [d for number, d in zip(found[row], distances[row], strict=False) if self.own or number != item]
            hits += sum(1 for distance in others[:k] if distance <= farthest)
        return hits / (k * len(self.items))


def _probes(lists: InvertedLists, samples: list[Sample], asked: float) -> tuple[int, int]:
    """The fewest lists in which each sample finds the asked share of its `at`, and of its `most`, neighbours."""
    where = lists.list_of_items()
    needed: dict[str, int] = {"at": 1, "most": 1}
    for sample in samples:
        order = np.take_along_axis(lists.ranks(sample.rows), where[sample.neighbours], axis=1)
        for name, k in {"at": sample.at, "most": sample.most}.items():
            found = np.cumsum(np.bincount(order[:, :k].ravel(), minlength=len(lists))) / (k * len(order))
            # A hair below, so that a recall of 1 is not missed by the rounding of a sum.
            needed[name] = max(needed[name], int(np.searchsorted(found, asked - 1e-9)) + 1)
    return needed["at"], max(needed.values())
