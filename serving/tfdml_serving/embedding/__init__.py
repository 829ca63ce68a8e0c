"""Image files to embeddings, by exactly the version that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfdml_serving.embedding.base import (
    ConnectionLost,
    EmbedderBusy,
    ImageEmbedder,
    ModelRefused,
    ModelVersion,
    NotLoaded,
    WrongAnswer,
)
from tfdml_serving.embedding.embedded import EmbeddedModels
from tfdml_serving.embedding.remote import Limits
from tfdml_serving.embedding.tf_serving_rest import TFServingREST
from tfdml_serving.settings import Settings

if TYPE_CHECKING:
    from tfdml_serving.embedding.tf_serving_grpc import TFServingGRPC

__all__ = [
    "ConnectionLost",
    "EmbeddedModels",
    "EmbedderBusy",
    "ImageEmbedder",
    "Limits",
    "ModelRefused",
    "ModelVersion",
    "NotLoaded",
    "TFServingGRPC",
    "TFServingREST",
    "WrongAnswer",
    "make_embedder",
]


def make_embedder(settings: Settings, model_name: str) -> ImageEmbedder:
    """The embedder that the settings name.

    Args:
        settings: of the service.
        model_name: of the model in TF-Serving.

    Raises:
        ValueError: if gRPC is asked for and not installed.
    """
    # A part of the deadline is kept for the search.
    deadline = 0.8 * settings.deadline
    if settings.embedded:
        return EmbeddedModels(
            settings.embed_batch,
            settings.embed_wait,
            deadline=deadline,
            threads=settings.embed_threads,
        )
    limits = Limits(deadline=deadline, batch=settings.embed_batch, connections=max(settings.concurrency, 1))
    if settings.grpc is not None:
        try:
            from tfdml_serving.embedding.tf_serving_grpc import TFServingGRPC
        except ImportError as error:
            raise ValueError(f"grpc={settings.grpc!r}: {error}. Install 'tfdml[grpc]', or use tf_serving.") from error
        return TFServingGRPC(settings.grpc, model_name, limits)
    return TFServingREST(str(settings.tf_serving), model_name, limits)


def __getattr__(name: str) -> Any:
    if name == "TFServingGRPC":  # needs grpcio
        from tfdml_serving.embedding.tf_serving_grpc import TFServingGRPC

        return TFServingGRPC
    raise AttributeError(f"module 'tfdml_serving.embedding' has no attribute {name!r}")
