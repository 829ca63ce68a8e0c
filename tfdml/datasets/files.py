"""Image files on disk that nobody has checked: what the folder and CSV loaders share."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from tfdml._checks import check_choice, check_positive
from tfdml.datasets.dataset import SMALL_CLASSES, Dataset
from tfdml.preprocessing import SIGNATURES, ImagePreprocessing

ON_UNREADABLE = ("error", "skip")
MAX_PIXELS = 50_000_000


class UnreadableImageError(ValueError):
    """Image files that cannot be read; `files` holds `(path, reason)` of each."""

    def __init__(self, message: str, files: Sequence[tuple[str, str]]) -> None:
        super().__init__(message)
        self.files = tuple(files)


def checked_dataset(
    name: str,
    paths: Sequence[str],
    labels: Sequence[str],
    ids: Sequence[str],
    fields: Mapping[str, Sequence[Any]],
    *,
    preprocessing: ImagePreprocessing,
    on_unreadable: str,
    min_images: int,
    small_classes: str,
    max_pixels: int,
    check: bool,
    problems: Sequence[tuple[str, str]] = (),
    names: Sequence[str] | None = None,
) -> Dataset:
    """A dataset of the files among `paths` that can be read.

    Args:
        names: what to call every file in messages; its id when left out.
        problems: `(path, reason)` of what was found wrong before; treated like unreadable files.
    """
    check_choice("on_unreadable", on_unreadable, ON_UNREADABLE)
    check_choice("small_classes", small_classes, SMALL_CLASSES)
    check_positive("min_images", min_images)
    check_positive("max_pixels", max_pixels)
    reasons: Sequence[str | None] = [None] * len(paths)
    if check:
        # Pillow warns of large images; `max_pixels` is the limit here. Filters are global, so they are set outside the threads.
        with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=min(32, 2 * (os.cpu_count() or 1))) as pool:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            reasons = list(pool.map(lambda path: why_unreadable(path, preprocessing, max_pixels), paths))
    bad = [*problems, *((i, reason) for i, reason in zip(names or ids, reasons, strict=True) if reason)]
    good = [i for i, reason in enumerate(reasons) if not reason]
    if bad and (on_unreadable == "error" or not good):
        raise UnreadableImageError(
            f"{name}: {len(bad)} of {len(paths) + len(problems)} files cannot be used:\n{_listed(bad)}\n"
            + ("Repair or remove them, or pass on_unreadable='skip' to leave them out." if good else "None is left."),
            bad,
        )
    if bad:
        warnings.warn(f"{name}: left out {len(bad)} files that cannot be used:\n{_listed(bad)}", stacklevel=3)
    dataset = Dataset.from_files(
        [paths[i] for i in good],
        [labels[i] for i in good],
        ids=[ids[i] for i in good],
        fields={field: [values[i] for i in good] for field, values in fields.items()},
        preprocessing=preprocessing,
        name=name,
        skipped=bad,
    )
    return dataset.with_min_images(min_images, small_classes)


def why_unreadable(path: str, preprocessing: ImagePreprocessing, max_pixels: int = MAX_PIXELS) -> str | None:
    """Why the file at `path` cannot be an image of a dataset; None if it can."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "not a regular file"  # a pipe would be waited for
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        return error.strerror or str(error)
    return why_undecodable(data, preprocessing, max_pixels)


def why_undecodable(data: bytes, preprocessing: ImagePreprocessing, max_pixels: int = MAX_PIXELS) -> str | None:
    """Why `data` are no image file that can be used; None if they are.

    The header is read first, so that a small file which unpacks to a huge image is never decoded. Then it goes through the
    very decoder that training and serving use.
    """
    if not data:
        return "the file is empty"
    try:
        with Image.open(io.BytesIO(data)) as image:
            (width, height), kind = image.size, image.format
    except Image.DecompressionBombError:
        return f"more than {max_pixels:,} pixels (max_pixels)"
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        if data.startswith(SIGNATURES):
            return "cannot be decoded: it is damaged or cut short"
        return f"not an image: it starts with {data[:12]!r}"
    if not data.startswith(SIGNATURES):
        return f"a {kind} image: expected JPEG, PNG, BMP or GIF; convert it"
    if width * height > max_pixels:
        return f"{width} x {height} is more than {max_pixels:,} pixels (max_pixels)"
    try:
        preprocessing.decode(tf.constant(data))
    except tf.errors.OpError as error:
        return _first_sentence(error.message)
    return None


def _first_sentence(message: str) -> str:
    """TensorFlow's reason without the names of its internals."""
    text = message.split("}} ")[-1].split(" [Op:")[0].strip()
    return f"cannot be decoded: {text}"


def _listed(bad: Sequence[tuple[str, str]], limit: int = 10) -> str:
    lines = [f"  {path}: {reason}" for path, reason in bad[:limit]]
    return "\n".join(lines + ([f"  ... and {len(bad) - limit} more"] if len(bad) > limit else []))
