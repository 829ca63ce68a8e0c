"""How sure verification figures are: intervals by drawing classes. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_positive
from tfdml.evaluation._bootstrap import Interval, check_resampling, draws
from tfdml.evaluation._comparison import Scorer, comparison
from tfdml.evaluation._labels import class_numbers
from tfdml.evaluation.pairs import ItemPairs, distinct_places
from tfdml.evaluation.verification import verification
from tfdml.evaluation.verification_result import short_rate
from tfdml.index.base import Floats, Integers

Doubles = npt.NDArray[np.float64]


def verification_intervals(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    metric: str | Scorer = "cosine",
    fars: Sequence[float] | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    pairs: int = 500_000,
    seed: int = 0,
) -> dict[str, Interval]:
    """AUC, EER and TAR@FAR over all pairs, each with the interval that comes from drawing whole classes.

    A class of n items makes n (n - 1) / 2 positive pairs and n pairs with every item of the others; these succeed and fail
    together, so a standard error over pairs would be far too small. Classes are drawn with replacement; one that is drawn
    twice makes no negative pairs with itself.

    Args:
        embeddings: `[N, D]`, finite.
        labels: `[N]`, integers or strings.
        metric: as in `verification`.
        fars: the false accept rates, as in `verification`.
        confidence: level of the intervals.
        resamples: how many draws.
        pairs: of positive and of negative pairs, the draws use at most so many each, chosen at random. The figures themselves
            are of all pairs.
        seed: the same seed gives the same intervals.

    Returns:
        An `Interval` for `auc`, `eer` and each `tar_at_far_...`, by name.

    Raises:
        ValueError: as `verification`; for fewer than three classes.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import verification_intervals
        >>> rng, labels = np.random.default_rng(0), np.arange(200) // 5
        >>> found = verification_intervals(rng.normal(size=(40, 8))[labels] + 0.5 * rng.normal(size=(200, 8)), labels)
        >>> found["auc"].low < found["auc"].value < found["auc"].high
        True
    """
    check_positive("pairs", pairs)
    result = verification(embeddings, labels, metric=metric, fars=fars)
    distances = comparison(embeddings, metric)
    classes = class_numbers(labels, len(distances), "labels")
    count = int(classes.max()) + 1
    # A draw of two classes is often of one alone, which has no negative pairs.
    check_resampling(confidence, resamples, count, least_groups=3)
    everything = ItemPairs(np.arange(len(classes)), classes)
    bits = np.random.PCG64(seed)
    sides: list[tuple[Floats, Integers, Integers]] = []
    for same in (True, False):
        total = everything.count(same)
        places = np.arange(total) if total <= pairs else distinct_places(total, int(pairs), bits)
        left, right = everything.at(places, same)
        values = distances.paired(left, right)
        order = np.argsort(values, kind="stable")
        sides.append((values[order], classes[left[order]], classes[right[order]]))
    rows = np.concatenate([_figures(sides, weights, list(result.tar_at_far)) for weights in draws(count, resamples, seed)])
    whole = _figures(sides, np.ones((1, count)), list(result.tar_at_far))[0]
    names = ["auc", "eer", *(f"tar_at_far_{short_rate(far)}" for far in result.tar_at_far)]
    exact = result.figures()
    low, high = np.nanquantile(rows, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    intervals = {}
    for column, name in enumerate(names):
        # Where the draws use a sample of the pairs, its own small error is taken off.
        off = exact[name] - whole[column]
        ends = np.clip([low[column] + off, high[column] + off], 0, 1)
        intervals[name] = Interval(exact[name], float(ends[0]), float(ends[1]), float(confidence))
    return intervals


def _figures(sides: list[tuple[Floats, Integers, Integers]], weights: Doubles, fars: list[float]) -> Doubles:
    """AUC, EER and the TARs, one row for each draw; NaN where a draw has no positive or no negative pair."""
    (positive, own, _), (negative, first, second) = sides
    nearer, as_near = np.searchsorted(negative, positive, "left"), np.searchsorted(negative, positive, "right")
    ends = np.append(positive[1:] > positive[:-1], True)
    rows = np.full((len(weights), 2 + len(fars)), np.nan)
    for row, each in enumerate(weights):
        true, false = each[own], np.append(0.0, np.cumsum(each[first] * each[second]))
        accepted = np.cumsum(true)
        if accepted[-1] == 0 or false[-1] == 0:
            continue
        far, at, tar = false[nearer] / false[-1], false[as_near] / false[-1], accepted / accepted[-1]
        rows[row, 0] = 1 - (true @ (far + at)) / 2 / accepted[-1]
        rows[row, 1] = _equal_error(far[ends], at[ends], tar[ends])
        for column, asked in enumerate(fars, 2):
            kept = np.flatnonzero((at <= asked * (1 + 1e-12)) & ends)
            rows[row, column] = tar[kept[-1]] if len(kept) else 0.0
    return rows


def _equal_error(nearer: Doubles, as_near: Doubles, tar: Doubles) -> float:
    """Where the ROC curve, straight between its vertices, has as many accepted negative as rejected positive pairs."""
    far = np.empty(2 * len(tar) + 2)
    true = np.empty_like(far)
    far[0] = true[0] = 0
    far[1:-1:2], far[2:-1:2], far[-1] = nearer, as_near, 1
    true[1:-1:2], true[2:-1:2], true[-1] = np.append(0, tar[:-1]), tar, 1
    gap = far - (1 - true)
    after = int(np.argmax(gap >= 0))
    part = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(far[after - 1] + part * (far[after] - far[after - 1]))
