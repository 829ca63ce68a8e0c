"""Labelled images in shards on disk: a `Dataset` that holds no image, id or field in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfdml._checks import check_positive
from tfdml.datasets import checks
from tfdml.datasets.dataset import Dataset
from tfdml.datasets.shards.columns import Texts, Values, mapped
from tfdml.datasets.shards.layout import INDEX, Manifest, ShardError
from tfdml.datasets.shards.source import TABLES, ShardLoad, ShardSource
from tfdml.preprocessing import ImagePreprocessing
from tfdml.samplers.grouping import ClassGroups

_READERS = 4


class ShardedDataset(Dataset):
    """A `Dataset` of images in shards, opened by `open_shards`.

    Labels, ids, class names and fields are memory-mapped; `ids`, `class_names` and the columns of `fields` are sequences that
    read what they are asked for. Subsets and splits are such datasets again. `groups` is the table of the items of every class,
    which samplers take in place of labels, with nothing left to sort.
    """

    def __init__(
        self,
        source: ShardSource,
        labels: np.ndarray,
        class_names: Any,
        ids: Any,
        fields: Mapping[str, Any],
        *,
        preprocessing: ImagePreprocessing,
        rows: np.ndarray | None = None,
    ) -> None:
        # Not the checks of `Dataset`, which would make a Python object of every id: the index was checked when it was made.
        self.labels, self.class_names, self.ids, self.fields = labels, class_names, ids, dict(fields)
        self.preprocessing, self.name, self.skipped = preprocessing, source.folder.name, source.manifest.skipped
        self._source, self._chosen = source, rows
        self.load = ShardLoad(source, rows, preprocessing)  # type: ignore[method-assign]  # in two steps, see there

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def groups(self) -> ClassGroups:
        """The items of every class: `PKSampler(data.groups, ...)` gives the batches of `PKSampler(data.labels, ...)`."""
        if self._chosen is not None:
            return ClassGroups.from_labels(self.labels)
        folder = self._shards.folder / INDEX
        starts, sizes, items = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("starts", "sizes", "items"))
        return ClassGroups(np.arange(len(starts), dtype=np.int64), starts, sizes, items)

    def image_bytes(self, index: int) -> bytes:
        """The image at `index` as the bytes of an image file: what was stored, or a PNG of stored pixels."""
        if not 0 <= index < len(self):
            raise IndexError(f"index={index}: expected 0 to {len(self) - 1}; {self.name!r} has {len(self)} images.")
        return self._source.image_bytes(int(index if self._chosen is None else self._chosen[index]))

    def batches(self, batch_size: int = 64) -> tf.data.Dataset:
        """All images once, in order: `uint8 [batch_size, height, width, channels]`; the last batch may be smaller."""
        check_positive("batch_size", batch_size)
        load: Any = self.load
        read = tf.data.Dataset.range(len(self)).batch(batch_size).map(load.read, _READERS, deterministic=True)
        images = read.unbatch().map(load.decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return images.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def subset(self, indices: Any) -> ShardedDataset:
        """The images at `indices` (distinct integers in any order, or a mask of N booleans), as a dataset of its own."""
        chosen = checks.chosen_indices(indices, len(self))
        present, labels = np.unique(self.labels[chosen], return_inverse=True)
        return self._view(
            labels=labels.reshape(-1).astype(np.int64),
            class_names=self.class_names[present],
            ids=self.ids[chosen],
            fields={name: _at(column, chosen) for name, column in self.fields.items()},
            rows=chosen if self._chosen is None else self._chosen[chosen],
        )

    def __repr__(self) -> str:
        return "Sharded" + super().__repr__()

    @property
    def _shards(self) -> ShardSource:
        assert isinstance(self._source, ShardSource)
        return self._source

    def _copy(self, **changes: Any) -> Dataset:
        if "source" in changes:  # the images are in memory now
            return Dataset(
                changes["source"],
                self.labels,
                preprocessing=self.preprocessing,
                ids=self.ids.tolist(),
                fields={name: list(column) for name, column in self.fields.items()},
                class_names=list(self.class_names),
                name=self.name,
                skipped=self.skipped,
                _rows=changes["rows"],
            )
        if "fields" in changes:
            changes["fields"] = {
                name: column if isinstance(column, Texts) else checks.columns({name: column}, len(self))[name]
                for name, column in changes["fields"].items()
            }
        return self._view(**changes)

    @property
    def _rows(self) -> np.ndarray:  # type: ignore[override]
        return np.arange(len(self), dtype=np.int64) if self._chosen is None else self._chosen

    def _view(self, **changes: Any) -> ShardedDataset:
        return ShardedDataset(
            self._shards,
            changes.get("labels", self.labels),
            changes.get("class_names", self.class_names),
            changes.get("ids", self.ids),
            changes.get("fields", self.fields),
            preprocessing=changes.get("preprocessing", self.preprocessing),
            rows=changes.get("rows", self._chosen),
        )


def open_shards(
    path: str | os.PathLike[str],
    image_size: tuple[int, int] | int | None = None,
    *,
    preprocessing: ImagePreprocessing | None = None,
) -> ShardedDataset:
    """Opens images in shards, written by `write_shards` (`tfdml data shard`) or indexed by `index_shards` (`tfdml data index`).

    Nothing is read but the record of the shards, and their sizes are compared with it; tables are memory-mapped. Every
    image is checked against its checksum when it is read.

    Args:
        path: the folder with `shards.json`.
        image_size: height and width of the loaded images in pixels. By default what was stored, or 64 where the image files
            were kept as they were. Of `"jpeg"` and `"pixels"` shards, the stored size loads fastest: nothing is resized.
        preprocessing: instead of `image_size`, for full control.

    Returns:
        A `ShardedDataset`. Class numbers follow the sorted class names, as those of the other loaders do.

    Raises:
        FileNotFoundError: there is no such folder, or no finished set of shards in it.
        ShardError: a file is missing, cut short, changed, or something else; the text names it.

    Example:
        >>> import tempfile, tfdml
        >>> images = tfdml.datasets.rendered_catalogue(classes=8, views=4)
        >>> data = tfdml.datasets.write_shards(images, tempfile.mkdtemp(), store="pixels", items_per_shard=10)
        >>> len(data), data.num_classes, data.ids[5] == images.ids[5]
        (32, 8, True)
        >>> batches = tfdml.samplers.PKSampler(data.groups, classes=4, examples=2).dataset(data.load)
        >>> next(iter(batches))[0].shape
        TensorShape([8, 64, 64, 3])
    """
    folder = Path(path).expanduser()
    manifest = Manifest.read(folder)
    manifest.check_files(folder)
    if image_size is not None and preprocessing is not None:
        raise ValueError(f"image_size={image_size!r} and preprocessing={preprocessing!r}: expected one of them.")
    if image_size is not None:
        preprocessing = ImagePreprocessing(size=image_size)
    try:
        source = ShardSource(folder, manifest)
        labels = np.load(folder / INDEX / "label.npy", mmap_mode="r")
        names, ids, *columns = (
            mapped(folder / INDEX, name)
            for name in ("class_names", "ids", *(f"field.{n}" for n in range(len(manifest.fields))))
        )
        tables = [np.load(folder / INDEX / f"{name}.npy", mmap_mode="r") for name in TABLES]
    except (OSError, ValueError, EOFError) as error:
        raise ShardError(f"{folder / INDEX}: the index is damaged or incomplete ({error}). Make it anew.") from error
    sizes = {len(labels), len(ids[1]), *map(len, tables), *(len(ends) for _, ends in columns)}
    if sizes != {manifest.items} or len(names[1]) != manifest.classes:
        raise ShardError(f"{folder / INDEX}: tables of {sorted(sizes)} rows for {manifest.items} items. Make the index anew.")
    return ShardedDataset(
        source,
        labels,
        Texts(*names),
        Texts(*ids),
        {name: Values(*column) for name, column in zip(manifest.fields, columns, strict=True)},
        preprocessing=preprocessing or manifest.preprocessing or ImagePreprocessing(),
    )


def _at(column: Any, chosen: np.ndarray) -> Any:
    return column.at(chosen) if isinstance(column, Texts) else [column[i] for i in chosen]
