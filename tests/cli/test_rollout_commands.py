"""`tfdml versions` and `tfdml rollback`, which need neither a service nor TensorFlow."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bundle_helpers import pack_fake_model
from tfdml_serving.rollout.pin import NAME, Pin
from typer.testing import CliRunner

from tfdml.bundle import BundleError
from tfdml.cli import app


@pytest.fixture
def directory(tmp_path):
    for version in (1, 2, 4):
        path = tmp_path / "products" / str(version)
        path.mkdir(parents=True)
        pack_fake_model(path, np.random.default_rng(version).normal(size=(10 + version, 5)))
    return tmp_path / "products"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def listed(directory, *options: object) -> dict[int, dict]:
    return {row["version"]: row for row in json.loads(call("versions", directory, "--json", *options))["versions"]}


def test_back_and_forth(directory):
    assert {version: row["served"] for version, row in listed(directory).items()} == {1: "", 2: "", 4: "latest"}
    assert [row["items"] for row in listed(directory).values()] == [11, 12, 14]
    assert "serve version 2 from now on" in call("rollback", directory)
    assert Pin(directory / NAME).read() == 2
    assert listed(directory)[2]["served"] == "pinned"
    assert "serve version 1 from now on" in call("rollback", directory)  # once more, from the pinned one
    with pytest.raises(ValueError, match="no version before 1"):
        call("rollback", directory)
    assert "serve version 4" in call("rollback", directory, 4)
    assert "serve the latest version again, now 4" in call("rollback", directory, "--latest")
    assert not (directory / NAME).exists()
    call("rollback", directory, "--latest")  # nothing to undo
    assert "products" in call("versions", directory)


def test_only_a_good_version_is_gone_back_to(directory):
    damaged = directory / "2" / "saved_model.pb"
    damaged.write_bytes(damaged.read_bytes()[::-1])
    with pytest.raises(BundleError, match=r"saved_model\.pb: its SHA-256"):
        call("rollback", directory)
    assert not (directory / NAME).exists()
    assert listed(directory)[2]["problem"] is None
    assert "SHA-256" in listed(directory, "--verify")[2]["problem"]
    (directory / "2" / "assets.extra/retrieval/manifest.json").write_text("{}")
    assert "manifest" in listed(directory)[2]["problem"]
    call("rollback", directory, "--no-verify")  # at one's own risk: services refuse it
    assert Pin(directory / NAME).read() == 2


def test_what_is_there_is_named(directory, tmp_path):
    with pytest.raises(ValueError, match=r"version=3: there is no such version; .* has 1, 2, 4"):
        call("rollback", directory, 3)
    with pytest.raises(ValueError, match="Name the directory above it"):
        call("versions", directory / "1")
    with pytest.raises(ValueError, match="contradict"):
        call("rollback", directory, 2, "--latest")
    with pytest.raises(BundleError, match="there is nothing here"):
        call("versions", tmp_path / "nowhere")


def test_a_file_of_ones_own(directory, tmp_path):
    state = tmp_path / "state" / "pin.json"
    call("rollback", directory, "--state", state)
    assert (Pin(state).read(), (directory / NAME).exists()) == (2, False)
    Pin(state).write(3)
    assert "Version 3 is pinned and not there" in call("versions", directory, "--state", state)
    state.write_text("[]")
    with pytest.raises(ValueError, match=r"pin\.json: cannot be read"):
        call("versions", directory, "--state", state)
