"""Images in shards: the same batches as from where they came, restarts, and files that are not what they should be."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from image_files import encoded, picture

from tfdml.datasets import (
    ShardError,
    UnreadableImageError,
    image_folder,
    index_shards,
    load,
    open_shards,
    rendered_catalogue,
    write_shards,
)
from tfdml.preprocessing import ImagePreprocessing
from tfdml.samplers import NPairSampler, PKSampler


@pytest.fixture(scope="module")
def images():
    return rendered_catalogue(classes=9, views=5, image_size=24)


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory) -> Path:
    """Class folders whose names sort otherwise with a slash behind them, of files in another order than they were made."""
    root = tmp_path_factory.mktemp("folder")
    for index in reversed(range(len(images))):
        label = ("a", "a-b", "a.c", "ä", "0", "b", "B", "b b", "c")[images.labels[index]]
        (root / label / "in").mkdir(parents=True, exist_ok=True)
        (root / label / ("in" if index % 2 else "") / f"{index}.png").write_bytes(images.image_bytes(index))
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.fixture(scope="module")
def kept(folder, tmp_path_factory):
    return write_shards(folder, tmp_path_factory.mktemp("kept"), items_per_shard=7)


@pytest.fixture(scope="module")
def pixels(images, tmp_path_factory):
    return write_shards(images, tmp_path_factory.mktemp("pixels"), store="pixels", items_per_shard=20)


def everything(data) -> np.ndarray:
    return np.concatenate(list(data.batches(16).as_numpy_iterator()))


def path_of(data) -> Path:
    return data._source.folder


def taken(dataset, count=6):
    return [(images.tolist(), labels.tolist()) for images, labels in dataset.take(count).as_numpy_iterator()]


def copied(data, to: Path) -> Path:
    return Path(shutil.copytree(path_of(data), to / "copy"))


def test_a_folder_gives_the_same_dataset_and_the_same_batches(folder, kept):
    direct = image_folder(folder, 24)
    data = kept.with_preprocessing(ImagePreprocessing(24))
    assert (data.labels == direct.labels).all()
    assert data.labels.dtype == np.int64
    assert tuple(data.class_names) == direct.class_names
    assert data.ids.tolist() == direct.ids.tolist()
    assert list(data.fields["path"]) == direct.fields["path"]
    assert [data.image_bytes(i) for i in (0, 44)] == [direct.image_bytes(i) for i in (0, 44)]
    expected = taken(PKSampler(direct.labels, 4, 3, seed=5).dataset(direct.load))
    assert expected == taken(PKSampler(data.groups, 4, 3, seed=5).dataset(data.load))
    assert (everything(data) == everything(direct)).all()


def test_from_any_step_in_parts_and_saved(pixels, tmp_path):
    sampler = PKSampler(pixels.groups, 4, 2, seed=3)
    whole = taken(sampler.dataset(pixels.load), 7)
    parts = [taken(sampler.dataset(pixels.load, start_step=4, shard_index=i, num_shards=2), 3) for i in range(2)]
    assert whole[4:] == [(a[0] + b[0], a[1] + b[1]) for a, b in zip(*parts, strict=True)]
    iterator = iter(sampler.dataset(pixels.load))
    for _ in range(3):
        next(iterator)
    saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "position"))
    again = iter(sampler.dataset(pixels.load))
    tf.train.Checkpoint(iterator=again).restore(saved)
    assert [next(again)[0].numpy().tolist() for _ in range(3)] == [batch for batch, _ in whole[3:6]]


def test_samplers_with_a_lookahead_count_the_batches_that_are_being_read(pixels):
    sampler = NPairSampler(pixels.groups, classes=4, candidates=6, seed=1)
    sampler.refresh(lambda indices: np.ones([len(indices), 2]), step=0)
    loaded, _ = next(iter(sampler.dataset(pixels.load)))
    indices, _ = sampler.batch_at(0)
    assert (loaded.numpy()[1] == pixels.load(int(indices[1])).numpy()).all()
    with pytest.raises(ValueError, match="steps ahead"):
        sampler.dataset(pixels.load, prefetch=40)


def test_what_is_stored_after_preprocessing(images, pixels, tmp_path):
    loaded = everything(images)
    assert (everything(pixels) == loaded).all()
    jpeg = write_shards(images, tmp_path, store="jpeg", items_per_shard=50)
    difference = np.abs(everything(jpeg).astype(int) - loaded)
    assert 0 < difference.mean() < 3
    assert load(tmp_path, image_size=12).load(3).shape == (12, 12, 3)
    grey = open_shards(path_of(pixels), preprocessing=ImagePreprocessing(24, channels=1))
    assert grey.load(3).shape == (24, 24, 1)
    assert list(pixels.fields["price"]) == images.fields["price"]


def test_splits_and_subsets_are_views(images, pixels):
    for ours, direct in zip(pixels.split_by_class(0.4, seed=2), images.split_by_class(0.4, seed=2), strict=True):
        assert tuple(ours.class_names) == direct.class_names
        assert ours.ids.tolist() == direct.ids.tolist()
        assert (ours.labels == direct.labels).all()
        assert (ours.load(7).numpy() == direct.load(7).numpy()).all()
        assert ours.groups.items_of(1).tolist() == np.flatnonzero(direct.labels == 1).tolist()
    small = pixels.where(category=images.fields["category"][0]).subset([2, 0])
    assert small.in_memory().ids.tolist() == small.ids.tolist()
    assert (small.in_memory().load(1).numpy() == small.load(1).numpy()).all()
    assert small.with_fields(weight=[1, 2]).fields["weight"] == [1, 2]


def test_records_are_ordinary_examples(kept):
    names = [name for name, _, _ in kept._source.manifest.files]
    records = tf.data.TFRecordDataset([str(path_of(kept) / name) for name in names])
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label", "id", "fields/path")}
    parsed = [tf.io.parse_single_example(record, features) for record in records]
    assert [row["id"].numpy().decode() for row in parsed] == kept.ids.tolist()
    assert parsed[9]["image"].numpy() == kept.image_bytes(9)
    assert parsed[9]["label"].numpy().decode() == kept.class_names[kept.labels[9]]


def test_existing_records_are_indexed(kept, tmp_path):
    there = copied(kept, tmp_path)
    (there / "shards.json").unlink()
    found = index_shards(there, workers=1)
    assert found.ids.tolist() == kept.ids.tolist()
    assert (found.labels == kept.labels).all()
    assert found.image_bytes(13) == kept.image_bytes(13)
    assert index_shards(there).ids.tolist() == kept.ids.tolist()
    with pytest.raises(ValueError, match="overwrite"):
        index_shards(there, label="id")
    with pytest.raises(ShardError, match=r"tfrecord, byte 0 \(record 0\): no feature 'nothing'. It has 'fields/path', 'id'"):
        index_shards(there, label="nothing", overwrite=True)


def tar(file: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_tar_shards_are_indexed(images, tmp_path):
    bytes_of = [images.image_bytes(i) for i in range(6)]
    tar(tmp_path / "0.tar", {"k0.png": bytes_of[0], "k0.cls": b"10", "k1.cls": b"9", "k1.png": bytes_of[1]})
    tar(tmp_path / "1.tar", {"k2.png": bytes_of[2], "k2.json": json.dumps({"label": 10, "shop": "b"}).encode()})
    data = index_shards(tmp_path)
    assert data.ids.tolist() == ["k0", "k1", "k2"]
    assert [data.class_names[n] for n in data.labels] == ["10", "9", "10"]
    assert tuple(data.class_names) == ("9", "10")
    assert list(data.fields["shop"]) == [None, None, "b"]
    assert [data.image_bytes(i) for i in range(3)] == bytes_of[:3]
    other = tmp_path / "folders"
    other.mkdir()
    tar(other / "0.tar", {"mug/a.png": bytes_of[3], "shoe/a.png": bytes_of[4]})
    found = index_shards(other)
    assert (found.ids.tolist(), tuple(found.class_names)) == (["mug/a", "shoe/a"], ("mug", "shoe"))
    tar(other / "1.tar", {"mug/a.png": bytes_of[5]})
    with pytest.raises(ShardError, match=r"1.tar: the id 'mug/a' is in 0.tar too"):
        index_shards(other, overwrite=True)


def test_tar_shards_of_older_days(images, tmp_path):
    tar(tmp_path / "0.tar", {os.fsdecode(b"caf\xe9/a.png"): images.image_bytes(0)})
    data = index_shards(tmp_path)
    assert (data.ids.tolist(), tuple(data.class_names)) == ([r"caf\udce9/a"], (r"caf\udce9",))
    tar(tmp_path / "0.tar", {"a.png": images.image_bytes(0), "a.json": b"[1]"})
    with pytest.raises(ShardError, match=r"its .cls or .json is damaged"):
        index_shards(tmp_path, overwrite=True)


def test_bad_files_are_named_with_the_place(kept, images, tmp_path):
    there = copied(kept, tmp_path)
    file = there / kept._source.manifest.files[1][0]
    good = file.read_bytes()
    file.write_bytes(good[:-5])
    with pytest.raises(ShardError, match=rf"{file.name}: .* bytes, but .* cut short or changed"):
        open_shards(there)
    (there / "shards.json").unlink()
    with pytest.raises(ShardError, match=rf"{file.name}, byte [\d,]+ \(record 6\): damaged or cut short"):
        index_shards(there)
    file.write_bytes(b"\x1f\x8b" + good)
    with pytest.raises(ShardError, match=rf"{file.name}, byte 0: compressed"):
        index_shards(there)
    file.write_bytes(b"hello, hello, hello")
    with pytest.raises(ShardError, match=rf"{file.name}, byte 0: not a TFRecord"):
        index_shards(there)
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name in ("a", "b"):
            info = tarfile.TarInfo(f"c/{name}.png")
            info.size = len(images.image_bytes(0))
            archive.addfile(info, io.BytesIO(images.image_bytes(0)))
    raw = bytearray(whole.getvalue())
    second = 512 + -(-len(images.image_bytes(0)) // 512) * 512
    archives = tmp_path / "tar"
    archives.mkdir()
    raw[second + 150] ^= 1
    at = rf"0.tar, byte {second:,}: damaged"
    for data, words in ((bytes(raw), at), (whole.getvalue()[: second + 700], "cut short"), (b"no", "0.tar, byte 0: not an")):
        (archives / "0.tar").write_bytes(data)
        with pytest.raises(ShardError, match=words):
            index_shards(archives)


def test_a_byte_that_has_changed_is_found_when_it_is_read(kept, tmp_path):
    there = copied(kept, tmp_path)
    file = there / kept._source.manifest.files[0][0]
    data = bytearray(file.read_bytes())
    offset = int(kept._source._offset[2])
    data[offset + 40] ^= 1
    file.write_bytes(data)
    changed = open_shards(there)
    assert changed.image_bytes(1) == kept.image_bytes(1)
    with pytest.raises(ShardError, match=rf"{file.name}, byte {offset:,}, an image of .* other bytes"):
        changed.image_bytes(2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{file.name}, byte {offset:,}"):
        list(changed.batches(8))


def test_folders_that_hold_no_shards(tmp_path, kept):
    with pytest.raises(FileNotFoundError, match="tfdml data shard"):
        open_shards(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"\*.tar"):
        index_shards(tmp_path)
    (tmp_path / "shards.json").write_text('{"format": "other"}')
    with pytest.raises(ShardError, match="not a record of shards"):
        open_shards(tmp_path)
    there = copied(kept, tmp_path)
    (there / "index" / "label.npy").write_bytes(b"nothing")
    with pytest.raises(ShardError, match="index is damaged"):
        open_shards(there)
    with pytest.raises(ValueError, match="one of them"):
        open_shards(path_of(kept), 24, preprocessing=ImagePreprocessing(24))


def test_images_that_cannot_be_read(folder, images, tmp_path):
    (tmp_path / "in" / "mug").mkdir(parents=True)
    for i in range(3):
        (tmp_path / "in" / "mug" / f"{i}.png").write_bytes(images.image_bytes(i)[: 60 if i == 1 else None])
    with pytest.raises(UnreadableImageError, match=r"mug/1.png: cannot be decoded"):
        write_shards(tmp_path / "in", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.part"))
    data = write_shards(tmp_path / "in", tmp_path / "out", on_unreadable="skip")
    assert data.ids.tolist() == ["mug/0.png", "mug/2.png"]
    assert data.skipped[0][0] == "mug/1.png"
    for arguments, words in (
        ({"store": "png"}, "store"),
        ({"items_per_shard": 0}, "items_per_shard"),
        ({"preprocessing": ImagePreprocessing(24)}, "store='keep'"),
    ):
        with pytest.raises(ValueError, match=words):
            write_shards(tmp_path / "in", tmp_path / "other", **arguments)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux file systems take such names")
def test_names_that_are_not_utf8_and_loops_of_links(images, tmp_path):
    mug = tmp_path / "in" / "mug"
    mug.mkdir(parents=True)
    (mug / "0.png").write_bytes(images.image_bytes(0))
    (mug / "up").symlink_to(tmp_path / "in", target_is_directory=True)
    assert write_shards(tmp_path / "in", tmp_path / "loop").ids.tolist() == image_folder(tmp_path / "in").ids.tolist()
    (mug / os.fsdecode(b"caf\xe9.png")).write_bytes(images.image_bytes(1))
    with pytest.raises(UnreadableImageError, match=r"mug/caf\\udce9.png: its name is not UTF-8"):
        write_shards(tmp_path / "in", tmp_path / "out")
    data = write_shards(tmp_path / "in", tmp_path / "out", on_unreadable="skip")
    assert data.ids.tolist() == ["mug/0.png"]
    assert data.skipped == ((r"mug/caf\udce9.png", "its name is not UTF-8"),)


def test_photographs_in_other_formats_are_not_left_out_unsaid(images, tmp_path):
    (tmp_path / "in" / "mug").mkdir(parents=True)
    for name, data in (("0.png", images.image_bytes(0)), ("1.webp", encoded(picture(), "WEBP"))):
        (tmp_path / "in" / "mug" / name).write_bytes(data)
    with pytest.raises(UnreadableImageError, match=r"mug/1.webp: a WEBP image: expected JPEG"):
        write_shards(tmp_path / "in", tmp_path / "out")
    assert write_shards(tmp_path / "in", tmp_path / "out", on_unreadable="skip").ids.tolist() == ["mug/0.png"]


def test_shards_are_not_written_over_while_they_are_read(kept):
    for data in (kept, kept.subset([0, 1]).in_memory()):
        with pytest.raises(ValueError, match="read from shards that lie there"):
            write_shards(data, path_of(kept), store="pixels", overwrite=True)
    assert len(open_shards(path_of(kept))) == 45


def test_a_restart_writes_only_what_is_missing(folder, kept, tmp_path):
    whole = write_shards(folder, tmp_path, items_per_shard=7)
    files = [tmp_path / name for name, _, _ in whole._source.manifest.files]
    assert [file.read_bytes() for file in files] == [
        (path_of(kept) / name).read_bytes() for name, _, _ in kept._source.manifest.files
    ]
    before = [file.stat().st_mtime_ns for file in files]
    assert write_shards(folder, tmp_path, items_per_shard=7).ids.tolist() == kept.ids.tolist()
    assert [file.stat().st_mtime_ns for file in files] == before
    with pytest.raises(ValueError, match="another source, or of other settings"):
        write_shards(folder, tmp_path, items_per_shard=8)


KILLED = """
import sys
from tfdml.datasets import write_shards
write_shards(sys.argv[1], sys.argv[2], items_per_shard=3, progress=lambda done, total: print(done, flush=True))
"""


@pytest.mark.one_stack
def test_a_conversion_that_was_killed_goes_on(folder, kept, tmp_path):
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 9:
            pass
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "shards.json").exists()
    with pytest.raises(FileNotFoundError, match="cut short"):
        open_shards(tmp_path)
    done = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.tfrecord")}
    (tmp_path / "images-00014-of-00015.tfrecord.1.part").write_bytes(b"of another process that was killed")
    counted = []
    data = write_shards(folder, tmp_path, items_per_shard=3, progress=lambda *now: counted.append(now))
    assert counted[-1] == (45, 45)
    assert data.ids.tolist() == kept.ids.tolist()
    assert [data.image_bytes(i) for i in range(45)] == [kept.image_bytes(i) for i in range(45)]
    unchanged = [file for file, at in done.items() if file.stat().st_mtime_ns == at]
    assert len(unchanged) >= min(3, len(done))
    assert not list(tmp_path.glob("*.part"))
