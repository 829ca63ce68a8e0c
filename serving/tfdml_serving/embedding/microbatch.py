"""Several requests that wait at the same time are one step of the model."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from tfdml_serving.embedding.base import Booleans, Floats
from tfdml_serving.errors import Overloaded

Run = Callable[[list[bytes]], tuple[Floats, Booleans]]


@dataclasses.dataclass
class _Waiting:
    files: list[bytes]
    outcome: asyncio.Future[tuple[Floats, Booleans]]


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

    def __init__(self, run: Run, executor: Executor, most: int = 32, queue: int = 1024, wait: float = 0.0) -> None:
        self._run, self._executor, self._most, self._queue, self._wait = run, executor, most, queue, wait
        self._waiting: deque[_Waiting] = deque()
        self._count = 0
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, files: Sequence[bytes]) -> tuple[Floats, Booleans]:
        """The outcome of `run` for these files.

        Raises:
            Overloaded: if too many wait.
        """
        if self._count + len(files) > self._queue and self._waiting:
            raise Overloaded(f"{self._count} images wait for the model already", retry_after=1.0)
        request = _Waiting(list(files), asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._count += len(files)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await request.outcome

    async def aclose(self) -> None:
        """Ends what waits with `CancelledError`."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        while self._waiting:
            self._waiting.popleft().outcome.cancel()

    async def _work(self) -> None:
        while self._waiting:
            if self._wait and self._count < self._most:
                await asyncio.sleep(self._wait)
            batch = self._take()
            if batch:
                await self._answer(batch)

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

    async def _answer(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            files = [file for request in batch for file in request.files]
            embeddings, valid = await loop.run_in_executor(self._executor, self._run, files)
            start = 0
            for request in batch:
                stop = start + len(request.files)
                if not request.outcome.done():
                    request.outcome.set_result((embeddings[start:stop], valid[start:stop]))
                start = stop
        except asyncio.CancelledError:
            for request in batch:
                request.outcome.cancel()
            raise
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].outcome.done():
                    batch[0].outcome.set_exception(error)
                return
            for request in batch:
                await self._answer([request])
