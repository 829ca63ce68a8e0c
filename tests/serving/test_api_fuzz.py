"""Requests that no sane caller sends: by the service's own OpenAPI document, and with files that were made to do harm."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundle_helpers import pack_fake_model
from fakes import FakeHeld, FakeVersions
from fuzz_requests import fuzz
from service_runs import running
from tfdml_serving.engine.held import HeldVersion
from tfdml_serving.living import LivingCatalogue

# What a filter, an image or the length of an embedding has to be, no schema can say: so valid requests may be refused.
NOT_CHECKED = "positive_data_acceptance"
# It sends a wrong key in one header and the right one in the other, and the right one counts.
NEITHER_BY_KEY = "positive_data_acceptance,ignored_auth"


def by_document(url: str, folder: Path, *options: str, without: str = NOT_CHECKED) -> subprocess.CompletedProcess:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed in this environment")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--exclude-checks", without]
    command += ["--continue-on-failure", "--generation-deterministic", "--warnings", "off", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)


def test_the_document_is_true(tmp_path):
    with running(FakeVersions(FakeHeld(1), FakeHeld(2)), writable=True) as service:
        ended = by_document(service.url, tmp_path, "--phases", "examples,coverage", "--no-shrink")
        assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
        assert "17 selected / 17 total" in ended.stdout
        assert service.http.get("/healthz").status_code == 200


def test_the_document_is_true_where_a_key_is_needed(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("fuzz write 0123456789abcdefgh\n")
    with running(api_keys=keys, requests_per_second=0, writable=True) as service:
        options = ("--header", "X-API-Key: 0123456789abcdefgh", "-n", "4", "--phases", "fuzzing", "--no-shrink")
        ended = by_document(service.url, tmp_path, *options, "--include-tag", "search", without=NEITHER_BY_KEY)
        assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]


def test_a_thousand_hostile_requests_are_all_answered(tmp_path):
    version = tmp_path / "7"
    version.mkdir()
    pack_fake_model(version, np.random.default_rng(0).normal(size=(40, 4)))
    living = LivingCatalogue.open(tmp_path / "living.sqlite")
    with HeldVersion.open(version, living) as held, running(FakeVersions(held), living=living, writable=True) as service:
        report = asyncio.run(fuzz(service.url, 1000))
        assert not report.wrong, "\n".join(report.wrong[:5])
        assert report.total == 1000
        assert {200, 400, 404, 413, 415} <= set(report.statuses)
        assert service.http.get("/healthz").status_code == 200
