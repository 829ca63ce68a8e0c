"""The list of a plan's items on the disk: one line of JSON each, of which a worker reads its own. Loads no TensorFlow."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml.index._ids import PackedIds
from tfdml.scale.sources import Address, Source

ITEMS, OFFSETS = "items.jsonl", "offsets.npy"


class Listed(NamedTuple):
    """How many items there are, the SHA-256 of their list, and where each part of it begins in the file, and its end."""

    total: int
    fingerprint: str
    offsets: npt.NDArray[np.int64]


def write_items(source: Source, part_size: int, folder: Path) -> Listed:
    """Writes the list of a source's items into `folder`, under names of its own, and then under `ITEMS` and `OFFSETS`.

    Raises:
        SourceError: see `ImageFiles`.
        ValueError: for an id that two items have.
    """
    draft = folder / f".{ITEMS}.{os.getpid()}.tmp"
    try:
        listed = _write(source, part_size, draft)
        offsets = draft.with_suffix(".npy")
        np.save(offsets, listed.offsets)
        os.replace(offsets, folder / OFFSETS)
        os.replace(draft, folder / ITEMS)
    finally:
        draft.unlink(missing_ok=True)
    return listed


def list_items(source: Source, part_size: int, folder: Path) -> Listed:
    """As `write_items`, and nothing is kept: what a source is now, to be compared with a plan."""
    draft = folder / f".{ITEMS}.{os.getpid()}.tmp"
    try:
        return _write(source, part_size, draft)
    finally:
        draft.unlink(missing_ok=True)


def _write(source: Source, part_size: int, draft: Path) -> Listed:
    digest, offsets, position, count = hashlib.sha256(), list[int](), 0, 0

    def ids() -> Iterator[str]:
        nonlocal position, count
        with open(draft, "wb") as file:
            for item, address in source.items():
                if count % part_size == 0:
                    offsets.append(position)
                line = json.dumps([item, *address], ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                digest.update(line)
                file.write(line)
                position, count = position + len(line), count + 1
                yield item
            file.flush()
            os.fsync(file.fileno())

    PackedIds(ids())  # refuses what is there twice
    return Listed(count, digest.hexdigest(), np.array([*offsets, position], np.int64))


def read_items(folder: Path, part: int) -> tuple[list[str], list[Address]]:
    """Ids and addresses of a part's items."""
    offsets = np.load(folder / OFFSETS, mmap_mode="r")
    with open(folder / ITEMS, "rb") as file:
        file.seek(int(offsets[part]))
        lines = file.read(int(offsets[part + 1] - offsets[part])).splitlines()
    items = [json.loads(line) for line in lines]
    return [item for item, *_ in items], [address for _, *address in items]
