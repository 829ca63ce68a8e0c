"""Work for many machines that survives their crashes: images embedded part by part, indexes built shard by shard.

`embed` and `build_shards` write into a folder: first a plan, then unit after unit, each complete or absent. Whatever is killed,
the same call goes on where it stopped. They run in this process, on the cores of this machine or on a Ray cluster. Importing
this loads neither Ray nor TensorFlow.
"""

from __future__ import annotations

from tfdml.scale.embedded import EmbeddedFolder
from tfdml.scale.embedding import EmbedProgress, EmbedSummary, embed
from tfdml.scale.indexing import ShardsSummary, build_shards, open_shards
from tfdml.scale.work_folder import UnitRecord, WorkFolderError

__all__ = [
    "EmbedProgress",
    "EmbedSummary",
    "EmbeddedFolder",
    "ShardsSummary",
    "UnitRecord",
    "WorkFolderError",
    "build_shards",
    "embed",
    "open_shards",
]
