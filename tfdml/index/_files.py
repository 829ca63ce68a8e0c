"""Files of stored indexes: written in one step, and believed only byte for byte."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from tfdml.index.base import Floats, IndexFormatError

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


def map_vectors_at(path: Path, offset: int, count: int, dimension: int, metric: str, stored: str = "<f4") -> Floats:
    """Vectors `[count, dimension]` of a file, mapped read-only: finite, and of length 1 under cosine."""
    vectors: Floats = np.asarray(np.memmap(path, dtype=stored, mode="r", offset=offset, shape=(count, dimension)))
    step = max(1, _CHUNK // (4 * dimension))
    for start in range(0, count, step):
        block = vectors[start : start + step]
        with np.errstate(over="ignore", invalid="ignore"):
            block = block.astype(np.float32, copy=False)
            lengths = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
        if not np.isfinite(lengths).all():
            raise IndexFormatError(f"{path}: a vector holds NaN or infinity.")
        if metric == "cosine" and np.abs(lengths - 1).max() > 1e-3:
            raise IndexFormatError(f"{path}: the metric is cosine, but its vectors are not of length 1.")
    return vectors


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


def move_atomically(source: Path, target: Path) -> bool:
    """Flushes to the disk and renames, without a copy. False, and nothing has happened, across file systems."""
    if source.stat().st_dev != target.parent.stat().st_dev:
        return False
    with open(source, "rb+") as file:
        os.fsync(file.fileno())
    source.chmod(0o644)
    os.replace(source, target)
    _sync_folder(target.parent)
    return True


def write_atomically(rows: Floats, target: Path) -> str:
    """As `copy_atomically`, of vectors as float32, row by row."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        source = Path(folder) / "vectors"
        rows.astype("<f4", copy=False).tofile(source)
        return copy_atomically(source, target)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
