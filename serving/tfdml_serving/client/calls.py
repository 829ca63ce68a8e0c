"""A call before it is sent, and the one way to send it: repetition, waiting and the deadline, without any input or output.

`exchange` is a generator that asks for what has to be done (`Attempt`, `Pause`) and is told what came of it; the sync and the
async client only do it. So there is one set of rules, and it can be tested without a socket or a clock.
"""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import enum
import random
from collections.abc import Callable, Generator, Mapping
from typing import Generic, TypeVar

import httpx

from tfdml_serving.client.errors import (
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    ProblemError,
    UnexpectedAnswer,
    problem_error,
)

T = TypeVar("T")

PASSING = frozenset({429, 502, 503, 504})
"""Statuses that may be gone a moment later."""
_MAY_BE_DONE = "urn:tfdml:problem:deadline"


class Repeat(enum.Enum):
    """When a call may be sent again."""

    ALWAYS = "asking twice is the same as asking once"
    IF_REFUSED = "only if the server has certainly not done it"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclasses.dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its answer is read.

    Args:
        method: of HTTP.
        path: from the server's root, percent-encoded.
        read: makes the result of a successful answer.
        params: the query string; None is left out.
        body: what is sent, and `content_type` of what kind it is.
        repeat: when it may be sent again.
        answers: statuses beyond 2xx that are an answer, not a failure.
        missing_is_done: 404 is a success when an earlier attempt may have arrived: what was to be deleted is gone.
    """

    method: str
    path: str
    read: Callable[[Answer], T]
    params: Mapping[str, str | int | None] = dataclasses.field(default_factory=dict)
    body: bytes | None = None
    content_type: str | None = None
    repeat: Repeat = Repeat.ALWAYS
    answers: frozenset[int] = frozenset()
    missing_is_done: bool = False


@dataclasses.dataclass(frozen=True)
class Retry:
    """How often and after how long a call is repeated: exponential back-off with full jitter.

    Before attempt n + 1 a client waits a random time between 0 and `min(longest, first * 2 ** (n - 1))` seconds, so that many
    clients that failed together do not come back together (M. Brooker, "Exponential Backoff And Jitter", 2015). A server's
    `Retry-After` is waited for in full, with that jitter on top. Repeated are calls for which it is safe, after a connection
    error, a time-out, or the statuses 429, 502, 503 and 504.

    Args:
        attempts: how often a call is sent at most; 1 never repeats.
        first: the upper bound of the first wait, in seconds.
        longest: the upper bound of every wait.

    Raises:
        ValueError: if one is out of range.
    """

    attempts: int = 4
    first: float = 0.1
    longest: float = 5.0

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise ValueError(f"attempts={self.attempts!r}: expected a whole number from 1, which never repeats a call.")
        for name in ("first", "longest"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 <= value < float("inf")):
                raise ValueError(f"{name}={value!r}: expected seconds, 0 or more.")

    def wait(self, attempt: int, draw: Callable[[], float] = random.random) -> float:
        """The seconds to wait after the attempt of this number, from 1; `draw` gives numbers in [0, 1)."""
        return draw() * min(self.longest, self.first * 2.0 ** min(attempt - 1, 60))


@dataclasses.dataclass(frozen=True)
class Attempt:
    """Send the call now, and give up after so many seconds."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long a call may take: one attempt, and all of them with the waiting between."""

    timeout: float
    deadline: float
    retry: Retry

    def __post_init__(self) -> None:
        for name in ("timeout", "deadline"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"{name}={value!r}: expected seconds, more than 0.")


Steps = Generator["Attempt | Pause", "Answer | None", T]


def exchange(call: Call[T], limits: Limits, now: Callable[[], float], draw: Callable[[], float] = random.random) -> Steps[T]:
    """Sends a call as often as it needs and may.

    Yields what to do next. After `Attempt` it expects the `Answer`, or to have an `httpx.HTTPError` thrown into it; after
    `Pause` it expects None.

    Raises:
        ClientError: what the call ended in.
    """
    end = now() + limits.deadline
    uncertain = False
    for attempt in range(1, limits.retry.attempts + 1):
        try:
            answer = yield Attempt(min(limits.timeout, end - now()))
        except httpx.HTTPError as error:
            failure, wait, refused = _lost(error, limits, over=now() >= end), 0.0, _never_arrived(error)
        else:
            assert answer is not None
            if 200 <= answer.status < 300 or answer.status in call.answers:
                return call.read(answer)
            if answer.status == 404 and call.missing_is_done and uncertain:
                return call.read(answer)
            failure, wait = _refusal(answer), retry_after(answer.headers.get("retry-after")) or 0.0
            refused = _refused(failure)
            if answer.status not in PASSING:
                raise failure
        uncertain = uncertain or not refused
        if attempt == limits.retry.attempts or isinstance(failure, UnexpectedAnswer):
            raise failure
        if call.repeat is Repeat.IF_REFUSED and not refused:
            raise failure
        wait += limits.retry.wait(attempt, draw)
        if now() + wait >= end:
            raise failure
        yield Pause(wait)
    raise AssertionError("unreachable")


def retry_after(header: str | None, today: datetime.datetime | None = None) -> float | None:
    """The seconds that a `Retry-After` header asks for: a number, or a date. None if it says nothing that can be read.

    >>> retry_after("3")
    3.0
    >>> retry_after("Wed, 25 Nov 2026 10:00:05 GMT", datetime.datetime(2026, 11, 25, 10, 0, tzinfo=datetime.timezone.utc))
    5.0
    >>> retry_after("soon") is None
    True
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.timezone.utc)
    return max(0.0, (date - (today or datetime.datetime.now(datetime.timezone.utc))).total_seconds())


def _never_arrived(error: httpx.HTTPError) -> bool:
    return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))


def _refused(failure: ClientError) -> bool:
    """Whether the server has certainly not done it: too many requests, or not able to; not one that it ran out of time for."""
    return isinstance(failure, ProblemError) and failure.status in (429, 503) and failure.problem.type != _MAY_BE_DONE


def _lost(error: httpx.HTTPError, limits: Limits, over: bool) -> ClientError:
    failure: ClientError
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException) and over:
        failure = DeadlineExceeded(f"no answer within the deadline of {limits.deadline:g} s.")
    elif isinstance(error, httpx.TimeoutException):
        failure = ConnectionFailed(f"no answer within {limits.timeout:g} s ({type(error).__name__}).")
    elif isinstance(error, (httpx.DecodingError, httpx.TooManyRedirects, httpx.UnsupportedProtocol)):
        failure = UnexpectedAnswer(f"the answer cannot be read: {said}")
    else:
        failure = ConnectionFailed(f"{type(error).__name__}: {said}")
    failure.__cause__ = error
    return failure


def _refusal(answer: Answer) -> ProblemError | UnexpectedAnswer:
    if answer.status < 400:
        place = answer.headers.get("location", "nowhere")
        return UnexpectedAnswer(f"the server answers {answer.status}, which leads to {place!r}. Give the client the right URL.")
    headers = answer.headers
    return problem_error(answer.status, answer.body, headers.get("x-request-id"), retry_after(headers.get("retry-after")))
