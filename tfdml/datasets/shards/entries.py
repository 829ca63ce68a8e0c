"""The images that are to be put into shards, one after the other, in the order that the loaders give them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfdml._listing import EXTENSIONS
from tfdml.datasets.csv_file import csv
from tfdml.datasets.dataset import Dataset
from tfdml.datasets.folder import UNREADABLE
from tfdml.datasets.shards.source import ShardSource
from tfdml.datasets.sources import DecodedSource, FileSource


@dataclasses.dataclass
class Entry:
    """An image, as the path of its file or as its bytes."""

    image: str | bytes
    in_file: bool
    label: str
    id: str
    fields: dict[str, Any]

    def read(self) -> bytes:
        if not self.in_file:
            assert isinstance(self.image, bytes)
            return self.image
        with open(self.image, "rb") as file:
            return file.read()

    def known(self) -> list[Any]:
        """What tells this entry from one that has changed."""
        state: Any = self.image if not self.in_file else None
        if self.in_file:
            try:
                status = os.stat(self.image)
                state = [str(self.image), status.st_size, status.st_mtime_ns]
            except OSError as error:
                state = str(error)
        return [state, self.label, self.id, self.fields]


def counted(source: Dataset | str | os.PathLike[str]) -> tuple[int, Iterator[Entry]]:
    """How many images `source` has, and the images."""
    if isinstance(source, Dataset):
        return len(source), _of_dataset(source)
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() == ".csv":
        listed = csv(path, check=False)
        return len(listed), _of_dataset(listed)
    if not path.is_dir():
        raise FileNotFoundError(f"source={str(source)!r}: expected a Dataset, a folder of images, or a .csv file.")
    total = sum(1 for _ in _walk(str(path), ""))
    if not total:
        raise ValueError(f"source={str(source)!r}: no images found. Expected {source}/<class>/<image>.")
    return total, _of_folder(path)


def folder_of_shards(source: Any) -> Path | None:
    """The folder of the shards that the images of a dataset are read from; None if they come from elsewhere."""
    images = source._source if isinstance(source, Dataset) else None
    while isinstance(images, DecodedSource):
        images = images.source
    return images.folder if isinstance(images, ShardSource) else None


def _of_dataset(data: Dataset) -> Iterator[Entry]:
    in_files = isinstance(data._source, FileSource)
    for index in range(len(data)):
        fields = {name: column[index] for name, column in data.fields.items()}
        label = data.class_names[data.labels[index]]
        image = os.fspath(data._source.paths[data._rows[index]]) if in_files else data.image_bytes(index)  # type: ignore[attr-defined]
        yield Entry(image, in_files, label, str(data.ids[index]), fields)


def _of_folder(root: Path) -> Iterator[Entry]:
    for name in _walk(str(root), ""):
        yield Entry(os.path.join(root, name), True, name.partition("/")[0], name, {"path": name})


def _walk(folder: str, above: str, folders_above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Relative paths of the images below class folders, in the order of `image_folder`; one folder's names in memory at a time.

    That order is by the whole path, in which the name of a folder is followed by a slash. As there, a folder that is one of
    those above it (a loop of links) is left out. Photographs in formats that are not read come too, lest any is lost unsaid.
    """
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in folders_above:
        return
    with os.scandir(folder) as found:
        entries = sorted((entry.name + "/" * entry.is_dir(), entry.path) for entry in found if not entry.name.startswith("."))
    for name, path in entries:
        if name.endswith("/"):
            yield from _walk(path, above + name, folders_above | {here})
        elif above and name.lower().endswith(EXTENSIONS + UNREADABLE):
            yield above + name
