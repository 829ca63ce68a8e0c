"""Files of stored indexes: written in one step, and believed only byte for byte."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from tfdml.index.base import IndexFormatError

_CHUNK = 1 << 22


def check_bytes(path: Path, size: int, digest: str | None) -> None:
    """`IndexFormatError` unless the file is there with this size and, if one is given, this SHA-256."""
    if not path.is_file():
        raise IndexFormatError(f"{path}: the index file does not exist, or is no file.")
    actual = path.stat().st_size
    if actual != size:
        raise IndexFormatError(f"{path}: {actual} bytes, expected {size}. The file is truncated or another one.")
    if digest is not None:
        found = sha256(path)
        if found != digest:
            raise IndexFormatError(f"{path}: SHA-256 {found}, expected {digest}. The file is damaged or another one.")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def copy_atomically(source: Path, target: Path) -> str:
    """Copies, flushes to the disk and renames; returns the SHA-256 of what was written. On failure `target` is as before."""
    digest = hashlib.sha256()
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    temporary = Path(name)
    try:
        with open(source, "rb") as reader, os.fdopen(handle, "wb") as writer:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
