"""Where the items of a large embedding come from: listed by the driver, read by the workers. Loads no TensorFlow.

A source is two halves that only share JSON. The driver's half lists `(id, address)` of every item; the worker's half, made
anew in its process from `settings`, turns an address into the bytes of an image file. Another kind of source is one more class
in `KINDS`.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from tfdml._listing import EXTENSIONS, csv_rows, is_utf8, printable, refuse_duplicates, walk

Address = Sequence[Any]


class SourceError(ValueError):
    """A source that cannot be listed, or that is no longer what was listed."""


class Source(Protocol):
    """Items that can be listed, and read in another process.

    Attributes:
        kind: its name in `KINDS`.
        settings: what a worker needs to read it, as JSON holds it. What changes an item's bytes belongs into its address,
            since a plan is compared by ids and addresses.
    """

    kind: str

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def items(self) -> Iterator[tuple[str, Address]]:
        """Id and address of every item, in an order that is always the same."""
        ...

    @classmethod
    def reader(cls, settings: Mapping[str, Any]) -> Reader: ...


class Reader(Protocol):
    """Reads items in a worker. It may be called by several threads at once."""

    def __call__(self, address: Address) -> bytes | str:
        """The bytes of an image file, or why the item never will have any. Raises `SourceError` if the source changed."""
        ...


class ImageFiles:
    """Image files: those below a folder, with their relative paths as ids, or those of a CSV file.

    An address is (path relative to the root, size, time of the last change in ns), so that a file that is replaced while the
    embedding is under way, or between two runs, is noticed.

    Args:
        path: a folder, or a .csv file with a column `path` and optionally `id`, as `tfdml.datasets.csv` reads it.
        image_root: the folder that the paths of a CSV file are relative to; its own folder when left out.
    """

    kind = "files"

    def __init__(self, path: str | os.PathLike[str], image_root: str | os.PathLike[str] | None = None) -> None:
        self._path = Path(path).expanduser()
        if not self._path.exists():
            raise SourceError(f"source={str(path)!r}: there is nothing here. Expected a folder of images or a .csv file.")
        self._is_folder = self._path.is_dir()
        if not self._is_folder and self._path.suffix.lower() != ".csv":
            raise SourceError(f"source={str(path)!r}: expected a folder of images or a .csv file.")
        if self._is_folder and image_root is not None:
            raise SourceError(f"image_root={str(image_root)!r}: only a .csv file takes one, and the source is a folder.")
        root = self._path if self._is_folder else Path(image_root or self._path.parent).expanduser()
        if not root.is_dir():
            raise SourceError(f"image_root={str(image_root)!r}: there is no such folder.")
        self._root = root.absolute()

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"root": str(self._root)}

    def items(self) -> Iterator[tuple[str, Address]]:
        listed = self._in_folder() if self._is_folder else self._in_csv()
        with ThreadPoolExecutor(8) as pool:
            # In pieces: the threads' results are not to pile up before somebody takes them.
            while piece := list(itertools.islice(listed, 4096)):
                for (item, path), status in zip(piece, pool.map(self._status, (path for _, path in piece)), strict=True):
                    yield item, (path, status.st_size, status.st_mtime_ns)

    def _in_folder(self) -> Iterator[tuple[str, str]]:
        found = [parts for parts in walk(str(self._path)) if parts[-1].lower().endswith(EXTENSIONS)]
        if not found:
            raise SourceError(f"source={str(self._path)!r}: no images found, that is, no names in {', '.join(EXTENSIONS)}.")
        strange = [printable(parts) for parts in found if not is_utf8(parts)]
        if strange:
            raise SourceError(f"source: {len(strange)} names are not UTF-8, e.g. {strange[0]!r}. Rename these files.")
        return ((path, path) for path in sorted("/".join(parts) for parts in found))

    def _in_csv(self) -> Iterator[tuple[str, str]]:
        header, rows = csv_rows(self._path, required=("path",))
        paths = [cells[header.index("path")] for _, cells in rows]
        column = "id" if "id" in header else "path"
        ids = [cells[header.index(column)] for _, cells in rows]
        refuse_duplicates(self._path, column, ids, [line for line, _ in rows])
        return zip(ids, paths, strict=True)

    def _status(self, path: str) -> os.stat_result:
        try:
            return os.stat(self._root / path)
        except OSError as error:
            raise SourceError(f"source: {str(self._root / path)!r}: {error.strerror}. Mend the list, or the folder.") from error

    @classmethod
    def reader(cls, settings: Mapping[str, Any]) -> Reader:
        return _FileReader(str(settings["root"]))


class _FileReader:
    def __init__(self, root: str) -> None:
        self._root = root

    def __call__(self, address: Address) -> bytes | str:
        name, size, changed = address
        path = os.path.join(self._root, name)
        try:
            # A file that became a pipe would be waited for.
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read()
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EISDIR):
                return str(error.strerror)
            raise SourceError(
                f"{path!r}: {error.strerror}. It was there when the source was listed: every worker must see the same files "
                "under the same path, and nobody may change them meanwhile."
            ) from error
        if (status.st_size, status.st_mtime_ns, len(data)) != (size, changed, size):
            raise SourceError(f"{path!r}: changed since the source was listed. Begin anew with another output folder.")
        return data


KINDS: dict[str, type[Source]] = {ImageFiles.kind: ImageFiles}


def open_source(source: str | os.PathLike[str] | Source, image_root: str | os.PathLike[str] | None = None) -> Source:
    """The source that a path stands for, or `source` itself."""
    if isinstance(source, (str, os.PathLike)):
        return ImageFiles(source, image_root)
    return source
