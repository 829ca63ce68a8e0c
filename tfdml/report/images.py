"""Pictures inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from PIL import Image

from tfdml.bundle.thumbnails import UNREADABLE, to_rgb

SIDE = 96
_QUALITY = 80


class Pictures:
    """Small pictures as data URIs, each made once.

    Args:
        image_bytes: the image file with a number.
    """

    def __init__(self, image_bytes: Callable[[int], bytes]) -> None:
        self._uri = lru_cache(maxsize=None)(lambda number: _uri(small_picture(image_bytes(number), SIDE)))
        self._bytes = image_bytes

    def __call__(self, number: int) -> str:
        return self._uri(int(number))

    def sprite(self, numbers: Sequence[int], side: int = 56) -> Sprite:
        """Many pictures on one sheet, in rows."""
        columns = max(1, round(len(numbers) ** 0.5))
        rows = -(-len(numbers) // columns)
        sheet = Image.new("RGB", (columns * side, rows * side), "white")
        for place, number in enumerate(numbers):
            picture = small_picture(self._bytes(int(number)), side)
            x, y = place % columns * side, place // columns * side
            sheet.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))
        return Sprite(_uri(sheet, 65), columns, side)


class Sprite(NamedTuple):
    """A sheet of pictures: its data URI, and how many pictures of which side are in a row."""

    uri: str
    columns: int
    side: int


def small_picture(file: bytes, side: int) -> Image.Image:
    """The whole picture in a square of `side` pixels; a grey one where it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(file)) as image:
            image.draft("RGB", (2 * side, 2 * side))
            picture = to_rgb(image)
    except UNREADABLE:
        picture = Image.new("RGB", (side, side), "#9aa0a6")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _uri(picture: Image.Image, quality: int = _QUALITY) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
