"""Labelled images, split by class for training and for evaluation on classes never seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdml._checks import check_choice, check_positive
from tfdml.datasets import checks
from tfdml.datasets.sources import ArraySource, DecodedSource, FileSource, ImageSource
from tfdml.preprocessing import ImagePreprocessing

SMALL_CLASSES = ("keep", "drop", "error")


class Dataset:
    """Labelled images for metric learning: what the samplers, the evaluation and the export take.

    Made by a loader (`tfdml.datasets.image_folder`, `csv`, `grocery_store`, ...) or by `from_arrays` and `from_files`. It is
    immutable: `subset`, `split_by_class`, `where` and the like return new ones, which share the images' memory. Metric
    learning is judged on classes that were never trained on, so the splits here are by class, never by image.

    Attributes:
        labels: `int64 [N]`: the class number of every image, dense: 0 to `num_classes - 1`.
        class_names: the name of every class, by class number.
        ids: `[N]`: a unique string for every image, the item id of galleries and catalogues.
        fields: further columns, each a list of N values (category, path, title, price, ...).
        preprocessing: how an image becomes the pixels that `load` returns.
        name: what the dataset is called in reports.
        skipped: `(path, reason)` of every file that the loader left out.

    Example:
        >>> import numpy as np
        >>> images = np.zeros([6, 32, 32, 3], np.uint8)
        >>> data = Dataset.from_arrays(images, ["mug", "mug", "shoe", "shoe", "lamp", "lamp"])
        >>> data.class_names, data.labels.tolist()
        (('lamp', 'mug', 'shoe'), [1, 1, 2, 2, 0, 0])
        >>> train, test = data.split_by_class(test=["shoe"])
        >>> train.class_names, test.class_names
        (('lamp', 'mug'), ('shoe',))
        >>> test.load(0).shape
        TensorShape([32, 32, 3])
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: np.ndarray
    fields: dict[str, list[Any]]
    preprocessing: ImagePreprocessing

    def __init__(
        self,
        source: ImageSource,
        labels: Any,
        *,
        preprocessing: ImagePreprocessing,
        ids: Sequence[str] | np.ndarray | None = None,
        fields: Mapping[str, Sequence[Any]] | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "images",
        skipped: Sequence[tuple[str, str]] = (),
        _rows: np.ndarray | None = None,
    ) -> None:
        self.name = name
        self.preprocessing = preprocessing
        self.skipped = tuple(skipped)
        self._source = source
        self._rows = np.arange(len(source), dtype=np.int64) if _rows is None else _rows
        self._row_tensor: tf.Tensor | None = None
        count = len(self._rows)
        self.labels, self.class_names = checks.dense_labels(labels, class_names, count)
        self.ids = checks.item_ids(ids, count)
        self.fields = checks.columns(fields or {}, count)
        self.labels.setflags(write=False)
        self.ids.setflags(write=False)

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        ids: Sequence[str] | None = None,
        fields: Mapping[str, Sequence[Any]] | None = None,
        *,
        class_names: Sequence[str] | None = None,
        preprocessing: ImagePreprocessing | None = None,
        name: str = "arrays",
    ) -> Dataset:
        """A dataset of images in memory.

        Args:
            images: `[N, height, width, channels]` or `[N, height, width]`, 1 or 3 channels, values 0 to 255. Integers of any
                width and floats are taken (and rounded) when every value is in that range.
            labels: `[N]`, integers of any size and sign, or strings. They are mapped to dense class numbers in sorted order;
                `class_names` keeps the originals as text.
            ids: a unique string for every image; the position ("0", "1", ...) when left out.
            fields: further columns of N values each.
            class_names: names for labels that are already numbers 0 to `len(class_names) - 1`.
            preprocessing: by default, the images as they are.
            name: what the dataset is called in reports.

        Raises:
            ValueError: for images outside 0 to 255, NaN, or of a wrong shape, labels that are neither integers nor strings,
                lengths that differ, and ids that are not unique.
        """
        source = ArraySource(checks.image_array(images))
        if preprocessing is None:
            preprocessing = ImagePreprocessing(size=source.shape[1:3], channels=source.shape[3])  # type: ignore[arg-type]
        return cls(
            source,
            labels,
            preprocessing=preprocessing,
            ids=ids,
            fields=fields,
            class_names=class_names,
            name=name,
        )

    @classmethod
    def from_files(
        cls,
        paths: Sequence[Any],
        labels: Any,
        ids: Sequence[str] | None = None,
        fields: Mapping[str, Sequence[Any]] | None = None,
        *,
        class_names: Sequence[str] | None = None,
        preprocessing: ImagePreprocessing | None = None,
        name: str = "files",
        skipped: Sequence[tuple[str, str]] = (),
    ) -> Dataset:
        """A dataset of image files (JPEG, PNG, BMP or GIF), which are trusted to be readable.

        `image_folder` and `csv` check every file first; prefer them for files that nobody has checked.

        Args:
            paths: the files.
            labels, ids, fields, class_names, name: as in `from_arrays`; the ids are the paths when left out.
            preprocessing: by default the central square, 64 x 64 in colour.
            skipped: `(path, reason)` of files that were left out, for the report.
        """
        paths = list(paths)
        return cls(
            FileSource(paths),
            labels,
            preprocessing=preprocessing or ImagePreprocessing(),
            ids=[str(path) for path in paths] if ids is None else ids,
            fields=fields,
            class_names=class_names,
            name=name,
            skipped=skipped,
        )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def num_classes(self) -> int:
        """The number of classes; every one of them has at least one image."""
        return len(self.class_names)

    @property
    def class_counts(self) -> np.ndarray:
        """`int64 [num_classes]`: the number of images of every class."""
        return np.bincount(self.labels, minlength=self.num_classes).astype(np.int64)

    def load(self, index: tf.Tensor) -> tf.Tensor:
        """The image at `index` as a model sees it: `uint8 [height, width, channels]`.

        For `tf.data`: `tf.data.Dataset.range(len(data)).map(data.load)`. Only stock TensorFlow operations are used, and the
        data enter the graph as one captured tensor each, so the graph does not grow with the dataset.

        Args:
            index: a scalar integer tensor (or Python integer), 0 to `len(self) - 1`.
        """
        if self._row_tensor is None:
            with tf.init_scope(), tf.device("CPU"):
                self._row_tensor = tf.constant(self._rows, tf.int64)
        return self._source.load(tf.gather(self._row_tensor, index), self.preprocessing)

    def image_bytes(self, index: int) -> bytes:
        """The image at `index` as the bytes of an image file: the file itself, or a PNG when the data are arrays."""
        if not 0 <= index < len(self):
            raise IndexError(f"index={index}: expected 0 to {len(self) - 1}; {self.name!r} has {len(self)} images.")
        return self._source.image_bytes(int(self._rows[index]))

    def batches(self, batch_size: int = 64) -> tf.data.Dataset:
        """All images once, in order: `uint8 [batch_size, height, width, channels]`; the last batch may be smaller."""
        check_positive("batch_size", batch_size)
        indices = tf.data.Dataset.range(len(self))
        images = indices.map(self.load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return images.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def subset(self, indices: Any) -> Dataset:
        """The images at `indices` (distinct integers in any order, or a mask of N booleans), as a dataset of its own.

        Its class numbers are dense again, in the same order; classes without an image are gone.
        """
        chosen = checks.chosen_indices(indices, len(self))
        present, labels = np.unique(self.labels[chosen], return_inverse=True)
        return self._copy(
            labels=labels.reshape(-1),
            class_names=[self.class_names[number] for number in present],
            ids=self.ids[chosen],
            fields={field: [values[i] for i in chosen] for field, values in self.fields.items()},
            rows=self._rows[chosen],
        )

    def where(self, **conditions: Any) -> Dataset:
        """The images whose fields have the given values, e.g. `data.where(split="train")`.

        Args:
            conditions: field name = value, or a list, tuple or set of values any of which will do.

        Raises:
            ValueError: for an unknown field, or when no image is left.
        """
        mask = np.ones(len(self), bool)
        for field, wanted in conditions.items():
            check_choice("field", field, self.fields)
            values = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
            mask &= np.array([value in values for value in self.fields[field]], bool)
            if not mask.any():
                known = ", ".join(sorted({repr(value) for value in self.fields[field]})[:20])
                raise ValueError(f"{field}={wanted!r} leaves no image of {self.name!r}. Known values of {field!r}: {known}.")
        return self.subset(mask)

    def split_by_class(self, test: float | int | Sequence[str] = 0.5, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Splits into two datasets that share no class: the open-set split of metric learning.

        Args:
            test: the share of the classes that go to the test side (a float between 0 and 1), their number (an integer), or
                their names (a list of `class_names`).
            seed: chooses the classes when `test` is a number. The same seed gives the same classes on every platform.

        Returns:
            `(train, test)`, both with their images in the original order.
        """
        if isinstance(test, (list, tuple, set, frozenset)):
            chosen = checks.class_numbers("test", test, self.class_names)
            checks.leave_classes("test", test, len(chosen), self.num_classes)
        else:
            count = checks.class_share("test", test, self.num_classes)
            chosen = self._shuffled_classes(seed)[:count]
        in_test = np.isin(self.labels, chosen)
        return self.subset(~in_test), self.subset(in_test)

    def folds(self, k: int = 4, seed: int = 0) -> list[tuple[Dataset, Dataset]]:
        """Cross-validation by class: k pairs `(train, validation)` without a common class.

        Every class is in the validation side of exactly one pair; the sides' class counts differ by at most one.
        """
        if not isinstance(k, int) or not 2 <= k <= self.num_classes:
            raise ValueError(
                f"k={k!r}: expected an integer from 2 to the number of classes; {self.name!r} has {self.num_classes}."
            )
        parts = np.array_split(self._shuffled_classes(seed), k)
        masks = [np.isin(self.labels, part) for part in parts]
        return [(self.subset(~mask), self.subset(mask)) for mask in masks]

    def with_min_images(self, min_images: int, small_classes: str = "drop") -> Dataset:
        """Applies a policy to the classes that have fewer than `min_images` images.

        A class with a single image has no positive pair: it cannot be trained on and a query of it has no right answer,
        though it is a fine gallery item.

        Args:
            min_images: how many images a class should have.
            small_classes: `"drop"` leaves those classes out, `"error"` raises a `ValueError` that names them, `"keep"` keeps
                them.
        """
        check_positive("min_images", min_images)
        check_choice("small_classes", small_classes, SMALL_CLASSES)
        small = np.flatnonzero(self.class_counts < min_images)
        if small_classes == "keep" or not len(small):
            return self
        if small_classes == "error" or len(small) == self.num_classes:
            names = ", ".join(f"{self.class_names[c]!r} ({self.class_counts[c]})" for c in small[:10])
            more = f" and {len(small) - 10} more" if len(small) > 10 else ""
            raise ValueError(
                f"min_images={min_images}: {len(small)} of {self.num_classes} classes of {self.name!r} have fewer images: "
                f"{names}{more}. Add images, lower min_images, or pass small_classes='keep'"
                + (" or 'drop'." if len(small) < self.num_classes else ".")
            )
        return self.subset(~np.isin(self.labels, small))

    def with_preprocessing(self, preprocessing: ImagePreprocessing) -> Dataset:
        """The same images, loaded through another `ImagePreprocessing` (another size, for example)."""
        if not isinstance(preprocessing, ImagePreprocessing):
            raise ValueError(f"preprocessing={preprocessing!r}: expected a tfdml.preprocessing.ImagePreprocessing.")
        return self._copy(preprocessing=preprocessing)

    def with_fields(self, **fields: Sequence[Any]) -> Dataset:
        """The same images with further (or replaced) columns of N values each, for example prices."""
        return self._copy(fields={**self.fields, **fields})

    def in_memory(self) -> Dataset:
        """Loads every image once and keeps the pixels (N x height x width x channels bytes), so that epochs decode no files.

        `image_bytes` still returns the original files, and `with_preprocessing` still starts from them.
        """
        if self._source.is_ready(self.preprocessing):
            return self
        shape = (len(self), *self.preprocessing.shape)
        images = np.empty(shape, np.uint8)
        at = 0
        for batch in self.batches(256).as_numpy_iterator():
            images[at : at + len(batch)] = batch
            at += len(batch)
        with tf.device("CPU"):
            pixels = tf.constant(images)
        source = DecodedSource(pixels, self.preprocessing, self._source, self._rows)
        return self._copy(source=source, rows=np.arange(len(self), dtype=np.int64))

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Prints what the dataset holds: images, classes, images per class, fields, skipped files."""
        counts = self.class_counts
        height, width, channels = self.preprocessing.shape
        single = int((counts == 1).sum())
        lines = [
            f"{self.name}: {len(self):,} images of {self.num_classes:,} classes",
            f"  images per class  {counts.min()} to {counts.max()}, median {np.median(counts):g}"
            + (f"; {single} with a single image" if single else ""),
            f"  loaded as         {height} x {width} x {channels} ({self.preprocessing.fit})",
        ]
        lines += [f"  {field:<17} {checks.describe_column(values)}" for field, values in self.fields.items()]
        lines += [f"  skipped           {len(self.skipped)} files"] if self.skipped else []
        print_fn("\n".join(lines))

    def __repr__(self) -> str:
        shape = " x ".join(str(side) for side in self.preprocessing.shape)
        return f"Dataset({self.name!r}: {len(self)} images, {self.num_classes} classes, {shape})"

    def _copy(self, **changes: Any) -> Dataset:
        return Dataset(
            changes.get("source", self._source),
            changes.get("labels", self.labels),
            preprocessing=changes.get("preprocessing", self.preprocessing),
            ids=changes.get("ids", self.ids),
            fields=changes.get("fields", self.fields),
            class_names=changes.get("class_names", self.class_names),
            name=self.name,
            skipped=self.skipped,
            _rows=changes.get("rows", self._rows),
        )

    def _shuffled_classes(self, seed: int) -> np.ndarray:
        """All class numbers in an order drawn from `seed`.

        NumPy promises the stream of a bit generator across releases, but not what `Generator` makes of it.
        """
        checks.seed("seed", seed)
        return np.argsort(np.random.PCG64(seed).random_raw(self.num_classes), kind="stable")
