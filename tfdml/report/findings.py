"""Everything a report shows of an embedding, as numbers. No TensorFlow, no pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfdml.evaluation._bootstrap import Interval
from tfdml.evaluation._comparison import comparison
from tfdml.evaluation.confusions import ConfusedPair, confused_classes
from tfdml.evaluation.label_doubts import LabelDoubts, label_doubts
from tfdml.evaluation.pairs import verification_pairs
from tfdml.evaluation.ranking import retrieval
from tfdml.evaluation.retrieval_result import RetrievalResult
from tfdml.evaluation.verification import verification
from tfdml.evaluation.verification_result import VerificationResult
from tfdml.index.base import Floats, Integers
from tfdml.report.subject import Subject

_DEPTH = 50
_PAIRS = 100_000
_ALL_PAIRS = 6_000
"""Up to so many items every pair counts in the ROC curve; of more items, pairs are drawn."""
_DRAWN = 500_000


@dataclass(frozen=True)
class ClassFigures:
    """A class as a report's table shows it; NaN where no query of it has an answer."""

    label: int
    images: int
    recall_at_1: float
    r_precision: float
    map_at_r: float
    found_instead: int | None


@dataclass(frozen=True)
class Findings:
    """What is known of an embedding.

    Attributes:
        retrieval: every image a query against all others.
        intervals: of its figures, over classes; empty where only one class has an answer.
        verification: over pairs of images.
        cmc: Recall@k for k = 1, 2, ...
        cmc_by_chance: the same for neighbours in a random order.
        positives: distances of pairs of one class, a sample.
        negatives: distances of pairs of two classes, a sample.
        confused: see `tfdml.evaluation.confused_classes`.
        doubts: see `tfdml.evaluation.label_doubts`.
        classes: figures of every class.
    """

    retrieval: RetrievalResult
    intervals: dict[str, Interval]
    verification: VerificationResult
    cmc: npt.NDArray[np.float64]
    cmc_by_chance: npt.NDArray[np.float64]
    positives: Floats
    negatives: Floats
    confused: list[ConfusedPair]
    doubts: LabelDoubts
    classes: list[ClassFigures]


def find(subject: Subject, seed: int = 0) -> Findings:
    """Measures everything. Errors of `tfdml.evaluation.retrieval` apply: two classes are needed, and two images of one."""
    depth = min(_DEPTH, len(subject) - 1)
    result = retrieval(subject.embeddings, subject.labels, metric=subject.metric, ks=sorted({*_ks(depth), depth}))
    found = result.per_query
    counted = found.answers > 0
    hits = np.maximum.accumulate(found.correct[counted], axis=1)
    positives, negatives = _distances(subject, seed)
    return Findings(
        retrieval=result,
        intervals=result.intervals(seed=seed) if len(np.unique(found.classes[counted])) > 1 else {},
        verification=_verification(subject, seed),
        cmc=hits.mean(axis=0),
        cmc_by_chance=_by_chance(found.answers[counted], len(subject) - 1, depth),
        positives=positives,
        negatives=negatives,
        confused=confused_classes(found, subject.labels, 8),
        doubts=label_doubts(subject.embeddings, subject.labels, metric=subject.metric),
        classes=_classes(subject, result),
    )


def _ks(depth: int) -> list[int]:
    return [k for k in (1, 5, 10) if k <= depth]


def _by_chance(answers: Integers, others: int, depth: int) -> npt.NDArray[np.float64]:
    """The expected CMC of a random order: 1 - C(others - R, k) / C(others, k), the mean over the queries."""
    sizes, counts = np.unique(answers, return_counts=True)
    ranks = np.arange(depth)
    # The k-th of the nearest is wrong, given that all before it were.
    missed = np.cumprod(np.clip((others - sizes[:, None] - ranks) / (others - ranks), 0, 1), axis=1)
    return np.asarray(1 - counts @ missed / counts.sum())


def _distances(subject: Subject, seed: int) -> tuple[Floats, Floats]:
    sizes = np.bincount(subject.labels).astype(np.int64)
    same = int((sizes * (sizes - 1) // 2).sum())
    other = len(subject) * (len(subject) - 1) // 2 - same
    pairs = verification_pairs(subject.labels, min(same, _PAIRS), min(other, _PAIRS), folds=None, seed=seed)
    distances = comparison(subject.embeddings, subject.metric).paired(pairs.left, pairs.right)
    return distances[pairs.same], distances[~pairs.same]


def _verification(subject: Subject, seed: int) -> VerificationResult:
    if len(subject) <= _ALL_PAIRS:
        return verification(subject.embeddings, subject.labels, metric=subject.metric)
    sizes = np.bincount(subject.labels).astype(np.int64)
    same = int((sizes * (sizes - 1) // 2).sum())
    pairs = verification_pairs(subject.labels, min(same, _DRAWN), _DRAWN, folds=None, seed=seed)
    return verification(subject.embeddings, pairs=pairs, metric=subject.metric)


def _classes(subject: Subject, result: RetrievalResult) -> list[ClassFigures]:
    found, rows = result.per_query, []
    first = subject.labels[found.nearest[:, 0]]
    figures = dict(result.by(subject.labels))
    for label in np.unique(subject.labels):
        mine = np.flatnonzero(subject.labels == label)
        counted = mine[found.answers[mine] > 0]
        wrong = first[counted][first[counted] != label]
        rows.append(
            ClassFigures(
                label=int(label),
                images=len(mine),
                **{name: figures[label][name] for name in ("recall_at_1", "r_precision", "map_at_r")},
                found_instead=int(np.bincount(wrong).argmax()) if len(wrong) else None,
            )
        )
    return rows
