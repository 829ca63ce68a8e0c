"""What REST and gRPC have in common: deadlines, retries, the circuit breaker, and what TF-Serving's answers mean."""

from __future__ import annotations

import abc
import asyncio
import base64
import contextlib
import dataclasses
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from tfdml_serving.embedding.answers import joined, zeros
from tfdml_serving.embedding.base import (
    Booleans,
    ConnectionLost,
    EmbedderBusy,
    Floats,
    ModelRefused,
    ModelVersion,
    NotLoaded,
    WrongAnswer,
)
from tfdml_serving.embedding.breaker import Breaker
from tfdml_serving.errors import EmbedderUnavailable

log = logging.getLogger(__name__)

STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
AVAILABLE, END = "AVAILABLE", "END"

# A grey PNG of 8 x 8: what a model is asked for when all that matters is whether, and how, it answers.
PROBE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNoaGjAihiGlkR9fT1WBADj+k1BuXMV1wAAAABJRU5ErkJggg=="
)

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Limits:
    """How TF-Serving is asked.

    Args:
        deadline: seconds within which every call returns or raises.
        batch: the most files in one request to TF-Serving; with batching switched on, no more than its `max_batch_size`.
        batch_bytes: the most bytes of files in one request, unless a single file is larger.
        retries: how many more times a request is sent whose connection broke, or that was refused for being too many.
        backoff: seconds before the first retry; each further one waits twice as long, and a random part less.
        connections: the most requests to TF-Serving at once.
        failures: so many requests that fail in a row open the circuit breaker.
        pause: seconds for which it is open at first.
        check_every: seconds for which the outcome of a check holds.
    """

    deadline: float = 5.0
    batch: int = 32
    batch_bytes: int = 16 << 20
    retries: int = 2
    backoff: float = 0.05
    connections: int = 64
    failures: int = 5
    pause: float = 1.0
    check_every: float = 1.0


