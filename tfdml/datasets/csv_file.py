"""Images listed in a CSV file."""

from __future__ import annotations

import csv as csv_reader
import os
import re
from pathlib import Path
from typing import Any

from tfdml.datasets.dataset import Dataset
from tfdml.datasets.files import MAX_PIXELS, checked_dataset
from tfdml.preprocessing import ImagePreprocessing

REQUIRED = ("path", "label")
# At most 18 digits: they fit into 64 bits, and an id of more digits would lose some as a float.
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?")


def csv(
    path: str | os.PathLike[str],
    image_root: str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] | int = (64, 64),
    *,
    on_unreadable: str = "error",
    min_images: int = 2,
    small_classes: str = "keep",
    max_pixels: int = MAX_PIXELS,
    check: bool = True,
    preprocessing: ImagePreprocessing | None = None,
    delimiter: str = ",",
) -> Dataset:
    """Images listed in a CSV file with the columns `path` and `label`, and optionally `id`, `category`, `split` and others.

    The file is UTF-8 (with or without a byte order mark), its first row names the columns, cells with commas or line breaks
    are quoted, blank lines are ignored. Every column but `label` and `id` becomes a field: of numbers where every cell is
    empty (None) or reads back exactly as that number (`12`, `3.50`, but not `007`), else of text. `data.where(split="train")`
    selects by one. Every image is decoded once before anything is returned, as in `image_folder`.

    Args:
        path: the CSV file.
        image_root: the folder to which its paths are relative; the CSV file's own folder when left out.
        image_size: height and width of the loaded images in pixels; the largest central part of that shape is kept.
        on_unreadable: `"error"` raises an `UnreadableImageError` that lists the lines; `"skip"` leaves them out with a warning
            and lists them in `dataset.skipped`. It holds for images that are missing or cannot be decoded, not for mistakes
            in the CSV file.
        min_images: how many images a class should have, see `small_classes`.
        small_classes: what happens to classes with fewer images: `"keep"`, `"drop"` or `"error"`.
        max_pixels: larger images are refused before they are decoded.
        check: False trusts the files; a bad one then stops the epoch that loads it.
        preprocessing: instead of `image_size`, for full control.
        delimiter: what separates the cells.

    Returns:
        A `Dataset` in the order of the rows. The ids are the column `id`, or `path` when there is no such column.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for a mistake in the CSV file; the text names the line.
        UnreadableImageError: see `on_unreadable`.

    Example:
        >>> data = tfdml.datasets.csv("products.csv", image_root="photos")  # doctest: +SKIP
        >>> train, test = data.where(split="train"), data.where(split="test")  # doctest: +SKIP
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file.")
    root = file.parent if image_root is None else Path(image_root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"image_root={str(image_root)!r}: there is no such folder.")
    header, rows = _read(file, delimiter)
    columns = {name: [cells[i] for _, cells in rows] for i, name in enumerate(header)}
    ids = columns.get("id", columns["path"])
    _refuse_duplicates(file, "id" if "id" in columns else "path", ids, [line for line, _ in rows])
    return checked_dataset(
        f"csv({file.name!r})",
        [os.path.join(root, name) for name in columns["path"]],
        columns["label"],
        ids,
        {name: values if name == "path" else _typed(values) for name, values in columns.items() if name not in ("label", "id")},
        preprocessing=preprocessing or ImagePreprocessing(size=image_size),
        on_unreadable=on_unreadable,
        min_images=min_images,
        small_classes=small_classes,
        max_pixels=max_pixels,
        check=check,
        names=[f"{file.name}, line {line}: {cells[header.index('path')]}" for line, cells in rows],
    )


def _read(file: Path, delimiter: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The column names and the rows, each with the line on which it starts."""
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv_reader.reader(text, delimiter=delimiter, strict=True)
            for cells in reader:
                if cells:
                    rows.append((line, [cell.strip() for cell in cells]))
                line = reader.line_num + 1
    except csv_reader.Error as error:
        raise ValueError(f"{file}, line {line}: {error}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    if not rows:
        raise ValueError(f"{file}: the file is empty; expected a first row with the columns {', '.join(REQUIRED)}.")
    header, rows = rows[0][1], rows[1:]
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise ValueError(
            f"{file}, line 1: no column {missing[0]!r} among {header}. The first row has to name the columns "
            f"{', '.join(REQUIRED)}" + ("." if len(header) > 1 else f"; cells are separated by {delimiter!r} (delimiter).")
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
        for name in ("path", "label", "id"):
            if name in header and not cells[header.index(name)]:
                raise ValueError(f"{file}, line {line}: the column {name!r} is empty.")
    return header, rows


def _typed(cells: list[str]) -> list[Any]:
    """The cells as integers or floats if all of them are plain decimals; codes such as 007 or 1e5 stay text."""
    filled = [cell for cell in cells if cell]
    for pattern, number in ((_INTEGER, int), (_DECIMAL, float)):
        if filled and all(pattern.fullmatch(cell) for cell in filled):
            return [number(cell) if cell else None for cell in cells]
    return cells


def _refuse_duplicates(file: Path, column: str, values: list[str], lines: list[int]) -> None:
    first: dict[str, int] = {}
    for value, line in zip(values, lines, strict=True):
        if value in first:
            raise ValueError(
                f"{file}, line {line}: {column} {value!r} is on line {first[value]} too; item ids have to be unique."
                + (" Add a column 'id' if one image belongs to several items." if column == "path" else "")
            )
        first[value] = line
