"""Verification and reading: what is whole is accepted, each kind of damage is named."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundle_helpers import linked_copy, pack_fake_model, replace

from tfdml.bundle import Bundle, BundleError, Manifest, verify
from tfdml.bundle.layout import CATALOGUE, INDEX, MANIFEST, parse_version, record_file
from tfdml.index import ExactIndex

pytestmark = pytest.mark.one_stack


def manifest_of(path: Path) -> Manifest:
    return Manifest.from_bytes((path / MANIFEST).read_bytes())


def write_manifest(path: Path, **changes) -> None:
    """The manifest with other content, signed anew: what a careful forger would write."""
    replace(path / MANIFEST, dataclasses.replace(manifest_of(path), **changes).to_bytes())


def record_anew(path: Path, *names: str) -> None:
    """Makes the manifest list the present bytes of some files."""
    files = dict(manifest_of(path).files)
    write_manifest(path, files={**files, **{name: record_file(path / name) for name in names}})


def another(tmp_path: Path, vectors) -> Path:
    path = tmp_path / "another"
    path.mkdir()
    pack_fake_model(path, np.asarray(vectors), b"another graph")
    return path


def test_a_whole_bundle_is_accepted(packed):
    seen: list[str] = []
    report = verify(packed, progress=seen.append)
    assert report.checks == tuple(seen)
    assert [check.split(":")[0] for check in seen] == ["manifest", "files", "catalogue", "index"]
    assert report.manifest.items == 30
    assert "in order" in str(report)
    assert "30 items" in str(report)


def test_the_model_directory_stands_for_its_latest_version(packed, tmp_path):
    for version in ("2", "10", ".11.0123456789abcdef.tmp", "012"):
        linked_copy(packed, tmp_path / version)
    assert verify(tmp_path).path.name == "10"
    with Bundle.open(tmp_path) as bundle:
        assert bundle.path.name == "10"


def test_a_copy_under_any_name_is_a_bundle(packed, tmp_path):
    assert verify(linked_copy(packed, tmp_path / "backup of 1")).manifest == manifest_of(packed)


@pytest.mark.parametrize("name", ["-1", "01", "1.0", "", "1a", "¹", str(2**63)])
def test_names_that_are_no_versions(name):
    assert parse_version(name) is None


def test_search_is_that_of_exact_search(packed):
    with Bundle.open(packed) as bundle:
        vectors, queries = bundle.index.vectors(), np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)
        expected = ExactIndex(vectors, bundle.catalogue.ids(), "euclidean").search(queries, 30)
        answers = bundle.search(queries, k=30)
        assert [[hit.id for hit in row] for row in answers] == expected.ids.tolist()
        np.testing.assert_allclose([[hit.distance for hit in row] for row in answers], expected.distances, rtol=1e-6)
        for hit in answers[0]:
            assert hit.id == f"item/{hit.number}"
            assert hit.fields == {"title": f"Thing {hit.number}", "price": 0.5 * hit.number}
        (single,) = bundle.search(vectors[4], k=1)
        assert (single[0].number, single[0].distance) == (4, 0.0)
        assert bundle.search(np.zeros([0, 5]), k=2) == []
        with pytest.raises(ValueError, match="k=31"):
            bundle.search(queries, k=31)
        with pytest.raises(ValueError, match=r"\[B, 5\]"):
            bundle.search(np.zeros([1, 6]))
        assert len(bundle) == 30
        assert "30 items, dimension=5, metric='euclidean'" in repr(bundle)


def test_a_closed_bundle_says_so(packed):
    with Bundle.open(packed) as bundle:
        pass
    with pytest.raises(BundleError, match="closed"):
        bundle.search(np.zeros([1, 5]))


@pytest.mark.parametrize("read", [verify, Bundle.open])
class TestDamage:
    def refuses(self, read, path, message):
        with pytest.raises(BundleError, match=message):
            read(path)

    def test_nothing_there(self, read, tmp_path):
        self.refuses(read, tmp_path / "1", "there is nothing here")

    def test_an_empty_directory(self, read, tmp_path):
        self.refuses(read, tmp_path, "neither a bundle .* nor a directory with versions")

    def test_a_file(self, read, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        self.refuses(read, tmp_path / "file", "is a file")

    def test_a_plain_saved_model(self, read, tmp_path):
        (tmp_path / "saved_model.pb").write_bytes(b"")
        self.refuses(read, tmp_path, r"has no file assets.extra/retrieval/manifest.json: not a bundle, or an incomplete copy")

    def test_missing(self, read, packed, tmp_path):
        copy = linked_copy(packed, tmp_path / "1")
        (copy / INDEX).unlink()
        self.refuses(read, copy, r"index.ann: missing")

    def test_extra(self, read, packed, tmp_path):
        copy = linked_copy(packed, tmp_path / "1")
        (copy / "notes.txt").write_bytes(b"")
        self.refuses(read, copy, "notes.txt: not of this bundle")

    def test_truncated(self, read, packed, tmp_path):
        copy = linked_copy(packed, tmp_path / "1")
        replace(copy / CATALOGUE, (copy / CATALOGUE).read_bytes()[:-1])
        self.refuses(read, copy, r"catalogue.sqlite: .* bytes, expected .*truncated")

    def test_bit_flipped(self, read, packed, tmp_path):
        copy = linked_copy(packed, tmp_path / "1")
        data = bytearray((copy / INDEX).read_bytes())
        data[-1] ^= 1
        replace(copy / INDEX, bytes(data))
        self.refuses(read, copy, r"index.ann: its SHA-256 is not that of the manifest")

    def test_symbolic_link(self, read, packed, tmp_path):
        copy = linked_copy(packed, tmp_path / "1")
        (copy / INDEX).rename(tmp_path / "index.ann")
        (copy / INDEX).symlink_to(tmp_path / "index.ann")
        self.refuses(read, copy, r"index.ann in .* is a symbolic link")

    def test_named_pipe(self, read, packed, tmp_path):
        copy = linked_copy(packed, tmp_path / "1")
        os.mkfifo(copy / "pipe")
        self.refuses(read, copy, "pipe in .* is a special file")

    def test_manifest_of_another_bundle(self, read, packed, tmp_path):
        copy = linked_copy(packed, tmp_path / "1")
        replace(copy / MANIFEST, (another(tmp_path, np.eye(7, 5)) / MANIFEST).read_bytes())
        self.refuses(read, copy, "bytes, expected|SHA-256")

    def test_index_of_another_bundle(self, read, packed, tmp_path):
        copy, foreign = linked_copy(packed, tmp_path / "1"), another(tmp_path, np.random.default_rng(9).normal(size=(30, 5)))
        replace(copy / INDEX, (foreign / INDEX).read_bytes())
        record_anew(copy, INDEX)
        self.refuses(read, copy, "index.ann is not the index that was built for this bundle")

    def test_catalogue_of_another_bundle(self, read, packed, tmp_path):
        copy, foreign = linked_copy(packed, tmp_path / "1"), another(tmp_path, np.eye(30, 5))
        replace(copy / CATALOGUE, (foreign / CATALOGUE).read_bytes())
        record_anew(copy, CATALOGUE)
        self.refuses(read, copy, "of different bundles")

    def test_model_of_another_bundle(self, read, packed, tmp_path):
        copy = linked_copy(packed, tmp_path / "1")
        replace(copy / "saved_model.pb", b"another graph")
        record_anew(copy, "saved_model.pb")
        self.refuses(read, copy, "the model is not the one that the index was made with")

    @pytest.mark.parametrize(
        "changes", [{"items": 29}, {"created": "2000-01-01T00:00:00Z"}, {"metric": "cosine"}, {"probes": (1,)}]
    )
    def test_edited_and_signed_anew(self, read, packed, tmp_path, changes):
        copy = linked_copy(packed, tmp_path / "1")
        write_manifest(copy, **changes)
        self.refuses(read, copy, "of different bundles, or the manifest was edited")

    def test_a_path_that_cannot_be_looked_at(self, read, tmp_path):
        self.refuses(read, tmp_path / ("x" * 300), "cannot be read: File name too long|there is nothing here")

    def test_unreadable(self, read, packed, tmp_path, monkeypatch):
        copy = linked_copy(packed, tmp_path / "1")

        def refused(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("tfdml.bundle.verification.record_file", refused)
        self.refuses(read, copy, "is refused: PermissionError: .*Permission denied")


def forge(path: Path, ids: list[str], monkeypatch=None, **changes) -> None:
    """Writes catalogue and manifest anew, so that they fit each other, with other items than the index has."""
    from tfdml.bundle import write_catalogue

    manifest = dataclasses.replace(manifest_of(path), **changes)
    (path / CATALOGUE).unlink()
    write_catalogue(path / CATALOGUE, ids, {}, {"manifest_identity": manifest.identity()})
    files = {**manifest.files, CATALOGUE: record_file(path / CATALOGUE)}
    replace(path / MANIFEST, dataclasses.replace(manifest, files=files).to_bytes())


@pytest.mark.parametrize(
    ("items", "changes", "message"),
    [
        (29, {}, "catalogue.sqlite has 29 items, .*manifest.json says 30"),
        (29, {"items": 29}, "the index has count=30, the bundle 29"),
        (30, {"metric": "cosine"}, "the index has metric='euclidean', the bundle 'cosine'"),
        (30, {"index": {}}, "index.ann is not the index that was built for this bundle"),
        (30, {"probes": (30,)}, "probe 30 is not an item number below 30"),
    ],
)
def test_parts_that_disagree_are_named(packed, tmp_path, items, changes, message):
    copy = linked_copy(packed, tmp_path / "1")
    forge(copy, [f"item/{i}" for i in range(items)], **changes)
    with pytest.raises(BundleError, match=message):
        verify(copy)


@pytest.mark.parametrize("change", [{"dimension": 4}, {"count": 31, "items": 31}, {"trees": "many"}, {"backend": "other"}])
def test_an_index_record_that_does_not_fit_the_file_is_refused(packed, tmp_path, change):
    copy = linked_copy(packed, tmp_path / "1")
    items = change.pop("items", 30)
    manifest = manifest_of(copy)
    model = dataclasses.replace(manifest.model, dimension=change.get("dimension", 5))
    forge(copy, [f"item/{i}" for i in range(items)], model=model, items=items, index={**manifest.index, **change})
    with pytest.raises(BundleError, match="index: "):
        verify(copy)


def test_reading_loads_no_tensorflow(packed):
    script = (
        "import sys, tfdml, tfdml.bundle\n"
        "tfdml.bundle.verify(sys.argv[1])\n"
        "with tfdml.bundle.Bundle.open(sys.argv[1]) as bundle: bundle.search([0.0] * 5, k=3)\n"
        "loaded = {name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'h5py'}\n"
        "assert not loaded, loaded\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, str(packed)], check=True, env=environment, timeout=120)
