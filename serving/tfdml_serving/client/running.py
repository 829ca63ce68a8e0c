"""Doing what `exchange` asks for: once blocking, once awaiting. And turning endpoints into methods of either kind."""

from __future__ import annotations

import copy
import functools
import inspect
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import anyio
import httpx

from tfdml_serving.client.calls import Answer, Attempt, Call, Limits, Pause, Retry, Steps, exchange
from tfdml_serving.client.errors import UnexpectedAnswer

T = TypeVar("T")
P = ParamSpec("P")
E = TypeVar("E")
Self = TypeVar("Self", bound="_Base[Any]")

MOST_BYTES = 256 << 20
"""An answer beyond this is nonsense, and would only fill the memory."""


class _Base(Generic[E]):
    """What both runners know: where to, as whom, for how long."""

    _http: httpx.Client | httpx.AsyncClient

    def __init__(
        self,
        endpoints: E,
        url: str,
        api_key: str | None,
        timeout: float,
        deadline: float,
        retry: Retry | None,
    ) -> None:
        self.endpoints = endpoints
        self.url = _checked_url(url)
        self._limits = Limits(timeout, deadline, retry or Retry())
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {_checked_key(api_key)}"}

    def within(self: Self, deadline: float) -> Self:
        """The same client, over the same connections, with another deadline in seconds for each call."""
        other = copy.copy(self)
        other._limits = Limits(self._limits.timeout, deadline, self._limits.retry)
        return other

    def __repr__(self) -> str:  # the key stays out of logs
        return f"{type(self).__name__}({str(self.url)!r})"

    def _request(self, call: Call[Any], seconds: float, name: str) -> httpx.Request:
        headers = {**self._headers, "X-Request-ID": name}
        if call.content_type is not None:
            headers["Content-Type"] = call.content_type
        params = {name: value for name, value in call.params.items() if value is not None}
        url = self.url.copy_with(raw_path=self.url.raw_path.rstrip(b"/") + call.path.encode("ascii"))
        return self._http.build_request(
            call.method,
            url.copy_merge_params(params) if params else url,
            headers={"User-Agent": "tfdml-serving-client", "Accept": "application/json, */*;q=0.1", **headers},
            content=call.body,
            timeout=max(seconds, 1e-3),
        )


class Runner(_Base[E]):
    """Runs calls on an `httpx.Client`."""

    _http: httpx.Client

    def __init__(self, *arguments: Any, http: httpx.Client | None) -> None:
        super().__init__(*arguments)
        self._owned = http is None
        self._http = httpx.Client() if http is None else http

    def run(self, call: Call[T]) -> T:
        """Sends a call, and again where that is safe and may help; the server's log knows all attempts by one request id."""
        steps, name = exchange(call, self._limits, time.monotonic), uuid.uuid4().hex
        with _stepping(steps) as take:
            step = take.first()
            while step is not None:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = take.next(None)
                    continue
                try:
                    answer = self._send(call, step, name)
                except httpx.HTTPError as error:
                    step = take.failed(error)
                else:
                    step = take.next(answer)
        return take.result

    def _send(self, call: Call[Any], attempt: Attempt, name: str) -> Answer:
        end = time.monotonic() + attempt.seconds
        request = self._request(call, attempt.seconds, name)
        response = self._http.send(request, stream=True, follow_redirects=False)
        try:
            body = bytearray()
            for chunk in response.iter_bytes():
                _add(body, chunk)
                # A time-out of httpx is for each read: a server that drips would never meet it.
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("the answer is too slow", request=request)
            return Answer(response.status_code, response.headers, bytes(body))
        finally:
            response.close()

    def close(self) -> None:
        """Closes the connections, unless they are those of an `http` that was handed in."""
        if self._owned:
            self._http.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncRunner(_Base[E]):
    """Runs calls on an `httpx.AsyncClient`, under asyncio or trio."""

    _http: httpx.AsyncClient

    def __init__(self, *arguments: Any, http: httpx.AsyncClient | None) -> None:
        super().__init__(*arguments)
        self._owned = http is None
        self._http = httpx.AsyncClient() if http is None else http

    async def run(self, call: Call[T]) -> T:
        """Sends a call, and again where that is safe and may help; the server's log knows all attempts by one request id."""
        steps, name = exchange(call, self._limits, time.monotonic), uuid.uuid4().hex
        with _stepping(steps) as take:
            step = take.first()
            while step is not None:
                if isinstance(step, Pause):
                    await anyio.sleep(step.seconds)
                    step = take.next(None)
                    continue
                try:
                    answer = await self._send(call, step, name)
                except httpx.HTTPError as error:
                    step = take.failed(error)
                else:
                    step = take.next(answer)
        return take.result

    async def _send(self, call: Call[Any], attempt: Attempt, name: str) -> Answer:
        request = self._request(call, attempt.seconds, name)
        try:
            with anyio.fail_after(attempt.seconds):
                response = await self._http.send(request, stream=True, follow_redirects=False)
                try:
                    body = bytearray()
                    async for chunk in response.aiter_bytes():
                        _add(body, chunk)
                    return Answer(response.status_code, response.headers, bytes(body))
                finally:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()
        except TimeoutError as error:
            raise httpx.ReadTimeout("the answer is too slow", request=request) from error

    async def aclose(self) -> None:
        """Closes the connections, unless they are those of an `http` that was handed in."""
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


