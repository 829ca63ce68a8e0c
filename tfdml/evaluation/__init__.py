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
from tfdml.evaluation.confusions import ConfusedPair, confused_classes
from tfdml.evaluation.embedding_map import embedding_map
from tfdml.evaluation.identification import IdentificationResult, identification, open_set_split
from tfdml.evaluation.index_gap import IndexGap, index_gap
from tfdml.evaluation.joint_bayesian import JointBayesian
from tfdml.evaluation.label_doubts import LabelDoubts, label_doubts
from tfdml.evaluation.of_models import evaluate_dataset
from tfdml.evaluation.pairs import VerificationPairs, verification_pairs
from tfdml.evaluation.ranking import retrieval
from tfdml.evaluation.re_ranking import k_reciprocal_distances
from tfdml.evaluation.retrieval_result import PerQuery, RetrievalResult
from tfdml.evaluation.similarity import SimilarityResult, similarity
from tfdml.evaluation.verification import verification
from tfdml.evaluation.verification_intervals import verification_intervals
from tfdml.evaluation.verification_result import OverFolds, RocCurve, VerificationResult

if TYPE_CHECKING:
    from tfdml.evaluation.callbacks import RetrievalCallback
    from tfdml.evaluation.confusion_pictures import confusions_figure
    from tfdml.evaluation.diagnose import Diagnose
    from tfdml.evaluation.evaluation_callback import EvaluationCallback
    from tfdml.evaluation.floors import raw_pixels
    from tfdml.evaluation.match_probability import fit_match_probability
    from tfdml.evaluation.monitor import EmbeddingMonitor
    from tfdml.evaluation.pictures import Answer, AnswerRow, answers_figure
    from tfdml.evaluation.plots import (
        PlotStyle,
        class_sizes_figure,
        cmc_figure,
        distances_figure,
        history_figure,
        map_figure,
        roc_figure,
        sizes_figure,
    )
    from tfdml.evaluation.projector import write_projector
    from tfdml.evaluation.verification_callback import VerificationCallback

__all__ = [
    "Answer",
    "AnswerRow",
    "Breakdown",
    "Calibration",
    "Check",
    "ClusteringResult",
    "ConfusedPair",
    "Diagnose",
    "Difference",
    "EmbeddingMonitor",
    "EvaluationCallback",
    "IdentificationResult",
    "IndexGap",
    "Interval",
    "JointBayesian",
    "LabelDoubts",
    "OverFolds",
    "OverRuns",
    "OverSeeds",
    "PerQuery",
    "PlotStyle",
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
    "class_sizes_figure",
    "clustering",
    "cmc_figure",
    "compare",
    "confused_classes",
    "confusions_figure",
    "cross_validate",
    "distances_figure",
    "embedding_map",
    "evaluate_dataset",
    "fit_match_probability",
    "history_figure",
    "identification",
    "index_gap",
    "k_reciprocal_distances",
    "label_doubts",
    "map_figure",
    "open_set_split",
    "raw_pixels",
    "retrieval",
    "retrieval_by_distances",
    "roc_figure",
    "similarity",
    "sizes_figure",
    "verification",
    "verification_intervals",
    "verification_pairs",
    "write_projector",
]

_LAZY = {
    "Answer": "pictures",
    "AnswerRow": "pictures",
    "Diagnose": "diagnose",
    "EmbeddingMonitor": "monitor",
    "EvaluationCallback": "evaluation_callback",
    "PlotStyle": "plots",
    "RetrievalCallback": "callbacks",
    "VerificationCallback": "verification_callback",
    "answers_figure": "pictures",
    "class_sizes_figure": "plots",
    "cmc_figure": "plots",
    "confusions_figure": "confusion_pictures",
    "distances_figure": "plots",
    "fit_match_probability": "match_probability",
    "history_figure": "plots",
    "map_figure": "plots",
    "raw_pixels": "floors",
    "roc_figure": "plots",
    "sizes_figure": "plots",
    "write_projector": "projector",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"tfdml.evaluation.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'tfdml.evaluation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
