"""Embeddings for the Projector of TensorBoard: vectors, metadata and a sheet of thumbnails. No TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tfdml._checks import check_positive
from tfdml.index.base import check_vectors

CONFIG = "projector_config.pbtxt"
_LARGEST_SHEET = 8192
"""Pixels: the Projector takes no larger sheet."""


def write_projector(
    folder: str | os.PathLike[str],
    embeddings: npt.ArrayLike,
    metadata: Mapping[str, Sequence[Any]],
    images: Sequence[npt.NDArray[np.uint8]] | Callable[[int], npt.NDArray[np.uint8]] | None = None,
    *,
    name: str = "embedding",
    side: int = 64,
) -> Path:
    """Writes what `tensorboard --logdir FOLDER` shows in its Projector.

    Args:
        folder: of the logs; files there of the same names are written over.
        embeddings: `[N, D]`, finite.
        metadata: columns of N values each, such as `{"label": ..., "id": ...}`; the first one is shown at the points.
        images: for each item an image, uint8 `[h, w, 3]`, or a function of its number; None: points instead of pictures.
        name: what the embedding is called.
        side: of a thumbnail, in pixels; less where the sheet would be larger than 8192 x 8192, which the Projector refuses.

    Returns:
        The configuration file.

    Raises:
        ValueError: for NaN or infinity, no column, or a column of another length.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from tfdml.evaluation import write_projector
        >>> images = np.zeros((4, 32, 32, 3), np.uint8)
        >>> file = write_projector(tempfile.mkdtemp(), np.eye(4), {"label": ["cup", "cup", "lamp", "lamp"]}, images)
        >>> sorted(path.name for path in file.parent.iterdir())
        ['metadata.tsv', 'projector_config.pbtxt', 'sprite.png', 'vectors.tsv']
    """
    vectors = check_vectors(embeddings, "euclidean", "embeddings")
    check_positive("side", side)
    if not metadata:
        raise ValueError("metadata: received no column. Expected one or more, such as {'label': [...]}.")
    for column, values in metadata.items():
        if len(values) != len(vectors):
            raise ValueError(
                f"metadata[{column!r}]: {len(values)} values for {len(vectors)} embeddings. Expected one for each."
            )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    np.savetxt(target / "vectors.tsv", vectors, fmt="%.7g", delimiter="\t")
    rows = zip(*([_cell(value) for value in values] for values in metadata.values()), strict=True)
    lines = ["\t".join(row) for row in rows]
    if len(metadata) > 1:  # a single column has no heading there
        lines.insert(0, "\t".join(_cell(column) for column in metadata))
    (target / "metadata.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = [
        f'tensor_name: "{_quoted(name)}"',
        'tensor_path: "vectors.tsv"',
        f"tensor_shape: {vectors.shape[0]}",
        f"tensor_shape: {vectors.shape[1]}",
        'metadata_path: "metadata.tsv"',
    ]
    if images is not None:
        columns = int(np.ceil(np.sqrt(len(vectors))))
        side = max(1, min(side, _LARGEST_SHEET // columns))
        _sheet(images, len(vectors), columns, side).save(target / "sprite.png")
        dimensions = f"single_image_dim: {side} single_image_dim: {side}"
        config.append(f'sprite {{ image_path: "sprite.png" {dimensions} }}')
    path = target / CONFIG
    path.write_text("embeddings {\n  " + "\n  ".join(config) + "\n}\n", encoding="utf-8")
    return path


def _sheet(images: Any, count: int, columns: int, side: int) -> Image.Image:
    """Row by row, as many columns as rows, which is how the Projector reads it."""
    sheet = Image.new("RGB", (columns * side, columns * side), "white")
    for number in range(count):
        pixels = np.asarray(images(number) if callable(images) else images[number])
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise ValueError(f"images[{number}]: expected uint8 [h, w, 3], received {pixels.dtype} {pixels.shape}.")
        picture = Image.fromarray(pixels).convert("RGB")
        picture.thumbnail((side, side))
        x, y = number % columns * side, number // columns * side
        sheet.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))
    return sheet


def _cell(value: Any) -> str:
    """A value on one line, in one column; a column of nothing but empty lines would be read as too short."""
    return " ".join(str(value).split()) or " "


def _quoted(text: str) -> str:
    """For a string of protobuf's text format, which takes UTF-8 as it is; \\xe9 would be a byte there."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return text
