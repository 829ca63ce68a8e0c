"""An embedding over Ray: workers and drivers that are killed lose nothing that was finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from embed_helpers import IMAGES, write_images

from tfdml import scale
from tfdml._ray import connected
from tfdml.scale.work_folder import WorkFolder

pytest.importorskip("ray")
pytestmark = pytest.mark.one_stack

PART = 2
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def undisturbed(exported, images, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    scale.embed(exported.path, images, out, part_size=PART, workers=0)
    return scale.EmbeddedFolder.open(out).fingerprint


@pytest.fixture(scope="module")
def session():
    with connected(None):
        yield


@pytest.mark.usefixtures("session")
def test_a_killed_worker_is_replaced_and_its_part_done_again(exported, images, undisturbed, tmp_path):
    seen = []

    def kill(progress):
        if progress.worker:
            seen.append(progress)
        if len(seen) == 1 and seen[0] is progress:
            os.kill(progress.worker["process"], signal.SIGKILL)

    summary = scale.embed(exported.path, images, tmp_path / "out", part_size=PART, workers=1, progress=kill)
    workers = [progress.worker["process"] for progress in seen]
    assert len(set(workers)) > 1, "the killed worker has done everything before it died"
    parts = [progress.part for progress in seen]
    assert sorted(parts) == list(range(IMAGES // PART)), "each part is reported once"
    assert (summary.items, summary.failed, summary.parts_kept) == (IMAGES, 1, 0)
    assert scale.EmbeddedFolder.open(tmp_path / "out").fingerprint == undisturbed


def test_a_killed_driver_takes_its_workers_along_and_another_one_goes_on(exported, images, undisturbed, tmp_path):
    out, folder = tmp_path / "out", WorkFolder(tmp_path / "out", "part")
    command = [sys.executable, "-m", "tfdml.cli", "embed", exported.path, images]
    command += ["--out", out, "--part-size", PART, "--workers", 1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "serving")))}
    with open(tmp_path / "log", "wb") as log:
        driver = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=environment)
        try:
            deadline = time.monotonic() + 120
            while len(folder.finished()) < 3 and time.monotonic() < deadline and driver.poll() is None:
                time.sleep(0.005)
        finally:
            driver.kill()
            driver.wait()
    done = folder.finished()
    assert 3 <= len(done) < IMAGES // PART, (tmp_path / "log").read_text()
    kept = {number: (folder.folder(number) / "vectors.npy").stat().st_mtime_ns for number in done}
    # What a worker that still lives finishes meanwhile is taken as it is.
    summary = scale.embed(exported.path, images, out, part_size=PART, workers=0)
    assert summary.parts_kept >= len(done)
    assert {number: (folder.folder(number) / "vectors.npy").stat().st_mtime_ns for number in done} == kept
    assert scale.EmbeddedFolder.open(out).fingerprint == undisturbed


@pytest.mark.usefixtures("session")
def test_what_a_worker_cannot_read_is_said_in_words(exported, images, tmp_path):
    def spoil(progress):
        if progress.worker is None:
            (images / "class-3/0033.png").rename(tmp_path / "0033.png")

    try:
        with pytest.raises(RuntimeError, match=r"gave up: SourceError: .*0033.png': No such file.*every worker must"):
            scale.embed(exported.path, images, tmp_path / "out", part_size=PART, workers=1, progress=spoil)
    finally:
        (tmp_path / "0033.png").rename(images / "class-3/0033.png")
