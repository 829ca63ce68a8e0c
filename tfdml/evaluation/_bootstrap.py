"""Intervals of means, by drawing whole groups of queries again and again. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.index.base import Integers

Doubles = npt.NDArray[np.float64]
METHODS = ("percentile", "bca")

_CELLS = 1 << 24  # of the table of draws and groups that is in memory at a time


class Interval(NamedTuple):
    """A figure and the interval that it lies in, at a level of confidence.

    Attributes:
        value: the figure itself.
        low: lower end.
        high: upper end.
        confidence: e.g. 0.95.
    """

    value: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%})"


def check_resampling(confidence: float, resamples: int, groups: int, least_groups: int = 2) -> None:
    if isinstance(confidence, bool) or not isinstance(confidence, (int, float)) or not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}: expected a number between 0 and 1, such as 0.95.")
    least = int(np.ceil(10 / (1 - confidence)))
    if isinstance(resamples, bool) or not isinstance(resamples, (int, np.integer)) or resamples < least:
        raise ValueError(f"resamples={resamples!r}: expected at least {least} for a confidence of {confidence:g}.")
    if groups < least_groups:
        raise ValueError(
            f"groups: an interval comes from drawing classes, or other groups of queries: {least_groups} or more of them, "
            f"received {groups}."
        )


def ratio_intervals(
    values: Mapping[str, Doubles],
    groups: Integers,
    *,
    confidence: float,
    resamples: int,
    method: str,
    seed: int,
) -> dict[str, Interval]:
    """Intervals of the means of `values` `[Q]` (NaN counts for nothing), drawing groups of them with replacement."""
    check_choice("method", method, METHODS)
    counted = ~np.isnan(next(iter(values.values())))
    which = np.unique(groups[counted], return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(which).astype(np.float64)
    check_resampling(confidence, resamples, len(sizes))
    sums = np.stack([np.bincount(which, each[counted], len(sizes)) for each in values.values()], axis=1)
    means = sums.sum(axis=0) / sizes.sum()
    drawn = np.concatenate([weights @ sums / (weights @ sizes)[:, None] for weights in draws(len(sizes), resamples, seed)])
    without = (sums.sum(axis=0) - sums) / (sizes.sum() - sizes)[:, None]
    low, high = bounds(drawn, means, without, confidence, method)
    return {
        name: Interval(float(means[column]), float(low[column]), float(high[column]), float(confidence))
        for column, name in enumerate(values)
    }


def draws(groups: int, resamples: int, seed: int) -> Iterator[Doubles]:
    """How often each group is drawn, `[some, groups]` at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // groups)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        chosen = rng.integers(0, groups, (rows, groups))
        chosen += groups * np.arange(rows)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)


def bounds(
    drawn: Doubles, values: Doubles, without: Doubles, confidence: float, method: str = "percentile"
) -> tuple[Doubles, Doubles]:
    """Lower and upper ends for each column of `drawn` `[resamples, F]`; `without` `[groups, F]` leaves out one group each."""
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "percentile":
        low, high = np.quantile(drawn, tails, axis=0)
        return low, high
    # Efron, Better Bootstrap Confidence Intervals, JASA 1987.
    normal = NormalDist()
    low, high = np.empty(len(values)), np.empty(len(values))
    for column, value in enumerate(values):
        below = (np.mean(drawn[:, column] < value) + np.mean(drawn[:, column] <= value)) / 2
        influence = without[:, column].mean() - without[:, column]
        spread = (influence**2).sum() ** 1.5
        if not 0 < below < 1 or spread == 0:  # a figure that no draw changes
            low[column], high[column] = np.quantile(drawn[:, column], tails)
            continue
        acceleration = (influence**3).sum() / (6 * spread)
        shift = normal.inv_cdf(float(below))
        moved = [shift + normal.inv_cdf(float(tail)) for tail in tails]
        levels = [normal.cdf(shift + z / (1 - acceleration * z)) for z in moved]
        low[column], high[column] = np.quantile(drawn[:, column], levels)
    return low, high
