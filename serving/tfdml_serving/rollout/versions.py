"""New versions are noticed, verified and swapped in while the old one serves; bad ones are refused; people can roll back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tfdml.bundle import BundleError
from tfdml_serving.embedding.base import ImageEmbedder, ModelRefused, ModelVersion, NotLoaded
from tfdml_serving.embedding.remote import RemoteEmbedder
from tfdml_serving.engine.held import HeldVersion
from tfdml_serving.errors import Conflict, EmbedderUnavailable, UnknownVersion
from tfdml_serving.living.store import LivingCatalogue
from tfdml_serving.rollout.anew import EmbedAnew
from tfdml_serving.rollout.cleaning import clean
from tfdml_serving.rollout.folder import ModelFolder
from tfdml_serving.rollout.opened import OpenVersion, OpenVersions
from tfdml_serving.rollout.pin import NAME, Pin
from tfdml_serving.rollout.states import Refusal, VersionState, Waiting, listed
from tfdml_serving.settings import Settings

log = logging.getLogger(__name__)

_SOON = 0.25
_MOVE_ON = 2.0
_Numbers = list[int]


class Versions:
    """The versions of a bundle in a running service, followed in a task of its own.

    Every `poll_seconds` the model directory is looked at. A version better than the current one is opened and verified in a
    thread while the current one serves; when the embedder can answer for it, it is swapped in, in one step: requests that run
    end on the version they began with, and later ones get the new one. A version that is damaged, or whose model does not
    load or answers wrongly, is refused, and looked at again only if its files change; the version before it serves on.

    The best version is the latest that is not refused, or the pinned one.

    Args:
        settings: of the service: `bundle`, `poll_seconds`, `verify`, `keep_versions`, `held_bytes`, `load_seconds`, `state`,
            `keep_on_disk`.
        embedder: makes the embeddings.
        living: the living catalogue.
        open_version: opens a version directory: (path, living, verify) to what `lease` gives.

    Example:
        versions = Versions(settings, embedder)
        await versions.start()
        with versions.lease() as held:
            embeddings, valid = await embedder.embed([photo], held.version)
            hits = held.search(embeddings, k=10)
    """

    def __init__(
        self,
        settings: Settings,
        embedder: ImageEmbedder,
        living: LivingCatalogue | None = None,
        open_version: Callable[[Path, LivingCatalogue | None, bool], HeldVersion] = HeldVersion.open,
    ) -> None:
        self._settings, self._embedder, self._living = settings, embedder, living
        self._open_version = open_version
        self._folder = ModelFolder(settings.bundle)
        self._pin = Pin(settings.state or self._folder.root / NAME)
        self._open: OpenVersions[HeldVersion] = OpenVersions(self._was_closed)
        self._closed: deque[int] = deque()
        self._refused: dict[int, Refusal] = {}
        self._waiting: dict[int, Waiting] = {}
        self._there: _Numbers = []
        self._recent: _Numbers = []
        self._looks = 0
        self._pinned: int | None = None
        # One thread, so that opening a version leaves the other processors to the searches.
        self._thread = ThreadPoolExecutor(1, "tfdml-versions")
        self._embed_anew = None if living is None else EmbedAnew(living, embedder, self._in_thread)
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        if isinstance(embedder, RemoteEmbedder):
            embedder.missed = self._move_on

    async def start(self) -> None:
        """Begins to follow the directory; the first version is ready some time later."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Ends following, and closes what nobody uses."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._loop = None
        for version in self._open.all():
            self._open.retire(version)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def lease(self, version: int | None = None) -> AbstractContextManager[HeldVersion]:
        """A version that stays open until the context ends, whatever is rolled out meanwhile.

        Args:
            version: one that is held; None for the current one.

        Raises:
            UnknownVersion: if it is not held; it says why.
            EmbedderUnavailable: if no version is ready yet.
        """
        if version is not None and version in self._refused and self._open.get(version) is None:
            raise UnknownVersion(f"version={version}: refused: {self._refused[version].reason}")
        return self._open.lease(version)

    @property
    def pinned(self) -> int | None:
        """The version that people decided to serve; None if the latest is."""
        return self._pinned

    def list(self) -> list[VersionState]:
        """All versions on the disk or open, in rising order."""
        return listed(self._there, self._open, self._refused, self._waiting, self._folder.known)

    async def pin(self, version: int) -> None:
        """Serves this version from now on, whatever is published, also after a restart. At once if it is held.

        Raises:
            UnknownVersion: if there is no such version.
            Conflict: if it was refused, or the decision cannot be kept.
        """
        if version not in await self._in_thread(self._folder.versions):
            raise UnknownVersion(f"version={version}: not in the model directory, which has {self._there}.")
        refused = self._refused.get(version)
        if refused is not None and refused.signature == await self._in_thread(self._folder.signature, version):
            raise Conflict(f"version={version}: refused: {refused.reason}")
        await self._write_pin(version)

    async def unpin(self) -> None:
        """Serves the latest version again.

        Raises:
            Conflict: if the decision cannot be kept.
        """
        await self._write_pin(None)

    async def _write_pin(self, version: int | None) -> None:
        try:
            await self._in_thread(self._pin.write, version)
        except OSError as error:
            raise Conflict(
                f"the decision cannot be kept in {str(self._pin.path)!r}: {error.strerror}. Let the service write there, "
                "or name another file with the setting 'state'."
            ) from error
        self._pinned = version
        opened = None if version is None else self._open.get(version)
        if opened is not None and opened.version not in self._waiting:
            # Open already; but TF-Serving may have let it go since.
            with contextlib.suppress(EmbedderUnavailable):
                await self._embedder.check(opened.version)
                if self._pinned == opened.version and self._open.get(opened.version) is opened:
                    self._swap(opened)
        self._wake.set()

    async def _move_on(self, version: int) -> None:
        """TF-Serving has let this version go. If it is the current one, and another has come, that one is about to serve."""
        end, looks = time.monotonic() + _MOVE_ON, self._looks + 2  # one may have begun too early
        while self._open.current == version and time.monotonic() < end and (self._better() or self._looks < looks):
            self._wake.set()
            await asyncio.sleep(0.01)

    # Following

    async def _follow(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                log.exception("the model directory could not be followed; trying again")
            seconds = min(self._settings.poll_seconds, _SOON if self._waiting else float("inf"))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), seconds)
            self._wake.clear()

    async def _look(self) -> None:
        self._there = await self._in_thread(self._folder.versions)
        await self._read_pin()
        await self._reconsider()
        for version in self._better():
            opened = await self._ready(version)
            if opened is not None:
                # People may have decided otherwise meanwhile.
                if version in self._better():
                    self._swap(opened)
                break
        await self._hold_others()
        await self._release()
        current = self._open.get(self._open.current) if self._open.current is not None else None
        if current is not None and self._embed_anew is not None:
            with contextlib.suppress(EmbedderUnavailable):  # added while it was swapped in; the readiness check complains
                await self._embed_anew(current.held)
        await self._clean()
        self._looks += 1

    async def _read_pin(self) -> None:
        if self._folder.single is not None:
            return
        try:
            self._pinned = await self._in_thread(self._pin.read)
        except ValueError as error:
            log.error("the pin is left as it was (%s): %s", self._pinned, error)

    async def _reconsider(self) -> None:
        """A refused version gets another chance if its files changed."""
        for version, refusal in list(self._refused.items()):
            gone = version not in self._there
            if gone or await self._in_thread(self._folder.signature, version) != refusal.signature:
                self._folder.forget(version)
                del self._refused[version]
        for version in self._waiting.keys() - set(self._there):
            del self._waiting[version]

    def _better(self) -> _Numbers:
        """Versions that should serve rather than the current one, the best first."""
        current, pinned = self._open.current, self._pinned
        candidates = [version for version in reversed(self._there) if version not in self._refused]
        if pinned is not None:
            # Nothing newer than the pinned one, for somebody rolled back from it; an older one only if there is none at all.
            candidates = [version for version in candidates if version == pinned or (version < pinned and current is None)]
        return candidates[: candidates.index(current)] if current in candidates else candidates

    async def _ready(self, version: int) -> OpenVersion[HeldVersion] | None:
        """The version, open and answered for by the embedder; None if it is refused, or not ready yet."""
        opened = self._open.get(version)
        if opened is None or version in self._waiting:
            self._waiting.setdefault(version, Waiting("is being verified"))
        try:
            opened = opened or await self._opened(version)
            await self._prepare(opened)
            if self._embed_anew is not None:
                await self._embed_anew(opened.held)
        except (BundleError, ModelRefused) as error:
            await self._refuse(version, str(error))
            return None
        except EmbedderUnavailable as error:
            await self._wait(version, error)
            return None
        self._waiting.pop(version, None)
        return opened

    async def _opened(self, version: int) -> OpenVersion[HeldVersion]:
        path, began = self._folder.directory(version), time.monotonic()
        held = await self._in_thread(self._open_version, path, self._living, self._settings.verify)
        opened = OpenVersion(version, held)
        self._open.add(opened)
        log.info("version %d opened in %.2f s", version, time.monotonic() - began)
        return opened

    async def _prepare(self, opened: OpenVersion[HeldVersion]) -> None:
        opened.prepared = False
        model = ModelVersion(opened.version, self._folder.directory(opened.version), opened.held.dimension)
        await self._embedder.prepare(model)
        opened.prepared = True

    async def _wait(self, version: int, error: EmbedderUnavailable) -> None:
        waiting, now = self._waiting.setdefault(version, Waiting("")), time.monotonic()
        if waiting.reason != error.detail:
            log.info("version %d waits: %s", version, error.detail)
        waiting.reason = error.detail
        if not isinstance(error, NotLoaded):
            waiting.asked = None
            return
        waiting.seconds += now - waiting.asked if waiting.asked is not None else 0.0
        waiting.asked = now
        if waiting.seconds > self._settings.load_seconds:
            await self._refuse(version, f"after {waiting.seconds:.0f} s still: {error.detail}")

    async def _refuse(self, version: int, reason: str) -> None:
        log.error("version %d is refused: %s", version, reason)
        self._waiting.pop(version, None)
        self._refused[version] = Refusal(reason, await self._in_thread(self._folder.signature, version))
        if version != self._open.current:
            self._open.retire(version)

    def _swap(self, opened: OpenVersion[HeldVersion]) -> None:
        before = self._open.current
        if before == opened.version:
            return
        self._open.swap(opened.version)
        self._recent = [version for version in (before, *self._recent) if version not in (None, opened.version)][:16]
        log.info("version %d serves, after %s", opened.version, before)

    async def _hold_others(self) -> None:
        """Keeps some more versions open, for comparison and a quick return, and closes the rest."""
        current = self._open.current
        if current is None:
            return
        older = [version for version in reversed(self._there) if version < current]
        others = dict.fromkeys(version for version in (*self._recent, *older) if version in self._there)
        allowed = [version for version in others if version != current and version not in self._refused]
        kept = await self._in_thread(self._affordable, allowed[: self._settings.keep_versions])
        for version in self._open.all():
            if version != current and version not in kept and version not in self._waiting:
                self._open.retire(version)
        for version in kept:
            opened = self._open.get(version)
            if opened is None or not opened.prepared:
                with contextlib.suppress(EmbedderUnavailable):
                    await self._hold(version, opened)

    async def _hold(self, version: int, opened: OpenVersion[HeldVersion] | None) -> None:
        try:
            await self._prepare(opened or await self._opened(version))
        except (BundleError, ModelRefused) as error:
            await self._refuse(version, str(error))

    def _affordable(self, versions: _Numbers) -> _Numbers:
        most = self._settings.held_bytes
        kept: _Numbers = []
        for version in versions:
            manifest = self._folder.manifest(version)
            most -= sum(file.bytes for file in manifest.files.values()) if manifest else 0
            if self._settings.held_bytes and most < 0:
                break
            kept.append(version)
        return kept

    def _was_closed(self, version: int) -> None:
        log.info("version %d is closed", version)
        self._closed.append(version)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _release(self) -> None:
        """Lets models go whose versions are closed, and with them the last request that could ask for them."""
        while self._closed:
            version = self._closed.popleft()
            if self._open.get(version) is None:
                await self._embedder.release(version)

    async def _clean(self) -> None:
        most = self._settings.keep_on_disk
        if most and self._folder.single is None and len(self._there) > most:
            held = {*self._open.all(), *self._waiting, self._pinned}
            await clean(self._folder, self._there, most, held, set(self._refused), self._embedder, self._in_thread)

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
