"""`FaissIndex` of vectors that are not one array: the same index, whatever they come in, and nothing left behind."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest

from tfdml.index import ExactIndex, FaissIndex, FaissSpec, IndexFormatError, _faiss_build
from tfdml.index._clusters import Clusters
from tfdml.index._ids import PackedIds

faiss = pytest.importorskip("faiss")

COUNT, DIMENSION = 3000, 8
IDS = [f"item-{number}" for number in range(COUNT)]
SETTINGS = {"kind": "ivf_sq", "lists": 20, "recall": 0.8}


def gallery(count=COUNT, seed=0):
    centres = np.random.default_rng(1).normal(size=(60, DIMENSION))
    random = np.random.default_rng(seed)
    return (centres[random.integers(0, 60, count)] + 0.3 * random.normal(size=(count, DIMENSION))).astype(np.float32)


@pytest.fixture(scope="module")
def whole():
    return FaissIndex.build(gallery(), IDS, **SETTINGS)


def in_parts(rows):
    return [rows[:1], rows[1:1700], rows[1700:]]


def as_files(rows, folder):
    for number, part in enumerate(in_parts(rows)):
        np.save(folder / f"{number}.npy", part)
    return [folder / f"{number}.npy" for number in range(3)]


@pytest.mark.parametrize("form", ["parts", "generator", "function", "files", "file", "map"])
def test_blocks_make_the_same_file_as_the_array(form, whole, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tfdml.index._blocks._BLOCK_BYTES", 4 * DIMENSION * 700)
    rows = gallery()
    np.save(tmp_path / "all.npy", rows)
    vectors = {
        "parts": lambda: in_parts(rows),
        "generator": lambda: (part for part in in_parts(rows)),
        "function": lambda: lambda: iter(in_parts(rows)),
        "files": lambda: as_files(rows, tmp_path),
        "file": lambda: str(tmp_path / "all.npy"),
        "map": lambda: np.load(tmp_path / "all.npy", mmap_mode="r"),
    }[form]()
    blocks_of_ids = [IDS[:10], IDS[10:2000], IDS[2000:]]
    found = FaissIndex.build(vectors, itertools.chain.from_iterable(blocks_of_ids), **SETTINGS)
    assert found.spec == whole.spec  # with the SHA-256 of the file
    assert found.ids[-1] == IDS[-1]


def test_codes_written_in_several_parts_and_groups_are_the_same(whole, monkeypatch) -> None:
    monkeypatch.setattr(_faiss_build, "_PART_BYTES", 4 * DIMENSION * 500)
    monkeypatch.setattr(_faiss_build, "_GROUP_BYTES", 4096)
    stages = []
    found = FaissIndex.build(gallery(), IDS, **SETTINGS, progress=lambda *stage: stages.append(stage))
    assert found.spec == whole.spec
    assert [done for stage, done, _ in stages if stage == "encoding"] == [500, 1000, 1500, 2000, 2500, 3000]
    assert sum(stage == "writing lists" for stage, _, _ in stages) > 5
    assert stages[-1] == ("measuring", COUNT, COUNT)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf_sq"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_float16_answers_for_the_rounded_vectors(kind, metric, tmp_path) -> None:
    rows, queries = gallery(800), gallery(20, seed=3)
    index = FaissIndex.build(rows, IDS[:800], metric, kind=kind, stored="float16", recall=0.9)
    path = tmp_path / "index.faiss"
    spec = index.save(path, move=True)
    assert list(tmp_path.iterdir()) == [path]
    assert spec.bytes - spec.vectors_at == 2 * rows.size
    loaded = FaissIndex.load(path, spec.as_dict(), IDS[:800])
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_array_equal(loaded.vectors([5, 7]), rows[[5, 7]].astype(np.float16).astype(np.float32))
    truth = ExactIndex(rows.astype(np.float16).astype(np.float32), IDS[:800], "euclidean").search(
        queries / np.linalg.norm(queries, axis=1, keepdims=True) if metric == "cosine" else queries, k=5
    )
    for one in (index, loaded):
        found = one.search(queries, k=5, search_k=800)
        np.testing.assert_array_equal(found.numbers, truth.numbers)
        expected = truth.distances**2 / 2 if metric == "cosine" else truth.distances
        np.testing.assert_allclose(found.distances, expected, rtol=1e-4, atol=1e-6)
    assert spec.recall >= 0.9


def test_numbers_too_large_for_float16() -> None:
    with pytest.raises(ValueError, match="stored='float16': a number of vectors 0 to 9 is beyond 65504"):
        FaissIndex.build(gallery(10) * 1e6, IDS[:10], "euclidean", kind="flat", stored="float16")
    with pytest.raises(ValueError, match="stored='float8' is not known"):
        FaissIndex.build(gallery(10), IDS[:10], stored="float8")


def test_a_record_that_does_not_say_how_the_vectors_are_stored_is_of_float32(whole, tmp_path) -> None:
    whole.save(tmp_path / "i")
    record = whole.spec.as_dict()
    del record["stored"]
    assert FaissSpec.from_dict(record) == whole.spec
    assert FaissIndex.load(tmp_path / "i", record, IDS).spec == whole.spec
    for stored, message in (("float16", "do not make"), ("float8", "stored='float8'")):
        with pytest.raises(IndexFormatError, match=message):
            FaissSpec.from_dict({**record, "stored": stored})


def test_many_lists_in_two_levels() -> None:
    rows = gallery(6000, seed=4)
    clusters = Clusters(faiss, rows, 1200, 0)
    assert clusters.centres.shape == (1200, DIMENSION)
    found = clusters.assign(rows)
    true = faiss.knn(rows, clusters.centres, 1)[1][:, 0]
    assert (found == true).mean() > 0.9
    far = np.linalg.norm(rows - clusters.centres[found], axis=1).mean()
    assert far < 1.02 * np.linalg.norm(rows - clusters.centres[true], axis=1).mean()
    copies = Clusters(faiss, np.ones((2048, 4), np.float32), 1024, 0)
    assert copies.centres.shape == (1024, 4)
    assert (copies.assign(np.ones((3, 4), np.float32)) < 1024).all()


def test_a_graph_over_many_centres(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(_faiss_build, "MANY_LISTS", 30)
    monkeypatch.setattr("tfdml.index.faiss.MANY_LISTS", 30)
    index = FaissIndex.build(gallery(), IDS, kind="ivf", lists=60, recall=0.95)
    spec = index.save(tmp_path / "i")
    loaded = FaissIndex.load(tmp_path / "i", spec, IDS)
    assert type(faiss.downcast_index(loaded._structure.quantizer)).__name__ == "IndexHNSWFlat"
    found = loaded.search(gallery(50, seed=9), 10)
    truth = ExactIndex(gallery(), IDS).search(gallery(50, seed=9), 10)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(found.numbers, truth.numbers, strict=True)]) > 9


def test_items_that_no_training_saw_are_the_queries(monkeypatch) -> None:
    monkeypatch.setattr(_faiss_build, "_EXAMPLES_OF_CODES", 1000)
    monkeypatch.setattr(_faiss_build, "_EXAMPLES_PER_LIST", 20)
    monkeypatch.setattr(FaissIndex, "_twin", None)  # nothing is built twice
    index = FaissIndex.build(gallery(), IDS, kind="ivf", lists=40, recall=0.9)
    truth = ExactIndex(gallery(), IDS).search(gallery(200, seed=9), 10).numbers
    found = index.search(gallery(200, seed=9), 10).numbers
    recall = np.mean([len(set(a) & set(b)) for a, b in zip(found, truth, strict=True)]) / 10
    assert index.spec.recall_queries == 256
    assert 0.87 < recall < 1
    assert abs(index.spec.recall - recall) < 0.06


@pytest.mark.parametrize(
    ("vectors", "ids", "message"),
    [
        (lambda: iter([]), 3, "received no part that holds any"),
        (lambda: iter([gallery(2)]), 3, "the blocks hold 2 vectors for 3 ids"),
        (lambda: iter([gallery(2), gallery(2)]), 3, "the blocks hold more than 3 vectors for 3 ids"),
        (lambda: [gallery(2), gallery(2)], 3, "received 3 ids for 4 vectors"),
        (lambda: iter([gallery(2), gallery(2)[:, :3]]), 4, "begins with row 2 has dimension 3, those before it 8"),
        (lambda: iter([gallery(2), gallery(2) * np.nan]), 4, "counted from row 2 on: NaN or infinity"),
        (lambda: iter([gallery(2), gallery(2) * 0]), 4, "counted from row 2 on: zero vector"),
        (lambda: iter([gallery(2)[0]]), 8, r"expected a 2-D array \[items, dimension\], received shape \(8,\)"),
        (lambda: np.array([["a"]]), 1, "expected real numbers"),
    ],
)
def test_bad_blocks_leave_nothing(vectors, ids, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        FaissIndex.build(vectors(), (str(number) for number in range(ids)), kind="flat", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none(tmp_path) -> None:
    (tmp_path / "a.npy").write_bytes(b"nothing of NumPy's")
    np.savez(tmp_path / "b.npz", gallery(3))
    with pytest.raises(ValueError, match=r"a\.npy is no array that np.save has written"):
        FaissIndex.build(tmp_path / "a.npy", IDS[:3])
    with pytest.raises(ValueError, match=r"b\.npz holds several arrays"):
        FaissIndex.build(tmp_path / "b.npz", IDS[:3])


@pytest.mark.parametrize("stage", ["storing", "encoding", "writing lists", "measuring"])
def test_an_interrupted_build_leaves_nothing(stage, tmp_path) -> None:
    def interrupt(name, done, count):
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FaissIndex.build(gallery(), IDS, **SETTINGS, folder=tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_moving_over_an_index_is_one_step(whole, tmp_path, monkeypatch) -> None:
    path = tmp_path / "index.faiss"
    path.write_bytes(b"old")
    index = FaissIndex.build(gallery(300), IDS[:300], kind="ivf", folder=tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            index.save(path, move=True)
    assert path.read_bytes() == b"old"
    spec = index.save(path, move=True)
    assert FaissIndex.load(path, spec, IDS[:300]).spec == index.spec
    again = index.save(tmp_path / "copy", move=True)  # it is no longer its own to move: a copy
    assert (again, path.exists()) == (spec, True)
    np.testing.assert_array_equal(
        index.search(gallery(2), 3).numbers, FaissIndex.load(path, spec, IDS[:300]).search(gallery(2), 3).numbers
    )


def test_ids_of_a_generator_are_checked() -> None:
    with pytest.raises(ValueError, match="'item-5' is the id of item 5 and of item 9"):
        FaissIndex.build(gallery(10), iter([*IDS[:9], "item-5"]), kind="flat")
    with pytest.raises(ValueError, match="received 9 ids for 10 vectors"):
        FaissIndex.build(gallery(10), iter(IDS[:9]), kind="flat")
    packed = PackedIds(IDS[:10])
    assert FaissIndex.build(gallery(10), packed, kind="flat").ids is packed
