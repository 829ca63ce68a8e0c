"""Where a dataset's pixels come from: encoded files, arrays in memory, or a procedure that renders them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from PIL import Image

from tfdml.preprocessing import ImagePreprocessing, luma


class ImageSource(Protocol):
    """Rows of images. A `Dataset` is a choice of rows of one source, so subsets share its memory."""

    def __len__(self) -> int: ...

    def load(self, row: tf.Tensor, preprocessing: ImagePreprocessing) -> tf.Tensor:
        """One image, `uint8 [height, width, channels]`, in stock TensorFlow operations; `row` is a scalar integer tensor."""
        ...

    def image_bytes(self, row: int) -> bytes:
        """One image as the bytes of an image file."""
        ...

    def is_ready(self, preprocessing: ImagePreprocessing) -> bool:
        """Whether `load` only looks up pixels, with nothing to decode or resize."""
        ...


class FileSource:
    """Encoded image files, read and decoded every time they are loaded.

    Args:
        paths: the files, as text or (for names that are not UTF-8) as bytes.
    """

    def __init__(self, paths: Sequence[str | bytes | os.PathLike[str]]) -> None:
        self.paths = np.array([os.fsencode(path) for path in paths], dtype=object)
        self._tensor = _Captured(lambda: tf.constant(self.paths, tf.string))

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, row: tf.Tensor, preprocessing: ImagePreprocessing) -> tf.Tensor:
        return preprocessing(tf.io.read_file(tf.gather(self._tensor(), row)))

    def image_bytes(self, row: int) -> bytes:
        with open(self.paths[row], "rb") as file:
            return file.read()

    def is_ready(self, preprocessing: ImagePreprocessing) -> bool:
        return False


class ArraySource:
    """Images that are arrays in memory.

    Args:
        images: `uint8 [N, height, width, channels]`, or a function of no arguments that returns them. The function is called
            once, when the first image is needed.
        shape: `(N, height, width, channels)`; may be left out when `images` is an array.
    """

    def __init__(self, images: np.ndarray | Callable[[], np.ndarray], shape: tuple[int, int, int, int] | None = None) -> None:
        self._images = images
        self.shape: tuple[int, ...] = tuple(images.shape) if isinstance(images, np.ndarray) else tuple(shape or ())
        self._tensor = _Captured(lambda: tf.constant(self.images))

    @property
    def images(self) -> np.ndarray:
        if not isinstance(self._images, np.ndarray):
            self._images = self._images()
        return self._images

    def __len__(self) -> int:
        return self.shape[0]

    def load(self, row: tf.Tensor, preprocessing: ImagePreprocessing) -> tf.Tensor:
        image = tf.ensure_shape(tf.gather(self._tensor(), row), self.shape[1:])
        if self.shape[3] == 1 and preprocessing.channels == 3:
            image = tf.image.grayscale_to_rgb(image)
        elif self.shape[3] == 3 and preprocessing.channels == 1:
            image = luma(image)
        if preprocessing.shape[:2] == preprocessing.uncropped().shape[:2] == self.shape[1:3]:
            return image
        return preprocessing.resize_image(image)

    def image_bytes(self, row: int) -> bytes:
        return encode_png(self.images[row])

    def is_ready(self, preprocessing: ImagePreprocessing) -> bool:
        return preprocessing.shape == preprocessing.uncropped().shape == self.shape[1:]


class DecodedSource:
    """Images of another source after their preprocessing, held in memory; the files stay where they were.

    Args:
        images: `uint8 [N, height, width, channels]`: the result of `preprocessing`.
        preprocessing: what the images went through.
        source: the source they came from.
        rows: `[N]`: the row of `source` behind every image.
    """

    def __init__(self, images: tf.Tensor, preprocessing: ImagePreprocessing, source: ImageSource, rows: np.ndarray) -> None:
        self.images, self.preprocessing, self.source, self.rows = images, preprocessing, source, rows
        self._rows = _Captured(lambda: tf.constant(rows, tf.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, row: tf.Tensor, preprocessing: ImagePreprocessing) -> tf.Tensor:
        if self.is_ready(preprocessing):
            return tf.ensure_shape(tf.gather(self.images, row), preprocessing.shape)
        return self.source.load(tf.gather(self._rows(), row), preprocessing)

    def image_bytes(self, row: int) -> bytes:
        return self.source.image_bytes(int(self.rows[row]))

    def is_ready(self, preprocessing: ImagePreprocessing) -> bool:
        return preprocessing == self.preprocessing


def encode_png(image: np.ndarray) -> bytes:
    """`uint8 [height, width, 1 or 3]` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


class _Captured:
    """An eager tensor made once, outside any graph under construction.

    A function given to `tf.data` then holds a reference to it as an input. Converting the array inside the function would
    write a copy of all the data into that function's graph.
    """

    def __init__(self, make: Callable[[], tf.Tensor]) -> None:
        self._make = make
        self._value: Any = None

    def __call__(self) -> tf.Tensor:
        if self._value is None:
            with tf.init_scope(), tf.device("CPU"):
                self._value = self._make()
        return self._value
