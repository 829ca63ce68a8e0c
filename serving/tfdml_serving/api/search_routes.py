"""POST /v1/search/...: by image, by item, by embedding, and many at once."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from tfdml_serving.api.bodies import MULTIPART
from tfdml_serving.api.calls import call_of
from tfdml_serving.api.documents import problems
from tfdml_serving.api.models import (
    DEFAULT_K,
    BatchAnswer,
    FilterText,
    QueryK,
    QueryVersion,
    SearchAnswer,
    SearchBatch,
    SearchByEmbedding,
    SearchByItem,
)
from tfdml_serving.api.parameters import no_parameter_twice
from tfdml_serving.api.search_calls import SearchCalls
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


def search_routes(calls: SearchCalls) -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/v1/search", tags=_TAGS, dependencies=[Depends(no_parameter_twice)])

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
        k: Annotated[QueryK, Query()] = DEFAULT_K,
        filter: Annotated[FilterText, Query()] = None,
        version: Annotated[QueryVersion, Query()] = None,
    ) -> Response:
        """The items that look most like a picture."""
        return await calls.by_image(call_of(request.scope), k, filter, version)

    @router.post(
        "/item",
        operation_id="searchByItem",
        summary="More like an item",
        response_model=SearchAnswer,
        responses=problems(400, 404, 413, 415),
    )
    async def by_item(request: Request, body: SearchByItem) -> Response:
        """The items that look most like one of them."""
        return await calls.by_item(call_of(request.scope), body)

    @router.post(
        "/embedding",
        operation_id="searchByEmbedding",
        summary="Search by a ready embedding",
        response_model=SearchAnswer,
        responses=problems(400, 404, 413, 415),
    )
    async def by_embedding(request: Request, body: SearchByEmbedding) -> Response:
        """The items nearest to an embedding that the version's own model made."""
        return await calls.by_embedding(call_of(request.scope), body)

    @router.post(
        "/batch",
        operation_id="searchBatch",
        summary="Many searches at once",
        response_model=BatchAnswer,
        responses=problems(400, 404, 413, 415),
    )
    async def by_batch(request: Request, body: SearchBatch) -> Response:
        """An answer for each query; one that fails gets its problem in its place, and the others their answers."""
        return await calls.by_batch(call_of(request.scope), body)

    return router
