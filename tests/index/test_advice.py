"""The advice follows from what was measured, and says what was not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfdml.index import Expected, Measured, advise, build_index
from tfdml.index._growth import extrapolate, settings_for
from tfdml.index.advice import Candidate, _choice

GB = 10**9


def gallery(count=600, dimension=8):
    random = np.random.default_rng(0)
    centers = np.repeat(random.normal(size=(count // 20, dimension)), 20, 0)
    return (centers + 0.2 * random.normal(size=(count, dimension))).astype(np.float32)


def candidate(kind, latency, memory, problem=""):
    expected = None if problem else Expected(10**6, latency, 1.0, memory, memory)
    return Candidate(kind, {"backend": kind}, (), expected, problem)


@pytest.fixture(scope="module")
def advice():
    return advise(gallery(), kinds=["exact", "annoy", "ivf_pq"], recall=0.9, sample=400)


def test_it_measures_on_the_vectors_and_its_choice_can_be_built(advice):
    exact, annoy, codes = advice.candidates
    assert (advice.items, advice.dimension, advice.sample) == (600, 8, 400)
    assert [one.items for one in annoy.measured] == [100, 400]
    assert exact.measured[-1].recall == 1.0
    assert annoy.measured[-1].recall >= 0.9
    assert annoy.measured[-1].p50_ms <= annoy.measured[-1].p99_ms
    assert "too few to train product codes" in codes.problem
    assert (codes.expected, codes.measured) == (None, ())
    assert advice.chosen == {"backend": "exact"}
    assert "misses nothing" in advice.reason
    assert advice.as_dict()["candidates"][1]["measured"][1]["items"] == 400
    rows = gallery()
    for one in (exact, annoy):
        built = build_index(rows, [str(number) for number in range(len(rows))], index=one.settings, recall=0.9)
        assert built.kind == one.kind
        # What it says of its file is what the file has, to a tenth.
        assert one.expected.file_bytes == pytest.approx(built.spec.bytes, rel=0.1)


def test_a_recall_that_nothing_reaches_is_an_error():
    with pytest.raises(ValueError, match=r"no index can be advised\. ivf_pq: .*too few"):
        advise(gallery(), kinds=["ivf_pq"], sample=400)


def test_ones_own_queries_are_the_queries():
    far = 100 + np.random.default_rng(5).normal(size=(40, 8))
    found = advise(gallery(300), queries=far, kinds=["annoy"], metric="euclidean", sample=300, recall=0.5)
    assert found.candidates[0].measured[-1].items == 300  # none is put aside


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall": 0}, "recall=0: expected a share"),
        ({"recall": 1.5}, "recall=1.5: expected a share"),
        ({"items": 0}, "items=0: expected a whole number"),
        ({"items": 2.5}, r"items=2.5: expected a whole number"),
        ({"memory_bytes": 0}, "memory_bytes=0: expected a number > 0"),
        ({"latency_ms": -1}, "latency_ms=-1: expected a number > 0"),
        ({"metric": "dot"}, "metric='dot' is not known"),
        ({"sample": 3}, "sample=3: expected a whole number >= 64"),
        ({"kinds": []}, "kinds: received none"),
        ({"kinds": ["lsh"]}, "index='lsh' is not known"),
        ({"kinds": [{"backend": "milvus"}]}, "cannot be measured here"),
        ({"queries": np.zeros((3, 7))}, r"queries: expected shape \[B, 8\]"),
        ({"queries": np.ones((1, 8))}, "queries: received 1"),
        ({"vectors": np.ones(8)}, r"vectors: expected a 2-D array"),
        ({"vectors": np.ones((20, 8))}, "vectors: 20 are too few"),
        ({"vectors": np.full((300, 8), np.nan)}, "NaN or infinity"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    vectors = options.pop("vectors", gallery(200))
    with pytest.raises(ValueError, match=message):
        advise(vectors, **{"kinds": ["exact"], **options})


@pytest.mark.parametrize(
    ("found", "kind", "machines", "reason"),
    [
        ([("exact", 5, GB), ("hnsw", 1, GB)], "exact", 1, "misses nothing"),
        ([("exact", 50, GB), ("hnsw", 1, GB), ("ivf", 2, GB)], "hnsw", 1, "answer fastest"),
        ([("exact", 5, 3 * GB), ("hnsw", 1, 3 * GB), ("ivf_pq", 9, GB)], "ivf_pq", 1, "exact, hnsw do not fit"),
        ([("hnsw", 30, GB), ("annoy", 20, GB)], "annoy", 1, "but not within 10 ms"),
        ([("hnsw", 1, 30 * GB), ("ivf_pq", 9, 7 * GB)], "ivf_pq", 4, "over 4 machines"),
        ([("exact", 1, GB, "broken"), ("hnsw", 1, GB)], "hnsw", 1, "answer fastest"),
    ],
)
def test_the_choice(found, kind, machines, reason):
    one, many, why = _choice([candidate(*each) for each in found], 2 * GB, 10.0, 0.95)
    assert (one.kind, many) == (kind, machines)
    assert reason in why


def test_extrapolation_follows_what_was_measured_and_what_must_be():
    small = Measured(1000, 0.95, 1.0, 2.0, 1.0, 1000 * 600)
    large = dataclasses.replace(small, items=4000, p50_ms=2.0, build_seconds=4.0, file_bytes=4000 * 600)
    settings = settings_for({"backend": "faiss", "kind": "ivf_pq"}, 10**8, 128)
    assert settings == {"backend": "faiss", "kind": "ivf_pq", "lists": 40_000, "code_bytes": 32}
    # A query doubled with four times the items: as the root, which is what lists grow with at least. A build grew as the items.
    codes = extrapolate("ivf_pq", (small, large), settings, 400_000, 128)
    assert codes.latency_ms == pytest.approx(20.0)
    assert codes.build_seconds == pytest.approx(400.0)
    assert codes.file_bytes == 400_000 * 600
    assert codes.memory_bytes == 400_000 * 40 + 4 * 128 * 40_000
    # Exact search compares everything, however little a sample shows of it.
    assert extrapolate("exact", (small, large), {}, 400_000, 128).latency_ms == pytest.approx(200.0)
    # A graph that did not slow down, and one build that was all it had.
    flat = dataclasses.replace(large, p50_ms=1.0)
    assert extrapolate("hnsw", (small, flat), {"links": 16}, 400_000, 128).latency_ms == pytest.approx(100**0.1)
    assert extrapolate("hnsw", (large,), {"links": 16}, 400_000, 128).memory_bytes == 400_000 * 640
