"""Annoy: the recall it reports is the recall it has, and no wrong file is ever opened."""

from __future__ import annotations

import dataclasses
import json
import os

import annoy
import numpy as np
import pytest
from index_checks import assert_threads_agree

from tfdml.index import AnnoyIndex, AnnoySpec, ExactIndex, IndexFormatError
from tfdml.index import _annoy_file as annoy_file

COUNT, DIMENSION = 400, 12
IDS = [f"item-{number}" for number in range(COUNT)]


def gallery(count=COUNT, dimension=DIMENSION, seed=0):
    random = np.random.default_rng(seed)
    centers = random.normal(size=(max(1, count // 10), dimension))
    return (centers[random.integers(0, len(centers), count)] + 0.4 * random.normal(size=(count, dimension))).astype(np.float32)


@pytest.fixture(scope="module", params=["cosine", "euclidean"])
def index(request):
    return AnnoyIndex.build(gallery(), IDS, request.param)


@pytest.fixture
def saved(index, tmp_path):
    path = tmp_path / "index.ann"
    return path, index.save(path)


def test_the_reported_recall_holds_for_queries_never_seen() -> None:
    everything = gallery(3000, 32)
    vectors, queries = everything[:2600], everything[2600:]
    ids = [str(number) for number in range(len(vectors))]
    found = AnnoyIndex.build(vectors, ids, recall=0.9)
    numbers = found.search(queries, k=10).numbers
    truth = ExactIndex(vectors, ids).search(queries, k=10).numbers
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(numbers, truth, strict=True)])
    assert found.spec.recall >= 0.9
    assert recall >= 0.87  # 400 queries: the standard error is about a point
    assert abs(recall - found.spec.recall) < 0.05
    assert (found.spec.recall_at, found.spec.recall_asked, found.spec.recall_queries) == (10, 0.9, 256)


def test_a_higher_recall_looks_at_more_candidates() -> None:
    vectors = np.random.default_rng(0).normal(size=(800, 24))
    ids = [str(number) for number in range(800)]
    low, high = (AnnoyIndex.build(vectors, ids, recall=recall).spec for recall in (0.5, 0.99))
    assert low.search_k < high.search_k
    assert high.recall >= 0.99 > low.recall >= 0.5


def test_a_recall_of_one_is_exact_search() -> None:
    vectors = gallery(300, 16)
    ids = [str(number) for number in range(300)]
    found = AnnoyIndex.build(vectors, ids, recall=1.0)
    assert found.spec.recall == 1.0
    wide = found.search(vectors, k=20, search_k=300 * found.spec.trees)
    np.testing.assert_array_equal(wide.numbers, ExactIndex(vectors, ids).search(vectors, k=20).numbers)


def test_the_callers_own_queries_are_what_is_measured() -> None:
    vectors = gallery()
    found = AnnoyIndex.build(vectors, IDS, queries=gallery(64, seed=5), recall=0.9)
    assert found.spec.recall_queries == 32
    with pytest.raises(ValueError, match="queries: received none"):
        AnnoyIndex.build(vectors, IDS, queries=np.zeros((0, DIMENSION)))
    with pytest.raises(ValueError, match=r"received \(3, 5\)"):
        AnnoyIndex.build(vectors, IDS, queries=np.ones((3, 5)))


def test_a_recall_out_of_reach_names_the_best_and_the_way_out() -> None:
    vectors = np.random.default_rng(0).normal(size=(2000, 32))
    with pytest.raises(
        ValueError, match=r"recall=0.99: search_k=30 with 2 trees reaches a recall@10 of 0\.\d+ .*Build more trees"
    ):
        AnnoyIndex.build(vectors, [str(n) for n in range(2000)], recall=0.99, trees=2, search_k=30)


@pytest.mark.parametrize("count", [1, 2, 3, 11, 12])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_small_galleries(count, metric, tmp_path) -> None:
    vectors = gallery(count, 3) + 0.1
    ids = IDS[:count]
    found = AnnoyIndex.build(vectors, ids, metric)
    again = AnnoyIndex.load(tmp_path / "i", found.save(tmp_path / "i"), ids)
    np.testing.assert_array_equal(
        again.search(vectors, k=count).numbers, ExactIndex(vectors, ids, metric).search(vectors, k=count).numbers
    )


def test_the_neighbours_are_those_of_exact_search(index) -> None:
    vectors = gallery()
    queries = gallery(30, seed=9)
    exact = ExactIndex(vectors, IDS, index.metric).search(queries, k=10)
    found = index.search(queries, k=10, search_k=COUNT * index.spec.trees)
    np.testing.assert_array_equal(found.numbers, exact.numbers)
    np.testing.assert_array_equal(found.ids, exact.ids)
    np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-6)


