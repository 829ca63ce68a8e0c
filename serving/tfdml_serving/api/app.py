"""The application: `create_app`."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tfdml import __version__
from tfdml_serving.api.calls import call_of
from tfdml_serving.api.changing import Changing
from tfdml_serving.api.direct import direct_searches
from tfdml_serving.api.documents import document
from tfdml_serving.api.gate import Gate, problem_answer
from tfdml_serving.api.health_routes import health_routes
from tfdml_serving.api.item_routes import item_routes
from tfdml_serving.api.logs import log
from tfdml_serving.api.page_routes import page_routes
from tfdml_serving.api.reference import reference_routes
from tfdml_serving.api.search_calls import SearchCalls
from tfdml_serving.api.search_routes import search_routes
from tfdml_serving.api.searching import Searching
from tfdml_serving.api.service import Service
from tfdml_serving.api.version_routes import version_routes
from tfdml_serving.errors import BadRequest, MethodNotAllowed, NotFound, ServingError
from tfdml_serving.images import TYPES
from tfdml_serving.settings import Settings

if TYPE_CHECKING:
    from tfdml_serving.embedding.base import ImageEmbedder
    from tfdml_serving.living.store import LivingCatalogue
    from tfdml_serving.rollout.versions import Versions

_PARAMETER = re.compile(r"\\\{.+?\\\}")


def create_app(
    settings: Settings,
    versions: Versions | None = None,
    embedder: ImageEmbedder | None = None,
    living: LivingCatalogue | None = None,
) -> FastAPI:
    """The service as an ASGI application, for `tfdml_serving.api.server` or any other server.

    Args:
        settings: what it serves and within which limits.
        versions: the versions of the bundle; made from the settings if left out.
        embedder: what makes embeddings; made from the settings if left out.
        living: where items change; opened as the settings say if left out.

    Raises:
        ValueError: if the file of API keys cannot be used.

    Example:
        app = create_app(Settings("exports/products"))
        uvicorn.run(app)
    """
    if versions is None or embedder is None:
        from tfdml_serving.api.parts import make_parts

        versions, embedder, living = make_parts(settings)
    service = Service(settings, versions, embedder, living)
    searching = Searching(service)
    search_calls = SearchCalls(service, searching)

    app = FastAPI(
        title="tfdml retrieval service",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lambda app: _running(service),
    )
    app.state.service = service
    # Routes are tried in this order.
    app.include_router(search_routes(search_calls))
    app.include_router(health_routes(service))
    app.include_router(item_routes(service, Changing(service, searching)))
    app.include_router(version_routes(service))
    app.include_router(reference_routes(app))
    if settings.page:
        app.include_router(page_routes())
    app.add_exception_handler(ServingError, _as_problem)
    app.add_exception_handler(HTTPException, _http_as_problem)
    app.add_exception_handler(RequestValidationError, _validation_as_problem)
    app.add_middleware(Gate, service=service, types=TYPES, direct=direct_searches(search_calls))
    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not described:
            described.update(document(app, settings))
        return described

    app.openapi = openapi  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _running(service: Service) -> AsyncIterator[None]:
    """Starts in the background: the process is alive at once, and ready when it is."""
    starting = asyncio.create_task(service.start())
    starting.add_done_callback(_report)
    try:
        yield
    finally:
        if not starting.done():
            starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await starting
        await service.stop()


def _report(starting: asyncio.Task[None]) -> None:
    if not starting.cancelled() and (error := starting.exception()) is not None:
        log.error("the service could not start", exc_info=error)


async def _as_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    request.app.state.service.metrics.refused(error.kind)
    status, headers, body = problem_answer(error, call_of(request.scope).request_id)
    response = Response(body, status)
    response.raw_headers = headers
    return response


async def _http_as_problem(request: Request, error: Exception) -> Response:
    """What the router itself refuses."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return await _as_problem(request, NotFound("There is nothing at this address. /docs lists what there is."))
    if error.status_code == 405:
        routed = (error.headers or {}).get("Allow", "").replace(",", " ").split()
        allowed = ", ".join(sorted({*routed, *_methods(request)}))
        response = await _as_problem(request, MethodNotAllowed(f"This address takes {allowed or 'other methods'}."))
        if allowed:
            response.headers["Allow"] = allowed
        return response
    return await _as_problem(request, BadRequest("body: cannot be read as JSON."))


def _methods(request: Request) -> set[str]:
    """What an address takes: the router names the methods of the first route only that has it."""
    return {
        method
        for path, operations in request.app.openapi()["paths"].items()
        if re.fullmatch(_PARAMETER.sub(".+", re.escape(path)), request.scope["path"])
        for method in map(str.upper, operations)
    }


async def _validation_as_problem(request: Request, error: Exception) -> Response:
    """Where the trouble is and what was expected; not what was sent, which may be large or secret."""
    assert isinstance(error, RequestValidationError)
    told = []
    for entry in error.errors()[:5]:
        place = ".".join(str(part)[:40] for part in entry["loc"] if part not in ("body", "query", "path")) or str(
            entry["loc"][0]
        )
        told.append(f"{place}: {entry['msg']}")
    return await _as_problem(request, BadRequest("; ".join(told)))
