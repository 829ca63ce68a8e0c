"""Labelled images in a few large files, for data that fit neither into memory nor into a folder."""

from __future__ import annotations

from tfdml.datasets.shards.convert import index_shards, write_shards
from tfdml.datasets.shards.dataset import ShardedDataset, open_shards
from tfdml.datasets.shards.layout import ShardError

__all__ = ["ShardError", "ShardedDataset", "index_shards", "open_shards", "write_shards"]
