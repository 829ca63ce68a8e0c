"""What lies in a folder of shards: the files' names, and the record that is written last."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from tfdml.preprocessing import ImagePreprocessing

MANIFEST, INDEX, PARTS = "shards.json", "index", "index.parts"
FORMAT, VERSION = "tfdml shards", 1
STORES = ("keep", "jpeg", "pixels")


class ShardError(ValueError):
    """A folder of shards, or a file in it, that is damaged, cut short or something else; the text names file and place."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `shards.json` says.

    Attributes:
        kind: `"tfrecord"` or `"tar"`.
        items: how many there are in all.
        classes: how many classes.
        store: `"keep"` (image files as they were), `"jpeg"` or `"pixels"` (after `preprocessing`).
        preprocessing: what the images went through; `None` with `"keep"`.
        files: relative path, bytes and items of every shard.
        fields: names of the further columns.
        fingerprint: of everything that went in, to tell a repeated conversion from another one.
        skipped: `(id, reason)` of what was left out.
    """

    kind: str
    items: int
    classes: int
    store: str
    preprocessing: ImagePreprocessing | None
    files: tuple[tuple[str, int, int], ...]
    fields: tuple[str, ...]
    fingerprint: str
    skipped: tuple[tuple[str, str], ...] = ()

    def write(self, folder: Path) -> None:
        """In one go, so that the file is there and whole, or not there."""
        record = {"format": FORMAT, "version": VERSION} | dataclasses.asdict(self)
        record["preprocessing"] = self.preprocessing.get_config() if self.preprocessing else None
        replace(folder / MANIFEST, json.dumps(record, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        file = folder / MANIFEST
        try:
            record: dict[str, Any] = json.loads(file.read_bytes())
            kind, version = record.pop("format"), record.pop("version")
            if kind != FORMAT or version != VERSION:
                raise ShardError(
                    f"{file}: format {kind!r}, version {version!r}; this release reads {FORMAT!r}, version {VERSION}."
                )
            settings = record.pop("preprocessing")
            return cls(
                preprocessing=ImagePreprocessing.from_config(settings) if settings else None,
                files=tuple((str(name), int(size), int(items)) for name, size, items in record.pop("files")),
                fields=tuple(record.pop("fields")),
                skipped=tuple((str(item), str(reason)) for item, reason in record.pop("skipped")),
                **record,
            )
        except FileNotFoundError:
            unfinished = (folder / PARTS).exists()
            raise FileNotFoundError(
                f"path={str(folder)!r}: no {MANIFEST}"
                + (
                    "; a conversion was cut short. Run the same command again: finished shards are kept."
                    if unfinished
                    else " there. Make it with `tfdml data shard` (from images) or `tfdml data index` (from .tfrecord or .tar)."
                )
            ) from None
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ShardError(f"{file}: not a record of shards, or damaged ({error}).") from error

    def check_files(self, folder: Path) -> None:
        """Every shard is there, with the size that it had."""
        for name, size, _ in self.files:
            file = folder / name
            if not file.is_file():
                raise ShardError(f"{file}: the shard is missing; {folder / MANIFEST} lists {len(self.files)} of them.")
            if (there := file.stat().st_size) != size:
                raise ShardError(
                    f"{file}: {there:,} bytes, but {size:,} when it was indexed: cut short or changed. Copy it again, or make "
                    "the shards or their index anew."
                )


def replace(file: Path, data: bytes) -> None:
    """Writes `file` so that it is there and whole, or as it was."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    with open(part, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, file)
