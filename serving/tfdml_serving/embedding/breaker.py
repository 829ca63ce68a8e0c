"""A circuit breaker: what does not answer is left alone for a moment, and asked again by one request at a time."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator

from tfdml_serving.errors import EmbedderUnavailable


class Breaker:
    """Lets requests through while they succeed; after failures in a row refuses them at once, for a while.

    Closed: everything passes. After `failures` failures in a row it opens: everything is refused at once, so that callers need
    not wait for a deadline each and the other side has peace. When the pause is over, one request is let through as a trial:
    its success closes the breaker, its failure opens it for twice the time, up to `longest`.

    Args:
        failures: how many in a row open it.
        pause: seconds of the first pause; a random part of up to a quarter is taken off, so that nodes do not try in step.
        longest: seconds of the longest pause.
        harmless: exceptions that are no sign of trouble with the other side, such as its being busy: they count for nothing.
        clock: what tells the time.

    Example:
        >>> breaker = Breaker(failures=1)
        >>> with contextlib.suppress(ValueError), breaker.attempt():
        ...     raise ValueError("no answer")
        >>> breaker.open
        True
    """

    def __init__(
        self,
        failures: int = 5,
        pause: float = 1.0,
        longest: float = 15.0,
        harmless: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._first, self._longest, self._clock = failures, pause, longest, clock
        self._harmless = harmless
        self._failed = 0
        self._pause = pause
        self._until: float | None = None
        self._trying = False
        self._reason = ""

    @property
    def open(self) -> bool:
        """Whether it refuses, or waits for the outcome of a trial."""
        return self._until is not None

    @property
    def remaining(self) -> float:
        """Seconds until the next trial is let through; 0 if it is closed or due."""
        return max(0.0, (self._until or 0.0) - self._clock()) if self.open else 0.0

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one request: counts an exception as a failure.

        Raises:
            EmbedderUnavailable: at once, while the breaker is open.
        """
        trial = self.open
        if trial:
            if self._trying or self.remaining > 0:
                wait = max(self.remaining, 0.1)
                raise EmbedderUnavailable(
                    f"left alone for {wait:.1f} s after {self._failed} failures in a row; the last: {self._reason}",
                    retry_after=wait,
                )
            self._trying = True
        try:
            yield
        except Exception as error:
            if isinstance(error, self._harmless):
                self._ended(trial)
            else:
                self._failure(trial, str(error))
            raise
        except BaseException:  # cancelled: nothing is known
            self._ended(trial)
            raise
        self._success()

    def _success(self) -> None:
        self._failed, self._until, self._trying, self._pause = 0, None, False, self._first

    def _failure(self, trial: bool, reason: str) -> None:
        self._failed += 1
        self._reason = reason
        if trial:
            self._pause = min(2 * self._pause, self._longest)
        if trial or (self._failed >= self._most and not self.open):
            self._until = self._clock() + self._pause * random.uniform(0.75, 1.0)
        self._ended(trial)

    def _ended(self, trial: bool) -> None:
        if trial:
            self._trying = False
