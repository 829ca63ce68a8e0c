"""Publication: all or nothing, whatever happens."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tfdml.bundle import BundleError, Publication
from tfdml.bundle import publish as publishing

HELPER = Path(__file__).with_name("kill_exports.py")


def put(publication, text="content"):
    (publication.directory / "folder").mkdir()
    (publication.directory / "folder" / "file").write_text(text)


def published(to, version=None, text="content", meanwhile=lambda: None) -> Path:
    """A version with a file in a folder; `meanwhile` happens while it is in the making."""
    with Publication(to, version) as publication:
        put(publication, text)
        meanwhile()
        return publication.publish()


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


def test_versions_count_up(tmp_path):
    for version, expected in [(None, "1"), (None, "2"), (7, "7"), (None, "8"), (0, "0"), (3, "3"), (None, "9")]:
        assert published(tmp_path / "new" / "products", version) == tmp_path / "new" / "products" / expected
    assert names(tmp_path / "new" / "products") == ["0", "1", "2", "3", "7", "8", "9"]
    assert (tmp_path / "new" / "products" / "9" / "folder" / "file").read_text() == "content"


def test_nothing_is_left_without_publish(tmp_path):
    with Publication(tmp_path) as publication:
        put(publication)
        assert publication.directory.name.startswith(".1.")
    assert names(tmp_path) == []


def test_nothing_is_left_after_an_error(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        published(tmp_path, meanwhile=interrupt)
    assert names(tmp_path) == []


@pytest.mark.parametrize("version", [-1, "1", 1.0, True, 2**63, [1]])
def test_versions_that_cannot_be_served(tmp_path, version):
    with pytest.raises(BundleError, match=r"version=.*expected an integer from 0"):
        Publication(tmp_path, version)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")], ids=["dir", "file", "link"])
def test_an_existing_version_is_never_touched(tmp_path, make):
    make(tmp_path / "4")
    with pytest.raises(BundleError, match="exists already"), Publication(tmp_path, 4):
        pytest.fail("it must be noticed before the work is done")
    assert names(tmp_path) == ["4"]


@pytest.mark.parametrize("full", [False, True])
def test_a_lost_race_is_an_error(tmp_path, full):
    def win():
        (tmp_path / "4").mkdir()
        if full:
            (tmp_path / "4" / "file").write_text("theirs")

    with pytest.raises(BundleError, match=r"version=4: .*exists already"):
        published(tmp_path, 4, meanwhile=win)
    assert names(tmp_path) == ["4"]
    assert names(tmp_path / "4") == (["file"] if full else [])


def test_a_lost_race_between_check_and_rename_is_an_error(tmp_path, monkeypatch):
    def win():
        (tmp_path / "4").mkdir()
        (tmp_path / "4" / "file").write_text("theirs")
        monkeypatch.setattr(Publication, "_check_free", lambda self: None)

    with pytest.raises(BundleError, match=r"version=4: .*exists already"):
        published(tmp_path, 4, meanwhile=win)
    assert (tmp_path / "4" / "file").read_text() == "theirs"


def test_many_at_once_get_versions_of_their_own(tmp_path):
    done, lock = [], threading.Lock()

    def work(number):
        path = published(tmp_path, text=str(number))
        with lock:
            done.append((path.name, (path / "folder" / "file").read_text()))

    threads = [threading.Thread(target=work, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(version) for version, _ in done) == list(range(1, 13))
    assert sorted(int(content) for _, content in done) == list(range(12))
    assert len(names(tmp_path)) == 12


def test_a_file_in_place_of_the_model_directory(tmp_path):
    (tmp_path / "products").touch()
    with pytest.raises(BundleError, match="is a file"), Publication(tmp_path / "products"):
        pass
    with pytest.raises(BundleError, match="cannot be written"), Publication(tmp_path / "products" / "deeper"):
        pass


def test_the_dead_are_cleaned_up_and_the_living_left_alone(tmp_path):
    dead = tmp_path / ".3.0123456789abcdef.tmp"
    dead.mkdir()
    (dead / "file").write_text("left behind")
    (tmp_path / ".3.notours.tmp").mkdir()
    (tmp_path / ".4.0123456789abcdef.tmp").write_text("a file")
    with Publication(tmp_path, 1) as living:
        put(living)
        with Publication(tmp_path, 2):
            assert living.directory.exists()
            assert not dead.exists()
        living.publish()
    assert names(tmp_path) == [".3.notours.tmp", ".4.0123456789abcdef.tmp", "1"]


def failing(number: int, error: int):
    """fsync that fails at its call `number`."""
    calls = iter(range(10**6))

    def fsync(descriptor):
        if next(calls) == number:
            raise OSError(error, os.strerror(error))

    return fsync


@pytest.mark.parametrize("number", range(5))  # file, its folder, the version directory, the model directory; then none
def test_a_full_disk_publishes_nothing(tmp_path, monkeypatch, number):
    published(tmp_path, 1, "old")
    monkeypatch.setattr(publishing.os, "fsync", failing(number, errno.ENOSPC))
    if number == 4:
        published(tmp_path, 2)
        assert names(tmp_path) == ["1", "2"]
        return
    with pytest.raises(BundleError, match=r"the disk is full\. Nothing was published"):
        published(tmp_path, 2)
    assert names(tmp_path) == ["1"]
    assert (tmp_path / "1" / "folder" / "file").read_text() == "old"


def test_another_refusal_of_the_system_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing.os, "fsync", failing(0, errno.EIO))
    with pytest.raises(BundleError, match=r"cannot be written: .*Nothing was published"):
        published(tmp_path)
    assert names(tmp_path) == []


def test_without_directory_locks_it_still_publishes(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    (tmp_path / ".3.0123456789abcdef.tmp").mkdir()
    monkeypatch.setattr(publishing.fcntl, "flock", refuse)
    published(tmp_path)
    assert names(tmp_path) == [".3.0123456789abcdef.tmp", "1"]


@pytest.mark.parametrize(
    ("what", "kills"),
    [
        pytest.param("publishing", 5, marks=pytest.mark.one_stack),
        pytest.param("publishing", 100, marks=[pytest.mark.slow, pytest.mark.one_stack]),
        pytest.param("exporting", 3, marks=[pytest.mark.slow, pytest.mark.one_stack]),
    ],
)
def test_a_kill_at_any_moment_leaves_no_version_that_does_not_verify(exported, tmp_path, what, kills):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, str(HELPER), what, str(exported.path), str(tmp_path / "products"), str(kills)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120 + 15 * kills,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["kills"] == kills
    assert report["refused"] == []
    assert report["versions"] >= 1
    assert report["left_behind_at_the_end"] == []
    assert report["killed_in_the_middle"] >= kills // 2, "the kills must hit the work, not the pauses"


def test_a_version_that_tf_serving_would_see_is_taken(tmp_path):
    (tmp_path / "007").mkdir()
    with pytest.raises(BundleError, match=r"version=007.*exists already"), Publication(tmp_path, 7):
        pass
    assert published(tmp_path).name == "8"
