"""Every backend by one pair of functions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfdml.index import ExactIndex, ExactSpec, IndexFormatError, StoredIndex, build_index, index_settings, load_index
from tfdml.index.stored import settings_of

pytest.importorskip("faiss")

COUNT = 1100
IDS = [f"item-{number}" for number in range(COUNT)]
WORDS = ["exact", "annoy", "flat", "hnsw", "ivf", "ivf_sq", "ivf_pq"]


def gallery(count=COUNT, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)


@pytest.mark.parametrize("word", WORDS)
def test_build_save_load_and_build_again(word, tmp_path) -> None:
    count = 1100 if word == "ivf_pq" else 200
    index = build_index(gallery(count), IDS[:count], "cosine", word, recall=0.8)
    assert isinstance(index, StoredIndex)
    record = index.save(tmp_path / "file").as_dict()
    again = load_index(tmp_path / "file", record, IDS[:count])
    assert (type(again), again.kind, len(again), again.metric) == (type(index), index.kind, count, "cosine")
    queries = gallery(5, seed=1)
    np.testing.assert_array_equal(again.search(queries, k=3).numbers, index.search(queries, k=3).numbers)
    assert again.search(queries, k=3).ids.tolist() == index.search(queries, k=3).ids.tolist()
    np.testing.assert_array_equal(again.gather(np.array([3, 5])), index.vectors([3, 5]))
    query = (queries[0] / np.linalg.norm(queries[0])).tolist()
    assert again.candidates(query, 4, count)[0] == ExactIndex(gallery(count), IDS[:count]).search(queries[0], k=1).numbers[0, 0]
    assert settings_of(record) == index_settings(word)


def test_settings_are_kept_for_another_gallery() -> None:
    for settings in (
        {"backend": "annoy", "trees": 3},
        {"backend": "faiss", "kind": "ivf", "lists": 5},
        {"backend": "faiss", "kind": "hnsw", "links": 8},
    ):
        assert settings_of(build_index(gallery(120), IDS[:120], index=settings, recall=0.3).spec.as_dict()) == settings


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("scann", "index='scann' is not known. Known: 'exact', 'annoy', 'faiss'"),
        (7, "index=7: expected one of 'exact'"),
        ({"kind": "ivf"}, r"index\['backend'\]=None is not known"),
        ({"backend": "exact", "trees": 3}, "'trees' is not a setting of 'exact'. Known: none"),
        ({"backend": "faiss", "trees": 3}, "'trees' is not a setting of 'faiss'. Known: 'kind', 'lists'"),
        ({"backend": "milvus", "trees": 3}, "'trees' is not a setting of 'milvus'. Known: 'kind', 'lists'"),
        ({"backend": "faiss", "kind": "lsh"}, r"index\['kind'\]='lsh' is not known"),
    ],
)
def test_settings_that_make_no_sense(index, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_index(gallery(20), IDS[:20], index=index)


def test_an_exact_index_is_opened_only_as_what_it_is(tmp_path) -> None:
    path = tmp_path / "index.vectors"
    spec = ExactIndex(gallery(50), IDS[:50]).save(path)
    assert list(tmp_path.iterdir()) == [path]
    good = path.read_bytes()
    for damaged in (good[:-4], good[:-1] + b"\x7f", good + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(IndexFormatError, match=r"bytes, expected|SHA-256"):
            ExactIndex.load(path, spec, IDS[:50])
    path.write_bytes(good)
    with pytest.raises(ValueError, match="49 ids for 50"):
        ExactIndex.load(path, spec, IDS[:49])
    for change, message in [
        ({"dimension": 4, "count": 100, "search_k": 100}, "not of length 1"),
        ({"count": 49, "search_k": 49}, "do not make"),
        ({"search_k": 3}, "looks at all items"),
        ({"backend": "annoy"}, "backend='annoy'"),
    ]:
        with pytest.raises(IndexFormatError, match=message):
            ExactIndex.load(path, dataclasses.replace(spec, **change), IDS[:50])
    with pytest.raises(IndexFormatError, match="missing keys"):
        ExactSpec.from_dict({})


def test_a_backend_that_nobody_knows(tmp_path) -> None:
    for record in ({"backend": "scann"}, {}, [], {"backend": ["annoy"]}):
        with pytest.raises(IndexFormatError, match="this reader knows 'exact', 'annoy', 'faiss'"):
            load_index(tmp_path, record, [])
