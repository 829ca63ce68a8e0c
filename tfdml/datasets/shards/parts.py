"""What is known of one shard, and the index made of all of them."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdml.datasets.shards.columns import TextsFile, packed
from tfdml.datasets.shards.layout import INDEX, PARTS, ShardError, replace
from tfdml.samplers.grouping import ClassGroups


@dataclasses.dataclass
class Row:
    """One item: where its image lies, and what is known of it."""

    offset: int
    length: int
    checksum: int
    label: str | int
    id: str
    fields: dict[str, Any]


@dataclasses.dataclass
class Part:
    """The index of one shard, in a file of its own until all are there.

    Attributes:
        file: the shard, relative to the folder.
        size: its bytes.
        task: what it was made of, to know it again after a restart.
        tables: the rows' columns, as arrays.
        labels: the distinct labels; `tables["label"]` holds positions in it.
        fields: names of the further columns.
        skipped: `(id, reason)` of what was left out.
    """

    file: str
    size: int
    task: str
    tables: dict[str, np.ndarray]
    labels: list[Any]
    fields: list[str]
    skipped: list[tuple[str, str]]

    @property
    def items(self) -> int:
        return len(self.tables["offset"])

    @classmethod
    def of(cls, file: str, size: int, task: str, rows: Sequence[Row], skipped: Sequence[tuple[str, str]] = ()) -> Part:
        labels = sorted({row.label for row in rows}, key=lambda label: (isinstance(label, str), label))
        number = {label: i for i, label in enumerate(labels)}
        fields = sorted({name for row in rows for name in row.fields})
        tables: dict[str, np.ndarray] = {
            "offset": np.array([row.offset for row in rows], np.int64),
            "length": np.array([row.length for row in rows], np.int64),
            "checksum": np.array([row.checksum for row in rows], np.uint32),
            "label": np.array([number[row.label] for row in rows], np.int64),
        }
        columns = {"ids": [row.id.encode() for row in rows]}
        for i, name in enumerate(fields):
            columns[f"field.{i}"] = [json.dumps(row.fields.get(name)).encode() for row in rows]
        for name, values in columns.items():
            tables[f"{name}.bytes"], tables[f"{name}.ends"] = packed(values)
        return cls(file, size, task, tables, labels, fields, list(skipped))

    def save(self, path: Path) -> None:
        record = {key: value for key, value in dataclasses.asdict(self).items() if key != "tables"}
        buffer = io.BytesIO()
        np.savez(buffer, record=np.frombuffer(json.dumps(record).encode(), np.uint8), **self.tables)  # type: ignore[arg-type]
        replace(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Part | None:
        """None if it is not there, or not whole."""
        try:
            with np.load(path) as file:
                tables = {name: file[name] for name in file.files}
            record = json.loads(tables.pop("record").tobytes())
            return cls(tables=tables, **(record | {"skipped": [tuple(pair) for pair in record["skipped"]]}))
        except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def part_file(folder: Path, number: int) -> Path:
    return folder / PARTS / f"{number:05d}.npz"


def merge(folder: Path, count: int) -> tuple[int, int, list[tuple[str, int, int]], list[str], list[tuple[str, str]]]:
    """The index of all shards, from their parts; one part is in memory at a time.

    Returns:
        Items, classes, `(file, bytes, items)` of each shard, the fields' names, and what was left out.
    """
    files: list[tuple[str, int, int]] = []
    labels: set[Any] = set()
    fields: set[str] = set()
    skipped: list[tuple[str, str]] = []
    for number in range(count):
        part = _loaded(folder, number)
        files.append((part.file, part.size, part.items))
        labels.update(part.labels)
        fields.update(part.fields)
        skipped += part.skipped
    total = sum(items for _, _, items in files)
    if not total:
        raise ShardError(f"{folder}: no image in {count} shards.")
    if len({isinstance(label, str) for label in labels}) > 1:
        raise ShardError(f"{folder}: some labels are integers and some are text; expected one kind.")
    ordered, names = sorted(labels), sorted(fields)
    making = folder / f"{INDEX}.new"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    _write_tables(folder, making, count, total, {label: i for i, label in enumerate(ordered)}, names)
    _write_texts(making, "class_names", [str(label).encode() for label in ordered])
    table = np.load(making / "label.npy", mmap_mode="r")
    groups = ClassGroups.from_labels(table)
    for name in ("starts", "sizes", "items"):
        np.save(making / f"{name}.npy", getattr(groups, name))
    shutil.rmtree(folder / INDEX, ignore_errors=True)
    making.rename(folder / INDEX)
    return total, len(ordered), files, names, skipped


def _loaded(folder: Path, number: int) -> Part:
    part = Part.load(part_file(folder, number))
    if part is None:
        raise ShardError(
            f"{part_file(folder, number)}: missing or damaged. Run the same command again: it makes this part anew."
        )
    return part


def _write_tables(folder: Path, making: Path, count: int, total: int, numbers: dict[Any, int], fields: list[str]) -> None:
    kinds = {"shard": np.int32, "offset": np.int64, "length": np.int64, "checksum": np.uint32, "label": np.int64}
    tables = {name: np.lib.format.open_memmap(making / f"{name}.npy", "w+", kind, (total,)) for name, kind in kinds.items()}
    texts = {name: TextsFile(making, name, total) for name in ("ids", *(f"field.{i}" for i in range(len(fields))))}
    hashes = np.empty(total, np.int64)
    done = 0
    for number in range(count):
        part = _loaded(folder, number)
        rows = slice(done, done + part.items)
        tables["shard"][rows] = number
        for name in ("offset", "length", "checksum"):
            tables[name][rows] = part.tables[name]
        tables["label"][rows] = np.array([numbers[label] for label in part.labels], np.int64)[part.tables["label"]]
        texts["ids"].add(part.tables["ids.bytes"], part.tables["ids.ends"])
        for i, name in enumerate(fields):
            if name in part.fields:
                own = f"field.{part.fields.index(name)}"
                texts[f"field.{i}"].add(part.tables[f"{own}.bytes"], part.tables[f"{own}.ends"])
            else:
                texts[f"field.{i}"].add(*packed([b"null"] * part.items))
        hashes[rows] = [hash(item) for item in _texts(part)]
        done += part.items
    for file in texts.values():
        file.close()
    for table in tables.values():
        table.flush()
    _refuse_duplicates(folder, count, hashes)


def _refuse_duplicates(folder: Path, count: int, hashes: np.ndarray) -> None:
    """Ids are unique. Their hashes tell it without all of them in memory; those that are alike are compared."""
    hashes.sort()
    alike = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen: dict[bytes, str] = {}
    for number in range(count) if alike else ():
        part = _loaded(folder, number)
        for item in _texts(part):
            if hash(item) not in alike:
                continue
            if item in seen:
                raise ShardError(
                    f"{part.file}: the id {item.decode()!r} is in {seen[item]} too; item ids have to be unique. Give them "
                    "other names, or records an id of their own."
                )
            seen[item] = part.file


def _texts(part: Part) -> list[bytes]:
    data, ends = part.tables["ids.bytes"].tobytes(), part.tables["ids.ends"].tolist()
    return [data[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []


def _write_texts(making: Path, name: str, values: list[bytes]) -> None:
    file = TextsFile(making, name, len(values))
    file.add(*packed(values))
    file.close()
