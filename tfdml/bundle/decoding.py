"""Decoding a batch of image files inside the graph, without an image failing the others."""

from __future__ import annotations

import tensorflow as tf

from tfdml.preprocessing import SIGNATURES, ImagePreprocessing, starts_with


def decode_batch(files: tf.Tensor, preprocessing: ImagePreprocessing, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of image files; a file that cannot be decoded becomes a black image and is marked.

    TensorFlow's decoders raise, and with TF-Serving's batching one bad file would fail every caller merged into its batch.
    So the files go through a small `tf.data` pipeline inside the graph (stock kernels, no Python), which drops what raises;
    the rest is put back in its rows.

    Args:
        files: the bytes of the files, string `[N]`; N may be 0.
        preprocessing: how bytes become pixels.
        max_pixels: larger JPEG, PNG and GIF images are refused from their header alone, so that a small file cannot claim
            gigabytes of memory. A GIF's further frames are not counted: limit the size of requests as well.

    Returns:
        Images `uint8 [N, h, w, C]` and valid `bool [N]`.
    """
    count = tf.size(files, out_type=tf.int64)

    def load(row: tf.Tensor, file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([_check_pixels(file, max_pixels)]):
            return row, preprocessing(tf.identity(file))

    def decode(parallel: int | None) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.data.Dataset.from_tensor_slices((tf.range(count), files))
        rows = rows.map(load, num_parallel_calls=parallel).ignore_errors()
        # One more row, so that there is an element to get when every file is bad. Unreadable files are pointed at it.
        rows = rows.concatenate(tf.data.Dataset.from_tensors((count, tf.zeros(preprocessing.shape, tf.uint8))))
        return rows.batch(count + 1).get_single_element()

    # The parallel map's threads cost a single file more time than they save.
    numbers, images = tf.cond(count < 2, lambda: decode(None), lambda: decode(tf.data.AUTOTUNE))
    black = tf.size(numbers) - 1
    position = tf.tensor_scatter_nd_update(tf.fill([count + 1], black), numbers[:, None], tf.range(black + 1))[:count]
    return tf.gather(images, position), position < black


def _check_pixels(file: tf.Tensor, max_pixels: int) -> tf.Operation:
    """Fails for a JPEG, PNG or GIF header with more than `max_pixels`. A BMP cannot inflate: its pixels are in the file."""

    def jpeg() -> tf.Tensor:
        shape = tf.cast(tf.io.extract_jpeg_shape(file), tf.int64)
        return shape[0] * shape[1]

    def png() -> tf.Tensor:
        width = _unsigned(file, 16, 4)
        return width * _unsigned(file, 20, 4)

    def gif() -> tf.Tensor:
        return _unsigned(file, 6, 2, little=True) * _unsigned(file, 8, 2, little=True)

    kinds = zip(SIGNATURES, (jpeg, png, gif), strict=False)
    pixels = tf.case(
        [(starts_with(file, signature), count) for signature, count in kinds],
        default=lambda: tf.constant(0, tf.int64),
    )
    return tf.debugging.Assert(pixels <= max_pixels, ["more pixels than max_pixels:", pixels])


def _unsigned(file: tf.Tensor, start: int, size: int, little: bool = False) -> tf.Tensor:
    digits = tf.cast(tf.io.decode_raw(tf.strings.substr(file, start, size), tf.uint8), tf.int64)
    powers = [256**i if little else 256 ** (size - 1 - i) for i in range(size)]
    return tf.reduce_sum(digits * tf.constant(powers, tf.int64))
