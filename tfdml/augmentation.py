"""A light augmentation of image batches in stock TensorFlow operations; for more, use KerasCV (see `recipes/`)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfdml._checks import check_positive


@dataclasses.dataclass(frozen=True)
class RandomCropFlip:
    """Crops each image of a batch at a random place, mirrors half of them and varies their light.

    For the `augment` of a sampler: the training images are loaded a little larger
    (`ImagePreprocessing(size=64, resize=72).uncropped()`), and each gets its own crop, while evaluation and serving take the
    centre of the same size.

    Args:
        height: height of the crop, in pixels.
        width: width of the crop.
        flip: whether to mirror images left to right with probability 1/2. Leave it off for letters and digits.
        light: the largest relative change of brightness and of each colour channel; 0.2 means a factor of 0.8 to 1.2.

    Shapes: `uint8 [B, H, W, C]` to `uint8 [B, height, width, C]`.

    Raises:
        ValueError: a number out of range; when called, if the images are no batch, or smaller than the crop.

    Example:
        >>> import tensorflow as tf
        >>> RandomCropFlip(64, 64)(tf.zeros([8, 72, 72, 3], tf.uint8)).shape
        TensorShape([8, 64, 64, 3])
    """

    height: int
    width: int
    flip: bool = True
    light: float = 0.0

    def __post_init__(self) -> None:
        check_positive("height", self.height)
        check_positive("width", self.width)
        check_positive("light", self.light, allow_zero=True)
        if self.light >= 1:
            raise ValueError(f"light={self.light!r}: expected a share below 1; 0.2 is a change by a fifth.")

    def __call__(self, images: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """`seed`: two integers that decide everything random; the samplers give each step its own. None draws anew."""
        images = tf.convert_to_tensor(images)
        if images.shape.rank != 4 or None in images.shape[1:]:
            raise ValueError(
                f"images have shape {images.shape}: expected a batch [B, H, W, C], all but B known. Images that were "
                "just loaded get their shape by tf.ensure_shape."
            )
        if images.shape[1] < self.height or images.shape[2] < self.width:
            raise ValueError(
                f"images of {images.shape[1]} x {images.shape[2]} pixels: expected at least the crop of {self.height} x "
                f"{self.width}. Load them larger, e.g. ImagePreprocessing(size={self.height}, resize={self.height * 9 // 8})"
                ".uncropped()."
            )
        count = tf.shape(images)[0]
        if seed is None:
            seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 5), num=5)
        # One gather of rows and one of columns crop and mirror the whole batch; a loop over images is ten times slower.
        rows = _window(count, images.shape[1], self.height, seeds[0])
        columns = _window(count, images.shape[2], self.width, seeds[1])
        if self.flip:
            mirrored = tf.random.stateless_uniform([count, 1], seeds[2]) < 0.5
            columns = tf.where(mirrored, tf.reverse(columns, [1]), columns)
        images = tf.gather(tf.gather(images, rows, batch_dims=1), columns, axis=2, batch_dims=1)
        if self.light:
            low, high = 1.0 - self.light, 1.0 + self.light
            factor = tf.random.stateless_uniform([count, 1, 1, 1], seeds[3], low, high)
            factor *= tf.random.stateless_uniform([count, 1, 1, images.shape[-1]], seeds[4], low, high)
            images = tf.cast(tf.clip_by_value(tf.cast(images, tf.float32) * factor, 0.0, 255.0), tf.uint8)
        return images


def _window(count: tf.Tensor, length: int, window: int, seed: tf.Tensor) -> tf.Tensor:
    """For each image, `window` neighbouring positions out of `length`."""
    start = tf.random.stateless_uniform([count, 1], seed, 0, length - window + 1, tf.int32)
    return start + tf.range(window)[None]
