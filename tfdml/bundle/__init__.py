"""The deployable directory: a model, and the index, catalogue and manifest that were made with it.

Reading (`Bundle`, `verify`, `Catalogue`, `Manifest`) needs NumPy, Annoy or the index's own backend, and the standard library;
writing (`export`), embedding (`Embedder`) and searching with the model alone (`Searcher`) load TensorFlow when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfdml.bundle.catalogue import Catalogue
from tfdml.bundle.catalogue_writer import write_catalogue
from tfdml.bundle.errors import BundleError
from tfdml.bundle.manifest import FoldedRecord, Manifest, ModelRecord, SearchRecord, Threshold
from tfdml.bundle.match_probability import MatchProbability
from tfdml.bundle.publish import Publication
from tfdml.bundle.reader import Bundle, Hit
from tfdml.bundle.verification import VerificationReport, verify

if TYPE_CHECKING:
    from tfdml.bundle.embedder import Embedder
    from tfdml.bundle.exporting import export
    from tfdml.bundle.runner import SearchAnswers
    from tfdml.bundle.searcher import Searcher

__all__ = [
    "Bundle",
    "BundleError",
    "Catalogue",
    "Embedder",
    "FoldedRecord",
    "Hit",
    "Manifest",
    "MatchProbability",
    "ModelRecord",
    "Publication",
    "SearchAnswers",
    "SearchRecord",
    "Searcher",
    "Threshold",
    "VerificationReport",
    "export",
    "verify",
    "write_catalogue",
]


def __getattr__(name: str) -> Any:
    if name == "Embedder":
        from tfdml.bundle.embedder import Embedder

        return Embedder
    if name == "Searcher":
        from tfdml.bundle.searcher import Searcher

        return Searcher
    if name == "SearchAnswers":
        from tfdml.bundle.runner import SearchAnswers

        return SearchAnswers
    if name == "export":
        from tfdml.bundle.exporting import export

        return export
    raise AttributeError(f"module 'tfdml.bundle' has no attribute {name!r}")
