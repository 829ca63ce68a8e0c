"""FAISS: the neighbours and the recall are those of exact search, and no wrong file is ever opened."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
from index_checks import assert_threads_agree
from sklearn.neighbors import NearestNeighbors

from tfdml.index import FAISS_KINDS, ExactIndex, FaissIndex, FaissSpec, IndexFormatError, VectorIndex

faiss = pytest.importorskip("faiss")

COUNT, DIMENSION = 1400, 12
IDS = [f"item-{number}" for number in range(COUNT)]
APPROXIMATE = [kind for kind in FAISS_KINDS if kind != "flat"]


def gallery(count=COUNT, dimension=DIMENSION, seed=0):
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(1).normal(size=(140, dimension))
    return (centers[random.integers(0, len(centers), count)] + 0.4 * random.normal(size=(count, dimension))).astype(np.float32)


@pytest.fixture(scope="module")
def built():
    """One index of each kind; the metrics take turns."""
    metrics = dict(zip(FAISS_KINDS, ["cosine", "euclidean", "cosine", "euclidean", "cosine"], strict=True))
    return {kind: FaissIndex.build(gallery(), IDS, metric, kind=kind, recall=0.9) for kind, metric in metrics.items()}


@pytest.fixture(params=FAISS_KINDS)
def index(request, built):
    return built[request.param]


@pytest.fixture
def saved(index, tmp_path):
    path = tmp_path / "index.faiss"
    return path, index.save(path)


def test_it_keeps_the_protocol(index) -> None:
    assert isinstance(index, VectorIndex)
    assert (len(index), index.dimension, index.ids[7]) == (COUNT, DIMENSION, "item-7")
    found = index.search(gallery(3, seed=5), k=4)
    assert found.numbers.shape == found.ids.shape == found.distances.shape == (3, 4)
    assert found.distances.dtype == np.float32
    assert index.search(gallery(1, seed=5)[0], k=1).numbers.shape == (1, 1)
    assert index.search(np.zeros((0, DIMENSION)), k=2).numbers.shape == (0, 2)


def test_the_distances_are_those_of_scikit_learn_and_the_neighbours_too_up_to_the_recall(index) -> None:
    queries = gallery(200, seed=3)
    peer = NearestNeighbors(metric=index.metric, algorithm="brute").fit(gallery().astype(np.float64))
    distances, numbers = peer.kneighbors(queries.astype(np.float64), 10)
    found = index.search(queries, k=10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.numbers, numbers, strict=True)])
    if index.kind == "flat":
        assert recall == 1
        np.testing.assert_allclose(found.distances, distances, rtol=1e-5, atol=1e-6)
    assert index.spec.recall >= 0.9
    assert recall >= 0.87  # the standard error is about a point
    assert (np.diff(found.distances, axis=1) >= 0).all()
    same = found.numbers == numbers
    np.testing.assert_allclose(found.distances[same], distances[same], rtol=1e-5, atol=1e-6)


def test_looking_at_everything_is_exact_search(index) -> None:
    queries = gallery(20, seed=4)
    truth = ExactIndex(gallery(), IDS, index.metric)
    for k in (1, 30):
        found = index.search(queries, k=k, search_k=COUNT)
        np.testing.assert_array_equal(found.numbers, truth.search(queries, k=k).numbers)
    everything = index.search(queries[:2], k=COUNT)
    assert (np.sort(everything.numbers, axis=1) == np.arange(COUNT)).all()


def test_near_duplicates_come_in_the_right_order(index) -> None:
    vector = index.vectors([11])[0].astype(np.float64)
    away = np.random.default_rng(0).normal(size=DIMENSION)
    away -= (away @ vector) * vector / (vector @ vector)
    copies = np.stack([vector + step * 2e-5 * away for step in range(8)]).astype(np.float32)
    everything = np.concatenate([copies[::-1], gallery(600, seed=2)])
    ids = [str(number) for number in range(len(everything))]
    kind = index.kind if index.kind != "ivf_pq" else "ivf_sq"
    other = FaissIndex.build(everything, ids, index.metric, kind=kind, recall=0.9)
    assert other.search(vector, k=8).ids[0].tolist() == [str(number) for number in range(7, -1, -1)]


@pytest.mark.parametrize("settings", [{"kind": "hnsw", "links": 3}, {"kind": "ivf_sq"}])
def test_a_higher_recall_looks_at_more_items(settings) -> None:
    vectors = np.random.default_rng(0).normal(size=(800, 24))
    ids = [str(number) for number in range(800)]
    low, high = (FaissIndex.build(vectors, ids, **settings, recall=recall).spec for recall in (0.5, 0.99))
    assert low.search_k < high.search_k <= 800
    assert high.recall >= 0.99
    assert low.recall >= 0.5


def test_a_recall_of_one_is_reached() -> None:
    vectors = np.random.default_rng(0).normal(size=(1100, 8))
    index = FaissIndex.build(vectors, [str(n) for n in range(1100)], kind="ivf_pq", recall=1.0)
    assert index.spec.recall == 1.0


def test_candidates_come_nearest_first(index) -> None:
    query = gallery(1, seed=9)[0]
    if index.metric == "cosine":
        query /= np.linalg.norm(query)
    found = index.candidates(query.tolist(), 25, index.spec.search_k)
    assert 10 <= len(found) <= 25
    assert len(set(found.tolist())) == len(found)
    distances = np.linalg.norm(index.vectors(found).astype(np.float64) - query, axis=1)
    assert (np.diff(distances) >= 0).all()
    assert found[0] == index.search(query, k=1).numbers[0, 0]
    np.testing.assert_array_equal(index.gather(found), index.vectors(found))


def test_a_search_that_finds_too_few_is_widened(built, monkeypatch) -> None:
    index = built["ivf"]
    widths = []
    looked_at = FaissIndex._looked_at

    def miser(self, batch, wanted, width):
        widths.append(width)
        found = looked_at(self, batch, wanted, width)
        return found if width >= len(self) else [numbers[:2] for numbers in found]

    monkeypatch.setattr(FaissIndex, "_looked_at", miser)
    query = gallery(1, seed=4)
    found = index.search(query, k=10)
    assert widths == sorted(widths)
    np.testing.assert_array_equal(found.numbers, ExactIndex(gallery(), IDS, index.metric).search(query, k=10).numbers)


def test_a_few_items_of_every_kind() -> None:
    for count in (1, 2, 17):
        for kind in ("flat", "hnsw", "ivf", "ivf_sq"):
            vectors = gallery(count)
            index = FaissIndex.build(vectors, IDS[:count], "euclidean", kind=kind)
            assert index.search(vectors, k=count).numbers[:, 0].tolist() == list(range(count))


def test_copies_of_one_vector() -> None:
    vectors = np.ones((200, 4), np.float32)
    for kind in ("flat", "hnsw", "ivf", "ivf_sq"):
        found = FaissIndex.build(vectors, IDS[:200], kind=kind).search(vectors[:2], k=20)
        assert [len(set(row)) for row in found.numbers.tolist()] == [20, 20]
        np.testing.assert_allclose(found.distances, 0, atol=1e-6)


def test_the_callers_own_queries_are_what_is_measured() -> None:
    found = FaissIndex.build(gallery(300), IDS[:300], kind="ivf", queries=gallery(64, seed=5), recall=0.9)
    assert found.spec.recall_queries == 32
    with pytest.raises(ValueError, match="queries: received none"):
        FaissIndex.build(gallery(300), IDS[:300], queries=np.zeros((0, DIMENSION)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "lsh"}, "kind='lsh' is not known. Known: 'flat', 'hnsw'"),
        ({"metric": "dot"}, "metric='dot'"),
        ({"recall": 0}, "recall=0: expected a share"),
        ({"seed": -1}, "seed=-1"),
        ({"search_k": 0}, "search_k=0"),
        ({"kind": "ivf", "lists": 0}, "lists=0"),
        ({"kind": "ivf", "lists": "many"}, "lists='many'"),
        ({"kind": "ivf", "lists": 60}, "lists=60: more than there are items"),
        ({"kind": "ivf", "links": 8}, "links=8: kind='ivf' has none"),
        ({"kind": "hnsw", "lists": 8}, "lists=8: kind='hnsw' has none"),
        ({"kind": "hnsw", "links": 1}, "links=1: a graph needs 2"),
        ({"kind": "ivf_pq"}, "50 items are too few to train product codes"),
        ({"kind": "ivf", "search_k": 1, "recall": 1.0}, "search_k=1 reaches a recall@10 of 0.*Allow a larger search_k"),
    ],
)
def test_bad_options(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        FaissIndex.build(gallery(50), IDS[:50], **options)


def test_code_bytes_must_divide_the_dimension() -> None:
    with pytest.raises(
        ValueError, match=r"code_bytes=5: does not divide the dimension 12. Expected one of \[1, 2, 3, 4, 6, 12\]"
    ):
        FaissIndex.build(gallery(), IDS, kind="ivf_pq", code_bytes=5)


@pytest.mark.parametrize(
    ("query", "message"),
    [(np.ones(5), r"received \(5,\)"), (np.full(DIMENSION, np.nan), "NaN or infinity"), (np.zeros(DIMENSION), "zero vector")],
)
def test_bad_queries(built, query, message) -> None:
    with pytest.raises(ValueError, match=message):
        built["ivf"].search(query)
    with pytest.raises(ValueError, match=f"only {COUNT} items can be returned"):
        built["ivf"].search(gallery(1), k=COUNT + 1)


def test_save_and_load(index, saved) -> None:
    path, spec = saved
    assert list(path.parent.iterdir()) == [path]
    record = json.loads(json.dumps(spec.as_dict()))
    assert FaissSpec.from_dict(record) == spec
    queries = gallery(20, seed=3)
    mapped = FaissIndex.load(path, record, IDS)
    loaded = FaissIndex.load(str(path), spec, IDS, prefault=True, checksum=False)
    for again in (mapped, loaded):
        np.testing.assert_array_equal(again.search(queries, k=5).numbers, index.search(queries, k=5).numbers)
        np.testing.assert_array_equal(again.vectors([7]), index.vectors()[7:8])
        assert str(again) == str(index)
    again.save(path.parent / "copy.faiss")
    assert (path.parent / "copy.faiss").read_bytes() == path.read_bytes()


def test_the_lists_stay_on_the_disk(built, tmp_path) -> None:
    spec = built["ivf_pq"].save(tmp_path / "i")
    mapped = FaissIndex.load(tmp_path / "i", spec, IDS)
    loaded = FaissIndex.load(tmp_path / "i", spec, IDS, prefault=True)
    kinds = [type(faiss.downcast_InvertedLists(one._structure.invlists)).__name__ for one in (mapped, loaded)]
    assert kinds == ["OnDiskInvertedLists", "ArrayInvertedLists"]
    assert not mapped.vectors().flags.writeable


def test_saving_over_an_index_leaves_its_readers_alone(saved) -> None:
    path, spec = saved
    reader = FaissIndex.load(path, spec, IDS)
    before = reader.search(gallery(5, seed=2), k=5).numbers
    FaissIndex.build(gallery(50, seed=8), IDS[:50], spec.metric, kind="flat").save(path)
    np.testing.assert_array_equal(reader.search(gallery(5, seed=2), k=5).numbers, before)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(saved, built, monkeypatch) -> None:
    path, _ = saved
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        built["hnsw"].save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_truncated_missing_and_flipped(saved) -> None:
    path, spec = saved
    good = path.read_bytes()
    path.write_bytes(good[:-100])
    with pytest.raises(IndexFormatError, match=rf"{spec.bytes - 100} bytes, expected {spec.bytes}. The file is truncated"):
        FaissIndex.load(path, spec, IDS)
    random = np.random.default_rng(0)
    for position in random.integers(0, len(good), 20):
        bad = bytearray(good)
        bad[position] ^= 1 << int(random.integers(8))
        path.write_bytes(bad)
        with pytest.raises(IndexFormatError, match="SHA-256"):
            FaissIndex.load(path, spec, IDS)
    path.unlink()
    with pytest.raises(IndexFormatError, match="does not exist"):
        FaissIndex.load(path, spec, IDS)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_faiss_bytes_of_another_index_are_refused_though_checksums_are_right(built, kind, tmp_path) -> None:
    """What only a careful forger could write: FAISS's part of one index before the vectors of another."""
    index = built[kind]
    path, spec = tmp_path / "index.faiss", index.save(tmp_path / "index.faiss")
    tail = path.read_bytes()[spec.vectors_at :]

    def forged(head: bytes) -> FaissSpec:
        head += bytes(-len(head) % 4096)
        path.write_bytes(head + tail)
        return dataclasses.replace(spec, vectors_at=len(head), bytes=len(head) + len(tail))

    for other in built.values():
        if other is not index:
            other.save(tmp_path / "other")
            with pytest.raises(IndexFormatError, match=r"this is not a FAISS index of 1400 items|FAISS|do not find themselves"):
                FaissIndex.load(path, forged((tmp_path / "other").read_bytes()[: other.spec.vectors_at]), IDS, checksum=False)
    for head in (b"", b"\0" * 4096, b"IwFl" + b"\xff" * 4092):
        with pytest.raises(IndexFormatError):
            FaissIndex.load(path, forged(head), IDS, checksum=False)


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize(("dimension", "count"), [(6, 2 * COUNT), (24, COUNT // 2)])
def test_a_wrong_shape_is_refused_though_the_checksum_is_right(built, kind, dimension, count, tmp_path) -> None:
    spec = built[kind].save(tmp_path / "i")
    wrong = dataclasses.replace(spec, metric="euclidean", dimension=dimension, count=count)
    with pytest.raises(IndexFormatError, match=f"{count} items with dimension={dimension}"):
        FaissIndex.load(tmp_path / "i", wrong, [str(number) for number in range(count)])


def test_damage_inside_a_graph_is_noticed_without_a_checksum(built, tmp_path) -> None:
    index = built["hnsw"]
    path = tmp_path / "index.faiss"
    spec = index.save(path)
    good = path.read_bytes()
    neighbours = faiss.vector_to_array(index._structure.hnsw.neighbors).astype("<i4")
    place = good.index(neighbours[:64].tobytes())
    bad = good[:place] + np.int32(COUNT + 5).tobytes() + good[place + 4 :]
    path.write_bytes(bad)
    with pytest.raises(IndexFormatError, match=r"this is not a FAISS index of 1400 items|cannot read it"):
        FaissIndex.load(path, spec, IDS, checksum=False)


def test_damage_inside_the_vectors_is_noticed_without_a_checksum(saved) -> None:
    path, spec = saved
    vectors = np.memmap(path, "<f4", "r+", spec.vectors_at, (COUNT, DIMENSION))
    vectors[20, 3] = np.nan
    vectors.flush()
    with pytest.raises(IndexFormatError, match="NaN or infinity"):
        FaissIndex.load(path, spec, IDS, checksum=False)
    if spec.metric == "cosine":
        vectors[20] = 3
        vectors.flush()
        with pytest.raises(IndexFormatError, match="not of length 1"):
            FaissIndex.load(path, spec, IDS, checksum=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimension": None}, "dimension=None, expected int"),
        ({"count": 0}, "count=0"),
        ({"links": 0}, "links=0 with kind='hnsw'"),
        ({"kind": "ivf"}, "lists=0 with kind='ivf'"),
        ({"kind": "lsh"}, "kind='lsh'"),
        ({"backend": "annoy"}, "backend='annoy'"),
        ({"recall": 1.2}, "recall=1.2"),
        ({"vectors_at": 8192}, "from byte 8192 on do not make"),
        ({"extra": 1}, r"unknown keys \['extra'\]"),
    ],
)
def test_bad_records(built, change, message) -> None:
    with pytest.raises(IndexFormatError, match=message):
        FaissSpec.from_dict({**built["hnsw"].spec.as_dict(), **change})


def test_ids_that_are_not_the_items(saved) -> None:
    path, spec = saved
    with pytest.raises(ValueError, match="1399 ids for 1400 vectors"):
        FaissIndex.load(path, spec, IDS[1:])


def test_many_threads_get_the_same_answers(index) -> None:
    assert_threads_agree(index, gallery(30, seed=6))


def test_temporary_files_go_with_the_index(tmp_path) -> None:
    index = FaissIndex.build(gallery(80), IDS[:80], kind="ivf", folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    del index
    assert list(tmp_path.iterdir()) == []


def test_without_faiss_the_error_names_the_extra(saved, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'tfdml\[faiss\]'"):
        FaissIndex.build(gallery(20), IDS[:20])
    with pytest.raises(ImportError, match=r"pip install 'tfdml\[faiss\]'"):
        FaissIndex.load(*saved, IDS)
