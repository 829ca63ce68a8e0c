"""What the endpoints do, without HTTP: search, look up, change."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from tfdml_serving.api.admission import Admission
from tfdml_serving.api.calls import Call
from tfdml_serving.api.keys import KeyFile
from tfdml_serving.api.logs import log
from tfdml_serving.api.metrics import Metrics
from tfdml_serving.errors import DeadlineExceeded, EmbedderUnavailable, ServingError
from tfdml_serving.settings import Settings

if TYPE_CHECKING:
    from tfdml_serving.embedding.base import ImageEmbedder
    from tfdml_serving.engine.held import HeldVersion
    from tfdml_serving.living.store import LivingCatalogue
    from tfdml_serving.rollout.versions import Versions

T = TypeVar("T")

_READY_SECONDS = 0.5
_WRITERS = 8


class Service:
    """The parts of a running service, and the limits under which they work.

    Args:
        settings: see there.
        versions: the versions of the bundle.
        embedder: makes embeddings of images.
        living: where items are added and changed; None if they are not.
    """

    def __init__(self, settings: Settings, versions: Versions, embedder: ImageEmbedder, living: LivingCatalogue | None) -> None:
        self.settings = settings
        self.model_name = settings.served_name
        self.versions = versions
        self.embedder = embedder
        self.living = living
        self.metrics = Metrics()
        self.admission = Admission(settings.concurrency, settings.queue, settings.max_pixels_in_flight)
        self.keys: KeyFile | None = None
        if settings.api_keys is not None:
            report = lambda text: log.error("keys", extra={"fields": {"problem": text}})  # noqa: E731
            self.keys = KeyFile(settings.api_keys, settings.requests_per_second, settings.burst, report)
        self.metrics.watch(lambda: self.admission.active, lambda: self.admission.waiting, self._held)
        self._threads = ThreadPoolExecutor(settings.threads or os.cpu_count() or 1, "search")
        # Changes that wait for the disk together are written together, and searches do not wait behind them.
        self._writers = ThreadPoolExecutor(_WRITERS, "write")
        self._looked = -1.0
        self._reasons: list[str] = ["starting"]

    async def start(self) -> None:
        await self.versions.start()

    async def stop(self) -> None:
        """Frees everything. Requests must have ended."""
        await self.versions.stop()
        await self.embedder.aclose()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._writers.shutdown(wait=True)
        if self.living is not None:
            self.living.close()

    async def admitted(self, call: Call, weight: int, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `work` returns, when it is its turn and before the deadline.

        Work that has begun is not broken off when its time is up: what runs in a thread could not be, and its place is free
        again only when it has ended.
        """
        loop = asyncio.get_running_loop()
        # Told by the task itself: to wait for its end, as asyncio.wait does, takes another turn of the event loop.
        answer: asyncio.Future[T] = loop.create_future()
        begun = False

        async def turn() -> None:
            nonlocal begun
            try:
                asked = time.perf_counter()
                await self.admission.enter(weight, call.deadline)
                began = time.perf_counter()
                begun = True
                self.metrics.stages["wait"].observe(began - asked)
                try:
                    result = await work()
                finally:
                    self.admission.leave(weight, time.perf_counter() - began)
            except Exception as error:
                if answer.done():
                    raise
                answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(result)

        def give_up() -> None:
            if not answer.done():
                answer.set_exception(
                    DeadlineExceeded(f"No answer within {self.settings.deadline:g} seconds. Ask again in a moment.")
                )
                task.add_done_callback(_look_at)
                if not begun:
                    task.cancel()

        task = asyncio.create_task(turn())
        timer = loop.call_at(call.deadline, give_up)
        try:
            return await answer
        finally:
            timer.cancel()

    async def in_current(self, version: int | None, work: Callable[[HeldVersion], Awaitable[T]]) -> T:
        """`work` with one version held open until it is done.

        If nobody asked for a certain version, and another became the current one while this one's embedder went away, the other
        is asked: a roll-out fails no request.
        """
        with self.versions.lease(version) as held:
            try:
                return await work(held)
            except EmbedderUnavailable as error:
                if version is not None:
                    raise
                tried, failure = held.version, error
        with self.versions.lease(None) as held:
            if held.version == tried:
                raise failure
            return await work(held)

    async def in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work` in one of the threads that search."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def in_writer(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work` in one of the threads that write."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, work, *arguments)

    async def reasons(self) -> list[str]:
        """Why the service is not ready; empty if it is. Asked often, it answers what it found a moment ago."""
        now = time.monotonic()
        if self._looked < 0 or now - self._looked > _READY_SECONDS:
            self._looked = now
            self._reasons = await self._look()
            self.metrics.ready.set(0 if self._reasons else 1)
        return self._reasons

    async def _look(self) -> list[str]:
        try:
            with self.versions.lease(None) as held:
                await asyncio.wait_for(self.embedder.check(held.version), min(2.0, self.settings.deadline))
        except asyncio.TimeoutError:
            return ["the embedder does not answer"]
        except ServingError as error:
            return [error.detail]
        return []

    def current(self) -> int | None:
        """The version that is served at present; None if there is none."""
        try:
            with self.versions.lease(None) as held:
                return held.version
        except ServingError:
            return None

    def _held(self) -> tuple[int, int]:
        try:
            with self.versions.lease(None) as held:
                return held.version, held.items
        except ServingError:
            return 0, 0


def _look_at(task: asyncio.Task[Any]) -> None:
    """Takes note of how a task ended whose answer nobody waits for any more."""
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, ServingError):
        log.error("a request failed after its deadline", exc_info=error)
