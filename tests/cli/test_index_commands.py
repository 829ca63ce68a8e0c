"""`tfdml index`, as its users call it."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tfdml.cli import app
from tfdml.cli.indexing import _bytes, _whole_number
from tfdml.index import advise

pytestmark = pytest.mark.one_stack


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.npy"
    np.save(path, np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32))
    return path


@pytest.fixture
def quick(monkeypatch):
    """The two kinds that are built in no time."""
    monkeypatch.setattr("tfdml.cli.indexing.advise", functools.partial(advise, kinds=["exact", "annoy"]))


def run(*arguments) -> str:
    result = CliRunner().invoke(app, ["index", "advise", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_advice_as_json(vectors):
    advice = json.loads(run(vectors, "--sample", 200, "--items", "1e8", "--memory", "2GB", "--recall", 0.8, "--json"))
    assert (advice["sample"], advice["items"], advice["memory_bytes"]) == (200, 10**8, 2 * 10**9)
    measured = {one["kind"]: one for one in advice["candidates"]}
    assert set(measured) == {"exact", "annoy", "hnsw", "ivf", "ivf_sq", "ivf_pq"}
    assert measured["exact"]["measured"][-1]["recall"] == 1.0
    assert "too few" in measured["ivf_pq"]["problem"]
    assert measured["hnsw"]["expected"]["items"] == 10**8
    assert advice["chosen"]["kind"] == "ivf_sq"  # the only one below 2 GB: 16 bytes an item
    assert advice["machines"] == 1


def test_measured_and_extrapolated_stand_apart(vectors, quick):
    told = run(vectors, "--items", "1e9", "--memory", "8GB", "--queries", vectors)
    first, second = told.index("Measured on 400 vectors"), told.index("Extrapolated to 1,000,000,000 items, not measured")
    assert first < second
    assert "machines and search them as one" in " ".join(told[second:].split())
    assert '{"backend": "annoy"' in told or '{"backend": "exact"' in told


def test_a_bundle_knows_its_vectors_and_its_metric(tmp_path, quick):
    from bundle_helpers import pack_fake_model

    rows = np.random.default_rng(1).normal(size=(150, 6)).astype(np.float32)
    (tmp_path / "1").mkdir()
    pack_fake_model(tmp_path / "1", rows, recall=0.9, trees=4)
    advice = json.loads(run(tmp_path / "1", "--json"))
    assert (advice["items"], advice["dimension"]) == (150, 6)


def test_what_is_no_file_of_vectors_is_refused(tmp_path):
    path = tmp_path / "vectors.npy"
    path.write_bytes(b"no vectors")
    result = CliRunner().invoke(app, ["index", "advise", str(path)])
    assert isinstance(result.exception, ValueError)
    assert "expected a .npy file" in str(result.exception)


def test_sizes_and_numbers_are_read_as_people_write_them():
    assert [_bytes(text) for text in ("8GB", "512 mb", "1.5T", "100")] == [8 * 10**9, 512 * 10**6, 15 * 10**11, 100]
    assert [_whole_number(text) for text in ("1e8", "1_000", "2,000,000")] == [10**8, 1000, 2 * 10**6]
    for read, text in ((_bytes, "much"), (_bytes, "-1GB"), (_whole_number, "1.5"), (_whole_number, "many")):
        with pytest.raises(ValueError, match=f"{text}: expected"):
            read(text)
