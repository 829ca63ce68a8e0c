"""The web page: files that are read once, at start; no path from a request ever reaches the disk."""

from __future__ import annotations

import hashlib
import mimetypes
from importlib import resources

from fastapi import APIRouter, Request, Response

from tfdml_serving.errors import NotFound

_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_INDEX = "index.html"


class PageFile:
    """A file of the page, and what its answer says of it."""

    def __init__(self, name: str, content: bytes) -> None:
        suffix = name[name.rfind(".") :]
        self.content = content
        self.kind = _KINDS.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        self.tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    def answer(self, request: Request) -> Response:
        # Asked for again each time, and answered with 304: a new release is seen at once.
        headers = {"etag": self.tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, 200, headers, self.kind)


def page_files() -> dict[str, PageFile]:
    """All files of the page, by name."""
    folder = resources.files("tfdml_serving") / "page"
    if not folder.is_dir():
        return {}
    return {entry.name: PageFile(entry.name, entry.read_bytes()) for entry in folder.iterdir() if entry.is_file()}


def page_routes() -> APIRouter:
    """The router. The page is not part of the API's document."""
    router = APIRouter(include_in_schema=False)
    files = page_files()

    @router.get("/")
    async def index(request: Request) -> Response:
        return _answer(_INDEX, request)

    @router.get("/static/{name}")
    async def static(request: Request, name: str) -> Response:
        return _answer(name, request)

    def _answer(name: str, request: Request) -> Response:
        if name not in files:
            raise NotFound("There is no such file of the page.")
        return files[name].answer(request)

    return router
