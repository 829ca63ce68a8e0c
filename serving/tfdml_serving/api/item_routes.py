"""/v1/items and /v1/thumbnails: the catalogue, and changes to it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from tfdml_serving.api.answers import json_answer
from tfdml_serving.api.calls import Call, call_of
from tfdml_serving.api.changing import Changing
from tfdml_serving.api.documents import problems
from tfdml_serving.api.models import LONGEST_ID, FilterText, InDigits, Item, Items, PatchItem, PutItem, QueryVersion
from tfdml_serving.api.parameters import no_parameter_twice
from tfdml_serving.api.searching import checked_id, parsed, thumbnail_path
from tfdml_serving.api.service import Service
from tfdml_serving.errors import Forbidden, NotWritable, UnknownItem

if TYPE_CHECKING:
    from tfdml_serving.engine.held import HeldVersion

ItemPath = Annotated[str, Path(min_length=1, max_length=LONGEST_ID, description="The item's id; it may have slashes in it.")]
_TAGS: list[Any] = ["items"]
_JPEG: dict[str, Any] = {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}


def item_routes(service: Service, changing: Changing) -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/v1", tags=_TAGS, dependencies=[Depends(no_parameter_twice)])

    @router.get(
        "/items",
        operation_id="listItems",
        summary="List items",
        response_model=Items,
        responses=problems(400, 404),
    )
    async def list_items(
        request: Request,
        filter: Annotated[FilterText, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=500, description="How many items a page has."), InDigits] = 50,
        after: Annotated[str | None, Query(max_length=LONGEST_ID, description="`next` of the page before.")] = None,
        order: Annotated[
            Literal["id", "spread"],
            Query(description="By their ids, or spread: fixed as well, with a bit of everything on each page."),
        ] = "id",
        version: Annotated[QueryVersion, Query()] = None,
    ) -> Response:
        """The items, page by page, in a fixed order."""

        def work(held: HeldVersion) -> dict[str, Any]:
            begin = None if after is None else checked_id(after)
            items, following = held.list_items(parsed(filter, held), limit, begin, order)
            return {"items": [as_answer(item, version) for item in items], "next": following}

        return json_answer(await _read(service, call_of(request.scope), version, work))

    @router.get(
        "/items/{id:path}",
        operation_id="getItem",
        summary="Get an item",
        response_model=Item,
        responses=problems(400, 404),
    )
    async def get_item(request: Request, id: ItemPath, version: Annotated[QueryVersion, Query()] = None) -> Response:
        """One item with its fields."""

        def work(held: HeldVersion) -> dict[str, Any]:
            return as_answer(held.item(checked_id(id)), version)

        return json_answer(await _read(service, call_of(request.scope), version, work))

    @router.get(
        "/thumbnails/{id:path}",
        operation_id="getThumbnail",
        summary="Get an item's picture",
        response_class=Response,
        responses={200: _JPEG, 304: {"description": "The picture is as it was."}, **problems(400, 404)},
    )
    async def get_thumbnail(request: Request, id: ItemPath, version: Annotated[QueryVersion, Query()] = None) -> Response:
        """The small picture of an item, if the bundle has pictures."""

        def work(held: HeldVersion) -> bytes:
            picture = held.thumbnail(checked_id(id))
            if picture is None:
                raise UnknownItem(f"id={id!r}: has no picture.")
            return picture

        picture = await _read(service, call_of(request.scope), version, work)
        tag = f'"{hashlib.sha256(picture).hexdigest()[:32]}"'
        headers = {"etag": tag, "cache-control": "private, max-age=60"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(picture, 200, headers, "image/jpeg")

    @router.put(
        "/items/{id:path}",
        operation_id="putItem",
        summary="Add or replace an item",
        response_model=Item,
        responses={201: {"model": Item, "description": "It is new."}, **problems(400, 403, 404, 409, 413, 415, 422)},
    )
    async def put_item(request: Request, id: ItemPath, body: PutItem) -> Response:
        """Adds an item, or replaces the one with its id. It is on the disk, and is found, before this is answered."""
        call = check_writable(request, service)
        item, new = await changing.put(call, checked_id(id), body)
        return json_answer(as_answer(item), 201 if new else 200)

    @router.patch(
        "/items/{id:path}",
        operation_id="patchItem",
        summary="Change an item's fields",
        response_model=Item,
        responses=problems(400, 403, 404, 409, 413, 415),
    )
    async def patch_item(request: Request, id: ItemPath, body: PatchItem) -> Response:
        """Changes the named fields of an item."""
        call = check_writable(request, service)
        return json_answer(as_answer(await changing.change(call, checked_id(id), body.fields)))

    @router.delete(
        "/items/{id:path}",
        operation_id="deleteItem",
        summary="Remove an item",
        status_code=204,
        response_class=Response,
        responses=problems(400, 403, 404, 409),
    )
    async def delete_item(request: Request, id: ItemPath) -> Response:
        """Removes an item: it is not found any more."""
        call = check_writable(request, service)
        await changing.remove(call, checked_id(id))
        return Response(status_code=204)

    return router


def as_answer(item: dict[str, Any], version: int | None = None) -> dict[str, Any]:
    """An item as it is sent."""
    picture = thumbnail_path(item["id"], version) if item["has_thumbnail"] else None
    return {"id": item["id"], "fields": item["fields"], "thumbnail": picture}


def check_writable(request: Request, service: Service) -> Call:
    """The call of a request that changes something.

    Raises:
        NotWritable: if this service takes no changes.
        Forbidden: if the key is for reading only.
    """
    if not service.settings.writable:
        raise NotWritable("Start it with --writable (and --living FILE for changes to items).")
    call = call_of(request.scope)
    if not call.may_write:
        raise Forbidden("This key may read only.")
    return call


async def _read(service: Service, call: Call, version: int | None, work: Any) -> Any:
    async def in_thread(held: HeldVersion) -> Any:
        return await service.in_thread(work, held)

    return await service.admitted(call, 0, lambda: service.in_current(version, in_thread))
