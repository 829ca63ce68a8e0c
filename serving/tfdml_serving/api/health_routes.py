"""Is it alive, is it ready, what does it serve, what did it measure."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from tfdml_serving.api.answers import json_answer
from tfdml_serving.api.documents import problems
from tfdml_serving.api.models import Alive, Info, Ready
from tfdml_serving.api.service import Service
from tfdml_serving.images import TYPES

_TEXT: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format."}


def health_routes(service: Service) -> APIRouter:
    """The router."""
    router = APIRouter()

    @router.get("/healthz", tags=["health"], operation_id="alive", summary="Is it alive?", response_model=Alive)
    async def healthz() -> Response:
        """200 as long as the process answers: when it does not, start it anew."""
        return json_answer({"status": "ok"})

    @router.get(
        "/readyz",
        tags=["health"],
        operation_id="ready",
        summary="Is it ready?",
        response_model=Ready,
        responses={503: {"model": Ready, "description": "Not at present; the reasons say why."}},
    )
    async def readyz() -> Response:
        """200 if an index is held and embeddings of its version can be had: as long as not, send requests elsewhere."""
        reasons = await service.reasons()
        version = service.current()
        content = {"ready": not reasons, "version": version, "reasons": reasons}
        return json_answer(content, 503, {"retry-after": "1"}) if reasons else json_answer(content)

    @router.get(
        "/metrics",
        tags=["health"],
        operation_id="metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: _TEXT},
    )
    async def metrics() -> Response:
        """Counters, gauges and histograms."""
        return Response(service.metrics.text(), 200, {"content-type": CONTENT_TYPE_LATEST})

    @router.get(
        "/v1/info", tags=["info"], operation_id="info", summary="What is served", response_model=Info, responses=problems()
    )
    async def info(request: Request) -> Response:
        """Model, version, fields and limits. No key is needed to ask."""
        settings = service.settings
        with service.versions.lease(None) as held:
            threshold = held.threshold()
            model = held.manifest.model
            return json_answer(
                {
                    "model": service.model_name,
                    "version": held.version,
                    "items": held.items,
                    "dimension": held.dimension,
                    "metric": held.metric,
                    "normalised": model.normalised,
                    "fields": dict(held.fields),
                    "max_k": settings.max_k,
                    "max_queries": settings.max_queries,
                    "threshold": None if threshold is None else threshold.distance,
                    "writable": settings.writable and service.living is not None,
                    "thumbnails": held.thumbnails,
                    "image": {
                        "max_bytes": settings.max_image_bytes,
                        "max_pixels": min(settings.max_pixels, model.max_pixels),
                        "types": list(TYPES),
                    },
                    "auth": service.keys is not None,
                }
            )

    return router
