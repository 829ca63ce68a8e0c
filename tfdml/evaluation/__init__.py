"""Judging an embedding: retrieval figures, during `fit` and after it, the floors to compare with, and pictures of answers.

Everything but the callbacks works without TensorFlow, and is loaded without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfdml.evaluation._bootstrap import Interval
from tfdml.evaluation.breakdown import Breakdown
from tfdml.evaluation.by_distances import retrieval_by_distances
from tfdml.evaluation.calibration import Calibration, Check, calibrate
from tfdml.evaluation.clustering import ClusteringResult, OverSeeds, clustering
from tfdml.evaluation.compare import Difference, OverRuns, RetrievalComparison, compare, cross_validate
from tfdml.evaluation.identification import IdentificationResult, identification, open_set_split
from tfdml.evaluation.index_gap import IndexGap, index_gap
from tfdml.evaluation.joint_bayesian import JointBayesian
from tfdml.evaluation.of_models import evaluate_dataset
from tfdml.evaluation.pairs import VerificationPairs, verification_pairs
from tfdml.evaluation.ranking import retrieval
from tfdml.evaluation.re_ranking import k_reciprocal_distances
from tfdml.evaluation.retrieval_result import PerQuery, RetrievalResult
from tfdml.evaluation.similarity import SimilarityResult, similarity
from tfdml.evaluation.verification import verification
from tfdml.evaluation.verification_result import OverFolds, RocCurve, VerificationResult

if TYPE_CHECKING:
    from tfdml.evaluation.callbacks import RetrievalCallback
    from tfdml.evaluation.floors import raw_pixels
    from tfdml.evaluation.match_probability import fit_match_probability
    from tfdml.evaluation.monitor import EmbeddingMonitor
    from tfdml.evaluation.pictures import Answer, AnswerRow, answers_figure
    from tfdml.evaluation.verification_callback import VerificationCallback

__all__ = [
    "Answer",
    "AnswerRow",
    "Breakdown",
    "Calibration",
    "Check",
    "ClusteringResult",
    "Difference",
    "EmbeddingMonitor",
    "IdentificationResult",
    "IndexGap",
    "Interval",
    "JointBayesian",
    "OverFolds",
    "OverRuns",
    "OverSeeds",
    "PerQuery",
    "RetrievalCallback",
    "RetrievalComparison",
    "RetrievalResult",
    "RocCurve",
    "SimilarityResult",
    "VerificationCallback",
    "VerificationPairs",
    "VerificationResult",
    "answers_figure",
    "calibrate",
    "clustering",
    "compare",
    "cross_validate",
    "evaluate_dataset",
    "fit_match_probability",
    "identification",
    "index_gap",
    "k_reciprocal_distances",
    "open_set_split",
    "raw_pixels",
    "retrieval",
    "retrieval_by_distances",
    "similarity",
    "verification",
    "verification_pairs",
]

_LAZY = {
    "Answer": "pictures",
    "AnswerRow": "pictures",
    "EmbeddingMonitor": "monitor",
    "RetrievalCallback": "callbacks",
    "VerificationCallback": "verification_callback",
    "answers_figure": "pictures",
    "fit_match_probability": "match_probability",
    "raw_pixels": "floors",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"tfdml.evaluation.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'tfdml.evaluation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
