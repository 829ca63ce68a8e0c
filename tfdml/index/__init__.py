"""Galleries that can be searched: the `VectorIndex` protocol, exact search, Annoy, FAISS and Milvus. Loads no TensorFlow."""

from __future__ import annotations

from tfdml.index._annoy_spec import AnnoySpec
from tfdml.index._exact_spec import ExactSpec
from tfdml.index._faiss_spec import FAISS_KINDS, FaissSpec
from tfdml.index._growth import Expected, Measured
from tfdml.index._milvus_spec import MILVUS_KINDS, MilvusSpec
from tfdml.index.advice import Advice, Candidate, advise
from tfdml.index.annoy import AnnoyIndex
from tfdml.index.base import METRICS, IndexFormatError, SearchResult, VectorIndex
from tfdml.index.exact import ExactIndex
from tfdml.index.faiss import FaissIndex
from tfdml.index.milvus import MilvusIndex
from tfdml.index.sharded import ShardedIndex
from tfdml.index.stored import StoredIndex, build_index, index_settings, load_index

__all__ = [
    "FAISS_KINDS",
    "METRICS",
    "MILVUS_KINDS",
    "Advice",
    "AnnoyIndex",
    "AnnoySpec",
    "Candidate",
    "ExactIndex",
    "ExactSpec",
    "Expected",
    "FaissIndex",
    "FaissSpec",
    "IndexFormatError",
    "Measured",
    "MilvusIndex",
    "MilvusSpec",
    "SearchResult",
    "ShardedIndex",
    "StoredIndex",
    "VectorIndex",
    "advise",
    "build_index",
    "index_settings",
    "load_index",
]
