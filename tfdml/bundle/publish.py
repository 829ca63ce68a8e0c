"""Atomic publication of a version directory: all of it appears under its number, or nothing does. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tfdml.bundle.errors import BundleError, DiskFullError, is_disk_full
from tfdml.bundle.layout import LARGEST_VERSION

_STAGING = re.compile(r"\.(\d+)\.[0-9a-f]{16}\.tmp")


class Publication:
    """A version directory in the making: a context manager that leaves nothing behind unless `publish` was reached.

    Everything is written into a hidden directory beside the versions (TF-Serving looks at names that are integers only),
    flushed to the disk, and renamed in one step. A process that dies before leaves its hidden directory; a later publication
    sees by the released lock that its owner is gone, and removes it.

    Args:
        to: the model directory, made if it does not exist.
        version: the version to publish, an integer >= 0; None takes the one after the latest.

    Raises:
        BundleError: if the version exists or is not an integer >= 0, if `to` is not a directory, or if the disk is full.

    Example:
        >>> import tempfile, os
        >>> with Publication(tempfile.mkdtemp()) as publication:
        ...     _ = (publication.directory / "file").write_text("content")
        ...     published = publication.publish()
        >>> published.name, os.listdir(published)
        ('1', ['file'])
    """

    def __init__(self, to: str | os.PathLike[str], version: int | None = None) -> None:
        self.to = Path(to)
        self.version = None if version is None else check_version(version)
        self.directory: Path
        self._lock: int | None = None

    def __enter__(self) -> Publication:
        with translated_os_errors(self.to):
            try:
                self.to.mkdir(parents=True, exist_ok=True)
            except FileExistsError as error:
                raise BundleError(f"to={str(self.to)!r}: is a file. Expected a directory for the versions.") from error
            with _locked(self.to):
                self._check_free()
                _remove_abandoned(self.to)
                version = self._next() if self.version is None else self.version
                self.directory = self.to / f".{version}.{secrets.token_hex(8)}.tmp"
                self.directory.mkdir()
                self._lock = _lock(self.directory, wait=False)
        return self

    def publish(self) -> Path:
        """Flushes everything to the disk and gives it its number. Returns the version directory."""
        with translated_os_errors(self.to):
            flush_tree(self.directory)
            with _locked(self.to):
                self._check_free()
                target = self.to / str(self._next() if self.version is None else self.version)
                try:
                    os.rename(self.directory, target)
                except OSError as error:
                    if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                        raise _exists(target) from error
                    raise
                try:
                    flush(self.to)
                except OSError:
                    os.rename(target, self.directory)  # not known to be on the disk: not published
                    raise
        return target

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock is not None:
            os.close(self._lock)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _next(self) -> int:
        return check_version(max(self._taken(), default=0) + 1)

    def _check_free(self) -> None:
        taken = self._taken()
        if self.version is not None and self.version in taken:
            raise _exists(self.to / taken[self.version])

    def _taken(self) -> dict[int, str]:
        """Version numbers that TF-Serving sees here, also where tfdml would not have written the name so: "007" is 7."""
        names = sorted(name for name in os.listdir(self.to) if name.isascii() and name.isdigit())
        return {int(name): name for name in names}


def check_version(version: object) -> int:
    """`version` as an int, if TF-Serving can serve it; else a `BundleError`."""
    try:
        number = version.__index__() if not isinstance(version, bool) else -1  # type: ignore[attr-defined]
    except AttributeError:
        number = -1
    if not 0 <= number <= LARGEST_VERSION:
        raise BundleError(
            f"version={version!r}: expected an integer from 0 to {LARGEST_VERSION}, or None for the one after the latest."
        )
    return int(number)


def flush_tree(directory: Path) -> None:
    """Makes sure that every file and directory below `directory`, and itself, is on the disk."""
    for folder, _, files in os.walk(directory, topdown=False):
        for name in files:
            flush(Path(folder) / name)
        flush(Path(folder))


def flush(path: Path) -> None:
    """fsync of a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def translated_os_errors(to: Path) -> Iterator[None]:
    """Turns what the system refuses into a `BundleError`."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"to={str(to)!r}: the disk is full. Nothing was published and the old versions are as they were; free some "
                "space and export again."
            ) from error
        if isinstance(error, OSError):
            raise BundleError(f"to={str(to)!r}: cannot be written: {error}. Nothing was published.") from error
        raise


def _exists(target: Path) -> BundleError:
    return BundleError(
        f"version={target.name}: {str(target)!r} exists already; a published version is never changed. Choose another version, "
        "or None for the one after the latest."
    )


def _remove_abandoned(to: Path) -> None:
    """Removes hidden directories whose process is gone. The caller holds the lock of `to`, under which they are made."""
    for name in os.listdir(to):
        path = to / name
        if not _STAGING.fullmatch(name) or not stat.S_ISDIR(os.lstat(path).st_mode):
            continue
        lock = _lock(path, wait=False)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = _lock(directory, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _lock(directory: Path, *, wait: bool) -> int | None:
    """Locks a directory until the descriptor is closed or the process ends; None if that cannot be had.

    Some network file systems cannot lock a directory. Publication then stays atomic (a rename never replaces a version that
    holds files); only abandoned directories are left for a person to remove.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
