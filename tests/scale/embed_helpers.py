"""Folders of small images for the tests of `tfdml.scale`."""

from __future__ import annotations

from pathlib import Path

from bundle_helpers import encoded, gallery_images

IMAGES = 120


def write_images(folder: Path, count: int = IMAGES, bad: tuple[int, ...] = (7,)) -> Path:
    """PNG files in folders of ten; those in `bad` are cut short."""
    for number, image in enumerate(gallery_images(count)):
        file = folder / f"class-{number // 10}" / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        data = encoded(image)
        file.write_bytes(data[: len(data) // 2] if number in bad else data)
    return folder
