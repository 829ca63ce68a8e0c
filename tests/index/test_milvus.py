"""Milvus: the neighbours and the recall are those of exact search, files are never changed, and secrets never stored."""

from __future__ import annotations

import dataclasses
import gc
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from index_checks import assert_threads_agree

from tfdml.index import ExactIndex, IndexFormatError, MilvusIndex, MilvusSpec, StoredIndex, _milvus_server, build_index
from tfdml.index.stored import settings_of

pytest.importorskip("pymilvus")

COUNT, DIMENSION = 800, 8
IDS = [f"item-{number}" for number in range(COUNT)]


def gallery(count=COUNT, seed=0):
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(1).normal(size=(80, DIMENSION))
    return (centers[random.integers(0, len(centers), count)] + 0.4 * random.normal(size=(count, DIMENSION))).astype(np.float32)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Of two kinds: the index, its file and its record."""
    home = tmp_path_factory.mktemp("milvus")
    indexes = {
        "hnsw": MilvusIndex.build(gallery(), IDS, "cosine", kind="hnsw", links=4, recall=0.9),
        "ivf_sq": MilvusIndex.build(gallery(), IDS, "euclidean", kind="ivf_sq", recall=0.9),
    }
    return {kind: (index, home / kind, index.save(home / kind)) for kind, index in indexes.items()}


@pytest.fixture(params=["hnsw", "ivf_sq"])
def saved(request, built):
    return built[request.param]


@pytest.fixture
def cluster():
    """Milvus Lite behind a socket, which is asked as a cluster is. (address, database, stop)"""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    with tempfile.TemporaryDirectory() as folder:
        server, database, port = start_server_in_thread(str(Path(folder) / "cluster"))
        yield f"http://127.0.0.1:{port}", database, lambda: server.stop(grace=None).wait()
        server.stop(grace=None)
        database.close()


def test_it_keeps_the_protocol_and_the_recall(saved) -> None:
    index = saved[0]
    assert isinstance(index, StoredIndex)
    assert (len(index), index.dimension, index.ids[7]) == (COUNT, DIMENSION, "item-7")
    queries = gallery(150, seed=3)
    truth, found = ExactIndex(gallery(), IDS, index.metric).search(queries, k=10), index.search(queries, k=10)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.numbers, truth.numbers, strict=True)])
    assert index.spec.recall >= 0.9
    assert recall >= 0.86
    same = found.numbers == truth.numbers
    np.testing.assert_allclose(found.distances[same], truth.distances[same], rtol=1e-6, atol=1e-7)
    assert index.search(np.zeros((0, DIMENSION)), k=2).numbers.shape == (0, 2)


def test_looking_at_everything_is_exact_search(saved) -> None:
    index, queries = saved[0], gallery(10, seed=4)
    truth = ExactIndex(gallery(), IDS, index.metric)
    found = index.search(queries, k=30, search_k=COUNT)
    np.testing.assert_array_equal(found.numbers, truth.search(queries, k=30).numbers)
    everything = index.search(queries[:2], k=COUNT)
    assert (np.sort(everything.numbers, axis=1) == np.arange(COUNT)).all()


def test_candidates_come_nearest_first(saved) -> None:
    index, query = saved[0], gallery(1, seed=9)[0]
    query = query / np.linalg.norm(query) if index.metric == "cosine" else query
    found = index.candidates(query.tolist(), 25, index.spec.search_k)
    assert 10 <= len(found) == len(set(found.tolist())) <= 25
    distances = np.linalg.norm(index.vectors(found).astype(np.float64) - query, axis=1)
    assert (np.diff(distances) >= 0).all()
    np.testing.assert_array_equal(index.gather(found), index.vectors(found))


def test_threads_may_search_at_once(built) -> None:
    assert_threads_agree(built["hnsw"][0], gallery(20, seed=5))


def test_searches_of_other_widths_at_once_do_not_change_each_other(built) -> None:
    from concurrent.futures import ThreadPoolExecutor

    index, queries = built["hnsw"][0], gallery(12, seed=6)
    widths = [1, 400] * 8
    expected = {width: index.search(queries, 5, search_k=width).numbers for width in set(widths)}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda width: index.search(queries, 5, search_k=width).numbers, widths))
    assert all((one == expected[width]).all() for one, width in zip(found, widths, strict=True))


def test_near_duplicates_come_in_the_right_order() -> None:
    vector = np.arange(1.0, 9.0)
    copies = np.stack([vector + step * 1e-5 for step in range(8)]).astype(np.float32)
    everything = np.concatenate([copies[::-1], gallery(60, seed=2)])
    index = MilvusIndex.build(everything, IDS[: len(everything)], "euclidean", kind="flat")
    assert index.spec.recall == 1.0
    assert index.search(vector, k=8).ids[0].tolist() == [f"item-{number}" for number in range(7, -1, -1)]


def test_several_open_one_file_and_none_changes_it(saved) -> None:
    index, path, spec = saved
    before = path.read_bytes()
    queries = gallery(5, seed=7)
    first, second = (MilvusIndex.load(path, spec, IDS) for _ in range(2))
    for one in (first, second):
        np.testing.assert_array_equal(one.search(queries, k=5).numbers, index.search(queries, k=5).numbers)
    folder = first._kept.folder
    assert (folder / "lite.db" / "LOCK").is_file()
    del first, one
    gc.collect()
    assert not folder.exists()
    assert second.search(queries, k=1).numbers.shape == (5, 1)
    assert path.read_bytes() == before


def test_another_process_opens_the_file_that_is_open_here(built) -> None:
    index, path, spec = built["hnsw"]
    program = (
        "import json, sys; from tfdml.index import load_index\n"
        "record, ids, query = json.loads(sys.argv[2]), [f'item-{n}' for n in range(800)], json.loads(sys.argv[3])\n"
        "print(load_index(sys.argv[1], record, ids).search(query, 5).numbers.tolist())"
    )
    query = gallery(1, seed=8)
    arguments = [str(path), json.dumps(spec.as_dict()), json.dumps(query.tolist())]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == index.search(query, 5).numbers.tolist(), done.stderr


def test_a_damaged_file_is_refused(saved, tmp_path) -> None:
    good, spec, path = saved[1].read_bytes(), saved[2], tmp_path / "index.milvus"
    for damaged in (good[:-9], good[:5000] + bytes([good[5000] ^ 1]) + good[5001:], b""):
        path.write_bytes(damaged)
        with pytest.raises(IndexFormatError, match=r"bytes, expected|SHA-256"):
            MilvusIndex.load(path, spec, IDS)
    # Even where the checksum is believed: a file without its database, and with that of other vectors.
    other = bytearray(good)
    other[:4] = np.float32(np.nan).tobytes()
    path.write_bytes(other)
    with pytest.raises(IndexFormatError, match="NaN"):
        MilvusIndex.load(path, spec, IDS, checksum=False)
    swapped = good[: 4 * DIMENSION], good[4 * DIMENSION : 8 * DIMENSION]
    path.write_bytes(swapped[1] + swapped[0] + good[8 * DIMENSION :])
    with pytest.raises(IndexFormatError, match="another vector for item 0"):
        MilvusIndex.load(path, spec, IDS, checksum=False)
    path.write_bytes(good[: spec.vectors_end] + bytes(len(good) - spec.vectors_end))
    with pytest.raises(IndexFormatError, match="cannot be unpacked"):
        MilvusIndex.load(path, spec, IDS, checksum=False)


@pytest.mark.parametrize("name", ["../outside", "/outside", "a\\..\\..\\b", "folder/"])
def test_a_database_stays_in_its_folder(built, tmp_path, name) -> None:
    _, source, spec = built["hnsw"]
    path = tmp_path / "index.milvus"
    path.write_bytes(source.read_bytes()[: spec.vectors_end])
    with open(path, "ab") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"" if name.endswith("/") else b"surprise")
    with pytest.raises(IndexFormatError, match="which it should not"):
        MilvusIndex.load(path, dataclasses.replace(spec, bytes=path.stat().st_size), IDS, checksum=False)
    assert [one.name for one in tmp_path.iterdir()] == ["index.milvus"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "scann"}, "kind='scann'; this reader knows 'flat', 'hnsw'"),
        ({"kind": "flat"}, "links=4 with kind='flat'"),
        ({"collection": "a; drop"}, "collection='a; drop'"),
        ({"cluster": 2}, "cluster=2"),
        ({"cluster": 1}, "do not make"),
        ({"dimension": 9}, "larger than the file that holds it"),
        ({"collection": "another"}, "has no collection 'another'"),
        ({"count": COUNT - 1}, "800 vectors of dimension 8"),
    ],
)
def test_a_record_that_is_not_that_of_the_file_is_refused(built, change, message) -> None:
    _, path, spec = built["hnsw"]
    ids = IDS[: change.get("count", COUNT)]
    with pytest.raises(IndexFormatError, match=message):
        MilvusIndex.load(path, dataclasses.replace(spec, **change), ids)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "ivf_pq"}, "kind='ivf_pq' is not known. Known: 'flat', 'hnsw', 'ivf', 'ivf_sq'"),
        ({"kind": "flat", "links": 3}, "links=3: kind='flat' has none"),
        ({"kind": "hnsw", "links": 1}, "links=1: Milvus takes 2 to 2048"),
        ({"kind": "ivf", "lists": 21}, "lists=21: expected at most 20"),
        ({"kind": "ivf", "lists": "many"}, "lists='many': expected a whole number"),
        ({"cluster": "somewhere"}, "cluster='somewhere': expected the address"),
        ({"cluster": 1}, "cluster=1: expected True, False, or an address"),
        ({"cluster": True}, "Set TFDML_MILVUS_URI"),
    ],
)
def test_settings_that_make_no_sense(monkeypatch, settings, message) -> None:
    monkeypatch.delenv("TFDML_MILVUS_URI", raising=False)
    with pytest.raises(ValueError, match=message):
        MilvusIndex.build(gallery(20), IDS[:20], **settings)


def test_without_pymilvus_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r"pip install 'tfdml\[milvus\]'"):
        build_index(gallery(20), IDS[:20], index="milvus")


def test_on_a_cluster_the_record_names_the_collection_and_no_secret(cluster, tmp_path, monkeypatch) -> None:
    address, database, stop = cluster
    monkeypatch.setattr(_milvus_server, "_SECONDS", 3.0)
    monkeypatch.setenv("TFDML_MILVUS_URI", address.replace("://", "://user:password@"))
    monkeypatch.setenv("TFDML_MILVUS_TOKEN", "a-secret")
    path = tmp_path / "index.milvus"
    forgotten = MilvusIndex.build(gallery(90), IDS[:90], kind="flat", cluster=address, token="another")
    assert len(database.list_collections()) == 1
    del forgotten
    gc.collect()
    assert database.list_collections() == []

    index = MilvusIndex.build(gallery(120), IDS[:120], kind="flat", cluster=True)
    spec = index.save(path)
    expected = index.search(gallery(4, seed=5), k=3).numbers
    np.testing.assert_array_equal(expected, ExactIndex(gallery(120), IDS[:120]).search(gallery(4, seed=5), k=3).numbers)
    del index
    gc.collect()
    assert database.list_collections() == [spec.collection]
    assert path.stat().st_size == 4 * 120 * DIMENSION
    written = json.dumps(spec.as_dict())
    for secret in ("secret", "password", "127.0.0.1"):
        assert secret not in written
    assert settings_of(spec.as_dict()) == {"backend": "milvus", "kind": "flat", "cluster": True}

    again = MilvusIndex.load(path, spec, IDS[:120])
    np.testing.assert_array_equal(again.search(gallery(4, seed=5), k=3).numbers, expected)
    assert "password" not in repr(again)
    with pytest.raises(IndexFormatError, match="has no collection 'tfdml_other'"):
        MilvusIndex.load(path, dataclasses.replace(spec, collection="tfdml_other"), IDS[:120])
    stop()
    with pytest.raises(ConnectionError, match=r"Milvus at http://127.0.0.1:\d+ does not do it") as caught:
        again.search(gallery(1), k=3)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConnectionError):
        MilvusIndex.load(path, spec, IDS[:120])


def test_the_record_is_read_back(built) -> None:
    record = built["ivf_sq"][2].as_dict()
    assert MilvusSpec.from_dict(json.loads(json.dumps(record))).as_dict() == record
    assert settings_of(record) == {"backend": "milvus", "kind": "ivf_sq"}
    assert settings_of(built["hnsw"][2].as_dict()) == {"backend": "milvus", "kind": "hnsw", "links": 4}
