"""Reads single items out of shards, at any place, for `tf.data`."""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfdml.datasets.shards.layout import INDEX, Manifest, ShardError
from tfdml.datasets.sources import encode_png
from tfdml.preprocessing import ImagePreprocessing, luma

_OPEN_FILES = 256
TABLES = ("shard", "offset", "length", "checksum")


class ShardSource:
    """Images in shards; an item is read by one `pread` at the place that the memory-mapped index names.

    Files are read in `tf.numpy_function`. Stock operations know no other way to a place in a file than a dataset for each item
    (`TFRecordDatasetV2` with `byte_offsets`: 140 to 160 microseconds of a processor each; `FixedLengthRecordDataset` reads all
    that lies before the place), while a batch read here costs 7 to 13 an item. Python's lock is free during the reading.

    Args:
        folder: what holds `shards.json`.
        manifest: its content.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._shard, self._offset, self._length, self._checksum = (
            np.load(folder / INDEX / f"{name}.npy", mmap_mode="r") for name in TABLES
        )
        self._files: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.manifest.items

    def read(self, rows: np.ndarray) -> list[bytes]:
        """The stored bytes of the items at `rows`, checked.

        Raises:
            ShardError: for bytes that are not there, or not those that were indexed.
        """
        shards, offsets, lengths = self._shard[rows].tolist(), self._offset[rows].tolist(), self._length[rows].tolist()
        files = {shard: self._file(shard) for shard in set(shards)}
        places = list(zip(shards, offsets, lengths, strict=True))
        if len(places) > 1 and hasattr(os, "posix_fadvise"):
            # All at once to the disk, which then works on many at a time.
            for shard, offset, length in places:
                os.posix_fadvise(files[shard].fileno(), offset, length, os.POSIX_FADV_WILLNEED)
        found = [os.pread(files[shard].fileno(), length, offset) for shard, offset, length in places]
        for (shard, offset, length), data, expected in zip(places, found, self._checksum[rows].tolist(), strict=True):
            if zlib.crc32(data) != expected:
                name = self.folder / self.manifest.files[shard][0]
                what = "other bytes than were indexed" if len(data) == length else f"the file ends after {len(data):,} of them"
                raise ShardError(f"{name}, byte {offset:,}, an image of {length:,} bytes: {what}. The shard is damaged.")
        return found

    def load(self, row: tf.Tensor, preprocessing: ImagePreprocessing) -> tf.Tensor:
        return ShardLoad(self, None, preprocessing)(row)

    def image_bytes(self, row: int) -> bytes:
        data = self.read(np.array([row]))[0]
        stored = self.manifest.preprocessing
        if self.manifest.store == "pixels" and stored is not None:
            return encode_png(np.frombuffer(data, np.uint8).reshape(stored.shape))
        return data

    def is_ready(self, preprocessing: ImagePreprocessing) -> bool:
        return False  # there is always the disk to read

    def _file(self, shard: int) -> Any:
        """The open file. One that is closed because of too many stays open for whoever is still reading it."""
        with self._lock:
            if shard not in self._files:
                file = open(self.folder / self.manifest.files[shard][0], "rb", buffering=0)  # noqa: SIM115 (see above)
                if hasattr(os, "posix_fadvise"):
                    # Without this the system reads ahead far more than is asked for.
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                self._files[shard] = file
                if len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)
            self._files.move_to_end(shard)
            return self._files[shard]


class ShardLoad:
    """The `load` of a dataset in shards: index to image, for samplers and `tf.data`.

    Samplers see that it works in two steps, `read` for whole batches and `decode` for each image.
    """

    def __init__(self, source: ShardSource, rows: np.ndarray | None, preprocessing: ImagePreprocessing) -> None:
        self._source, self._rows, self._preprocessing = source, rows, preprocessing

    def __call__(self, index: tf.Tensor) -> tf.Tensor:
        return self.decode(self.read(tf.reshape(index, [1]))[0])

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """Indices, int64 `[B]`, to stored bytes, strings `[B]`."""

        def strings(indices: np.ndarray) -> np.ndarray:
            return np.array(self._source.read(indices if self._rows is None else self._rows[indices]), object)

        # What an index gives never changes, so iterators can be saved.
        read = tf.numpy_function(strings, [tf.cast(indices, tf.int64)], tf.string, stateful=False)
        return tf.ensure_shape(read, indices.shape)

    def decode(self, data: tf.Tensor) -> tf.Tensor:
        """Stored bytes, a scalar string, to `uint8 [height, width, channels]`."""
        store, stored, wanted = self._source.manifest.store, self._source.manifest.preprocessing, self._preprocessing
        if store == "keep" or stored is None:
            return wanted(data)
        if store == "pixels":
            image = tf.reshape(tf.io.decode_raw(data, tf.uint8), stored.shape)
        else:
            image = tf.ensure_shape(tf.io.decode_jpeg(data, channels=stored.channels), stored.shape)
        if wanted == stored:
            return image
        if wanted.channels != stored.channels:
            image = tf.image.grayscale_to_rgb(image) if stored.channels == 1 else luma(image)
        return wanted.resize_image(image)
