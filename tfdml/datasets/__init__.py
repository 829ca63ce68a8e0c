"""Labelled images: loaders, the `Dataset` they return, and its splits by class."""

from __future__ import annotations

from tfdml.datasets.catalogue import rendered_catalogue
from tfdml.datasets.csv_file import csv
from tfdml.datasets.dataset import Dataset
from tfdml.datasets.download import DownloadError
from tfdml.datasets.files import UnreadableImageError
from tfdml.datasets.folder import image_folder
from tfdml.datasets.grocery_data import grocery_store
from tfdml.datasets.mnist_data import mnist
from tfdml.datasets.omniglot_data import omniglot
from tfdml.datasets.registry import first_available, is_sharded, load, names
from tfdml.datasets.shards import ShardedDataset, ShardError, index_shards, open_shards, write_shards

__all__ = [
    "Dataset",
    "DownloadError",
    "ShardError",
    "ShardedDataset",
    "UnreadableImageError",
    "csv",
    "first_available",
    "grocery_store",
    "image_folder",
    "index_shards",
    "is_sharded",
    "load",
    "mnist",
    "names",
    "omniglot",
    "open_shards",
    "rendered_catalogue",
    "write_shards",
]
