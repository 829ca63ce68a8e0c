"""From the bytes of an image file to the pixels a model sees: one definition for training, evaluation and serving."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfdml._checks import check_choice
from tfdml._orientation import upright

FITS = ("crop", "pad", "stretch")
# What the files begin with that every supported TensorFlow decodes: JPEG, PNG, GIF, BMP. Newer ones also decode WebP, which
# an export must not depend on.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM")


@dataclasses.dataclass(frozen=True)
class ImagePreprocessing:
    """Decodes an image file and brings it to the size a model expects.

    Datasets load training images through this object and `tfdml.bundle.export` writes the very same operations into the
    exported graph, so training and serving cannot differ. Images stay `uint8`, 0 to 255; scaling is the encoder's own first
    layer. Only stock TensorFlow operations are used.

    The order is: decode, fit to `resize` (bilinear, antialiased), then crop the centre of `size`.

    Args:
        size: height and width of the result, in pixels; one integer for a square.
        channels: 3 (colour) or 1 (grey).
        fit: what to do with an image of another shape. `"crop"` keeps the centre, `"pad"` keeps everything and adds black
            borders, `"stretch"` changes the aspect ratio.
        resize: height and width to which the image is brought before the central crop; at least `size`, which is also the
            default. `size=64, resize=72` pairs with random 64 x 64 crops in training (see `uncropped`).

    Raises:
        ValueError: for a size below 1, `resize` smaller than `size`, or an unknown `fit` or `channels`.

    Example:
        >>> import tensorflow as tf
        >>> preprocessing = ImagePreprocessing(size=64, fit="crop")
        >>> file = tf.io.encode_png(tf.zeros([100, 80, 3], tf.uint8))
        >>> preprocessing(file).shape
        TensorShape([64, 64, 3])
    """

    size: tuple[int, int] | int = (64, 64)
    channels: int = 3
    fit: str = "crop"
    resize: tuple[int, int] | int | None = None

    def __post_init__(self) -> None:
        size = _pair("size", self.size)
        resize = size if self.resize is None else _pair("resize", self.resize)
        if resize[0] < size[0] or resize[1] < size[1]:
            raise ValueError(f"resize={resize}: expected at least size={size}; the centre of that size is cropped from it.")
        if self.channels not in (1, 3):
            raise ValueError(f"channels={self.channels!r}: expected 3 (colour) or 1 (grey).")
        check_choice("fit", self.fit, FITS)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "resize", resize)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the result."""
        height, width = _pair("size", self.size)
        return height, width, self.channels

    def uncropped(self) -> ImagePreprocessing:
        """The same without the central crop: training images of `resize` pixels, from which an augmentation crops at random."""
        return dataclasses.replace(self, size=self.resize or self.size)

    def __call__(self, file: tf.Tensor) -> tf.Tensor:
        """`file`: the bytes of one image file (scalar string). Returns `uint8 [height, width, channels]`."""
        return self.resize_image(self.decode(file))

    def decode(self, file: tf.Tensor) -> tf.Tensor:
        """Decodes JPEG, PNG, BMP or GIF (its first frame) to `uint8 [height, width, channels]`.

        A JPEG is turned the way up that its EXIF data ask for, as telephones note it. Other kinds of file are refused.
        """
        known = tf.reduce_any([starts_with(file, signature) for signature in SIGNATURES])
        with tf.control_dependencies([tf.debugging.Assert(known, ["not a JPEG, PNG, BMP or GIF file"])]):
            file = tf.identity(file)
        # Always in colour first: TensorFlow cannot decode every kind of file (BMP, GIF, CMYK) to grey.
        image = tf.io.decode_image(file, channels=3, dtype=tf.uint8, expand_animations=False)
        image.set_shape([None, None, 3])
        image = upright(image, file)
        return image if self.channels == 3 else luma(image)

    def resize_image(self, image: tf.Tensor) -> tf.Tensor:
        """`image`: `[height, width, channels]`, 0 to 255. Returns `uint8` of this object's `shape`."""
        resize_height, resize_width = _pair("resize", self.resize)
        height, width, channels = self.shape
        # Resizing takes many times as long as decoding, and leaves an image alone that has the size: shards hold only such.
        there = tf.reduce_all(tf.equal(tf.shape(image)[:2], [resize_height, resize_width]))
        image = tf.cond(there, lambda: tf.cast(image, tf.float32), lambda: self._resized(image, resize_height, resize_width))
        top, left = (resize_height - height) // 2, (resize_width - width) // 2
        image = image[top : top + height, left : left + width]
        image = tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
        return tf.ensure_shape(image, [height, width, channels])

    def _resized(self, image: tf.Tensor, height: int, width: int) -> tf.Tensor:
        if self.fit == "pad":
            return _resize_and_pad(image, height, width)
        if self.fit == "crop":
            image = _crop_to_aspect(image, height, width)
        return tf.image.resize(image, (height, width), antialias=True)

    def get_config(self) -> dict[str, Any]:
        """A dictionary that JSON can hold; `from_config` reads it back."""
        resize = list(_pair("resize", self.resize))
        return {"size": list(self.shape[:2]), "channels": self.channels, "fit": self.fit, "resize": resize}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImagePreprocessing:
        return cls(
            size=_pair("size", config["size"]),
            channels=config["channels"],
            fit=config["fit"],
            resize=_pair("resize", config["resize"]),
        )


def starts_with(file: tf.Tensor, signature: bytes) -> tf.Tensor:
    """Whether the bytes `file` (scalar string, of any length) begin with `signature`."""
    return tf.equal(tf.strings.substr(file, 0, len(signature)), signature)


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    good = len(pair) == 2 and all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in pair)
    if not good:
        raise ValueError(f"{name}={value!r}: expected (height, width) in pixels, each at least 1, or one integer for a square.")
    return pair[0], pair[1]


def luma(image: tf.Tensor) -> tf.Tensor:
    """The brightness of each pixel, ITU-R BT.601; equal channels give exactly their value."""
    weighted = tf.cast(image, tf.int32) * tf.constant([299, 587, 114])
    return tf.cast((tf.reduce_sum(weighted, axis=-1, keepdims=True) + 500) // 1000, tf.uint8)


def _crop_to_aspect(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The largest central part of `image` with the aspect ratio height : width, in whole pixels."""
    shape = tf.shape(image)
    crop_height = tf.clip_by_value(shape[1] * height // width, 1, shape[0])
    crop_width = tf.clip_by_value(shape[0] * width // height, 1, shape[1])
    top, left = (shape[0] - crop_height) // 2, (shape[1] - crop_width) // 2
    return image[top : top + crop_height, left : left + crop_width]


def _resize_and_pad(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The whole image inside height x width, centred. Unlike `tf.image.resize_with_pad`, no side can round down to 0."""
    source_height, source_width = tf.shape(image)[0], tf.shape(image)[1]
    inner_height = tf.clip_by_value(source_height * width // source_width, 1, height)
    inner_width = tf.clip_by_value(source_width * height // source_height, 1, width)
    image = tf.image.resize(image, (inner_height, inner_width), antialias=True)
    return tf.image.pad_to_bounding_box(image, (height - inner_height) // 2, (width - inner_width) // 2, height, width)
