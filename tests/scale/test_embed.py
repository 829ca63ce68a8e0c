"""An embedding in parts, in one process: the same rows as the bundle's own embedder, whatever happens on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from embed_helpers import IMAGES, write_images

from tfdml import scale
from tfdml.bundle import BundleError, Embedder
from tfdml.scale.sources import ImageFiles, SourceError
from tfdml.scale.work_folder import WorkFolder, sha256

PART = 16
PARTS = -(-IMAGES // PART)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(exported, images, tmp_path_factory) -> Path:
    """An embedding that nothing has disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    summary = embed(exported, images, out)
    assert (summary.items, summary.failed, summary.parts, summary.parts_kept) == (IMAGES, 1, PARTS, 0)
    return out


def embed(exported, source, out, **options):
    return scale.embed(exported.path, source, out, **{"part_size": PART, "workers": 0, **options})


class StopError(Exception):
    """What a test ends a run with."""


def stopped_after(parts: int):
    """A `progress` that ends the run when so many parts are done."""
    seen = []

    def tell(progress):
        seen.append(progress)
        if len(seen) > parts:
            raise StopError

    return tell


def test_rows_are_what_the_embedder_makes_of_the_files(exported, images, whole):
    folder = scale.EmbeddedFolder.open(whole)
    ids, vectors = folder.valid()
    files = sorted(str(path.relative_to(images)) for path in images.rglob("*.png"))
    good = [name for name in files if name != "class-0/0007.png"]
    assert ids == good
    assert [item for part in folder.parts() for item in part.ids] == files
    expected = Embedder(exported.path).embed([(images / name).read_bytes() for name in good])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert folder.failed.keys() == {"class-0/0007.png"}
    assert "cannot be decoded" in folder.failed["class-0/0007.png"]
    assert not folder.part(0).vectors[7].any()
    assert (len(folder), folder.dimension, folder.metric) == (IMAGES, 6, "cosine")


def test_any_range_of_the_valid_rows_is_that_of_all(whole):
    folder = scale.EmbeddedFolder.open(whole, checksum=False)
    ids, vectors = folder.valid()
    for start, stop in [(0, 5), (5, 40), (15, 16), (14, 17), (100, 500), (119, 119)]:
        some, rows = folder.valid(start, stop)
        assert some == ids[start:stop]
        np.testing.assert_array_equal(rows, vectors[start:stop])


def test_a_run_that_was_ended_goes_on_and_keeps_what_is_there(exported, images, whole, tmp_path):
    with pytest.raises(StopError):
        embed(exported, images, tmp_path / "out", progress=stopped_after(3))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/parts").rglob("*") if path.is_file()}
    assert len(kept) == 3 * 3
    with pytest.raises(scale.WorkFolderError, match=r"5 of 8 parts are missing.*goes on where it stopped"):
        scale.EmbeddedFolder.open(tmp_path / "out")
    seen = []
    summary = embed(exported, images, tmp_path / "out", part_size=None, progress=lambda p: seen.append((p.done, p.part)))
    assert summary.parts_kept == 3
    assert seen[0] == (3 * PART, None)
    assert [part for _, part in seen[1:]] == [3, 4, 5, 6, 7]
    assert seen[-1][0] == IMAGES
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert scale.EmbeddedFolder.open(tmp_path / "out").fingerprint == scale.EmbeddedFolder.open(whole).fingerprint
    assert embed(exported, images, tmp_path / "out").parts_kept == PARTS


def test_damaged_parts_are_found_and_done_again(exported, images, whole, tmp_path):
    out = tmp_path / "out"
    embed(exported, images, out)
    vectors, rows = out / "parts/part-000002/vectors.npy", out / "parts/part-000005/rows.json"
    data = bytearray(vectors.read_bytes())
    data[-3] ^= 1
    vectors.write_bytes(data)
    rows.unlink()
    (out / "parts/part-000006/record.json").write_text("{}")
    left = out / "parts/.tmp-3-abandoned"
    left.mkdir()
    with pytest.raises(scale.WorkFolderError, match=r"part-000002.vectors.npy: is damaged"):
        scale.EmbeddedFolder.open(out)
    summary = embed(exported, images, out)
    assert (summary.parts_kept, summary.parts_repaired, summary.parts_abandoned) == (PARTS - 3, 3, 1)
    assert not left.exists()
    assert scale.EmbeddedFolder.open(out).fingerprint == scale.EmbeddedFolder.open(whole).fingerprint


def test_ids_that_are_not_the_plans_are_not_taken_for_complete(exported, images, tmp_path):
    out = tmp_path / "out"
    embed(exported, images, out)
    folder = WorkFolder(out, "part")
    record, path = json.loads((folder.folder(1) / "record.json").read_text()), folder.folder(1) / "rows.json"
    path.write_text(path.read_text().replace("0018.png", "0017.png"))
    record["files"]["rows.json"] = [path.stat().st_size, sha256(path)]
    (folder.folder(1) / "record.json").write_text(json.dumps(record))
    with pytest.raises(scale.WorkFolderError, match="part 1: its ids are not those of the plan"):
        embed(exported, images, out)


