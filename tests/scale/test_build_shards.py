"""Indexes over embedded parts: every item in one shard, kept through interruptions, refused when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from embed_helpers import IMAGES, write_images

from tfdml import scale
from tfdml.index import ExactIndex

pytestmark = pytest.mark.one_stack


@pytest.fixture(scope="module")
def embedded(exported, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    scale.embed(exported.path, write_images(folder / "images"), folder / "out", part_size=16, workers=0)
    return folder / "out"


def build(embedded, out, **options):
    return scale.build_shards(embedded, out, **{"shards": 4, "workers": 0, **options})


class StopError(Exception):
    """What a test ends a run with."""


def test_all_items_with_an_embedding_are_in_the_shards_in_order(embedded, tmp_path):
    summary = build(embedded, tmp_path / "out", index="exact")
    assert (summary.items, summary.shards, summary.shards_kept, summary.recall) == (IMAGES - 1, 4, 0, 1.0)
    ids, vectors = scale.EmbeddedFolder.open(embedded).valid()
    whole, index = ExactIndex(vectors, ids), scale.open_shards(tmp_path / "out")
    assert list(index.ids) == ids
    assert max(map(len, index.shards)) - min(map(len, index.shards)) <= 1
    np.testing.assert_array_equal(index.search(vectors, 7).numbers, whole.search(vectors, 7).numbers)


def test_annoy_shards_reach_the_asked_recall_and_go_on_after_an_interruption(embedded, tmp_path):
    def stop(done, total):
        if done == 2:
            raise StopError

    with pytest.raises(StopError):
        build(embedded, tmp_path / "out", progress=stop)
    with pytest.raises(scale.WorkFolderError, match="2 shards are missing"):
        scale.open_shards(tmp_path / "out")
    summary = build(embedded, tmp_path / "out")
    assert summary.shards_kept == 2
    assert summary.recall >= 0.9
    assert summary.lowest_shard_recall >= 0.95
    file = tmp_path / "out/shards/shard-000001/index"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(scale.WorkFolderError, match=r"shard-000001.index: is damaged"):
        scale.open_shards(tmp_path / "out")
    assert build(embedded, tmp_path / "out").shards_kept == 3
    assert len(scale.open_shards(tmp_path / "out")) == IMAGES - 1


def test_ray_tasks_build_the_same_shards(embedded, tmp_path):
    pytest.importorskip("ray")
    build(embedded, tmp_path / "one")
    build(embedded, tmp_path / "other", workers=2)
    one, other = scale.open_shards(tmp_path / "one"), scale.open_shards(tmp_path / "other")
    assert [shard.spec for shard in one.shards] == [shard.spec for shard in other.shards]


def test_what_does_not_go_together_is_refused(embedded, tmp_path):
    build(embedded, tmp_path / "out", index="exact")
    for options, words in [
        ({"shards": 3}, "another shards"),
        ({"index": "annoy"}, "another index"),
        ({"seed": 1}, "another seed"),
    ]:
        with pytest.raises(scale.WorkFolderError, match=words):
            build(embedded, tmp_path / "out", **{"index": "exact", **options})
    for options, words in [
        ({"shards": 0}, "shards=0"),
        ({"shards": 1000}, "only 119 items with an embedding"),
        ({"index": "unknown"}, "index='unknown'"),
    ]:
        with pytest.raises(ValueError, match=words):
            build(embedded, tmp_path / "new", **options)
    with pytest.raises(scale.WorkFolderError, match="has no plan"):
        build(tmp_path, tmp_path / "new")
    with pytest.raises(scale.WorkFolderError, match="holds no plan of a sharded index"):
        scale.open_shards(embedded)
