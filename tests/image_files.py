"""Image files, good and bad, as bytes: what people really have in their folders."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """A smooth colour picture, so that a lossy format keeps it."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def good_files() -> dict[str, bytes]:
    image = picture()
    deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
    frames = [picture(seed=seed) for seed in (1, 2)]
    return {
        "colour.jpg": encoded(image, "JPEG", quality=95),
        "progressive.JPEG": encoded(image, "JPEG", quality=95, progressive=True),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG", quality=95),
        "grey.jpg": encoded(image.convert("L"), "JPEG", quality=95),
        "colour.png": encoded(image, "PNG"),
        "palette.png": encoded(image.quantize(256), "PNG"),
        "alpha.png": encoded(image.convert("RGBA"), "PNG"),
        "grey-alpha.png": encoded(image.convert("LA"), "PNG"),
        "sixteen-bits.png": encoded(Image.fromarray(deep), "PNG"),
        "one-bit.png": encoded(image.convert("1"), "PNG"),
        "colour.bmp": encoded(image, "BMP"),
        "still.gif": encoded(image, "GIF"),
        "moving.gif": encoded(image, "GIF", save_all=True, append_images=frames, duration=50),
        "wrong-ending.png": encoded(image, "JPEG"),
    }


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Name: (bytes, what the reason has to say)."""
    jpeg, png = encoded(picture(), "JPEG"), encoded(picture(), "PNG")
    return {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"<html>404 not found</html>", "not an image"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "cannot be decoded"),
        "short-by-two.jpg": (jpeg[:-2], "cannot be decoded"),
        "truncated.png": (png[: len(png) // 2], "cannot be decoded"),
        "truncated.bmp": (encoded(picture(), "BMP")[:-100], "cannot be decoded"),
        "truncated.gif": (encoded(picture(), "GIF")[:-200], "cannot be decoded"),
        "tiff.png": (encoded(picture(), "TIFF"), "a TIFF image: expected JPEG, PNG, BMP or GIF"),
        "header-only.png": (png[:30], "cannot be decoded"),
    }
