"""Verification: are these two of one class? NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml.evaluation._comparison import Comparison, Scorer, comparison
from tfdml.evaluation._labels import class_numbers
from tfdml.evaluation._pair_counts import PairCounts, count_all_pairs, count_listed_pairs
from tfdml.evaluation.pairs import VerificationPairs, class_folds
from tfdml.evaluation.verification_result import OverFolds, RocCurve, VerificationResult
from tfdml.index._nearest import BLOCK_BYTES
from tfdml.index.base import Floats

Doubles = npt.NDArray[np.float64]


def verification(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    pairs: VerificationPairs | None = None,
    *,
    metric: str | Scorer = "cosine",
    fars: Sequence[float] | None = None,
    folds: int | None = None,
    seed: int = 0,
    block: int = BLOCK_BYTES,
) -> VerificationResult:
    r"""ROC, equal error rate, TAR@FAR, and with folds FaceNet's VAL@FAR and LFW's accuracy.

    With labels, all pairs are compared: of all items, or with `folds` of the items of each fold, whose classes no other fold
    has. With `pairs`, those are compared, such as `verification_pairs(labels)` draws them in the manner of LFW. Thresholds are
    inclusive, as in the paper: a pair is accepted if d <= t.

        TAR(t) = |positive pairs with d <= t| / |positive pairs|       (the paper's VAL)
        FAR(t) = |negative pairs with d <= t| / |negative pairs|

    TAR@FAR takes t from the pairs that it is measured on. VAL@FAR and the accuracy measure each fold with a t from the other
    folds, and tell the mean over folds with its standard error. Everything is exact, ties included: a TAR changes at distances
    of positive pairs only, and a threshold lies half-way from one of these to the negative pair that follows.

    Distances come from float64 products (from differences where two items are near) and are rounded to float32. Memory beside
    the embeddings: about twice `block` bytes, and for each different distance of a positive pair 28 bytes for each fold; never
    a number for each negative pair. Time: that of the products and of sorting the distances.

    Args:
        embeddings: `[N, D]`, finite.
        labels: `[N]`, integers or strings; None with `pairs`.
        pairs: the pairs to compare, by item numbers; None with `labels`.
        metric: `"cosine"`, `"euclidean"`, `"squared_euclidean"` (FaceNet's), or an object with `score` and `pairwise`, such as
            a `JointBayesian`: larger scores for what is more alike. Thresholds are told in its scores.
        fars: the false accept rates. None takes those of 1e-1, 1e-2 and 1e-3 that the negative pairs can resolve.
        folds: with labels, deal the classes into so many folds, from `seed`. Folds of `pairs` are in `pairs`.
        seed: of the dealing.
        block: bytes of a block of distances.

    Raises:
        ValueError: for NaN or infinity; for no positive or no negative pair (of a fold); for a FAR that so few negative pairs
            cannot resolve; for item numbers out of range.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import verification
        >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.8, 0.5], [-1.0, 0.0]])
        >>> print(verification(embeddings, ["cup", "cup", "lamp", "lamp", "shoe"]))
        AUC   87.50%
        EER   25.00%
        2 positive and 8 negative pairs; cosine

    References:
        Schroff, Kalenichenko and Philbin, FaceNet, CVPR 2015: VAL@FAR.
        Huang, Ramesh, Berg and Learned-Miller, Labeled Faces in the Wild, 2007: accuracy over ten folds.
    """
    distances = comparison(embeddings, metric)
    if pairs is None:
        if labels is None:
            raise ValueError("labels=None: expected one label for each embedding, or pairs.")
        classes = class_numbers(labels, len(distances), "labels")
        bits = np.random.PCG64(seed)
        groups = [np.arange(len(classes))] if folds is None else class_folds(classes, folds, bits)
        counts = count_all_pairs(distances, groups, classes, block)
    else:
        if labels is not None or folds is not None:
            raise ValueError(
                "labels and folds: expected None beside pairs, which say themselves what is the same and in which fold."
            )
        counts = count_listed_pairs(distances, _in_range(pairs, len(distances)))
    _check_counts(counts)
    return _result(counts, distances, _check_fars(fars, counts))


def _result(counts: PairCounts, distances: Comparison, fars: list[float]) -> VerificationResult:
    everything = counts.together()
    positive_pairs, negative_pairs = int(everything.positive_pairs[0]), int(everything.negative_pairs[0])
    # A negative pair at a positive pair's distance counts one half.
    farther = negative_pairs - (everything.nearer[0] + everything.negatives[0]) / 2
    eer, eer_place = _equal_error(counts)
    places = {far: _place_at_far(everything, far) for far in fars}
    over_folds = _over_folds(counts, fars) if len(counts.positive_pairs) > 1 else None
    return VerificationResult(
        auc=float(np.diff(everything.positives[0], prepend=0) @ (farther / negative_pairs) / positive_pairs),
        eer=eer,
        eer_threshold=float(distances.sign * counts.distances[eer_place]),
        tar_at_far={far: float(np.append(everything.positives[0], 0)[at] / positive_pairs) for far, at in places.items()},
        thresholds={far: float(distances.sign * everything.threshold(at)) for far, at in places.items()},
        accuracy=over_folds.accuracy if over_folds else None,
        accuracy_thresholds=distances.sign * over_folds.thresholds if over_folds else None,
        val_at_far=over_folds.val_at_far if over_folds else {},
        far_measured=over_folds.far_measured if over_folds else {},
        positive_pairs=positive_pairs,
        negative_pairs=negative_pairs,
        metric=distances.name,
        curve=RocCurve(*counts.vertices()),
    )


def _equal_error(counts: PairCounts) -> tuple[float, int]:
    """The equal error rate, and the place that it is at or before."""
    far, tar = counts.vertices()
    gap = far - (1 - tar)
    # The first vertex is (0, 0), whose gap is -1, so there is one before.
    after = int(np.argmax(gap >= 0))
    part = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(far[after - 1] + part * (far[after] - far[after - 1])), min((after - 1) // 2, len(counts.distances) - 1)


def _place_at_far(counts: PairCounts, far: float) -> int:
    """The last distance of a positive pair that accepts no more than this share of the negative pairs, or -1."""
    allowed = far * counts.negative_pairs[0] * (1 + 1e-12)
    return int(np.append(-1, np.flatnonzero(_has_positive(counts) & (counts.negatives[0] <= allowed)))[-1])


def _best_place(counts: PairCounts) -> int:
    """The distance of a positive pair with the highest accuracy."""
    right = counts.positives[0] / counts.positive_pairs[0] - counts.negatives[0] / counts.negative_pairs[0]
    return int(np.argmax(np.where(_has_positive(counts), right, -np.inf)))


def _has_positive(counts: PairCounts) -> npt.NDArray[np.bool_]:
    """Which distances are those of positive pairs of these folds: the fold that is left out must not choose its threshold."""
    return np.diff(counts.positives[0], prepend=0) > 0


class _Folds(NamedTuple):
    accuracy: OverFolds
    thresholds: Floats
    val_at_far: dict[float, OverFolds]
    far_measured: dict[float, OverFolds]


def _over_folds(counts: PairCounts, fars: list[float]) -> _Folds:
    """Each fold at the thresholds that the others give: for the accuracy, and for each FAR."""
    folds = len(counts.positive_pairs)
    thresholds = np.empty((folds, 1 + len(fars)), np.float32)
    true, false = np.empty(thresholds.shape), np.empty(thresholds.shape)
    for fold in range(folds):
        others = counts.together(without=fold)
        places = [_best_place(others), *(_place_at_far(others, far) for far in fars)]
        thresholds[fold] = [others.threshold(place) for place in places]
        true[fold], false[fold] = counts.accepted(fold, thresholds[fold])
    return _Folds(
        accuracy=_mean((true[:, 0] + 1 - false[:, 0]) / 2),
        thresholds=thresholds[:, 0],
        val_at_far={far: _mean(true[:, column]) for column, far in enumerate(fars, 1)},
        far_measured={far: _mean(false[:, column]) for column, far in enumerate(fars, 1)},
    )


def _mean(values: Doubles) -> OverFolds:
    return OverFolds(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), values)


def _in_range(pairs: VerificationPairs, count: int) -> VerificationPairs:
    if not len(pairs):
        raise ValueError("pairs: received none.")
    largest = int(max(pairs.left.max(), pairs.right.max()))
    if largest >= count:
        raise ValueError(f"pairs: item {largest} is compared, but there are only {count} embeddings, numbered from 0.")
    return pairs


def _check_counts(counts: PairCounts) -> None:
    for kind, numbers in (("positive", counts.positive_pairs), ("negative", counts.negative_pairs)):
        empty = np.flatnonzero(numbers == 0)
        if empty.size and len(numbers) == 1:
            raise ValueError(f"labels: there is no {kind} pair. Verification needs two items of one class, and two classes.")
        if empty.size:
            raise ValueError(
                f"folds: fold {empty[0]} of {len(numbers)} has no {kind} pair. Ask for fewer folds, or more pairs."
            )


def _check_fars(fars: Sequence[float] | None, counts: PairCounts) -> list[float]:
    """The FARs, as floats; none below what one negative pair makes out."""
    negatives = int(counts.negative_pairs.sum())
    where = f"there are {negatives:,} negative pairs"
    if len(counts.negative_pairs) > 1:
        negatives -= int(counts.negative_pairs.max())
        where = f"a threshold comes from {negatives:,} negative pairs of the other folds"
    if fars is None:
        return [far for far in (1e-1, 1e-2, 1e-3) if far * negatives >= 1]
    rates = [fars] if isinstance(fars, (int, float)) else list(fars)
    for far in rates:
        if isinstance(far, bool) or not isinstance(far, (int, float, np.number)) or not 0 < far < 1:
            raise ValueError(f"fars={fars!r}: expected shares between 0 and 1, such as (1e-2, 1e-3).")
        if far * negatives * (1 + 1e-12) < 1:
            raise ValueError(
                f"fars: {far:g} cannot be resolved: {where}, and one of them is a FAR of {1 / negatives:.2g} already. "
                "Compare more pairs, or leave it out."
            )
    return [float(far) for far in rates]
