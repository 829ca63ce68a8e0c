"""`tfdml index`, as its users call it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tfdml.cli import app

pytestmark = pytest.mark.one_stack


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.npy"
    np.save(path, np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32))
    return path


def test_advice_is_measured_on_the_vectors(vectors):
    result = CliRunner().invoke(app, ["index", "advise", str(vectors), "--sample", "300", "--json"])
    assert result.exit_code == 0, result.output
    advice = json.loads(result.output)
    assert advice["sample"] == 300
    measured = {one["kind"]: one for one in advice["candidates"]}
    assert measured["exact"]["recall"] == 1.0
    assert measured[advice["chosen"].get("kind", advice["chosen"]["backend"])]["problem"] == ""
    assert "too few" in measured["ivf_pq"]["problem"]


def test_what_is_no_file_of_vectors_is_refused(tmp_path):
    path = tmp_path / "vectors.npy"
    path.write_bytes(b"no vectors")
    result = CliRunner().invoke(app, ["index", "advise", str(path)])
    assert isinstance(result.exception, ValueError)
    assert "expected a .npy file" in str(result.exception)
