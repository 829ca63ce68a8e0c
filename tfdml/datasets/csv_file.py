"""Images listed in a CSV file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tfdml._listing import csv_rows, refuse_duplicates
from tfdml.datasets.dataset import Dataset
from tfdml.datasets.files import MAX_PIXELS, checked_dataset
from tfdml.preprocessing import ImagePreprocessing

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
    header, rows = csv_rows(file, delimiter)
    columns = {name: [cells[i] for _, cells in rows] for i, name in enumerate(header)}
    ids = columns.get("id", columns["path"])
    refuse_duplicates(file, "id" if "id" in columns else "path", ids, [line for line, _ in rows])
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


def _typed(cells: list[str]) -> list[Any]:
    """The cells as integers or floats if all of them are plain decimals; codes such as 007 or 1e5 stay text."""
    filled = [cell for cell in cells if cell]
    for pattern, number in ((_INTEGER, int), (_DECIMAL, float)):
        if filled and all(pattern.fullmatch(cell) for cell in filled):
            return [number(cell) if cell else None for cell in cells]
    return cells
