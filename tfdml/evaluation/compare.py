"""Two models on the same queries: which is better, how sure that is, and what changed. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.evaluation._bootstrap import METHODS, Interval, bounds, check_resampling, draws
from tfdml.evaluation._labels import class_numbers
from tfdml.evaluation.retrieval_result import RetrievalResult, spoken
from tfdml.index.base import Integers

Doubles = npt.NDArray[np.float64]


class Difference(NamedTuple):
    """One figure of two models.

    Attributes:
        first: of the first model, with its interval.
        second: of the second model.
        difference: second minus first, on the same queries.
        better: the share of the draws in which the second is better, equal ones counting one half: near 1 or near 0 where the
            difference is sure.
    """

    first: Interval
    second: Interval
    difference: Interval
    better: float


@dataclass(frozen=True, eq=False)
class RetrievalComparison:
    """What `compare` found.

    Attributes:
        figures: each figure by its name.
        overlap_at: for each k, how many of the k nearest are the same in both, as a share; the mean over the queries.
        jaccard_at: for each k, those found by both divided by those found by either, the mean over the queries.
        change: float64 `[Q]`, AP@R of the second minus that of the first; NaN for a query without an answer.
        overlap: float64 `[Q]`, share of common neighbours at the largest k.
        queries: queries with an answer.
        drawn: what was drawn for the intervals: `"classes"` or `"groups"`.
    """

    figures: dict[str, Difference]
    overlap_at: dict[int, float]
    jaccard_at: dict[int, float]
    change: Doubles = field(repr=False)
    overlap: Doubles = field(repr=False)
    queries: int = 0
    drawn: str = "classes"

    def most_changed(self, count: int) -> Integers:
        """Numbers of the queries whose AP@R changed most, up or down; of equal ones those whose neighbours changed most."""
        size = np.where(np.isnan(self.change), -1.0, np.abs(self.change))
        return np.lexsort((self.overlap, -size))[: min(count, int((size >= 0).sum()))]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return {
            "figures": {name: _plain(each) for name, each in self.figures.items()},
            "overlap_at": {str(k): value for k, value in self.overlap_at.items()},
            "jaccard_at": {str(k): value for k, value in self.jaccard_at.items()},
            "queries": self.queries,
        }

    def __str__(self) -> str:
        level = next(iter(self.figures.values())).first.confidence
        rows = [("", "first", "second", "difference", "second is better")]
        for name, each in self.figures.items():
            low, high = 100 * each.difference.low, 100 * each.difference.high
            change = f"{100 * each.difference.value:+.2f} ({low:+.2f} to {high:+.2f})"
            rows.append((spoken(name), str(each.first), str(each.second), change, f"{each.better:.1%} of draws"))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        shares = [f"{value:.1%} of the {k} nearest" for k, value in self.overlap_at.items()]
        lines.append(f"In common: {', '.join(shares)}.")
        lines.append(f"{self.queries:,} queries; intervals of {level:.0%}, drawing {self.drawn}.")
        return "\n".join(lines)


def compare(
    first: RetrievalResult,
    second: RetrievalResult,
    groups: npt.ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    method: str = "percentile",
    seed: int = 0,
) -> RetrievalComparison:
    """Compares what two models find for the same queries in the same gallery.

    The bootstrap is paired: each draw takes the same classes, with all of their queries, for both models, so what makes a class
    hard for both cancels out, and a difference can be sure that two separate intervals would hide. The drift of the neighbours
    (overlap and Jaccard index of the k nearest) tells how much users will see change even where the figures do not.

    Args:
        first: of `retrieval`, by one model.
        second: of the same queries and items in the same order, by another.
        groups: `[Q]`, what is drawn instead of the classes; `range(Q)` draws single queries.
        confidence: level of the intervals.
        resamples: how many draws.
        method: `"percentile"` or `"bca"`.
        seed: the same seed gives the same intervals.

    Raises:
        ValueError: if the two do not have the same queries, items and figures.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import compare, retrieval
        >>> rng, labels = np.random.default_rng(0), np.arange(120) // 4
        >>> noise = rng.normal(size=(120, 30))
        >>> good, bad = (retrieval(np.eye(30)[labels] + s * noise, labels, ks=(1,)) for s in (0.2, 0.3))
        >>> found = compare(bad, good)
        >>> found.figures["map_at_r"].difference.low > 0, found.figures["map_at_r"].better
        (True, 1.0)

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    check_choice("method", method, METHODS)
    names = _check_same(first, second)
    one, two = first.per_query, second.per_query
    numbers = one.classes if groups is None else class_numbers(groups, first.queries, "groups")
    counted = one.answers > 0
    which = np.unique(numbers[counted], return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(which).astype(np.float64)
    check_resampling(confidence, resamples, len(sizes))
    values = np.stack([each.values[name][counted] for each in (one, two) for name in names], axis=1)
    sums = np.stack([np.bincount(which, column, len(sizes)) for column in values.T], axis=1)
    # Differences as columns of their own: their intervals are not those of the figures.
    half = len(names)
    sums = np.concatenate([sums, sums[:, half:] - sums[:, :half]], axis=1)
    drawn = np.concatenate([weights @ sums / (weights @ sizes)[:, None] for weights in draws(len(sizes), resamples, seed)])
    means = sums.sum(axis=0) / sizes.sum()
    without = (sums.sum(axis=0) - sums) / (sizes.sum() - sizes)[:, None]
    low, high = bounds(drawn, means, without, confidence, method)
    intervals = [
        Interval(float(value), float(least), float(most), float(confidence))
        for value, least, most in zip(means, low, high, strict=True)
    ]
    changes = drawn[:, 2 * half :]
    better = (np.mean(changes > 0, axis=0) + np.mean(changes >= 0, axis=0)) / 2
    ks = [k for k in first.recall_at if k in second.recall_at]
    common = {k: _common(one.nearest[:, :k], two.nearest[:, :k]) for k in ks}
    return RetrievalComparison(
        figures={
            name: Difference(intervals[place], intervals[half + place], intervals[2 * half + place], float(better[place]))
            for place, name in enumerate(names)
        },
        overlap_at={k: float((each / k).mean()) for k, each in common.items()},
        jaccard_at={k: float((each / (2 * k - each)).mean()) for k, each in common.items()},
        change=two.map_at_r - one.map_at_r,
        overlap=common[max(ks)] / max(ks),
        queries=int(counted.sum()),
        drawn="classes" if groups is None else "groups",
    )


def _check_same(first: RetrievalResult, second: RetrievalResult) -> list[str]:
    for what in ("queries", "gallery", "ties"):
        if getattr(first, what) != getattr(second, what):
            raise ValueError(
                f"second: {getattr(second, what)} as its {what}, but first has {getattr(first, what)}. Evaluate both models "
                "on the same queries and items, in the same way."
            )
    one, two = first.per_query, second.per_query
    differs = np.flatnonzero((one.answers != two.answers) | (one.classes != two.classes))
    if differs.size:
        raise ValueError(
            f"second: query {differs[0]} is of another class, or has another number of right answers, than in first. Evaluate "
            "both models on the same queries and items, in the same order."
        )
    names = [name for name in first.figures() if name in second.figures()]
    if not set(first.recall_at) & set(second.recall_at):
        raise ValueError("second: it has no k in common with first. Evaluate both with the same ks.")
    return names


def _common(first: Integers, second: Integers) -> Integers:
    """How many numbers two rows share, `[Q]`."""
    result = np.empty(len(first), np.int64)
    step = max(1, (1 << 22) // first.shape[1] ** 2)
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        result[part] = (first[part, :, None] == second[part, None, :]).any(axis=2).sum(axis=1)
    return result


def _plain(difference: Difference) -> dict[str, Any]:
    intervals = {name: getattr(difference, name)._asdict() for name in ("first", "second", "difference")}
    return {**intervals, "better": difference.better}


class OverRuns(NamedTuple):
    """A figure over several runs.

    Attributes:
        mean: over the runs.
        standard_error: of that mean. Runs of several folds share most of their training data, so their spread alone would make
            the mean look surer than it is; this is corrected for it: s sqrt(1 / runs + held out / trained on).
        values: float64, of each run.
    """

    mean: float
    standard_error: float
    values: Doubles

    def __str__(self) -> str:
        return f"{self.mean:.2%} ± {self.standard_error:.2%}"


def cross_validate(
    train: Callable[[Any, int], Any],
    dataset: Any,
    *,
    folds: int = 4,
    seeds: Iterable[int] = (0,),
    measure: Callable[[Any, Any], Any] | None = None,
) -> dict[str, OverRuns]:
    """Trains and judges once for each fold of classes and each seed: figures that do not hang on one split and one seed.

    Args:
        train: called with a `Dataset` to train on and a seed; returns a model.
        dataset: a `tfdml.datasets.Dataset`, dealt into folds that share no class, anew for each seed.
        folds: how many; each is held out once for each seed.
        seeds: one or more; they deal the classes, and are given to `train`.
        measure: called with the model and the fold that was held out; returns a result with `figures()`, or a mapping of
            names to numbers. None measures retrieval, as `evaluate_dataset` does.

    Raises:
        ValueError: for fewer than two runs.

    Example:
        >>> import numpy as np
        >>> from tfdml.datasets import Dataset
        >>> from tfdml.evaluation import cross_validate, raw_pixels, retrieval
        >>> images = np.random.default_rng(0).integers(0, 255, (24, 4, 4, 3), np.uint8)
        >>> data = Dataset.from_arrays(images, np.arange(24) // 3)
        >>> def no_training(training, seed):
        ...     return raw_pixels
        >>> figures = cross_validate(no_training, data, folds=2, seeds=(0, 1),
        ...     measure=lambda model, held_out: retrieval(model(held_out), held_out.labels, ks=(1,)))
        >>> len(figures["map_at_r"].values)
        4

    References:
        Nadeau and Bengio, Inference for the Generalization Error, Machine Learning 2003: the standard error.
        Musgrave, Belongie and Lim, A Metric Learning Reality Check, ECCV 2020: folds of classes.
    """
    from tfdml.evaluation.of_models import evaluate_dataset

    chosen = list(seeds)
    runs: list[dict[str, float]] = []
    if len(chosen) * folds < 2:
        raise ValueError(f"seeds={chosen!r}: expected two runs or more, to tell how far they lie apart.")
    for seed in chosen:
        for training, held_out in dataset.folds(folds, seed):
            model = train(training, seed)
            found: Any = evaluate_dataset(model, held_out) if measure is None else measure(model, held_out)
            runs.append(dict(found.figures() if hasattr(found, "figures") else found))
    table = {name: np.array([run[name] for run in runs]) for name in runs[0] if all(name in run for run in runs)}
    correction = 1 / len(runs) + 1 / (folds - 1)
    return {
        name: OverRuns(float(values.mean()), float(values.std(ddof=1) * np.sqrt(correction)), values)
        for name, values in table.items()
    }
