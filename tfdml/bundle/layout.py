"""Where things are in a bundle, and the checksums of its files. Python standard library only."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfdml.bundle.errors import BundleError

EXTRA = "assets.extra"
RETRIEVAL = f"{EXTRA}/retrieval"
MANIFEST = f"{RETRIEVAL}/manifest.json"
INDEX = f"{RETRIEVAL}/index.ann"
INDEX_FILES = {
    "annoy": INDEX,
    "faiss": f"{RETRIEVAL}/index.faiss",
    "milvus": f"{RETRIEVAL}/index.milvus",
    "exact": f"{RETRIEVAL}/index.vectors",
}
CATALOGUE = f"{RETRIEVAL}/catalogue.sqlite"
WARMUP = f"{EXTRA}/tf_serving_warmup_requests"

# TF-Serving parses version directories as int64.
LARGEST_VERSION = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 of one file."""

    bytes: int
    sha256: str


def parse_version(name: str) -> int | None:
    """The version that a directory name stands for, or None. Names with signs or leading zeros are never written.

    >>> parse_version("12"), parse_version("012"), parse_version("-1"), parse_version(".3.ab12.tmp")
    (12, None, None, None)
    """
    good = name.isascii() and name.isdigit() and (name == "0" or name[0] != "0") and len(name) <= 19
    return int(name) if good and int(name) <= LARGEST_VERSION else None


def versions(directory: str | os.PathLike[str]) -> list[int]:
    """The published versions in a model directory, in rising order."""
    with os.scandir(directory) as entries:
        found = [parse_version(entry.name) for entry in entries if entry.is_dir()]
    return sorted(version for version in found if version is not None)


def resolve(path: str | os.PathLike[str]) -> Path:
    """The version directory that `path` names: itself, or the latest version of a model directory."""
    root = Path(path)
    try:
        if not root.exists():
            raise BundleError(f"path={str(path)!r}: there is nothing here. Expected a bundle, or a directory of its versions.")
        if not root.is_dir():
            raise BundleError(f"path={str(path)!r}: is a file. Expected a bundle directory such as 'exports/products/1'.")
        if (root / EXTRA).exists() or (root / "saved_model.pb").exists():
            return root
        found = versions(root)
    except OSError as error:
        raise BundleError(f"path={str(path)!r}: cannot be read: {error.strerror}.") from error
    if not found:
        raise BundleError(
            f"path={str(path)!r}: neither a bundle (no {MANIFEST}) nor a directory with versions of one (no directory named "
            "by an integer). Publish one with tfdml.bundle.export."
        )
    return root / str(found[-1])


def list_files(root: Path) -> list[str]:
    """All files below `root` as sorted "/"-paths; refuses whatever is neither a regular file nor a directory."""
    found: list[str] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                name = prefix + entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    pending.append(name + "/")
                elif stat.S_ISREG(mode):
                    found.append(name)
                else:
                    kind = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
                    raise BundleError(f"{name} in {str(root)!r} is {kind}; a bundle holds regular files only. Copy it anew.")
    return sorted(found)


def index_file(record: Mapping[str, Any]) -> str:
    """The index file of a bundle, by the backend that the index's record names."""
    return INDEX_FILES.get(str(record.get("backend")), INDEX)


def record_file(path: Path) -> FileRecord:
    """Size and SHA-256 of the file at `path`, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            size += len(piece)
    return FileRecord(size, digest.hexdigest())


def model_fingerprint(files: Mapping[str, FileRecord]) -> str:
    """SHA-256 over the names, sizes and checksums of the SavedModel's files: the identity of the model in a bundle."""
    digest = hashlib.sha256()
    for name in sorted(files):
        if not name.startswith(f"{EXTRA}/"):
            digest.update(f"{name}\0{files[name].bytes}\0{files[name].sha256}\n".encode())
    return digest.hexdigest()
