"""Images to shards, and an index for shards that are there already. Both go on where they were cut short."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfdml._checks import check_choice, check_positive
from tfdml._listing import is_utf8, printable
from tfdml.datasets.dataset import Dataset
from tfdml.datasets.files import MAX_PIXELS, ON_UNREADABLE, UnreadableImageError, why_undecodable
from tfdml.datasets.shards.dataset import ShardedDataset, open_shards
from tfdml.datasets.shards.entries import Entry, counted, folder_of_shards
from tfdml.datasets.shards.layout import MANIFEST, PARTS, STORES, Manifest, ShardError
from tfdml.datasets.shards.parts import Part, Row, merge, part_file
from tfdml.datasets.shards.records import RecordWriter, scan_tar, scan_tfrecord
from tfdml.datasets.shards.runners import run
from tfdml.preprocessing import ImagePreprocessing

Progress = Callable[[int, int], object]
_JPEG_QUALITY = 95


@dataclasses.dataclass
class _Task:
    """One shard: all that a worker process has to know."""

    folder: Path
    number: int
    file: str
    fingerprint: str
    settings: dict[str, Any]
    entries: list[Entry]


def write_shards(
    source: Dataset | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    store: str = "keep",
    preprocessing: ImagePreprocessing | None = None,
    items_per_shard: int = 10_000,
    on_unreadable: str = "error",
    workers: int = 1,
    address: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ShardedDataset:
    """Writes labelled images as TFRecord shards with an index, so that any item is read by one access to the disk.

    The items keep the order of `source`; they need not be grouped by class. The shards are ordinary TFRecord files of
    `tf.train.Example` (`image`, `label`, `id`, `fields/...`). A conversion that was cut short goes on when it is started again
    with the same arguments: finished shards are not written again. `shards.json` is written last, after a count.

    Args:
        source: a `Dataset`, a folder with one folder of images for each class, or a CSV file (see `csv`). A folder is walked
            through, never listed in memory as a whole.
        path: the folder to write to.
        store: `"keep"` stores the image files as they are. `"jpeg"` and `"pixels"` put each image through `preprocessing` once,
            and store it as a JPEG of quality 95 or as plain pixels: larger files, and far less to do in every epoch.
        preprocessing: with `"jpeg"` and `"pixels"`; by default that of the dataset, or 64 x 64 in colour. For random crops, the
            `uncropped()` one.
        items_per_shard: images in a file.
        on_unreadable: `"error"` stops at an image that cannot be read (photographs in other formats, such as WebP, among them),
            `"skip"` leaves it out (`dataset.skipped`).
        workers: processes. With more than 1, a script needs `if __name__ == "__main__":`.
        address: of a Ray cluster that does it instead (`"auto"`, `"host:6379"`, or `"local"` for one on this machine). All
            nodes must see `source` and `path`. Needs `tfdml[ray]`.
        overwrite: begins anew, whatever another conversion has left in `path`. Its shards stay if they have other names.
        progress: called with (items done, items in all).

    Returns:
        The opened shards, see `open_shards`.

    Raises:
        ValueError: a bad argument; `path` holds shards of another source, or other settings, or those that `source` reads.
        UnreadableImageError: see `on_unreadable`.
        RuntimeError: a worker was killed, or a count does not agree.

    Example:
        >>> import tempfile
        >>> from tfdml.datasets import rendered_catalogue
        >>> write_shards(rendered_catalogue(classes=4, views=3), tempfile.mkdtemp(), items_per_shard=5).class_counts.tolist()
        [3, 3, 3, 3]
    """
    check_choice("store", store, STORES)
    check_choice("on_unreadable", on_unreadable, ON_UNREADABLE)
    for name, value in (("items_per_shard", items_per_shard), ("workers", workers)):
        check_positive(name, value)
    total, entries = counted(source)
    if store == "keep":
        if preprocessing is not None:
            raise ValueError("preprocessing with store='keep': files are stored as they are; pass store='jpeg' or 'pixels'.")
    elif preprocessing is None:
        preprocessing = source.preprocessing if isinstance(source, Dataset) else ImagePreprocessing()
    settings = {
        "store": store,
        "preprocessing": preprocessing.get_config() if preprocessing else None,
        "on_unreadable": on_unreadable,
    }
    folder = Path(path).expanduser()
    own = folder_of_shards(source)
    if own is not None and own.resolve() == folder.resolve():
        raise ValueError(f"path={str(path)!r}: the images are read from shards that lie there. Pass another folder.")
    count = -(-total // items_per_shard)

    def tasks() -> Iterator[_Task]:
        for number in range(count):
            chosen = [next(entries) for _ in range(min(items_per_shard, total - number * items_per_shard))]
            known = json.dumps([settings, [entry.known() for entry in chosen]], default=repr)
            file = f"images-{number:05d}-of-{count:05d}.tfrecord"
            yield _Task(folder, number, file, hashlib.sha256(known.encode()).hexdigest(), settings, chosen)

    return _converted(folder, "tfrecord", tasks(), count, total, settings, _write, workers, address, overwrite, progress)


def index_shards(
    path: str | os.PathLike[str],
    *,
    image: str = "image",
    label: str = "label",
    id: str = "id",
    workers: int = 1,
    address: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ShardedDataset:
    """Makes the index of TFRecord or WebDataset (.tar) files that are there already; they are read once and left as they are.

    Of TFRecords, every checksum is verified. In .tar files, the files of a sample share their name up to its first dot; the
    label is the content of `.cls`, or `"label"` in `.json` (whose other entries become fields), or the name of the folder.

    Args:
        path: a folder of `*.tfrecord*` or `*.tar` files, not compressed. The index is written into it.
        image: of TFRecords: the feature that holds the image file. `"image/encoded"` is common.
        label: the feature that holds the label, an integer or text.
        id: the feature that holds the item id; without it, ids are `file:number`.
        workers, address, overwrite: as in `write_shards`.
        progress: called with (files done, files in all).

    Returns:
        The opened shards, see `open_shards`.

    Raises:
        FileNotFoundError: there are no such files.
        ShardError: a file is damaged, cut short, compressed, or something else; the text names the file and the place.

    Example:
        >>> data = tfdml.datasets.index_shards("imagenet/", image="image/encoded", label="image/class/label")  # doctest: +SKIP
    """
    check_positive("workers", workers)
    folder = Path(path).expanduser()
    found = sorted(folder.glob("*.tfrecord*")) if folder.is_dir() else []
    files = [file for file in found if not file.name.endswith(".part")]
    kind = "tfrecord" if files else "tar"
    files = files or sorted(folder.glob("*.tar"))
    if not files:
        raise FileNotFoundError(f"path={str(path)!r}: expected a folder of *.tfrecord* or *.tar files.")
    settings = {"kind": kind, "store": "keep", "preprocessing": None, "names": {"image": image, "label": label, "id": id}}

    def tasks() -> Iterator[_Task]:
        for number, file in enumerate(files):
            status = file.stat()
            known = json.dumps([settings, file.name, status.st_size, status.st_mtime_ns])
            yield _Task(folder, number, file.name, hashlib.sha256(known.encode()).hexdigest(), settings, [])

    return _converted(folder, kind, tasks(), len(files), None, settings, _scan, workers, address, overwrite, progress)


def _converted(
    folder: Path,
    kind: str,
    tasks: Iterator[_Task],
    count: int,
    total: int | None,
    settings: dict[str, Any],
    work: Callable[[_Task], int],
    workers: int,
    address: str | None,
    overwrite: bool,
    progress: Progress | None,
) -> ShardedDataset:
    """Runs the tasks that are not done, puts their parts together, and writes the record last."""
    if overwrite:
        with contextlib.suppress(FileNotFoundError):
            (folder / MANIFEST).unlink()
        shutil.rmtree(folder / PARTS, ignore_errors=True)
    finished = Manifest.read(folder) if (folder / MANIFEST).exists() else None
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    whole = hashlib.sha256()
    done = 0
    all_of = count if total is None else total

    def left() -> Iterator[_Task]:
        nonlocal done
        for task in tasks:
            whole.update(task.fingerprint.encode())
            if finished:
                continue
            part = Part.load(part_file(folder, task.number))
            file = folder / task.file
            if part and part.task == task.fingerprint and file.is_file() and file.stat().st_size == part.size:
                done += 1 if total is None else len(task.entries)
                continue
            yield task

    if progress:
        progress(0, all_of)
    for items in run(work, left(), workers, address):
        done += 1 if total is None else items
        if progress:
            progress(done, all_of)
    fingerprint = whole.hexdigest()
    if finished:
        with contextlib.suppress(OSError):
            (folder / PARTS).rmdir()
        if finished.fingerprint != fingerprint:
            raise ValueError(
                f"path={str(folder)!r} holds the finished shards of another source, or of other settings. Pass another folder, "
                "or overwrite=True."
            )
        return open_shards(folder)
    items, classes, files, fields, skipped = merge(folder, count)
    if done != all_of or (total is not None and items + len(skipped) != total):
        raise RuntimeError(f"{folder}: {items:,} items in the shards and {len(skipped):,} left out, of {total} in all.")
    stored = settings["preprocessing"]
    Manifest(
        kind,
        items,
        classes,
        settings["store"],
        ImagePreprocessing.from_config(stored) if stored else None,
        tuple(files),
        tuple(fields),
        fingerprint,
        tuple(skipped),
    ).write(folder)
    shutil.rmtree(folder / PARTS)
    if total is not None:
        for unfinished in folder.glob("images-*-of-*.tfrecord.*.part"):  # of processes that were killed while they wrote
            unfinished.unlink(missing_ok=True)
    return open_shards(folder)


def _write(task: _Task) -> int:
    """Writes one shard, then its part of the index; returns how many items were asked for."""
    encode = _encoder(task.settings)
    writer = RecordWriter(task.folder / task.file)
    rows: list[Row] = []
    skipped: list[tuple[str, str]] = []
    try:
        for entry in task.entries:
            data, reason = _read(entry)
            name = printable([entry.id])
            if reason and task.settings["on_unreadable"] == "error":
                raise UnreadableImageError(
                    f"{name}: {reason}. Repair or remove it, or pass on_unreadable='skip' to leave such files out.",
                    [(name, reason)],
                )
            if reason:
                skipped.append((name, reason))
            else:
                rows.append(writer.add(encode(data), entry.label, entry.id, entry.fields))
        size = writer.finish()
    except BaseException:
        writer.abandon()
        raise
    Part.of(task.file, size, task.fingerprint, rows, skipped).save(part_file(task.folder, task.number))
    return len(task.entries)


def _scan(task: _Task) -> int:
    """Reads one shard through and writes its part of the index."""
    file = task.folder / task.file
    size = file.stat().st_size
    rows = list(scan_tar(file) if task.settings["kind"] == "tar" else scan_tfrecord(file, task.settings["names"]))
    if not rows:
        raise ShardError(f"{file}: no image in it.")
    Part.of(task.file, size, task.fingerprint, rows).save(part_file(task.folder, task.number))
    return len(rows)


def _read(entry: Entry) -> tuple[bytes, str | None]:
    """The image's bytes, and why they cannot be used."""
    if not is_utf8([entry.id]):
        return b"", "its name is not UTF-8"
    try:
        data = entry.read()
    except OSError as error:
        return b"", error.strerror or str(error)
    return data, why_undecodable(data, ImagePreprocessing(), MAX_PIXELS)


def _encoder(settings: dict[str, Any]) -> Callable[[bytes], bytes]:
    """From the bytes of an image file to what is stored."""
    if settings["store"] == "keep":
        return lambda data: data
    preprocessing = ImagePreprocessing.from_config(settings["preprocessing"])
    # Traced once: one call for each image, instead of dozens of operations.
    pixels = tf.function(preprocessing.__call__, input_signature=[tf.TensorSpec([], tf.string)])
    if settings["store"] == "pixels":
        return lambda data: pixels(tf.constant(data)).numpy().tobytes()
    return lambda data: tf.io.encode_jpeg(pixels(tf.constant(data)), quality=_JPEG_QUALITY, chroma_downsampling=False).numpy()