def test_near_duplicates_come_in_the_right_order() -> None:
    random = np.random.default_rng(1)
    base, offset = random.normal(size=(2, 256))
    base, offset = base / np.linalg.norm(base), offset / np.linalg.norm(offset)
    steps = np.array([3, 1, 4, 2, 5]) * 1e-4
    vectors = np.concatenate([base + steps[:, None] * offset, random.normal(size=(300, 256))])
    found = AnnoyIndex.build(vectors, [str(n) for n in range(305)], "euclidean").search(base, k=5)
    assert found.numbers[0].tolist() == [1, 3, 0, 2, 4]
    np.testing.assert_allclose(found.distances[0], np.array([1, 2, 3, 4, 5]) * 1e-4, rtol=1e-2)


def test_the_nearest_of_near_duplicates_are_found_where_annoy_itself_mixes_them_up() -> None:
    random = np.random.default_rng(1)
    base, offset = random.normal(size=(2, 64))
    base /= np.linalg.norm(base)
    offset -= base * (base @ offset)
    steps = np.arange(12, 0, -1)
    near = base + 3e-5 * steps[:, None] * offset / np.linalg.norm(offset)
    vectors = np.concatenate([near, random.normal(size=(300, 64))])
    ids = [str(number) for number in range(len(vectors))]
    found = AnnoyIndex.build(vectors, ids).search(base, k=2)
    assert found.numbers[0].tolist() == [11, 10]


def test_a_gallery_of_copies_of_one_vector() -> None:
    vectors = np.tile(gallery(1), (200, 1))
    found = AnnoyIndex.build(vectors, IDS[:200])
    assert found.search(vectors[0], k=200).numbers[0].tolist() == list(range(200))
    assert found.search(vectors[0], k=3).distances.max() == 0


def test_every_search_returns_k_neighbours(index) -> None:
    for k in (1, 10, 57, COUNT):
        numbers = index.search(gallery(3, seed=4), k=k, search_k=1).numbers
        assert numbers.shape == (3, k)
        assert all(len(set(row)) == k for row in numbers.tolist())
    with pytest.raises(ValueError, match=f"k={COUNT + 1}: only {COUNT}"):
        index.search(gallery(1), k=COUNT + 1)


