"""What the service answers when it cannot do what it was asked: one class for each kind of problem, with its HTTP status."""

from __future__ import annotations

from typing import Any, ClassVar


class ServingError(Exception):
    """A request that ends in a problem document (RFC 9457) in place of an answer.

    Args:
        detail: what is wrong with this request and the way out, for the caller. Never an image, an embedding or a key.
        retry_after: after how many seconds the same request may succeed; None if trying again is of no use.

    Attributes:
        status: the HTTP status.
        title: the kind of problem in words; the same for every request that has it.
        kind: the last part of the problem's `type`, "urn:tfdml:problem:KIND", for programs.

    Example:
        >>> UnknownItem("id='mug-1': no item has this id.").problem("7f3a")["status"]
        404
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "The service failed"
    kind: ClassVar[str] = "internal"

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after

    def problem(self, request_id: str) -> dict[str, Any]:
        """The problem document's content."""
        return {
            "type": problem_type(self.kind),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }


class BadRequest(ServingError):
    """A parameter or a body that means nothing, or asks for what this bundle does not have."""

    status = 400
    title = "The request cannot be understood"
    kind = "bad-request"


class FilterError(BadRequest):
    """A filter that cannot be read, or names a field that does not exist.

    Args:
        position: where in the filter's text the trouble begins, counted from 0; None if it has no place.
    """

    title = "The filter cannot be understood"
    kind = "filter"

    def __init__(self, detail: str, position: int | None = None) -> None:
        super().__init__(detail)
        self.position = position

    def problem(self, request_id: str) -> dict[str, Any]:
        document = super().problem(request_id)
        return document if self.position is None else {**document, "position": self.position}


class Unauthorized(ServingError):
    """No key, or one that is not known."""

    status = 401
    title = "A key is needed"
    kind = "unauthorized"


class Forbidden(ServingError):
    """A known key that does not allow this."""

    status = 403
    title = "This key does not allow it"
    kind = "forbidden"


class NotWritable(ServingError):
    """The service was not started as writable."""

    status = 403
    title = "This service does not take changes"
    kind = "not-writable"


class UnknownItem(ServingError):
    """No item has this id."""

    status = 404
    title = "No such item"
    kind = "unknown-item"


class UnknownVersion(ServingError):
    """The service does not hold this version."""

    status = 404
    title = "No such version"
    kind = "unknown-version"


class NotFound(ServingError):
    """There is nothing at this address."""

    status = 404
    title = "Nothing is here"
    kind = "not-found"


class MethodNotAllowed(ServingError):
    """The address takes other methods."""

    status = 405
    title = "Not a method of this address"
    kind = "method-not-allowed"


class BodyTimeout(ServingError):
    """A body that did not arrive in time."""

    status = 408
    title = "The body did not arrive in time"
    kind = "body-timeout"


class HeaderTimeout(ServingError):
    """Headers that did not arrive in time."""

    status = 408
    title = "The headers did not arrive in time"
    kind = "header-timeout"


class HeadersTooLarge(ServingError):
    """More headers than anybody needs."""

    status = 431
    title = "The headers are too large"
    kind = "headers-too-large"


class Conflict(ServingError):
    """What is asked contradicts the present state, such as a new embedding of another space."""

    status = 409
    title = "In conflict with the present state"
    kind = "conflict"


class TooLarge(ServingError):
    """A body or an image over one of the limits."""

    status = 413
    title = "Too large"
    kind = "too-large"


class UnsupportedType(ServingError):
    """A body that is not of the types taken here, or not of the type that it says it is."""

    status = 415
    title = "Not a type that is taken here"
    kind = "unsupported-type"


class Undecodable(ServingError):
    """An image file that cannot be decoded."""

    status = 422
    title = "The image cannot be decoded"
    kind = "undecodable"


class RateLimited(ServingError):
    """A key that asks faster than it may."""

    status = 429
    title = "Too many requests with this key"
    kind = "rate-limited"


class Overloaded(ServingError):
    """More requests are being answered, and are waiting, than the service takes on."""

    status = 503
    title = "The service is busy"
    kind = "overloaded"

    def __init__(self, detail: str, *, retry_after: float | None = 1.0) -> None:
        super().__init__(detail, retry_after=retry_after)


class DeadlineExceeded(ServingError):
    """No answer before the deadline."""

    status = 503
    title = "No answer in time"
    kind = "deadline"

    def __init__(self, detail: str, *, retry_after: float | None = 1.0) -> None:
        super().__init__(detail, retry_after=retry_after)


class EmbedderUnavailable(ServingError):
    """What makes the embeddings cannot be asked, answers nonsense, or did not answer before the deadline."""

    status = 503
    title = "Embeddings cannot be made at present"
    kind = "embedder-unavailable"

    def __init__(self, detail: str, *, retry_after: float | None = 2.0) -> None:
        super().__init__(detail, retry_after=retry_after)


class IndexUnavailable(ServingError):
    """The index is on a cluster that does not answer."""

    status = 503
    title = "The index cannot be searched at present"
    kind = "index-unavailable"

    def __init__(self, detail: str, *, retry_after: float | None = 2.0) -> None:
        super().__init__(detail, retry_after=retry_after)


def problem_type(kind: str) -> str:
    """The `type` of a problem document.

    >>> problem_type("filter")
    'urn:tfdml:problem:filter'
    """
    return f"urn:tfdml:problem:{kind}"
