"""POST /v1/search/...: by image, by item, by embedding, and many at once."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from tfdml_serving.api.answers import json_answer
from tfdml_serving.api.bodies import MULTIPART
from tfdml_serving.api.calls import call_of
from tfdml_serving.api.documents import problems
from tfdml_serving.api.models import (
    BatchAnswer,
    FilterText,
    K,
    SearchAnswer,
    SearchBatch,
    SearchByEmbedding,
    SearchByItem,
    Version,
)
from tfdml_serving.api.multipart import image_of_form
from tfdml_serving.api.searching import Searching
from tfdml_serving.api.service import Service
from tfdml_serving.errors import BadRequest
from tfdml_serving.images import TYPES

_FILE = {"schema": {"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"}},
    }
}
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file's bytes with their own content type, or a form with the file in its field `image`.",
        "content": {**dict.fromkeys(TYPES, _FILE), MULTIPART: _FORM},
    }
}
_TAGS: list[Any] = ["search"]


def search_routes(service: Service, searching: Searching) -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/v1/search", tags=_TAGS)

    @router.post(
        "/image",
        operation_id="searchByImage",
        summary="Search by an image",
        response_model=SearchAnswer,
        responses=problems(400, 404, 413, 415, 422),
        openapi_extra=IMAGE_BODY,
    )
    async def by_image(
        request: Request,
        k: Annotated[K, Query()] = 10,
        filter: Annotated[FilterText, Query()] = None,
        version: Annotated[Version, Query()] = None,
    ) -> Response:
        """The items that look most like a picture."""
        call = call_of(request.scope)
        data, kind = call.body, call.content_type
        if kind == MULTIPART:
            data, said = image_of_form(data, call.content_type_parameters)
            kind = said or ""
        check_k(k, service)
        return json_answer(await searching.by_image(call, data, kind or None, k, filter, version))

    @router.post(
        "/item",
        operation_id="searchByItem",
        summary="More like an item",
        response_model=SearchAnswer,
        responses=problems(400, 404, 413, 415),
    )
    async def by_item(request: Request, body: SearchByItem) -> Response:
        """The items that look most like one of them."""
        check_k(body.k, service)
        call = call_of(request.scope)
        return json_answer(await searching.by_item(call, body.id, body.k, body.filter, body.version, body.include_self))

    @router.post(
        "/embedding",
        operation_id="searchByEmbedding",
        summary="Search by a ready embedding",
        response_model=SearchAnswer,
        responses=problems(400, 404, 413, 415),
    )
    async def by_embedding(request: Request, body: SearchByEmbedding) -> Response:
        """The items nearest to an embedding that the version's own model made."""
        check_k(body.k, service)
        call = call_of(request.scope)
        return json_answer(await searching.by_embedding(call, body.embedding, body.k, body.filter, body.version))

    @router.post(
        "/batch",
        operation_id="searchBatch",
        summary="Many searches at once",
        response_model=BatchAnswer,
        responses=problems(400, 404, 413, 415),
    )
    async def by_batch(request: Request, body: SearchBatch) -> Response:
        """An answer for each query; one that fails gets its problem in its place, and the others their answers."""
        check_k(body.k, service)
        if len(body.queries) > service.settings.max_queries:
            raise BadRequest(f"queries: {len(body.queries)}; at most {service.settings.max_queries} are taken at once.")
        call = call_of(request.scope)
        if call.key is not None and call.key.bucket is not None:
            call.key.bucket.take(len(body.queries) - 1)
        return json_answer(await searching.by_batch(call, body.queries, body.k, body.filter, body.version))

    return router


def check_k(k: int, service: Service) -> None:
    """Raises a BadRequest if more is asked for than this service gives."""
    if k > service.settings.max_k:
        raise BadRequest(f"k={k}: this service gives at most {service.settings.max_k}.")