class RemoteEmbedder(abc.ABC):
    """An `ImageEmbedder` that asks TF-Serving. A subclass speaks one of its two languages.

    Args:
        address: of the server, for messages.
        model_name: the model's name there.
        limits: see `Limits`.

    Attributes:
        missed: awaited before a request fails because TF-Serving has let its version go, so that the service can move on to
            the version that came instead; None for nothing.
    """

    def __init__(self, address: str, model_name: str, limits: Limits | None = None) -> None:
        self.address, self.model_name = address, model_name
        self.limits = limits or Limits()
        self.missed: Callable[[int], Awaitable[None]] | None = None
        self._models: dict[int, ModelVersion] = {}
        self._breakers: dict[int, Breaker] = {}
        self._checks: dict[int, _Check] = {}

    async def prepare(self, model: ModelVersion) -> None:
        """See `ImageEmbedder`: the version must be AVAILABLE, and answer a picture with an embedding of the right length."""
        version = model.version
        found = await self._within("its state", self._retried(lambda: self._states(version)))
        state, message = found.get(version, ("", ""))
        if state == END and message:
            raise ModelRefused(f"TF-Serving at {self.address} could not load version {version}: {message}")
        if state != AVAILABLE:
            what = f"reports version {version} as {state}" if state else f"does not know version {version}"
            raise NotLoaded(f"TF-Serving at {self.address} {what} of the model {self.model_name!r}")
        try:
            await self._within("a picture", self._retried(lambda: self._predict([PROBE], version, model.dimension)))
        except WrongAnswer as error:
            raise ModelRefused(f"TF-Serving at {self.address} has version {version} available, but {error.detail}") from error
        self._models[version] = model
        self._breakers.pop(version, None)

    async def release(self, version: int) -> None:
        """See `ImageEmbedder`."""
        for kept in (self._models, self._breakers, self._checks):
            kept.pop(version, None)

    async def embed(self, files: Sequence[bytes], version: int) -> tuple[Floats, Booleans]:
        """See `ImageEmbedder`."""
        model = self._models.get(version)
        if not files:
            return zeros(0, model.dimension if model else 0)
        try:
            with self._explained(version), self._breaker(version).attempt():
                return await self._within("an embedding", self._in_parts(files, version, model.dimension if model else None))
        except NotLoaded:
            if model is not None and self.missed is not None:
                await self.missed(version)
            raise

    async def check(self, version: int) -> None:
        """See `ImageEmbedder`: asks for the embedding of a small picture; the outcome holds for `check_every` seconds."""
        check = self._checks.setdefault(version, _Check())
        async with check.lock:
            if time.monotonic() - check.at >= self.limits.check_every:
                try:
                    await self.embed([PROBE], version)
                    check.problem = None
                except EmbedderUnavailable as error:
                    check.problem = error
                check.at = time.monotonic()
            if check.problem is not None:
                raise EmbedderUnavailable(check.problem.detail, retry_after=check.problem.retry_after)

    async def loaded(self) -> frozenset[int] | None:
        """See `ImageEmbedder`."""
        try:
            states = await self._within("its versions", self._states(None))
        except EmbedderUnavailable:
            return None
        return frozenset(version for version, (state, _) in states.items() if state != END)

    @abc.abstractmethod
    async def aclose(self) -> None:
        """See `ImageEmbedder`."""

    @abc.abstractmethod
    async def _predict(self, files: Sequence[bytes], version: int, dimension: int | None) -> tuple[Floats, Booleans]:
        """One request for `serving_default` of this version."""

    @abc.abstractmethod
    async def _states(self, version: int | None) -> dict[int, tuple[str, str]]:
        """State and error message of one version, or of all. None of them is there if the model or version is unknown."""

    async def _in_parts(self, files: Sequence[bytes], version: int, dimension: int | None) -> tuple[Floats, Booleans]:
        return joined([await self._one_batch(part, version, dimension) for part in self._parts(files)])

    async def _one_batch(self, files: Sequence[bytes], version: int, dimension: int | None) -> tuple[Floats, Booleans]:
        try:
            return await self._retried(lambda: self._predict(files, version, dimension))
        except WrongAnswer as error:
            if len(files) == 1:
                raise
            # One file may be to blame, or a server that takes smaller batches: no file suffers for another.
            log.warning("version %d refused a batch of %d, asking one by one: %s", version, len(files), error.detail)
        parts: list[tuple[Floats, Booleans] | WrongAnswer] = []
        for file in files:
            try:
                parts.append(await self._retried(lambda file=file: self._predict([file], version, dimension)))  # type: ignore[misc]
            except WrongAnswer as error:
                parts.append(error)
        answered = [part for part in parts if not isinstance(part, WrongAnswer)]
        if not answered:
            raise next(part for part in parts if isinstance(part, WrongAnswer))
        width = answered[0][0].shape[1]
        return joined([zeros(1, width) if isinstance(part, WrongAnswer) else part for part in parts])

    async def _retried(self, call: Callable[[], Awaitable[Result]]) -> Result:
        for tries in range(self.limits.retries):
            try:
                return await call()
            except (ConnectionLost, EmbedderBusy):
                await asyncio.sleep(self.limits.backoff * 2**tries * random.uniform(0.5, 1.0))
        return await call()

    def _parts(self, files: Sequence[bytes]) -> list[Sequence[bytes]]:
        parts: list[list[bytes]] = [[]]
        size = 0
        for file in files:
            if parts[-1] and (len(parts[-1]) == self.limits.batch or size + len(file) > self.limits.batch_bytes):
                parts.append([])
                size = 0
            parts[-1].append(file)
            size += len(file)
        return list(parts)

    def _breaker(self, version: int) -> Breaker:
        if version not in self._breakers:
            # A version that answers wrongly, or is busy, is there: leaving it alone would help nobody.
            harmless = (WrongAnswer, EmbedderBusy, NotLoaded)
            self._breakers[version] = Breaker(self.limits.failures, self.limits.pause, harmless=harmless)
        return self._breakers[version]

    @contextlib.contextmanager
    def _explained(self, version: int) -> Iterator[None]:
        """Says whose fault it is."""
        try:
            yield
        except EmbedderUnavailable as error:
            text = f"version {version} of {self.model_name!r} at TF-Serving, {self.address}: {error.detail}"
            raise type(error)(text, retry_after=error.retry_after) from error

    async def _within(self, what: str, call: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await asyncio.wait_for(call, self.limits.deadline)
        except asyncio.TimeoutError:
            raise EmbedderUnavailable(f"no answer within {self.limits.deadline:g} s, when asked for {what}") from None


@dataclasses.dataclass
class _Check:
    at: float = float("-inf")
    problem: EmbedderUnavailable | None = None
    lock: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)
