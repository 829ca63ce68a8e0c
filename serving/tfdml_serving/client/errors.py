"""What a call can end in instead of an answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """What the server says is wrong: a problem document (RFC 9457), or as much of one as it sent.

    Args:
        status: the HTTP status.
        title: the kind of problem, in a few words.
        detail: this problem, in a sentence.
        type: a name for the kind of problem.
        request_id: what the server's log calls the request.
        more: whatever else the document holds.
    """

    status: int
    title: str
    detail: str = ""
    type: str = "about:blank"
    request_id: str | None = None
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, document: Mapping[str, Any], status: int) -> Problem:
        """Reads what a server sent; never fails, since it is read when something has failed already."""
        rest = dict(document)
        given = rest.pop("status", status)
        request_id = rest.pop("request_id", None)
        return cls(
            status=given if isinstance(given, int) else status,
            title=str(rest.pop("title", f"HTTP {status}")),
            # TF-Serving says {"error": "..."}, and FastAPI alone {"detail": [...]}.
            detail=_text(rest.pop("detail", rest.pop("error", ""))),
            type=str(rest.pop("type", "about:blank")),
            request_id=None if request_id is None else str(request_id),
            more=rest,
        )

    def __str__(self) -> str:
        return f"{self.status} {self.title}" + (f": {self.detail}" if self.detail else "")


class ClientError(Exception):
    """The base of everything that a client raises, bad arguments apart (`ValueError`)."""


class ConnectionFailed(ClientError):
    """No answer came: no connection, or it was cut. The cause is the `httpx` error."""


class DeadlineExceeded(ClientError, TimeoutError):
    """No answer came in the time given for the whole call, repetitions and waiting included."""


class UnexpectedAnswer(ClientError):
    """An answer that this client cannot read: not JSON, a part missing, or from something that is not the server."""


class ProblemError(ClientError):
    """The server refused or failed. Its kinds tell the usual cases apart.

    Attributes:
        problem: what the server said.
        retry_after: after how many seconds it asked to be called again, if it did.
    """

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        self.problem = problem
        self.retry_after = retry_after
        super().__init__(str(problem) + (f" (request {problem.request_id})" if problem.request_id else ""))

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status


class BadRequest(ProblemError):
    """The request is wrong (400, 413, 415, 422): a filter, a file, a number out of range. Repeating it does not help."""


class Unauthorized(ProblemError):
    """No key, or one that is not known (401)."""


class Forbidden(ProblemError):
    """Not allowed (403): the catalogue is not writable, or the key may not do this."""


class NotFound(ProblemError):
    """No such item, version or model (404)."""


class Conflict(ProblemError):
    """It contradicts what is there (409)."""


class TooManyRequests(ProblemError):
    """More requests than this key may make (429)."""


class Unavailable(ProblemError):
    """The server cannot answer now (502, 503, 504); the same request may succeed later."""


_KINDS: dict[int, type[ProblemError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: BadRequest,
    415: BadRequest,
    422: BadRequest,
    429: TooManyRequests,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def problem_error(status: int, body: bytes, request_id: str | None, retry_after: float | None) -> ProblemError:
    """The error for an answer that is not a success, whatever its body is."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = body[:300].decode("utf-8", "replace").strip()
    problem = Problem.of(document if isinstance(document, dict) else {"detail": document}, status)
    if problem.request_id is None and request_id is not None:
        problem = dataclasses.replace(problem, request_id=request_id)
    # A proxy's answer, or a document that contradicts it: the status on the wire is what counts.
    problem = dataclasses.replace(problem, status=status)
    return _KINDS.get(status, ProblemError)(problem, retry_after)


def _text(detail: Any) -> str:
    return detail if isinstance(detail, str) else json.dumps(detail)