@pytest.mark.one_stack
def test_another_source_bundle_or_part_size_is_refused(exported, exported_with_lists, tmp_path):
    images, out = write_images(tmp_path / "images", 20, ()), tmp_path / "out"
    embed(exported, images, out)
    with pytest.raises(scale.WorkFolderError, match=r"another part size: 16, and now it is 17.*take another folder"):
        embed(exported, images, out, part_size=17)
    with pytest.raises(scale.WorkFolderError, match="another bundle"):
        embed(exported_with_lists, images, out)
    file = images / "class-0/0003.png"
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    with pytest.raises(scale.WorkFolderError, match="another list of items"):
        embed(exported, images, out)
    file.unlink()
    with pytest.raises(scale.WorkFolderError, match="another number of items: 20, and now it is 19"):
        embed(exported, images, out)


def test_a_source_that_changes_under_way_is_noticed(exported, tmp_path):
    images, out = write_images(tmp_path / "images", 48, ()), tmp_path / "out"

    def spoil(progress):
        if progress.part == 0:
            (images / "class-4/0040.png").write_bytes(b"another file")
            (images / "class-4/0041.png").unlink()

    with pytest.raises(SourceError, match=r"0040.png': changed since the source was listed"):
        embed(exported, images, out, progress=spoil)
    assert WorkFolder(out, "part").finished() == [0, 1]


def test_folders_that_are_in_use_or_of_another_kind_are_refused(exported, images, whole, tmp_path):
    with (
        WorkFolder(whole, "part").locked(),
        pytest.raises(scale.WorkFolderError, match=rf"in use by process {os.getpid()} on .*Wait until it is done"),
    ):
        embed(exported, images, whole)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").touch()
    with pytest.raises(scale.WorkFolderError, match=r"holds 'photo.jpg' and no plan.json"):
        embed(exported, images, tmp_path / "mine")
    with pytest.raises(scale.WorkFolderError, match="is a file"):
        embed(exported, images, tmp_path / "mine/photo.jpg")
    with pytest.raises(scale.WorkFolderError, match="has no plan"):
        scale.EmbeddedFolder.open(tmp_path / "mine")
    (tmp_path / "mine/plan.json").write_text('{"format": "another"}')
    with pytest.raises(scale.WorkFolderError, match="its plan is not that of an embedding"):
        embed(exported, images, tmp_path / "mine")


def test_bad_arguments_are_refused_before_anything_is_written(exported, images, tmp_path):
    for options, error, words in [
        ({"part_size": 0}, ValueError, "part_size=0"),
        ({"workers": -1}, ValueError, "workers=-1"),
        ({"workers": 0, "address": "somewhere:6379"}, ValueError, "workers=0: embeds in this process"),
        ({"gpus": -1}, ValueError, "gpus=-1"),
        ({"image_root": images}, SourceError, "only a .csv file takes one"),
    ]:
        with pytest.raises(error, match=words):
            embed(exported, images, tmp_path / "out", **options)
    with pytest.raises(SourceError, match="there is nothing here"):
        embed(exported, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(BundleError):
        scale.embed(images, images, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_a_csv_file_gives_its_own_ids(exported, images, tmp_path):
    table = tmp_path / "items.csv"
    table.write_text("id,path\nb,class-1/0010.png\na,class-0/0000.png\n")
    embed(exported, table, tmp_path / "out", image_root=images)
    ids, vectors = scale.EmbeddedFolder.open(tmp_path / "out").valid()
    assert ids == ["b", "a"]
    expected = Embedder(exported.path).embed([(images / f"class-{n}/00{n}0.png").read_bytes() for n in (1, 0)])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_lists_that_cannot_be_trusted_are_refused_at_once(exported, images, tmp_path):
    table, out = tmp_path / "items.csv", tmp_path / "out"
    for text, words in [
        ("id,path\na,class-0/0000.png\na,class-0/0001.png\n", "line 3: id 'a' is on line 2 too"),
        ("path\nclass-0/none.png\n", "none.png': No such file"),
        ("name\nx\n", "no column 'path'"),
    ]:
        table.write_text(text)
        with pytest.raises(ValueError, match=words):
            embed(exported, table, out, image_root=images)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no images found"):
        embed(exported, tmp_path / "empty", out)

    class Twice(ImageFiles):
        def items(self):
            yield from [("x", ("class-0/0000.png", 1, 1)), ("x", ("class-0/0001.png", 1, 1))]

    with pytest.raises(ValueError, match="'x' is the id of item 0 and of item 1"):
        embed(exported, Twice(images), out)
    assert not (out / "plan.json").exists()


def test_a_part_that_kills_its_worker_again_and_again_is_named(exported, images, tmp_path):
    out = tmp_path / "out"

    def leave(progress):
        if progress.part == 0:
            for attempt in range(4):
                (out / f"parts/.tmp-1-{attempt}").mkdir()

    with pytest.raises(RuntimeError, match="part 1 was begun 4 times, and its worker died each time"):
        embed(exported, images, out, progress=leave)


def test_of_two_workers_with_one_part_the_first_stays(tmp_path):
    folder = WorkFolder(tmp_path, "part")

    def slow(target: Path):
        folder.commit(3, "plan", lambda mine: {"size": (mine / "file").write_bytes(b"first")})
        return {"size": (target / "file").write_bytes(b"second, and longer")}

    record, own = folder.commit(3, "plan", slow)
    assert not own
    assert record.facts == {"size": 5}
    assert (folder.folder(3) / "file").read_bytes() == b"first"
    assert folder.unfinished() == {}
    with pytest.raises(scale.WorkFolderError, match="belongs to another plan"):
        folder.read(3, "another")
