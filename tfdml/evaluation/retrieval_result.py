"""What retrieval finds: figures, what each query contributed to them, and how sure they are. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.evaluation._bootstrap import Interval, ratio_intervals
from tfdml.evaluation._labels import check_labels, class_numbers
from tfdml.evaluation.breakdown import Breakdown
from tfdml.index.base import Floats, Integers

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PerQuery:
    """The figures of single queries, and what each of them found: for pictures of the best and the worst answers.

    Attributes:
        nearest: int64 `[Q, k]`, gallery numbers of the nearest items, k being the largest of the `ks`.
        distances: float32 `[Q, k]`, in the metric of the evaluation.
        correct: bool `[Q, k]`, whether these are of the query's class.
        answers: int64 `[Q]`, R: how many items of the query's class the gallery holds, the query itself not counted.
        r_precision: float64 `[Q]`; NaN for a query without an answer.
        map_at_r: float64 `[Q]`; NaN for a query without an answer.
        classes: int64 `[Q]`, a number for each query's class.
        values: every figure of the result by its name, float64 `[Q]`; NaN for a query without an answer.
    """

    nearest: Integers
    distances: Floats
    correct: npt.NDArray[np.bool_]
    answers: Integers
    r_precision: Doubles
    map_at_r: Doubles
    classes: Integers
    values: dict[str, Doubles] = field(default_factory=dict)

    def hit_at(self, k: int) -> npt.NDArray[np.bool_]:
        """Whether one of the k nearest is right, `[Q]`; equal distances in the order of `nearest`."""
        if not 1 <= k <= self.correct.shape[1]:
            raise ValueError(f"k={k}: expected 1 to {self.correct.shape[1]}, the largest of the ks that were evaluated.")
        return np.asarray(self.correct[:, :k].any(axis=1))

    def best(self, count: int) -> Integers:
        """Numbers of the queries with the highest AP@R, the best first; queries without an answer are left out."""
        return self._by(-self.map_at_r, count)

    def worst(self, count: int) -> Integers:
        """Numbers of the queries with the lowest AP@R, the worst first; queries without an answer are left out."""
        return self._by(self.map_at_r, count)

    def _by(self, values: Doubles, count: int) -> Integers:
        order = np.argsort(values, kind="stable")  # NaN comes last
        return order[: min(count, int((self.answers > 0).sum()))]


@dataclass(frozen=True)
class RetrievalResult:
    """What `retrieval` found. Figures are fractions from 0 to 1: means over the queries that have an answer.

    Attributes:
        recall_at: for each k, the share of queries with a right answer among the k nearest.
        r_precision: share of right answers among the nearest R, R being the number of right answers there are.
        map_at_r: mean average precision at R.
        queries: number of queries, those without an answer included.
        queries_without_answer: queries of whose class the gallery holds no other item; they count in no figure.
        gallery: number of items in the gallery.
        metric: `"cosine"` or `"euclidean"`.
        per_query: the figures of single queries.
        precision_at: for each k, the share of right answers among the k nearest; empty unless asked for.
        mean_average_precision: MAP over the ranking of the whole gallery; None unless asked for.
        mrr: mean reciprocal rank of the first right answer; None unless asked for.
        ndcg_at: for each k, nDCG@k; empty unless asked for.
        queries_with_ties: how many of the counted queries have right and wrong answers at one distance, so that some figure
            depends on which of them comes first.
        ties: how these were counted, see `retrieval`.
    """

    recall_at: dict[int, float]
    r_precision: float
    map_at_r: float
    queries: int
    queries_without_answer: int
    gallery: int
    metric: str
    per_query: PerQuery = field(repr=False, compare=False)
    precision_at: dict[int, float] = field(default_factory=dict)
    mean_average_precision: float | None = None
    mrr: float | None = None
    ndcg_at: dict[int, float] = field(default_factory=dict)
    queries_with_ties: int = 0
    ties: str = "number"

    def figures(self, prefix: str = "") -> dict[str, float]:
        """`recall_at_<k>` for each k, `r_precision` and `map_at_r`, each name with the prefix.

        If they were asked for, also `precision_at_<k>`, `map`, `mrr` and `ndcg_at_<k>`.
        """
        values = {f"recall_at_{k}": value for k, value in self.recall_at.items()}
        values |= {f"precision_at_{k}": value for k, value in self.precision_at.items()}
        values |= {"r_precision": self.r_precision, "map_at_r": self.map_at_r}
        if self.mean_average_precision is not None:
            values["map"] = self.mean_average_precision
        if self.mrr is not None:
            values["mrr"] = self.mrr
        values |= {f"ndcg_at_{k}": value for k, value in self.ndcg_at.items()}
        return {prefix + name: value for name, value in values.items()}

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """The figures, and the counts `queries` and `queries_without_answer`: plain numbers, ready for JSON."""
        counts = {"queries": self.queries, "queries_without_answer": self.queries_without_answer}
        return self.figures(prefix) | {prefix + name: value for name, value in counts.items()}

    def intervals(
        self,
        groups: npt.ArrayLike | None = None,
        *,
        confidence: float = 0.95,
        resamples: int = 2000,
        method: str = "percentile",
        seed: int = 0,
    ) -> dict[str, Interval]:
        """How far each figure might lie elsewhere, had other classes been drawn: a bootstrap over whole classes.

        Queries of one class succeed and fail together, so resampling queries would make the figures look surer than they are:
        classes are drawn with replacement, each with all of its queries, and the figure is their mean. The gallery stays the
        same. See `tfdml.evaluation.Interval`.

        Args:
            groups: `[Q]`, what is drawn instead of the classes, e.g. cameras, or `range(Q)` for single queries.
            confidence: level of the intervals.
            resamples: how many draws.
            method: `"percentile"`, or `"bca"`: corrected for bias and skew (Efron 1987).
            seed: the same seed gives the same intervals.

        Raises:
            ValueError: if all counted queries are of one group.

        Example:
            >>> import numpy as np
            >>> from tfdml.evaluation import retrieval
            >>> rng, labels = np.random.default_rng(0), np.arange(90) // 3
            >>> found = retrieval(np.eye(30)[labels] + 0.25 * rng.normal(size=(90, 30)), labels)
            >>> print(found.intervals()["recall_at_1"])
            62.22% (51.11% to 73.33%)
        """
        per = self.per_query
        numbers = per.classes if groups is None else class_numbers(groups, self.queries, "groups")
        values = {name: per.values[name] for name in self.figures()}
        return ratio_intervals(values, numbers, confidence=confidence, resamples=resamples, method=method, seed=seed)

    def by(self, values: npt.ArrayLike, name: str = "") -> Breakdown:
        """The figures for each class, category, camera or sender apart.

        Args:
            values: `[Q]`, what to tell the queries apart by: integers or strings.
            name: what these are, for the table's heading.

        Example:
            >>> import numpy as np
            >>> from tfdml.evaluation import retrieval
            >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.6, 0.5], [0.1, 1.0]])
            >>> found = retrieval(embeddings, ["cup", "cup", "lamp", "lamp", "lamp"], ks=(1,))
            >>> print(found.by(["north", "north", "north", "south", "south"], "camera"))
            camera  queries  Recall@1  R-Precision    MAP@R
            south         2    50.00%       50.00%   50.00%
            north         3   100.00%      100.00%  100.00%
        """
        groups = check_labels(values, self.queries, "values")
        return Breakdown.of({key: self.per_query.values[key] for key in self.figures()}, groups, name)

    def __str__(self) -> str:
        lines = [f"{spoken(name):<12}{value:8.2%}" for name, value in self.figures().items()]
        left_out = f", of which {self.queries_without_answer:,} have no answer" if self.queries_without_answer else ""
        lines.append(f"{self.queries:,} queries{left_out}; {self.gallery:,} items; {self.metric} distance")
        if self.queries_with_ties:
            how = {"number": "ordered by item number", "expected": "counted at their mean", "pessimistic": "at their worst"}
            lines.append(f"{self.queries_with_ties:,} queries have right and wrong answers at one distance, {how[self.ties]}")
        return "\n".join(lines)


def spoken(name: str) -> str:
    """A figure's name as people write it."""
    known = {"r_precision": "R-Precision", "map_at_r": "MAP@R", "map": "MAP", "mrr": "MRR"}
    for short, long in (("recall_at_", "Recall@"), ("precision_at_", "Precision@"), ("ndcg_at_", "nDCG@")):
        if name.startswith(short):
            return long + name.removeprefix(short)
    return known.get(name, name)


def result_of(
    found: PerQuery,
    ks: Sequence[int],
    gallery: int,
    metric: str,
    values: Mapping[str, Doubles],
    tied: npt.NDArray[np.bool_],
    ties: str,
) -> RetrievalResult:
    """The means over the queries that have an answer."""
    counted = found.answers > 0
    found.values.update(values)
    means = {name: float(each[counted].mean()) for name, each in values.items()}

    def at(kind: str) -> dict[int, float]:
        return {int(k): means[f"{kind}_at_{k}"] for k in ks if f"{kind}_at_{k}" in means}

    more: dict[str, Any] = {"precision_at": at("precision"), "ndcg_at": at("ndcg")}
    return RetrievalResult(
        recall_at=at("recall"),
        r_precision=means["r_precision"],
        map_at_r=means["map_at_r"],
        queries=len(counted),
        queries_without_answer=int((~counted).sum()),
        gallery=gallery,
        metric=metric,
        per_query=found,
        mean_average_precision=means.get("map"),
        mrr=means.get("mrr"),
        queries_with_ties=int((tied & counted).sum()),
        ties=ties,
        **more,
    )
