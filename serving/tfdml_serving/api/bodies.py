"""Reading a request's body: never more of it than is allowed, and not for longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio

from tfdml_serving.api.calls import Call, Scope
from tfdml_serving.errors import BadRequest, BodyTimeout, Overloaded, ServingError, TooLarge, UnsupportedType

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

JSON = "application/json"
MULTIPART = "multipart/form-data"
# Boundaries, headers and small fields around an image.
_AROUND = 64 << 10
_MOST_PARAMETERS = 1 << 20
_DRAIN_BYTES = 32 << 20
_DRAIN_SECONDS = 2.0


class DisconnectedError(Exception):
    """The caller went away before the request was complete."""


class BodyRules:
    """What bodies are taken where, and how large.

    Args:
        max_image_bytes: of an image.
        max_body_bytes: of JSON that may hold images.
        types: media types of images.
    """

    def __init__(self, max_image_bytes: int, max_body_bytes: int, types: tuple[str, ...]) -> None:
        self._image, self._body = max_image_bytes, max_body_bytes
        self._types = types

    def limit(self, scope: Scope, call: Call) -> int | None:
        """The most bytes that the body of this request may have; None if a request here has no body.

        Raises:
            UnsupportedType: if its content type is not taken here.
        """
        path: str = scope["path"]
        method: str = scope["method"]
        if method == "POST" and path == "/v1/search/image":
            if call.content_type == MULTIPART:
                return self._image + _AROUND
            if call.content_type in self._types:
                return self._image
            raise _refused_type(call, (*self._types, MULTIPART))
        if method == "POST" and path.startswith("/v1/search/"):
            _check_json(call)
            return self._body if path == "/v1/search/batch" else min(_MOST_PARAMETERS, self._body)
        if method in ("PUT", "PATCH") and path.startswith("/v1/items/"):
            _check_json(call)
            return self._body if method == "PUT" else min(_MOST_PARAMETERS, self._body)
        return None


class BodyBudget:
    """Counts the bytes of all bodies that are held at a time."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0

    @property
    def held(self) -> int:
        return self._held

    def reserve(self, count: int) -> None:
        if self._held + count > self._most:
            raise Overloaded("Too many large requests at once. Ask again in a moment.")
        self._held += count

    def release(self, count: int) -> None:
        self._held -= count


async def read_body(receive: Receive, limit: int, length: int | None, call: Call, budget: BodyBudget) -> bytes:
    """The whole body, whose bytes stay reserved in `budget`: release as many when the request is done.

    Args:
        receive: of ASGI.
        limit: the most bytes.
        length: as the header says; None if it does not.
        call: the request, for its deadline.
        budget: where its bytes are counted.

    Raises:
        TooLarge, BodyTimeout, Overloaded: see there.
        DisconnectedError: if the caller hangs up.
    """
    if length is not None and length > limit:
        raise TooLarge(f"body: {length:,} bytes; at most {limit:,} are taken here.")
    pieces: list[bytes] = []
    size = 0
    more = True
    try:
        with anyio.fail_after(max(0.0, call.deadline - asyncio.get_running_loop().time())):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise DisconnectedError
                piece = message.get("body", b"")
                more = message.get("more_body", False)
                call.arrived = not more
                if size + len(piece) > limit:
                    raise TooLarge(f"body: more than the {limit:,} bytes that are taken here.")
                budget.reserve(len(piece))
                size += len(piece)
                pieces.append(piece)
    except TimeoutError:
        budget.release(size)
        raise BodyTimeout(f"body: {size:,} bytes came before the time was up. Send it faster, or less.") from None
    except BaseException:
        budget.release(size)
        raise
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def drain(receive: Receive) -> None:
    """Takes in some more of a refused body and drops it, so that callers who send it all first still read why."""
    size = 0
    with anyio.move_on_after(_DRAIN_SECONDS):
        while size < _DRAIN_BYTES:
            message = await receive()
            size += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                return


def body_length(value: str | None) -> int | None:
    """The Content-Length header as a number.

    Raises:
        BadRequest: if it is none.
    """
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise BadRequest("Content-Length: expected a number of bytes.")
    return int(value)


def replay(body: bytes, receive: Receive) -> Receive:
    """An ASGI `receive` that gives `body`, and after it whatever else `receive` has to say."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _check_json(call: Call) -> None:
    if call.content_type != JSON:
        raise _refused_type(call, (JSON,))


def _refused_type(call: Call, expected: tuple[str, ...]) -> ServingError:
    said = f"{call.content_type[:80]!r}" if call.content_type else "missing"
    return UnsupportedType(
        f"Content-Type: {said}; expected {', '.join(expected[:-1])}{' or ' if expected[1:] else ''}{expected[-1]}."
    )
