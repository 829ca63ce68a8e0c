"""Datasets by name."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfdml.datasets.catalogue import rendered_catalogue
from tfdml.datasets.csv_file import csv
from tfdml.datasets.dataset import Dataset
from tfdml.datasets.download import DownloadError
from tfdml.datasets.folder import image_folder
from tfdml.datasets.grocery_data import grocery_store
from tfdml.datasets.mnist_data import mnist
from tfdml.datasets.omniglot_data import omniglot
from tfdml.datasets.shards import open_shards
from tfdml.datasets.shards.layout import MANIFEST

_LOADERS: dict[str, Callable[..., Dataset]] = {
    "grocery_store": grocery_store,
    "mnist": mnist,
    "omniglot": omniglot,
    "rendered_catalogue": rendered_catalogue,
}


def names() -> tuple[str, ...]:
    """The names that `load` knows.

    >>> names()
    ('grocery_store', 'mnist', 'omniglot', 'rendered_catalogue')
    """
    return tuple(_LOADERS)


def load(name: str | os.PathLike[str], **options: Any) -> Dataset:
    """The dataset called `name`, or the images at a path.

    Args:
        name: one of `names()`, the path of a folder of images (see `image_folder`), of shards (see `open_shards`), or of a CSV
            file (see `csv`).
        options: what the loader of that dataset takes.

    Raises:
        ValueError: when there is no such dataset and nothing at such a path.

    Example:
        >>> load("rendered_catalogue", classes=8, views=3)
        Dataset('rendered_catalogue': 24 images, 8 classes, 64 x 64 x 3)
    """
    if name in _LOADERS:
        return _LOADERS[str(name)](**options)
    path = Path(name).expanduser()
    if is_sharded(name):
        return open_shards(path, **options)
    if str(name) and path.is_dir():
        return image_folder(path, **options)
    if path.is_file() and path.suffix.lower() == ".csv":
        return csv(path, **options)
    known = ", ".join(repr(known) for known in _LOADERS)
    raise ValueError(f"name={str(name)!r} is not known. Known: {known}, or the path of a folder of images or of a .csv file.")


def is_sharded(name: str | os.PathLike[str]) -> bool:
    """Whether `name` is a folder of shards, which `open_shards` opens.

    >>> is_sharded("omniglot")
    False
    """
    return bool(str(name)) and (Path(name).expanduser() / MANIFEST).is_file()


def first_available(*names: str, **options: Any) -> Dataset:
    """The first of several datasets that can be had, for programs that should run with or without data and a network.

    Args:
        names: in order of preference; the last is usually `"rendered_catalogue"`, which needs neither.
        options: what the loaders take.

    Raises:
        DownloadError: when none of them can be had; the reason is that of the last.

    Example:
        >>> first_available("rendered_catalogue", classes=4, views=2).num_classes
        4
    """
    for name, following in itertools.pairwise(names):
        try:
            return load(name, **options)
        except DownloadError as error:
            warnings.warn(f"{error} Taking {following!r} instead.", stacklevel=2)
    return load(names[-1], **options)
