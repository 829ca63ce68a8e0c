"""What is known of image files without a model: size, fingerprints, and small versions to compare."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tfdml.bundle.thumbnails import UNREADABLE, to_rgb
from tfdml.data_care.near_duplicates import BLANK, grey_square

_COLOURS = 8
_AT_ONCE = 512


class ImageFacts(NamedTuple):
    """One readable image.

    Attributes:
        width: in pixels, as a person sees it (upright).
        height: likewise.
        file_hash: SHA-256 of the file.
        pixel_hash: SHA-256 of the decoded pixels in RGB, and of their size: equal for one picture in two lossless files.
        grey: uint8 `[64, 64]`, for `near_duplicates`.
        colours: uint8 `[8, 8, 3]`: where which colours are.
    """

    width: int
    height: int
    file_hash: str
    pixel_hash: str
    grey: npt.NDArray[np.uint8]
    colours: npt.NDArray[np.uint8]

    @property
    def blank(self) -> bool:
        """Whether the picture shows one even area."""
        return bool(self.grey.std() < BLANK and self.colours.reshape(-1, 3).std(axis=0).max() < BLANK)


def read_images(files: Iterable[int], image_bytes: Callable[[int], bytes]) -> list[ImageFacts | str]:
    """The facts of images, in their order, read in parallel; for a file that Pillow cannot decode, the reason.

    Args:
        files: numbers of images.
        image_bytes: the bytes of the image with a number, such as `Dataset.image_bytes`.
    """
    numbers = list(files)
    found: list[ImageFacts | str] = []
    # Filters of warnings are global, so they are set outside the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=2 * (os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # In parts: a pool that is given everything at once keeps every file in memory.
        for start in range(0, len(numbers), _AT_ONCE):
            found += pool.map(lambda number: _read(image_bytes(number)), numbers[start : start + _AT_ONCE])
    return found


def colour_layout(facts: Iterable[ImageFacts]) -> npt.NDArray[np.float32]:
    """Embeddings for want of a model: how much of which colour there is, and where. `[N, 192 + 64]`, for cosine.

    Both parts are centred and of length 1; colours are counted in 4 x 4 x 4 boxes.
    """
    pixels = np.stack([each.colours for each in facts]).astype(np.float32)
    layout = pixels.reshape(len(pixels), -1)
    layout = layout - layout.mean(axis=1, keepdims=True)
    boxes = (pixels.reshape(len(pixels), -1, 3) // 64).astype(int) @ np.array([16, 4, 1])
    counts = np.sqrt(np.stack([np.bincount(row, minlength=64) for row in boxes]).astype(np.float32))
    parts = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9) for part in (layout, counts)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _read(data: bytes) -> ImageFacts | str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            picture = to_rgb(image)
    except UNREADABLE as error:
        return f"cannot be decoded: {error}"
    pixels = hashlib.sha256(repr(picture.size).encode())
    pixels.update(picture.tobytes())
    return ImageFacts(
        width=picture.width,
        height=picture.height,
        file_hash=hashlib.sha256(data).hexdigest(),
        pixel_hash=pixels.hexdigest(),
        grey=grey_square(picture),
        colours=np.asarray(picture.resize((_COLOURS, _COLOURS), Image.Resampling.BOX)),
    )
