"""Grocery Store: photographs of fruit, vegetables and cartons taken with a phone in shops."""

from __future__ import annotations

import csv
from pathlib import Path

from tfdml.datasets import download
from tfdml.datasets.dataset import Dataset
from tfdml.preprocessing import ImagePreprocessing

COMMIT = "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc"
ARCHIVE = download.Archive(
    url=f"https://github.com/marcusklasson/GroceryStoreDataset/archive/{COMMIT}.zip",
    file_name=f"grocery_store_{COMMIT[:7]}.zip",
    subfolder=f"GroceryStoreDataset-{COMMIT}/dataset",
    contents_sha256="a5af147c42f9b2464402564fe986b3af278f3e7522473cd2ba846af8de79c086",
)
SPLITS = ("train", "val", "test")


def grocery_store(
    image_size: tuple[int, int] | int = (64, 64),
    *,
    iconic: bool = False,
    preprocessing: ImagePreprocessing | None = None,
) -> Dataset:
    """5,421 photographs of 81 grocery products (43 coarse classes), taken with a phone in shops.

    The published train, val and test images are pooled in that order, for an open-set split by class. They are read from
    `$TFDML_DATA/grocery_store` when the variable is set, else downloaded once (about 120 MB) and checked against a SHA-256 of
    every file. Source: github.com/marcusklasson/GroceryStoreDataset (MIT); Klasson, Zhang, Kjellström, "A hierarchical grocery
    store image dataset with visual and semantic labels", WACV 2019.

    Args:
        image_size: height and width of the loaded images in pixels; the largest central part of that shape is kept.
        iconic: whether to add the shop's own clean picture of every product, 81 images, after the photographs. They are a
            natural gallery; `data.where(split="iconic")` selects them.
        preprocessing: instead of `image_size`, for full control.

    Returns:
        A `Dataset`; the ids are relative paths. Fields: `category` (the coarse class), `split` ("train", "val", "test",
        "iconic"), `path` and `title` (the product's name for people).

    Raises:
        DownloadError: when the data are not in `TFDML_DATA` and cannot be downloaded, or are not what they should be.

    Example:
        >>> data = tfdml.datasets.grocery_store()  # doctest: +SKIP
        >>> train, test = data.split_by_class(test=0.5, seed=0)  # doctest: +SKIP
    """
    preprocessing = preprocessing or ImagePreprocessing(size=image_size)
    folder = download.local_folder("grocery_store", "classes.csv") or download.fetch_folder("grocery_store", ARCHIVE)
    names, categories, pictures = _read_classes(folder / "classes.csv")
    rows = [(path, label, split) for split in SPLITS for path, label in _read_list(folder / f"{split}.txt")]
    if iconic:
        rows += [(path, label, "iconic") for label, path in enumerate(pictures)]
    missing = [path for path, _, _ in rows if not (folder / path).is_file()]
    if missing:
        raise download.DownloadError(
            f"grocery_store: {len(missing)} of {len(rows)} images are missing from {folder}, first {missing[0]!r}. "
            "Restore the folder, or unset TFDML_DATA to download the data."
        )
    paths, labels = [path for path, _, _ in rows], [label for _, label, _ in rows]
    return Dataset.from_files(
        [folder / path for path in paths],
        labels,
        ids=paths,
        class_names=names,
        fields={
            "category": [categories[label] for label in labels],
            "split": [split for _, _, split in rows],
            "path": paths,
            "title": [names[label].replace("-", " ") for label in labels],
        },
        preprocessing=preprocessing,
        name="grocery_store",
    )


def _read_classes(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Fine names, coarse names and iconic pictures, by fine class number."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["Class ID (int)"]))
    return (
        [row["Class Name (str)"] for row in rows],
        [row["Coarse Class Name (str)"].replace("-", " ") for row in rows],
        [row["Iconic Image Path (str)"].lstrip("/") for row in rows],
    )


def _read_list(path: Path) -> list[tuple[str, int]]:
    """The paths and fine class numbers of one published split."""
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(row[0].strip(), int(row[1])) for row in rows]
