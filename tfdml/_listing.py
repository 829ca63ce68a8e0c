"""Images that are listed and not yet read: the files below a folder, the rows of a CSV file. Standard library only."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
REQUIRED = ("path", "label")


def walk(
    folder: str, parts: tuple[str, ...] = (), above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, ...]]:
    """The parts of every file's path below `folder`. A folder that is one of those above it (a loop of links) is left out."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in visible:
        if entry.is_dir():
            yield from walk(entry.path, (*parts, entry.name), above | {here})
        else:
            yield (*parts, entry.name)


def is_utf8(parts: Sequence[str]) -> bool:
    return not any("\udc80" <= character <= "\udcff" for part in parts for character in part)


def printable(parts: Sequence[str]) -> str:
    """A path that can be printed, whatever bytes its name consists of."""
    return "/".join(parts).encode("utf-8", "backslashreplace").decode("utf-8")


def csv_rows(
    file: Path, delimiter: str = ",", required: Sequence[str] = REQUIRED
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The column names and the rows of a CSV file, each with the line on which it starts."""
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            for cells in reader:
                if cells:
                    rows.append((line, [cell.strip() for cell in cells]))
                line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{file}, line {line}: {error}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    names = f"the column{'s' if len(required) > 1 else ''} {', '.join(required)}"
    if not rows:
        raise ValueError(f"{file}: the file is empty; expected a first row with {names}.")
    header, rows = rows[0][1], rows[1:]
    missing = [name for name in required if name not in header]
    if missing:
        raise ValueError(
            f"{file}, line 1: no column {missing[0]!r} among {header}. The first row has to name {names}"
            + ("." if len(header) > 1 else f"; cells are separated by {delimiter!r} (delimiter).")
        )
    if len(set(header)) < len(header) or "" in header:
        raise ValueError(f"{file}, line 1: every column needs a name of its own, got {header}.")
    if not rows:
        raise ValueError(f"{file}: no rows below the column names.")
    for line, cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"{file}, line {line}: {len(cells)} cells, but the first row names {len(header)} columns.")
        if any("\0" in cell for cell in cells):
            raise ValueError(f"{file}, line {line}: a NUL byte; the file is damaged or not a text file.")
        for name in (*required, "id"):
            if name in header and not cells[header.index(name)]:
                raise ValueError(f"{file}, line {line}: the column {name!r} is empty.")
    return header, rows


def refuse_duplicates(file: Path, column: str, values: list[str], lines: list[int]) -> None:
    """Raises a `ValueError` that names the lines of a value that is there twice."""
    first: dict[str, int] = {}
    for value, line in zip(values, lines, strict=True):
        if value in first:
            raise ValueError(
                f"{file}, line {line}: {column} {value!r} is on line {first[value]} too; item ids have to be unique."
                + (" Add a column 'id' if one image belongs to several items." if column == "path" else "")
            )
        first[value] = line