class _Take(Generic[T]):
    """The steps of an exchange, until its result is there."""

    result: T

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps

    def first(self) -> Attempt | Pause | None:
        return self._go(lambda: next(self._steps))

    def next(self, answer: Answer | None) -> Attempt | Pause | None:
        return self._go(lambda: self._steps.send(answer))

    def failed(self, error: httpx.HTTPError) -> Attempt | Pause | None:
        return self._go(lambda: self._steps.throw(error))

    def _go(self, move: Callable[[], Attempt | Pause]) -> Attempt | Pause | None:
        try:
            return move()
        except StopIteration as end:
            self.result = end.value
            return None


@contextmanager
def _stepping(steps: Steps[T]) -> Iterator[_Take[T]]:
    try:
        yield _Take(steps)
    finally:
        steps.close()


def blocking(endpoint: Callable[Concatenate[E, P], Call[T]]) -> Callable[Concatenate[Runner[E], P], T]:
    """A method that sends what `endpoint` describes, and returns the result."""

    def method(self: Runner[E], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(endpoint(self.endpoints, *args, **kwargs))

    return _described(method, endpoint)


def awaiting(endpoint: Callable[Concatenate[E, P], Call[T]]) -> Callable[Concatenate[AsyncRunner[E], P], Awaitable[T]]:
    """A method that sends what `endpoint` describes, to be awaited."""

    async def method(self: AsyncRunner[E], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(endpoint(self.endpoints, *args, **kwargs))

    return _described(method, endpoint)


def _described(method: Callable[P, T], endpoint: Callable[..., Any]) -> Callable[P, T]:
    """`method` with the name, the text and the arguments of `endpoint`: help() shows what can be called, and what it gives."""
    signature = inspect.signature(endpoint)
    result = str(signature.return_annotation).removeprefix("Call[").removesuffix("]")
    functools.update_wrapper(method, endpoint)
    del method.__wrapped__  # type: ignore[attr-defined]
    method.__signature__ = signature.replace(return_annotation=result)  # type: ignore[attr-defined]
    return method


def _add(body: bytearray, chunk: bytes) -> None:
    body += chunk
    if len(body) > MOST_BYTES:
        raise UnexpectedAnswer(f"the answer is longer than {MOST_BYTES >> 20} MB.")


def _checked_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ValueError(f"url={url!r}: {error}. Expected something like 'http://localhost:8000'.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise ValueError(f"url={url!r}: expected something like 'http://localhost:8000'.")
    return parsed


def _checked_key(key: str) -> str:
    if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise ValueError("api_key: expected a string of printable ASCII characters, with no blank at its ends.")
    return key
