"""/v1/versions: which versions there are, going back to one, and following the latest again."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from tfdml_serving.api.answers import json_answer
from tfdml_serving.api.documents import problems
from tfdml_serving.api.item_routes import check_writable
from tfdml_serving.api.models import InDigits, Versions
from tfdml_serving.api.service import Service

_TAGS: list[Any] = ["versions"]


def version_routes(service: Service) -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/v1/versions", tags=_TAGS)

    @router.get("", operation_id="listVersions", summary="List versions", response_model=Versions, responses=problems())
    async def list_versions(request: Request) -> Response:
        """The versions in the model directory, and what became of them."""
        return json_answer(_versions(service))

    @router.post(
        "/{version}/activate",
        operation_id="activateVersion",
        summary="Serve a certain version",
        response_model=Versions,
        responses=problems(400, 403, 404, 409),
    )
    async def activate(
        request: Request, version: Annotated[int, Path(ge=0, le=2**63 - 1, description="The version."), InDigits]
    ) -> Response:
        """Goes to a version and stays with it, whatever is published, until the pin is removed: a roll-back."""
        check_writable(request, service)
        await service.versions.pin(version)
        return json_answer(_versions(service))

    @router.delete(
        "/pin",
        operation_id="removePin",
        summary="Follow the latest version again",
        response_model=Versions,
        responses=problems(403),
    )
    async def unpin(request: Request) -> Response:
        """From now on the latest version is served again."""
        check_writable(request, service)
        await service.versions.unpin()
        return json_answer(_versions(service))

    return router


def _versions(service: Service) -> dict[str, Any]:
    found = [dataclasses.asdict(state) for state in service.versions.list()]
    current = next((state["version"] for state in found if state["state"] == "current"), None)
    return {"current": current, "pinned": service.versions.pinned, "versions": found}
