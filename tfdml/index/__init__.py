"""Galleries that can be searched: the `VectorIndex` protocol, exact search, Annoy and FAISS. Loads no TensorFlow."""

from __future__ import annotations

from tfdml.index._annoy_spec import AnnoySpec
from tfdml.index._faiss_spec import FAISS_KINDS, FaissSpec
from tfdml.index.annoy import AnnoyIndex
from tfdml.index.base import METRICS, IndexFormatError, SearchResult, VectorIndex
from tfdml.index.exact import ExactIndex
from tfdml.index.faiss import FaissIndex

__all__ = [
    "FAISS_KINDS",
    "METRICS",
    "AnnoyIndex",
    "AnnoySpec",
    "ExactIndex",
    "FaissIndex",
    "FaissSpec",
    "IndexFormatError",
    "SearchResult",
    "VectorIndex",
]
