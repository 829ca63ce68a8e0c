"""How much is worked on at once: a few requests, a few more in a queue, and a quick refusal for the rest."""

from __future__ import annotations

import asyncio
import math
from collections import deque

from tfdml_serving.errors import DeadlineExceeded, Overloaded


class Admission:
    """Lets a limited number of requests in, in the order of their arrival.

    A request may also bring a weight, its image's pixels: together they stay under a limit as well, whatever the number of
    requests, so that memory does. A single request that is over it alone is let in when it is alone. For one event loop.

    Args:
        places: how many are worked on at once.
        queue: how many may wait.
        weight: the most weight that is worked on at once.
    """

    def __init__(self, places: int, queue: int, weight: int) -> None:
        self._places, self._queue, self._most_weight = places, queue, weight
        self._weight = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self.active = 0
        self._seconds = 0.1

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def enter(self, weight: int, deadline: float) -> None:
        """Returns when the request may be worked on; call `leave` after that, whatever happens.

        Args:
            weight: of the request.
            deadline: by the event loop's clock, until when it waits.

        Raises:
            Overloaded: at once, if too many wait already.
            DeadlineExceeded: if it waited for nothing.
        """
        if not self._waiting and self._fits(weight):
            self._take(weight)
            return
        if len(self._waiting) >= self._queue:
            raise Overloaded(
                f"{self.active} requests are being answered and {len(self._waiting)} wait. Ask again in a moment.",
                retry_after=self.retry_after(),
            )
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        entry = (turn, weight)
        self._waiting.append(entry)
        timer = loop.call_at(deadline, _give_up, turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(weight)  # its turn came in the very moment in which it was cancelled
            elif entry in self._waiting:
                self._waiting.remove(entry)
                self._wake()
            raise
        finally:
            timer.cancel()

    def leave(self, weight: int, seconds: float | None = None) -> None:
        """The request is done with; `seconds` is how long it was worked on, which tells others how long to wait."""
        self.active -= 1
        self._weight -= weight
        if seconds is not None:
            self._seconds += 0.1 * (seconds - self._seconds)
        self._wake()

    def retry_after(self) -> int:
        """Seconds until there should be room again, by how long requests take at present."""
        return max(1, min(60, math.ceil(self._seconds * (len(self._waiting) + 1) / self._places)))

    def _fits(self, weight: int) -> bool:
        return self.active < self._places and (self.active == 0 or self._weight + weight <= self._most_weight)

    def _take(self, weight: int) -> None:
        self.active += 1
        self._weight += weight

    def _wake(self) -> None:
        while self._waiting and (self._waiting[0][0].done() or self._fits(self._waiting[0][1])):
            turn, weight = self._waiting.popleft()
            if not turn.done():
                self._take(weight)
                turn.set_result(None)


def _give_up(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(DeadlineExceeded("The request waited for its turn until its time was up. Ask again in a moment."))
