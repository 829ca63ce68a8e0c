"""Several requests that wait at the same time are one step of the model."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from tfdml_serving.embedding.base import Booleans, Floats, Then
from tfdml_serving.errors import Overloaded

Run = Callable[[list[bytes]], tuple[Floats, Booleans]]


@dataclasses.dataclass
class _Waiting:
    files: list[bytes]
    outcome: asyncio.Future[tuple[Floats, Booleans, Any]]
    then: Then | None


class MicroBatcher:
    """Runs a function on what waits: at once if nothing runs, else together with all that came meanwhile.

    A single caller never waits for others to come. Under load a batch grows by itself to what arrived during the one before it,
    up to `most` files. If the function raises for a batch, it is run for each of its requests alone, so that only the one to
    blame fails.

    Args:
        run: files to embeddings and valid; called in `executor`.
        executor: where; one thread, unless `run` is safe in several.
        most: the most files in a step; a request with more is a step of its own.
        queue: how many files may wait; a request beyond is refused.
        wait: seconds to wait for company before a step, for models that are much faster in batches; 0 for none.
    """

    # Callbacks of the event loop and no task: a lone request, which is most of them, crosses the loop twice and not five times.

    def __init__(self, run: Run, executor: Executor, most: int = 32, queue: int = 1024, wait: float = 0.0) -> None:
        self._run, self._executor, self._most, self._queue, self._wait = run, executor, most, queue, wait
        self._waiting: deque[_Waiting] = deque()
        self._alone: deque[_Waiting] = deque()  # of a batch that failed
        self._running: list[_Waiting] = []
        self._count = 0
        self._busy = False

    async def submit(
        self, files: Sequence[bytes], seconds: float | None = None, then: Then | None = None
    ) -> tuple[Floats, Booleans, Any]:
        """The outcome of `run` for these files, and what `then` made of it; None if it was not called.

        Args:
            files: image files.
            seconds: how long it is waited for; None for as long as it takes.
            then: called with the outcome where it was made, unless others wait for that thread: a lone request is spared the
                way to another one.

        Raises:
            Overloaded: if too many wait.
            TimeoutError: if it takes longer than `seconds`.
        """
        if self._count + len(files) > self._queue and self._waiting:
            raise Overloaded(f"{self._count} images wait for the model already", retry_after=1.0)
        loop = asyncio.get_running_loop()
        request = _Waiting(list(files), loop.create_future(), then)
        self._waiting.append(request)
        self._count += len(files)
        if not self._busy:
            self._busy = True
            # After this moment, in which others may come as well, or after `wait`.
            loop.call_soon(self._after_wait, loop)
        timer = None if seconds is None else loop.call_later(seconds, _give_up, request.outcome)
        try:
            return await request.outcome
        finally:
            if timer is not None:
                timer.cancel()

    async def aclose(self) -> None:
        """Ends what waits with `CancelledError`."""
        for request in (*self._running, *self._alone, *self._waiting):
            request.outcome.cancel()
        self._alone.clear()
        self._waiting.clear()

    def _after_wait(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._wait and 0 < self._count < self._most and not self._alone:
            loop.call_later(self._wait, self._next, loop)
        else:
            self._next(loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._running = batch = [self._alone.popleft()] if self._alone else self._take()
        if not batch:
            self._busy = False
            return
        files = [file for request in batch for file in request.files]
        try:
            self._executor.submit(self._step, loop, batch, files)
        except RuntimeError as error:  # it is shut down
            loop.call_soon(self._end, loop, batch, error)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and (not batch or size + len(self._waiting[0].files) <= self._most):
            request = self._waiting.popleft()
            self._count -= len(request.files)
            if not request.outcome.done():  # its caller may have given up
                batch.append(request)
                size += len(request.files)
        return batch

    def _step(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], files: list[bytes]) -> None:
        """In the executor's thread."""
        outcome: Any
        try:
            embeddings, valid = self._run(files)
            then = batch[0].then
            lone = then is not None and len(batch) == 1 and not self._waiting and not batch[0].outcome.done()
            outcome = embeddings, valid, then(embeddings, valid) if lone and then is not None else None
        except BaseException as error:  # whatever it is, somebody waits for it
            outcome = error
        loop.call_soon_threadsafe(self._end, loop, batch, outcome)

    def _end(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], outcome: Any) -> None:
        self._running = []
        if not isinstance(outcome, BaseException):
            embeddings, valid, more = outcome
            start = 0
            for request in batch:
                stop = start + len(request.files)
                if not request.outcome.done():
                    request.outcome.set_result((embeddings[start:stop], valid[start:stop], more))
                start = stop
        elif len(batch) > 1:
            self._alone.extend(batch)
        elif not batch[0].outcome.done():
            batch[0].outcome.set_exception(outcome)
        # At once: those who have their answers go on after this, while the model runs.
        self._after_wait(loop)


def _give_up(outcome: asyncio.Future[Any]) -> None:
    if not outcome.done():
        outcome.set_exception(TimeoutError())
