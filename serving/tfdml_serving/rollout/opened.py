"""The versions that are open, and who uses them: a version is closed when it is retired and its last lease has ended."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from tfdml_serving.errors import EmbedderUnavailable, UnknownVersion

log = logging.getLogger(__name__)


class Closable(Protocol):
    """What is held: `tfdml_serving.engine.held.HeldVersion`."""

    def close(self) -> None:
        """Frees it."""


Held = TypeVar("Held", bound=Closable)


class OpenVersion(Generic[Held]):
    """A version that is open.

    Attributes:
        version: its number.
        held: what is leased.
        prepared: whether embeddings of this version could be asked for when it was last looked at.
    """

    def __init__(self, version: int, held: Held) -> None:
        self.version, self.held = version, held
        self.prepared = False
        self.leases = 0
        self.retired = False


class OpenVersions(Generic[Held]):
    """The open versions, of which one is the current one. Safe to use from several threads.

    Args:
        closed: told the number of a version that was closed, in whichever thread its last lease ended.
    """

    def __init__(self, closed: Callable[[int], None]) -> None:
        self._closed = closed
        self._lock = threading.Lock()
        self._open: dict[int, OpenVersion[Held]] = {}
        self._current: OpenVersion[Held] | None = None

    @property
    def current(self) -> int | None:
        """The number of the current version."""
        current = self._current
        return None if current is None else current.version

    def get(self, version: int) -> OpenVersion[Held] | None:
        """An open version."""
        return self._open.get(version)

    def all(self) -> dict[int, OpenVersion[Held]]:
        """All open versions."""
        with self._lock:
            return dict(self._open)

    def add(self, opened: OpenVersion[Held]) -> None:
        """From now on it can be leased by its number."""
        with self._lock:
            self._open[opened.version] = opened

    def swap(self, version: int) -> None:
        """Makes an open version the current one: leases that begin later get it, those that run keep theirs."""
        with self._lock:
            self._current = self._open[version]

    def retire(self, version: int) -> None:
        """Closes a version as soon as nobody uses it. It can no longer be leased."""
        with self._lock:
            opened = self._open.pop(version, None)
            if opened is None:
                return
            opened.retired = True
            if self._current is opened:
                self._current = None
            unused = opened.leases == 0
        if unused:
            self._close(opened)

    @contextlib.contextmanager
    def lease(self, version: int | None) -> Iterator[Held]:
        """A version, which stays open until the context ends; the current one for None."""
        with self._lock:
            if version is None:
                if self._current is None:
                    raise EmbedderUnavailable("No version is ready yet. Ask again in a moment.", retry_after=2.0)
                opened = self._current
            else:
                if version not in self._open:
                    known = ", ".join(map(str, sorted(self._open))) or "none"
                    raise UnknownVersion(f"version={version}: this service does not hold it; it holds {known}.")
                opened = self._open[version]
            opened.leases += 1
        try:
            yield opened.held
        finally:
            with self._lock:
                opened.leases -= 1
                last = opened.retired and opened.leases == 0
            if last:
                self._close(opened)

    def _close(self, opened: OpenVersion[Held]) -> None:
        try:
            opened.held.close()
        except Exception:  # it is not in use any more, whatever happened
            log.exception("version %d could not be closed", opened.version)
        self._closed(opened.version)
