"""Judging an embedding: retrieval figures, during `fit` and after it, the floors to compare with, and pictures of answers.

Everything but the callbacks works without TensorFlow, and is loaded without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfdml.evaluation.of_models import evaluate_dataset
from tfdml.evaluation.ranking import PerQuery, RetrievalResult, retrieval

if TYPE_CHECKING:
    from tfdml.evaluation.callbacks import RetrievalCallback
    from tfdml.evaluation.floors import raw_pixels
    from tfdml.evaluation.pictures import Answer, AnswerRow, answers_figure

__all__ = [
    "Answer",
    "AnswerRow",
    "PerQuery",
    "RetrievalCallback",
    "RetrievalResult",
    "answers_figure",
    "evaluate_dataset",
    "raw_pixels",
    "retrieval",
]

_LAZY = {
    "Answer": "pictures",
    "AnswerRow": "pictures",
    "RetrievalCallback": "callbacks",
    "answers_figure": "pictures",
    "raw_pixels": "floors",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"tfdml.evaluation.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'tfdml.evaluation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
