"""Images in folders, one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tfdml._checks import check_choice
from tfdml._listing import EXTENSIONS, is_utf8, printable, walk
from tfdml.datasets.dataset import Dataset
from tfdml.datasets.files import MAX_PIXELS, checked_dataset
from tfdml.preprocessing import ImagePreprocessing

# Photographs that no decoder of both TensorFlows reads: to leave them out in silence would lose a part of the data.
UNREADABLE = (".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".psd", ".dng", ".cr2", ".nef", ".arw")
CLASS_FROM = ("top", "parent")


def image_folder(
    path: str | os.PathLike[str],
    image_size: tuple[int, int] | int = (64, 64),
    *,
    class_from: str = "top",
    on_unreadable: str = "error",
    min_images: int = 2,
    small_classes: str = "keep",
    extensions: Sequence[str] | None = None,
    max_pixels: int = MAX_PIXELS,
    check: bool = True,
    preprocessing: ImagePreprocessing | None = None,
) -> Dataset:
    """Images in folders, one folder for each class: `path/<class>/.../<image>`.

    Every file is decoded once, in parallel, before anything is returned, with the decoder that training and serving use: an
    image that would stop an epoch in the middle is found here. Hidden files and folders (`.name`) are ignored, symbolic links
    are followed, and a link back to a folder above it is ignored. JPEG (also CMYK), PNG (alpha is dropped, 16 bits become 8),
    BMP and GIF (first frame) are read.

    Args:
        path: the folder.
        image_size: height and width of the loaded images in pixels; the largest central part of that shape is kept.
        class_from: `"top"`: the class is the folder directly below `path`, whatever lies below it; `"parent"`: the class is
            the folder that holds the file, named by its path relative to `path`.
        on_unreadable: `"error"` raises an `UnreadableImageError` that lists the files; `"skip"` leaves them out with a warning
            and lists them in `dataset.skipped`. It holds for files that cannot be decoded, photographs in other formats (WebP,
            TIFF, HEIC ...; only where `extensions` is not given), names that are not UTF-8, images outside any class folder,
            and class folders without images.
        min_images: how many images a class should have, see `small_classes`.
        small_classes: what happens to classes with fewer images: `"keep"`, `"drop"` or `"error"`.
        extensions: what an image file's name ends in, in any case; other files are ignored. None means .jpg, .jpeg, .png,
            .bmp and .gif.
        max_pixels: larger images are refused before they are decoded.
        check: False trusts the files; a bad one then stops the epoch that loads it.
        preprocessing: instead of `image_size`, for full control.

    Returns:
        A `Dataset` in the order of the relative paths, which are also the ids. Field: `path` (the relative path, with "/").

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        NotADirectoryError: when `path` is a file.
        ValueError: when there is no class folder or no image.
        UnreadableImageError: see `on_unreadable`.

    Example:
        >>> import tempfile, pathlib, tensorflow as tf
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("mug", "shoe"):
        ...     (folder / name).mkdir()
        ...     for i in range(2):
        ...         _ = (folder / name / f"{i}.png").write_bytes(tf.io.encode_png(tf.zeros([9, 9, 3], tf.uint8)).numpy())
        >>> data = image_folder(folder, image_size=32)
        >>> data.ids.tolist(), data.class_names
        (['mug/0.png', 'mug/1.png', 'shoe/0.png', 'shoe/1.png'], ('mug', 'shoe'))
    """
    check_choice("class_from", class_from, CLASS_FROM)
    root = Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such folder.")
    if not root.is_dir():
        raise NotADirectoryError(f"path={str(path)!r} is a file: expected a folder with one folder of images for each class.")
    wanted = EXTENSIONS if extensions is None else extensions
    endings = tuple(ending.lower() if ending.startswith(".") else f".{ending.lower()}" for ending in wanted)
    found = sorted(walk(str(root)), key="/".join)
    images = [parts for parts in found if parts[-1].lower().endswith(endings)]
    if not images:
        others = sorted({os.path.splitext(parts[-1])[1] or parts[-1] for parts in found})[:10]
        raise ValueError(
            f"path={str(path)!r}: no images found. Expected {path}/<class>/<image> with names that end in "
            f"{', '.join(endings)}" + (f"; found only files that end in {', '.join(map(ascii, others))}." if others else ".")
        )
    problems = [(printable(parts), "its name is not UTF-8") for parts in images if not is_utf8(parts)]
    problems += [
        (printable(parts), f"lies directly in {str(path)!r}, outside any class folder") for parts in images if len(parts) == 1
    ]
    if extensions is None:
        reason = "a format that is not read; convert it to JPEG or PNG, or leave such files out with extensions=(...)"
        problems += [(printable(parts), reason) for parts in found if parts[-1].lower().endswith(UNREADABLE)]
    filled = {parts[0] for parts in images}
    problems += [(printable((name,)) + "/", "class folder without images") for name in _folders(root) if name not in filled]
    usable = [parts for parts in images if is_utf8(parts) and len(parts) > 1]
    ids = ["/".join(parts) for parts in usable]
    return checked_dataset(
        f"image_folder({root.name!r})",
        [os.path.join(root, *parts) for parts in usable],
        [parts[0] if class_from == "top" else "/".join(parts[:-1]) for parts in usable],
        ids,
        {"path": ids},
        preprocessing=preprocessing or ImagePreprocessing(size=image_size),
        on_unreadable=on_unreadable,
        min_images=min_images,
        small_classes=small_classes,
        max_pixels=max_pixels,
        check=check,
        problems=problems,
    )


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
