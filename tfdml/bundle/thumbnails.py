"""Small pictures of the items, so that answers can be shown wherever the bundle is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import ExifTags, Image

if TYPE_CHECKING:
    from tfdml.datasets import Dataset

_QUALITY = 85
_AT_ONCE = 256
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

UNREADABLE: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot read, or that is so large that it will not."""


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture to look at: upright, and with the high byte of 16-bit pixels, which Pillow would clip to white."""
    image.load()
    turn = _TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def thumbnail_of(file: BinaryIO, side: int) -> bytes:
    """A JPEG of at most `side` x `side` pixels with the whole picture of an image file on it.

    Raises:
        OSError, SyntaxError, ValueError, DecompressionBombError: see `UNREADABLE`.
    """
    with Image.open(file) as image:
        # A JPEG is decoded at a fraction of its size already.
        image.draft("RGB", (2 * side, 2 * side))
        return _shrunk(to_rgb(image), side)


def make_thumbnails(gallery: Dataset, side: int) -> Iterator[bytes]:
    """For each item, in order, a JPEG of at most `side` x `side` pixels with the whole picture on it.

    A file that Pillow cannot read (the model's decoder knows a few kinds more) is shown as the model sees it.
    """

    def thumbnail(number: int) -> bytes:
        try:
            return thumbnail_of(io.BytesIO(gallery.image_bytes(number)), side)
        except UNREADABLE:
            pixels = gallery.load(number).numpy()
            return _shrunk(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB"), side)

    with ThreadPoolExecutor() as pool:
        # In parts: a pool that is given everything at once keeps every finished picture in memory.
        for start in range(0, len(gallery), _AT_ONCE):
            yield from pool.map(thumbnail, range(start, min(start + _AT_ONCE, len(gallery))))


def _orientation(image: Image.Image) -> int:
    """What the EXIF data say; 1, upright, where there are none, or they are damaged, which the model passes over as well."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of every kind, `struct.error` among them
        return 1


def _shrunk(picture: Image.Image, side: int) -> bytes:
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
