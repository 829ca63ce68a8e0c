"""Galleries that can be searched: the `VectorIndex` protocol, exact search and Annoy. Loads no TensorFlow."""

from __future__ import annotations

from tfdml.index._annoy_spec import AnnoySpec
from tfdml.index.annoy import AnnoyIndex
from tfdml.index.base import METRICS, IndexFormatError, SearchResult, VectorIndex
from tfdml.index.exact import ExactIndex

__all__ = [
    "METRICS",
    "AnnoyIndex",
    "AnnoySpec",
    "ExactIndex",
    "IndexFormatError",
    "SearchResult",
    "VectorIndex",
]
