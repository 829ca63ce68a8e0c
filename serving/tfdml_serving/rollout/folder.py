"""The model directory: which versions are there, whether one has changed, and removing old ones."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from tfdml.bundle import BundleError, Manifest
from tfdml.bundle.layout import EXTRA, parse_version, versions
from tfdml.bundle.verification import read_manifest

Signature = tuple[tuple[str, int, int, int], ...]


class ModelFolder:
    """A model directory whose versions come and go, or one version directory, which stays.

    Args:
        path: either of them.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._manifests: dict[int, Manifest | None] = {}

    @property
    def single(self) -> int | None:
        """The version, if this is one version directory."""
        if (self.path / EXTRA).exists() or (self.path / "saved_model.pb").exists():
            return parse_version(self.path.name) or 0
        return None

    @property
    def root(self) -> Path:
        """The model directory."""
        return self.path if self.single is None else self.path.absolute().parent

    def versions(self) -> list[int]:
        """The versions that are there, in rising order; none if the directory cannot be read at present."""
        if (single := self.single) is not None:
            found = [single]
        else:
            try:
                found = versions(self.path)
            except OSError:
                found = []
        for gone in self._manifests.keys() - set(found):
            del self._manifests[gone]
        for version in found:
            self.manifest(version)
        return found

    def directory(self, version: int) -> Path:
        """Of a version."""
        return self.path if self.single is not None else self.path / str(version)

    def manifest(self, version: int) -> Manifest | None:
        """The manifest of a version, as it was when it was first read; None if it cannot be."""
        if version not in self._manifests:
            try:
                self._manifests[version] = read_manifest(self.directory(version))
            except (BundleError, OSError):
                self._manifests[version] = None
        return self._manifests[version]

    def known(self, version: int) -> Manifest | None:
        """The manifest, if it was read already: never waits for the disk."""
        return self._manifests.get(version)

    def signature(self, version: int) -> Signature:
        """Names, sizes, times and inodes of a version's files: another one if anything was changed, without reading any."""
        found = []
        for folder, _, files in os.walk(self.directory(version)):
            for name in files:
                with contextlib.suppress(OSError):
                    status = os.lstat(os.path.join(folder, name))
                    found.append((os.path.join(folder, name), status.st_size, status.st_mtime_ns, status.st_ino))
        return tuple(sorted(found))

    def forget(self, version: int) -> None:
        """Reads the manifest anew next time."""
        self._manifests.pop(version, None)

    def remove(self, version: int) -> None:
        """Removes a version at once: TF-Serving never sees half of one.

        It gets the name of an abandoned publication first. If this process dies while it removes the files, the next
        publication does the rest.
        """
        doomed = self.path / f".{version}.{secrets.token_hex(8)}.tmp"
        os.rename(self.path / str(version), doomed)
        shutil.rmtree(doomed, ignore_errors=True)
