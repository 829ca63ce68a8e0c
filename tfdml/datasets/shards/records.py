"""One shard: written as a TFRecord file, or read through once for its index."""

from __future__ import annotations

import json
import os
import posixpath
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfdml._listing import EXTENSIONS, printable
from tfdml.datasets.shards.layout import ShardError
from tfdml.datasets.shards.parts import Row
from tfdml.preprocessing import SIGNATURES

_FRAME, _FOOTER = 12, 4
"""Bytes before a record (its length and that number's checksum) and behind it (its checksum)."""


class RecordWriter:
    """A TFRecord file of `tf.train.Example`, there under its name only when it is whole.

    Every Example holds `image` (bytes), `label` (text), `id` (text), and the further columns as `fields/<name>`.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._part = file, file.with_name(f"{file.name}.{os.getpid()}.part")
        self._writer = tf.io.TFRecordWriter(str(self._part))
        self._at = 0

    def add(self, image: bytes, label: str | int, item: str, fields: dict[str, Any]) -> Row:
        features = {"image": _feature(image), "label": _feature(label), "id": _feature(item)}
        features |= {f"fields/{name}": _feature(value) for name, value in fields.items() if value is not None}
        record = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
        self._writer.write(record)
        # Wherever all these bytes stand in the record, they are the image.
        offset = self._at + _FRAME + record.index(image)
        self._at += _FRAME + len(record) + _FOOTER
        return Row(offset, len(image), zlib.crc32(image), label, item, fields)

    def finish(self) -> int:
        """Returns the size of the file."""
        self._writer.close()
        with open(self._part, "rb") as written:
            os.fsync(written.fileno())
        size = self._part.stat().st_size
        if size != self._at:
            raise OSError(f"{self._part}: {size:,} bytes were written instead of {self._at:,}. Is the disk full?")
        os.replace(self._part, self._file)
        return size

    def abandon(self) -> None:
        self._writer.close()
        self._part.unlink(missing_ok=True)


def scan_tfrecord(file: Path, names: dict[str, str]) -> Iterator[Row]:
    """The rows of a TFRecord file of `tf.train.Example`, whose checksums are verified.

    Args:
        file: the file.
        names: of the features `image`, `label` and `id`.
    """
    with open(file, "rb") as beginning:
        head = beginning.read(_FRAME)
    if head[:2] == b"\x1f\x8b":
        raise ShardError(f"{file}, byte 0: compressed with gzip, so that no record can be read by itself. Decompress it.")
    size = file.stat().st_size
    if size and (len(head) < _FRAME or struct.unpack("<Q", head[:8])[0] > size):
        raise ShardError(f"{file}, byte 0: not a TFRecord file; it starts with {head!r}.")
    at = number = 0
    records = iter(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    while True:
        try:
            record = next(records, None)
        except tf.errors.OpError as error:
            reason = error.message.split("}} ")[-1].split(" [Op:")[0]
            raise ShardError(f"{file}, byte {at:,} (record {number:,}): damaged or cut short: {reason}") from None
        if record is None:
            break
        yield _row(file, at, number, record, names)
        at += _FRAME + len(record) + _FOOTER
        number += 1
    if at != size:
        raise ShardError(f"{file}, byte {at:,}: {size - at:,} bytes behind the last whole record; the file is cut short.")


def _row(file: Path, at: int, number: int, record: bytes, names: dict[str, str]) -> Row:
    place = f"{file}, byte {at:,} (record {number:,})"
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # the class is protobuf's, which moves it about
        raise ShardError(f"{place}: not a tf.train.Example ({error}).") from None
    image, label = (_value(place, features, names[name]) for name in ("image", "label"))
    if not isinstance(image, bytes) or not image.startswith(SIGNATURES):
        raise ShardError(f"{place}: the feature {names['image']!r} is no JPEG, PNG, BMP or GIF file; pass image=, its name.")
    if isinstance(label, float):
        raise ShardError(f"{place}: the label {label!r} is a float; expected an integer or text.")
    item: Any = _value(place, features, names["id"]) if names["id"] in features else f"{file.name}:{number}"
    fields = {
        name.removeprefix("fields/"): _text(_value(place, features, name))
        for name in features
        if name.startswith("fields/") and len(_values(features[name])) == 1
    }
    offset = at + _FRAME + record.index(image)
    return Row(offset, len(image), zlib.crc32(image), _text(label), str(_text(item)), fields)


def scan_tar(file: Path) -> Iterator[Row]:
    """The rows of a .tar file as WebDataset has them: the files of a sample share their name up to its first dot.

    The label is the content of `.cls`, or `"label"` in `.json`, whose other entries become fields, or else the folder's name.
    """
    with open(file, "rb") as raw:
        try:
            # "r:" refuses what is compressed, in which nothing can be read by itself.
            with tarfile.open(fileobj=raw, mode="r:") as archive:
                yield from _samples(file, archive, raw)
                end = archive.offset
        except tarfile.TarError as error:
            place = getattr(locals().get("archive"), "offset", 0)
            raise ShardError(
                f"{file}, byte {place:,}: not an uncompressed .tar file, damaged or cut short ({error})."
            ) from error
        raw.seek(end)
        # The archive ends with blocks of zeros; what `tarfile` takes for the end may be a header that it cannot read.
        if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ShardError(f"{file}, byte {end:,}: damaged or cut short: neither a file's header nor the end of the archive.")


def _samples(file: Path, archive: tarfile.TarFile, raw: Any) -> Iterator[Row]:
    key, members = "", dict[str, tarfile.TarInfo]()
    for member in archive:
        if not member.isfile() or posixpath.basename(member.name).startswith("."):
            continue
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        own = f"{folder}/{stem}" if folder else stem
        if own != key and members:
            yield from _sample(file, key, members, raw)
            members = {}
        key = own
        members["." + ending.lower()] = member
    if members:
        yield from _sample(file, key, members, raw)


def _sample(file: Path, key: str, members: dict[str, tarfile.TarInfo], raw: Any) -> Iterator[Row]:
    images = [ending for ending in members if ending in EXTENSIONS]
    if not images:
        return
    member = members[images[0]]
    key = printable([key])  # of whatever bytes the name was made
    place = f"{file}, byte {member.offset_data:,} ({printable([member.name])})"
    image, *texts = (_content(raw, file, members.get(ending)) for ending in (images[0], ".cls", ".json"))
    if not image.startswith(SIGNATURES):
        raise ShardError(f"{place}: not a JPEG, PNG, BMP or GIF file.")
    try:
        fields = json.loads(texts[1]) if texts[1] else {}
        label: Any = fields.pop("label", key.rpartition("/")[0].rpartition("/")[2])
        label = texts[0].decode().strip() if texts[0] else label
    except (ValueError, AttributeError, TypeError) as error:
        raise ShardError(f"{place}: its .cls or .json is damaged ({error}).") from None
    if texts[0] and label.lstrip("-").isdecimal() and str(int(label)) == label:
        label = int(label)
    if not isinstance(label, (str, int)) or label == "":
        raise ShardError(f"{place}: no label. Expected {key}.cls, {key}.json with 'label', or a folder named by the class.")
    yield Row(member.offset_data, member.size, zlib.crc32(image), label, str(fields.pop("id", key)), fields)


def _content(raw: Any, file: Path, member: tarfile.TarInfo | None) -> bytes:
    if member is None:
        return b""
    raw.seek(member.offset_data)
    data = raw.read(member.size)
    if len(data) < member.size:
        raise ShardError(f"{file}, byte {member.offset_data:,} ({member.name}): the file is cut short.")
    return data


def _feature(value: Any) -> tf.train.Feature:
    if isinstance(value, (bool, int)) and -(2**63) <= value < 2**63:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))
    if isinstance(value, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    data = value if isinstance(value, bytes) else str(value).encode()
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))


def _values(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else ()


def _value(place: str, features: Any, name: str) -> Any:
    if name not in features:
        known = ", ".join(repr(feature) for feature in sorted(features)[:10])
        raise ShardError(f"{place}: no feature {name!r}. It has {known}; pass the names with image=, label=, id=.")
    values = _values(features[name])
    if len(values) != 1:
        raise ShardError(f"{place}: {len(values)} values in {name!r}; expected one.")
    return values[0]


def _text(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
