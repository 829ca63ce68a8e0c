"""Finding public data: in `TFDML_DATA`, in the cache, or on the network, and checking that they are what they should be."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import keras


class DownloadError(RuntimeError):
    """Public data could not be had, or are not what they should be."""


@dataclasses.dataclass(frozen=True)
class Archive:
    """A public zip archive and what is expected in it.

    Attributes:
        url: where it is.
        file_name: what it is called in the cache.
        subfolder: the folder inside the archive that is the data set.
        contents_sha256: `contents_digest` of that folder. Archives that a host packs on request hold the same files but not
            always the same bytes, so the files are checked, not the archive.
    """

    url: str
    file_name: str
    subfolder: str
    contents_sha256: str


def local_folder(name: str, marker: str) -> Path | None:
    """`$TFDML_DATA/<name>` if the variable is set and the folder there holds `marker`; None if the variable is not set."""
    root = os.environ.get("TFDML_DATA")
    if not root:
        return None
    folder = Path(root).expanduser() / name
    if not (folder / marker).is_file():
        raise DownloadError(
            f"{name}: TFDML_DATA={root!r} is set, but {folder / marker} is not there. "
            f"Put the data there, or unset TFDML_DATA to download them."
        )
    return folder


def cache_folder() -> Path:
    """Where downloads are kept: Keras's own folder for data sets."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(home) / "datasets" / "tfdml"


def fetch_file(name: str, url: str, file_name: str, file_hash: str | None = None) -> Path:
    """Downloads one file into the cache unless it is there, checks its hash, and returns where it is."""
    target = cache_folder()
    try:
        target.mkdir(parents=True, exist_ok=True)
        return Path(
            keras.utils.get_file(
                file_name, origin=url, file_hash=file_hash, cache_dir=str(target.parent.parent), cache_subdir="datasets/tfdml"
            )
        )
    except Exception as error:  # get_file raises bare `Exception` for a network error, ValueError for a wrong hash
        (target / file_name).unlink(missing_ok=True)
        raise DownloadError(
            f"{name}: could not be downloaded from {url}: {error}. Two ways out: connect to the network and try again, or "
            f"set TFDML_DATA to a folder that holds {name}/."
        ) from error


def fetch_folder(name: str, archive: Archive) -> Path:
    """Downloads and unpacks an archive into the cache unless that was done before; the contents are checked."""
    folder = cache_folder() / name
    if folder.is_dir():  # it gets this name only after the check
        return folder
    file = fetch_file(name, archive.url, archive.file_name)
    unpacked = Path(tempfile.mkdtemp(dir=file.parent, prefix=f".{name}-"))
    try:
        unzip(file, unpacked, archive.subfolder)
        found = contents_digest(unpacked)
        if found != archive.contents_sha256:
            raise DownloadError(f"the contents' SHA-256 is {found}, expected {archive.contents_sha256}")
        unpacked.chmod(0o755)
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same contents
                raise
    except (DownloadError, zipfile.BadZipFile, OSError) as error:
        file.unlink(missing_ok=True)
        raise DownloadError(
            f"{name}: the archive from {archive.url} is not usable: {error}. It was removed from the cache; try again, or set "
            f"TFDML_DATA to a folder that holds {name}/."
        ) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    file.unlink(missing_ok=True)
    return folder


def unzip(file: Path, to: Path, subfolder: str = "") -> None:
    """Unpacks the part of a zip archive below `subfolder`; refuses names that lead out of `to`, and links."""
    prefix = PurePosixPath(subfolder).parts
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            parts = PurePosixPath(entry.filename).parts
            unsafe = entry.filename.startswith("/") or "\\" in entry.filename or ".." in parts or ":" in entry.filename
            if unsafe or stat.S_ISLNK(entry.external_attr >> 16):
                raise DownloadError(f"the archive holds an unsafe name: {entry.filename!r}")
            if entry.is_dir() or parts[: len(prefix)] != prefix or len(parts) == len(prefix):
                continue
            target = to.joinpath(*parts[len(prefix) :])
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink)


def contents_digest(folder: Path) -> str:
    """SHA-256 over the sorted lines `<SHA-256 of the file>  <relative path>`: what `sha256sum` would print."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_of((path.relative_to(folder).as_posix(), path.read_bytes()) for path in files)


def digest_of(files: Iterable[tuple[str, bytes]]) -> str:
    lines = sorted(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files)
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()