def test_a_forest_that_returns_too_few_is_searched_wider_and_then_in_full(index, monkeypatch) -> None:
    widths = []

    class Miser:
        def get_nns_by_vector(self, vector, wanted, search_k):
            widths.append(search_k)
            return [5]

    monkeypatch.setattr(index, "_annoy", Miser())
    query = gallery(1, seed=4)
    found = index.search(query, k=10)
    assert widths == sorted(widths)
    assert len(widths) > 1
    np.testing.assert_array_equal(found.numbers, ExactIndex(gallery(), IDS, index.metric).search(query, k=10).numbers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall": 0}, "recall=0: expected a share"),
        ({"recall": 1.5}, "recall=1.5"),
        ({"recall": float("nan")}, "recall=nan"),
        ({"trees": 0}, "trees=0: expected a whole number >= 1, or 'auto'"),
        ({"trees": "many"}, "trees='many'"),
        ({"seed": -1}, "seed=-1"),
        ({"search_k": 0}, "search_k=0"),
    ],
)
def test_bad_options(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        AnnoyIndex.build(gallery(20), IDS[:20], **options)


def test_save_and_load(index, saved) -> None:
    path, spec = saved
    assert spec == index.spec
    assert path.stat().st_size == spec.bytes
    assert list(path.parent.iterdir()) == [path]
    record = json.loads(json.dumps(spec.as_dict()))
    assert AnnoySpec.from_dict(record) == spec
    queries = gallery(20, seed=3)
    for again in (AnnoyIndex.load(path, record, IDS), AnnoyIndex.load(str(path), spec, IDS, prefault=True, checksum=False)):
        np.testing.assert_array_equal(again.search(queries, k=5).numbers, index.search(queries, k=5).numbers)
        assert (len(again), again.dimension, again.metric, again.ids[3]) == (COUNT, DIMENSION, index.metric, "item-3")
        np.testing.assert_array_equal(again.vectors([7]), index.vectors()[7:8])


def test_the_same_seed_gives_the_same_file(index, saved) -> None:
    assert AnnoyIndex.build(gallery(), IDS, index.metric).spec == index.spec
    assert AnnoyIndex.build(gallery(), IDS, index.metric, seed=1).spec.sha256 != index.spec.sha256


def test_a_loaded_index_can_be_saved_again(saved, tmp_path) -> None:
    path, spec = saved
    AnnoyIndex.load(path, spec, IDS).save(tmp_path / "copy.ann")
    assert (tmp_path / "copy.ann").read_bytes() == path.read_bytes()


def test_saving_over_an_index_leaves_its_readers_alone(saved) -> None:
    path, spec = saved
    reader = AnnoyIndex.load(path, spec, IDS)
    before = reader.search(gallery(5, seed=2), k=5).numbers
    AnnoyIndex.build(gallery(50, seed=8), IDS[:50], spec.metric).save(path)
    np.testing.assert_array_equal(reader.search(gallery(5, seed=2), k=5).numbers, before)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(saved, index, monkeypatch) -> None:
    path, _ = saved
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        AnnoyIndex.build(gallery(30), IDS[:30], index.metric).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_truncated(saved) -> None:
    path, spec = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(IndexFormatError, match=rf"{spec.bytes - 100} bytes, expected {spec.bytes}. The file is truncated"):
        AnnoyIndex.load(path, spec, IDS)


def test_missing(saved, tmp_path) -> None:
    with pytest.raises(IndexFormatError, match="does not exist"):
        AnnoyIndex.load(tmp_path / "none", saved[1], IDS)
    with pytest.raises(IndexFormatError, match="does not exist, or is no file"):
        AnnoyIndex.load(tmp_path, saved[1], IDS)


def test_every_flipped_bit_is_noticed(saved) -> None:
    path, spec = saved
    good = path.read_bytes()
    random = np.random.default_rng(0)
    for position in random.integers(0, len(good), 40):
        bad = bytearray(good)
        bad[position] ^= 1 << int(random.integers(8))
        path.write_bytes(bad)
        with pytest.raises(IndexFormatError, match="SHA-256"):
            AnnoyIndex.load(path, spec, IDS)


@pytest.mark.parametrize("dimension", [1, 2, 5, 6, 8, 11, 13, 16, 24, 400])
def test_a_wrong_dimension_is_refused_though_the_checksum_is_right(saved, dimension) -> None:
    path, spec = saved
    with pytest.raises(IndexFormatError, match=f"dimension={dimension} and"):
        AnnoyIndex.load(path, dataclasses.replace(spec, dimension=dimension), IDS)


@pytest.mark.parametrize("dimension", [12, 11, 13])
def test_a_wrong_metric_is_refused_though_the_checksum_is_right(saved, dimension) -> None:
    path, spec = saved
    other = {"cosine": "euclidean", "euclidean": "cosine"}[spec.metric]
    with pytest.raises(IndexFormatError, match=f"metric='{other}'"):
        AnnoyIndex.load(path, dataclasses.replace(spec, metric=other, dimension=dimension), IDS)


@pytest.mark.parametrize("count", [1, COUNT - 1, COUNT + 1, 10**9])
def test_a_wrong_count_is_refused_though_the_checksum_is_right(saved, count) -> None:
    path, spec = saved
    with pytest.raises(IndexFormatError, match=f"{count} items"):
        AnnoyIndex.load(path, dataclasses.replace(spec, count=count), IDS)


def test_more_trees_than_the_file_has(saved) -> None:
    path, spec = saved
    with pytest.raises(IndexFormatError, match="Annoy found"):
        AnnoyIndex.load(path, dataclasses.replace(spec, trees=10 * spec.trees), IDS)


def test_ids_that_are_not_the_items(saved) -> None:
    path, spec = saved
    with pytest.raises(ValueError, match="399 ids for 400 vectors"):
        AnnoyIndex.load(path, spec, IDS[1:])
    with pytest.raises(ValueError, match="'item-0' is the id of item 0 and of item 399"):
        AnnoyIndex.load(path, spec, [*IDS[:-1], "item-0"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimension": None}, "dimension=None, expected int"),
        ({"count": 0}, "count=0"),
        ({"count": "12"}, "count='12', expected int"),
        ({"trees": True}, "trees=True"),
        ({"recall": 1.2}, "recall=1.2"),
        ({"metric": "dot"}, "metric='dot'"),
        ({"backend": "faiss"}, "backend='faiss'"),
        ({"extra": 1}, r"unknown keys \['extra'\]"),
    ],
)
def test_bad_records(index, change, message) -> None:
    with pytest.raises(IndexFormatError, match=message):
        AnnoySpec.from_dict({**index.spec.as_dict(), **change})


def test_a_record_that_lacks_a_key_or_is_none(index) -> None:
    record = index.spec.as_dict()
    del record["seed"]
    with pytest.raises(IndexFormatError, match=r"missing keys \['seed'\]"):
        AnnoySpec.from_dict(record)
    with pytest.raises(IndexFormatError, match="expected a mapping, received list"):
        AnnoySpec.from_dict([])


def test_nan_in_a_file_is_refused(tmp_path) -> None:
    vectors = gallery(50)
    vectors[20, 3] = np.nan
    path = tmp_path / "nan.ann"
    annoy_file.write(vectors, "euclidean", 10, 0, path)
    with pytest.raises(IndexFormatError, match="NaN or infinity"):
        annoy_file.map_items(path, DIMENSION, "euclidean", 50)


def test_vectors_that_are_not_normalised_are_refused_under_cosine(tmp_path) -> None:
    path = tmp_path / "long.ann"
    annoy_file.write(gallery(50), "cosine", 10, 0, path)
    with pytest.raises(IndexFormatError, match="not of length 1"):
        annoy_file.map_items(path, DIMENSION, "cosine", 50)


class BrokenForest:
    """An Annoy that does what it says but for one thing."""

    def __init__(self, forest, **changes):
        self._forest, self._changes = forest, changes

    def __getattr__(self, name):
        return self._changes.get(name) or getattr(self._forest, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"get_nns_by_vector": lambda v, n, search_k: [0]},
            r"a search for 10 neighbours of item 0 returned 1 of 400.*reinstall",
        ),
        ({"get_nns_by_vector": lambda v, n, search_k: [3] * n}, "returned 1 of 400"),
        ({"get_nns_by_vector": lambda v, n, search_k: list(range(390, 390 + n))}, "does not find itself"),
        ({"get_n_items": lambda: 3}, "Annoy found 3 items"),
        ({"get_item_vector": lambda n: [0.0] * DIMENSION}, "another vector for item 0"),
    ],
)
def test_the_self_test_notices(index, saved, changes, message) -> None:
    path, spec = saved
    forest = annoy.AnnoyIndex(DIMENSION, annoy_file.ANNOY_METRIC[spec.metric])
    forest.load(str(path))
    annoy_file.self_test(forest, index.vectors(), COUNT, spec.trees, path)
    with pytest.raises(IndexFormatError, match=message):
        annoy_file.self_test(BrokenForest(forest, **changes), index.vectors(), COUNT, spec.trees, path)


def test_many_threads_get_the_same_answers(index) -> None:
    assert_threads_agree(index, gallery(60, seed=6))


def test_temporary_files_go_with_the_index(tmp_path) -> None:
    index = AnnoyIndex.build(gallery(80), IDS[:80], folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    del index
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_trees_point_anywhere_is_refused_before_annoy_follows(saved) -> None:
    path, spec = saved
    good = path.read_bytes()
    words = np.frombuffer(good, "<i4").reshape(-1, {"cosine": 3, "euclidean": 4}[spec.metric] + DIMENSION)
    child = {"cosine": 1, "euclidean": 2}[spec.metric]
    inner = COUNT + int(np.flatnonzero(words[COUNT:, 0] > words.shape[1])[0])
    for value in (-1, inner, len(words), 2**31 - 1):
        bad = words.copy()
        bad[inner, child] = value
        path.write_bytes(bad.tobytes())
        with pytest.raises(IndexFormatError, match="laid out differently"):
            AnnoyIndex.load(path, spec, IDS, checksum=False)
