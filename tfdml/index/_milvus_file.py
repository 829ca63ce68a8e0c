"""The file of `MilvusIndex`: all vectors as float32, and behind them, for Milvus Lite, its database as a zip archive.

A database of Milvus Lite is a folder (Parquet files and FAISS's), which one process may open at a time, and which it writes to.
A bundle's file is never written to, and any number of processes open it. So each unpacks a copy of its own.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from tfdml.index.base import Floats, IndexFormatError

_DATE = (1980, 1, 1, 0, 0, 0)
_LOCK = "LOCK"


def write(rows: Floats, database: Path | None, path: Path) -> None:
    """Writes the vectors, and the files of a database that nobody has open."""
    with open(path, "wb") as file:
        rows.astype("<f4", copy=False).tofile(file)
        if database is None:
            return
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for source in sorted(one for one in database.rglob("*") if one.is_file() and one.name != _LOCK):
                entry = zipfile.ZipInfo(source.relative_to(database).as_posix(), _DATE)
                entry.file_size = source.stat().st_size
                with open(source, "rb") as reader, archive.open(entry, "w") as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)


def unpack(path: Path, vectors_end: int, folder: Path) -> None:
    """Copies the database into a new folder.

    Raises:
        IndexFormatError: for anything but plain, uncompressed files with names that stay inside the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > path.stat().st_size - vectors_end:
                raise IndexFormatError(f"{path}: the database would be larger than the file that holds it.")
            for entry in entries:
                name = PurePosixPath(entry.filename)
                outside = name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename
                if outside or entry.is_dir() or entry.compress_type != zipfile.ZIP_STORED or entry.header_offset < vectors_end:
                    raise IndexFormatError(f"{path}: the database holds {entry.filename[:80]!r}, which it should not.")
                target = folder.joinpath(*name.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as reader, open(target, "wb") as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise IndexFormatError(f"{path}: the database cannot be unpacked: {error}") from error
    os.makedirs(folder, exist_ok=True)
