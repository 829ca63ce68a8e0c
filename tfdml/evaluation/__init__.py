"""Judging an embedding: retrieval figures, during `fit` and after it, the floors to compare with, and pictures of answers.

Everything but the callbacks works without TensorFlow, and is loaded without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfdml.evaluation.by_distances import retrieval_by_distances
from tfdml.evaluation.joint_bayesian import JointBayesian
from tfdml.evaluation.of_models import evaluate_dataset
from tfdml.evaluation.pairs import VerificationPairs, verification_pairs
from tfdml.evaluation.ranking import PerQuery, RetrievalResult, retrieval
from tfdml.evaluation.re_ranking import k_reciprocal_distances
from tfdml.evaluation.similarity import SimilarityResult, similarity
from tfdml.evaluation.verification import verification
from tfdml.evaluation.verification_result import OverFolds, RocCurve, VerificationResult

if TYPE_CHECKING:
    from tfdml.evaluation.callbacks import RetrievalCallback
    from tfdml.evaluation.floors import raw_pixels
    from tfdml.evaluation.monitor import EmbeddingMonitor
    from tfdml.evaluation.pictures import Answer, AnswerRow, answers_figure
    from tfdml.evaluation.verification_callback import VerificationCallback

__all__ = [
    "Answer",
    "AnswerRow",
    "EmbeddingMonitor",
    "JointBayesian",
    "OverFolds",
    "PerQuery",
    "RetrievalCallback",
    "RetrievalResult",
    "RocCurve",
    "SimilarityResult",
    "VerificationCallback",
    "VerificationPairs",
    "VerificationResult",
    "answers_figure",
    "evaluate_dataset",
    "k_reciprocal_distances",
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
    "raw_pixels": "floors",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"tfdml.evaluation.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'tfdml.evaluation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
