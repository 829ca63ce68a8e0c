"""EXIF orientation in stock TensorFlow operations: telephones store photographs as the sensor saw them, with a note."""

from __future__ import annotations

import tensorflow as tf

# EXIF data come first in a JPEG file, or right behind the JFIF segment; the first image directory lies at their beginning.
_PLACES = (6, 24)
_MARK = b"Exif\0\0"
_HEADER = 4096
_MOST_ENTRIES = 64
_ORIENTATION, _SHORT = 0x0112, 3


def upright(image: tf.Tensor, file: tf.Tensor) -> tf.Tensor:
    """Turns the decoded `image` `[h, w, C]` the way up that the EXIF data of its JPEG `file` (scalar string) ask for.

    Files without such data, and kinds of file other than JPEG, are left as they are; so is an orientation that does not exist.
    """
    # Most files have no such data: these few operations are all that they cost.
    beginning = tf.strings.join([tf.strings.substr(file, 0, _PLACES[-1] + len(_MARK)), b"\0" * (_PLACES[-1] + len(_MARK))])
    marked = [tf.equal(tf.strings.substr(beginning, place, len(_MARK)), _MARK) for place in _PLACES]
    is_jpeg = tf.equal(tf.strings.substr(beginning, 0, 2), b"\xff\xd8")
    start = tf.where(marked[0], _PLACES[0], _PLACES[1]) + len(_MARK)

    def turned(transpose: bool, flip_rows: bool, flip_columns: bool) -> tf.Tensor:
        result = tf.transpose(image, [1, 0, 2]) if transpose else image
        axes = [axis for axis, flip in enumerate((flip_rows, flip_columns)) if flip]
        return tf.reverse(result, axes) if axes else result

    # What orientations 1 to 8 say of rows and columns; index 0 stands for everything else.
    kinds = [
        (False, False, False),
        (False, False, False),
        (False, False, True),
        (False, True, True),
        (False, True, False),
        (True, False, False),
        (True, False, True),
        (True, True, True),
        (True, True, False),
    ]
    branches = [lambda kind=kind: turned(*kind) for kind in kinds]

    def turn() -> tf.Tensor:
        orientation = _orientation(file, start)
        return tf.switch_case(tf.where((orientation >= 1) & (orientation <= 8), orientation, 0), branches)

    result = tf.cond(is_jpeg & tf.reduce_any(marked), turn, lambda: image)
    result.set_shape([None, None, image.shape[-1]])
    return result


def _orientation(file: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """The orientation that the first image directory notes; 0 if there is none. The EXIF data begin at the byte `tiff`."""
    length = tf.minimum(tf.strings.length(file), _HEADER)
    raw = tf.io.decode_raw(tf.strings.substr(file, 0, length), tf.uint8)
    # Zeros behind the header stand for whatever a damaged offset points at.
    header = tf.pad(tf.cast(raw, tf.int32), [[0, _HEADER + 16 - length]])
    big = tf.equal(header[tiff], ord("M"))

    def number(position: tf.Tensor, size: int) -> tf.Tensor:
        digits = [tf.gather(header, tf.clip_by_value(position + i, 0, _HEADER + 15)) for i in range(size)]
        return tf.where(big, _joined(digits), _joined(digits[::-1]))

    # Offsets use four bytes; one beyond the header is of no use, and must not overflow when it is added to.
    directory = tiff + tf.clip_by_value(number(tiff + 4, 4), 0, _HEADER)
    entries = directory + 2 + 12 * tf.range(tf.clip_by_value(number(directory, 2), 0, _MOST_ENTRIES))
    wanted = tf.equal(number(entries, 2), _ORIENTATION) & tf.equal(number(entries + 2, 2), _SHORT)
    return tf.reduce_max(tf.concat([[0], tf.where(wanted, number(entries + 8, 2), 0)], 0))


def _joined(digits: list[tf.Tensor]) -> tf.Tensor:
    value = digits[0]
    for digit in digits[1:]:
        value = 256 * value + digit
    return value
