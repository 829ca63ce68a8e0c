"""What a figure must be compared with: embeddings that nobody trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tfdml.index.base import Floats

if TYPE_CHECKING:
    from tfdml.datasets import Dataset


def raw_pixels(dataset: Dataset, size: tuple[int, int] | None = None, batch_size: int = 256) -> Floats:
    """The images themselves as embeddings: the floor under every trained model. Compare them by cosine.

    The other floor is an untrained network: evaluate a fresh model before `fit`.

    Args:
        dataset: a `tfdml.datasets.Dataset`, or anything with `batches(batch_size)` of images `[B, h, w, C]`, 0 to 255.
        size: height and width to which the images are averaged first (box filter); None keeps every pixel.
        batch_size: images per step.

    Returns:
        float32 `[N, h * w * C]`, from 0 to 1.

    Example:
        >>> import numpy as np
        >>> class Images:
        ...     def batches(self, batch_size):
        ...         yield np.full((5, 8, 8, 3), 255, np.uint8)
        >>> raw_pixels(Images(), size=(2, 2)).shape
        (5, 12)
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size={size!r}: expected height and width >= 1, such as (16, 16).")
    rows = [_flat(np.asarray(batch), size) for batch in dataset.batches(batch_size)]
    if not rows:
        raise ValueError("dataset: it holds no images.")
    return np.concatenate(rows)


def _flat(images: np.ndarray, size: tuple[int, int] | None) -> Floats:
    if images.ndim != 4:
        raise ValueError(f"dataset: expected batches of images [B, h, w, C], received shape {images.shape}.")
    pixels = images.astype(np.float32) / 255
    if size is not None and size != pixels.shape[1:3]:
        height, width = size
        channels = np.moveaxis(pixels, 3, 1).reshape(-1, *pixels.shape[1:3])
        boxed = [np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BOX)) for c in channels]
        pixels = np.stack(boxed).reshape(len(images), -1, height, width)
        pixels = np.moveaxis(pixels, 1, 3)
    return np.ascontiguousarray(pixels.reshape(len(images), -1))
