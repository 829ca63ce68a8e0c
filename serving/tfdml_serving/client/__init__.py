"""Clients: of the retrieval service, and of TF-Serving alone. They need `httpx`, and load neither TensorFlow nor FastAPI.

`Client` and `AsyncClient` ask the service; `TFServingClient` and `AsyncTFServingClient` ask a TF-Serving whose model searches
its own gallery.
"""

from __future__ import annotations

from tfdml_serving.client.answers import (
    Hit,
    ImageLimits,
    Info,
    Item,
    ItemPage,
    Readiness,
    SearchResult,
    VersionInfo,
    Versions,
)
from tfdml_serving.client.calls import Retry
from tfdml_serving.client.errors import (
    BadRequest,
    ClientError,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    Problem,
    ProblemError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from tfdml_serving.client.queries import EmbeddingQuery, ImageQuery, ItemQuery
from tfdml_serving.client.service import AsyncClient, Client
from tfdml_serving.client.tf_serving import AsyncTFServingClient, Embedded, Found, ModelVersion, TFServingClient

__all__ = [
    "AsyncClient",
    "AsyncTFServingClient",
    "BadRequest",
    "Client",
    "ClientError",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Embedded",
    "EmbeddingQuery",
    "Forbidden",
    "Found",
    "Hit",
    "ImageLimits",
    "ImageQuery",
    "Info",
    "Item",
    "ItemPage",
    "ItemQuery",
    "ModelVersion",
    "NotFound",
    "Problem",
    "ProblemError",
    "Readiness",
    "Retry",
    "SearchResult",
    "TFServingClient",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "VersionInfo",
    "Versions",
]
