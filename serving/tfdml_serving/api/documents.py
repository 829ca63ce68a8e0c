"""The OpenAPI document: complete, so that a program can be written from it alone, and true, so that a fuzzer can test by it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tfdml import __version__
from tfdml_serving.api.models import Problem
from tfdml_serving.settings import Settings

DESCRIPTION = """\
Finds the catalogue's items that look most like a picture, an item, or an embedding.

Every answer carries `X-Request-ID`: the caller's own if it sent one, a new one otherwise; the service's log knows the request
by it. Whatever is not an answer is a problem document (RFC 9457), `application/problem+json`. A 503 or 429 says in
`Retry-After` when to ask again.
"""
_TITLES = {
    400: "The request cannot be understood",
    401: "A key is needed, or is not known",
    403: "Not allowed",
    404: "No such item or version",
    408: "The request did not arrive in time",
    409: "In conflict with the present state",
    413: "Too large",
    415: "Not a type that is taken here",
    422: "The image cannot be decoded",
    429: "Too many requests with this key",
    431: "The headers are too large",
    500: "A defect of the service",
    503: "Busy, not ready, or out of time",
}
_RETRY = {"description": "Seconds after which to ask again.", "schema": {"type": "integer", "minimum": 1}}
_REQUEST_ID = {"description": "The request's name in the log.", "schema": {"type": "string"}}
_GIVEN_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "The caller's own name for the request: up to 64 letters, digits, '.', '_' and '-'; others are replaced.",
    "schema": {"type": "string"},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of problems for `responses=` of a route; those that any route can have are added."""
    return {status: _problem(status) for status in sorted({*statuses, 500})}


def _problem(status: int) -> dict[str, Any]:
    return {"model": Problem, "description": _TITLES[status]}


def document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The document of an application, as the settings make it."""
    found = get_openapi(
        title="tfdml retrieval service",
        version=__version__,
        description=DESCRIPTION,
        routes=app.routes,
        summary="Visual search",
    )
    schemas = found["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path, operations in found["paths"].items():
        for operation in operations.values():
            _finish(path, operation, settings)
    _set_maximum(found, settings)
    if settings.api_keys is not None:
        found["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return found


def _finish(path: str, operation: dict[str, Any], settings: Settings) -> None:
    responses = operation["responses"]
    # FastAPI's own description of what it refuses: here that is a 400.
    if "HTTPValidationError" in str(responses.get("422", "")):
        del responses["422"]
    versioned = path.startswith("/v1/")
    _add(responses, 408)
    _add(responses, 431)
    if versioned:
        operation.setdefault("parameters", []).append(_GIVEN_ID)
        _add(responses, 503)
        if settings.api_keys is not None and path != "/v1/info":
            _add(responses, 401)
            _add(responses, 429)
            operation["security"] = [{"bearer": []}, {"header": []}]
    for status, response in responses.items():
        response.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID
        if status in ("429", "503"):
            response["headers"]["Retry-After"] = _RETRY
        content = response.get("content", {})
        if int(status) >= 400 and path != "/readyz" and "application/json" in content:
            content["application/problem+json"] = content.pop("application/json")


def _add(responses: dict[str, Any], status: int) -> None:
    schema = {"$ref": "#/components/schemas/Problem"}
    responses.setdefault(str(status), {"description": _TITLES[status], "content": {"application/json": {"schema": schema}}})


def _set_maximum(found: Any, settings: Settings) -> None:
    """The limits of this service in the place of those that hold for all."""
    for operations in found["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "k":
                    parameter["schema"]["maximum"] = settings.max_k
    schemas = found["components"]["schemas"]
    for name in ("SearchByItem", "SearchByEmbedding", "SearchBatch"):
        schemas[name]["properties"]["k"]["maximum"] = settings.max_k
    schemas["SearchBatch"]["properties"]["queries"]["maxItems"] = settings.max_queries
